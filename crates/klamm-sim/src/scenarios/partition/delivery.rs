//! What the network brings, and what each delivery does.

use klamm_replication::partition::{
    AckState, AlterOutcome, AlterPartitionError, FetchPosition, FollowerFetch, PartitionMetadata,
    Role, Truncation,
};

use super::world::{FetchAnswer, Flaw, Message, World};

impl World {
    pub(super) fn deliver(&mut self, message: Message) {
        match message {
            Message::Fetch {
                from,
                life,
                number,
                to,
                position,
                broker_epoch,
            } => {
                let answer = self.serve_fetch(from, to, position, broker_epoch);
                self.messages.push(Message::Fetched {
                    to: from,
                    life,
                    number,
                    asked: position,
                    answer,
                });
            }
            Message::Fetched {
                to,
                life,
                number,
                asked,
                answer,
            } => {
                let current = self.brokers.get(&to).filter(|broker| {
                    broker.up && broker.life == life && broker.fetching == Some(number)
                });
                if current.is_some() {
                    self.take_fetched(to, asked, answer);
                }
            }
            Message::Alter {
                from,
                life,
                proposal,
            } => {
                let answer = self.controller.alter(from, &proposal);
                if answer.is_ok() {
                    self.publish();
                }
                self.messages.push(Message::Altered {
                    to: from,
                    life,
                    id: proposal.id,
                    answer,
                });
            }
            Message::Altered {
                to,
                life,
                id,
                answer,
            } => self.take_altered(to, life, id, &answer),
        }
    }

    /// The sender of a lost AlterPartition notices in the end; a lost fetch is given up elsewhere.
    pub(super) fn lose(&mut self, message: Message) {
        let (to, life, id) = match message {
            Message::Alter {
                from,
                life,
                proposal,
            } => (from, life, proposal.id),
            Message::Altered { to, life, id, .. } => (to, life, id),
            Message::Fetch { .. } | Message::Fetched { .. } => return,
        };
        self.messages.push(Message::Altered {
            to,
            life,
            id,
            answer: Err(AlterPartitionError::Retry),
        });
    }

    fn serve_fetch(
        &mut self,
        from: i32,
        to: i32,
        position: FetchPosition,
        broker_epoch: i64,
    ) -> FetchAnswer {
        let now_ms = self.now_ms();
        let Some(broker) = self.brokers.get_mut(&to).filter(|broker| broker.up) else {
            return FetchAnswer::Refused;
        };
        if broker
            .role
            .check_epoch(Some(position.current_leader_epoch))
            .is_err()
        {
            return FetchAnswer::Refused;
        }
        let Some(leader) = broker.role.as_leader_mut() else {
            return FetchAnswer::Refused;
        };
        let end = broker.log.end();
        if let Some(epoch) = position.last_fetched_epoch {
            let known = broker.log.epoch_end(epoch);
            if known.end_offset < 0 {
                return FetchAnswer::OutOfRange(end);
            }
            if known.epoch < epoch || known.end_offset < position.offset {
                return FetchAnswer::Diverging(known);
            }
        }
        if position.offset > end && self.flaw != Flaw::FollowersBoast {
            return FetchAnswer::OutOfRange(end);
        }
        let effects = leader.follower_fetched(FollowerFetch {
            replica: from,
            broker_epoch,
            offset: position.offset.min(end),
            log_start_offset: 0,
            leader_end_offset: end,
            now_ms,
        });
        let Ok(effects) = effects else {
            return FetchAnswer::Refused;
        };
        let high_watermark = leader.high_watermark();
        let life = broker.life;
        let start = position.offset.min(end) as usize;
        let count = 1 + self.rng.index(4);
        let entries = broker.log.entries[start..]
            .iter()
            .take(count)
            .copied()
            .collect();
        self.propose(to, life, effects.proposal);
        self.settle(to);
        FetchAnswer::Records(entries, high_watermark)
    }

    fn take_fetched(&mut self, id: i32, asked: FetchPosition, answer: FetchAnswer) {
        let flaw = self.flaw;
        let Some(broker) = self.brokers.get_mut(&id) else {
            return;
        };
        broker.fetching = None;
        let Role::Follower(follower) = &mut broker.role else {
            return;
        };
        if follower.leader_epoch() != asked.current_leader_epoch {
            return;
        }
        let end = broker.log.end();
        let cut = match answer {
            FetchAnswer::Refused => return,
            FetchAnswer::Records(entries, high_watermark) => {
                for entry in entries {
                    if follower.may_append(entry.epoch, asked.current_leader_epoch) {
                        broker.log.append(entry);
                    }
                }
                follower.observe_high_watermark(high_watermark, 0, broker.log.end());
                return;
            }
            FetchAnswer::Diverging(leader) => {
                let local = broker.log.epoch_end(leader.epoch);
                let local = (local.end_offset >= 0).then_some(local);
                follower.truncation(leader, local, end)
            }
            FetchAnswer::OutOfRange(leader_end) => follower.out_of_range(end, 0, leader_end),
        };
        if let Truncation::To(offset) | Truncation::Probe(offset) | Truncation::RestartAt(offset) =
            cut
            && flaw != Flaw::FollowersNeverCut
        {
            broker.log.truncate_to(offset);
            let high_watermark = follower.high_watermark();
            follower.observe_high_watermark(high_watermark, 0, broker.log.end());
            broker.checkpointed_high_watermark =
                broker.checkpointed_high_watermark.min(broker.log.end());
        }
        self.trace
            .note(format_args!("{id} parts from the leader: {cut:?} of {end}"));
    }

    fn take_altered(
        &mut self,
        id: i32,
        life: u32,
        proposal: u64,
        answer: &Result<PartitionMetadata, AlterPartitionError>,
    ) {
        let now = self.now_ms();
        let Some(broker) = self.brokers.get_mut(&id) else {
            return;
        };
        if !broker.up || broker.life != life {
            return;
        }
        let Some(leader) = broker.role.as_leader_mut() else {
            return;
        };
        let answer = answer.as_ref().map_err(|error| *error);
        let outcome = leader.alter_partition_answered(proposal, answer, now);
        self.note(format_args!("{id} is answered: {outcome:?}"));
        if let AlterOutcome::Retry(again) = outcome {
            self.propose(id, life, Some(again));
        }
        self.settle(id);
    }

    /// Answers the client's writes that are safe now, and lets a consumer read.
    pub(super) fn settle(&mut self, id: i32) {
        let Some(broker) = self.brokers.get_mut(&id) else {
            return;
        };
        let Some(leader) = broker.role.as_leader() else {
            return;
        };
        let (done, waiting): (Vec<_>, Vec<_>) = broker
            .unacknowledged
            .drain(..)
            .partition(|(required, _)| leader.ack_state(*required) != AckState::Waiting);
        broker.unacknowledged = waiting;
        for (required, value) in done {
            if leader.ack_state(required) == AckState::Done {
                self.acknowledged.insert(required - 1, value);
            }
        }
        let committed = leader.high_watermark().min(broker.log.end()) as usize;
        for (offset, entry) in broker.log.entries[..committed].iter().enumerate() {
            let before = *self.read.entry(offset as i64).or_insert(entry.value);
            if before != entry.value {
                self.contradictions.push(format!(
                    "{id} shows {} at {offset}, where {before} was read before",
                    entry.value
                ));
            }
        }
    }
}
