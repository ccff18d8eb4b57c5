//! What the core lock of a replica guards.

use std::sync::Arc;

use klamm_log::Log;
use tokio::sync::watch;

use crate::manager::wait::{FetchWaiter, Outcome, Ticket, Wakes};
use crate::partition::{AckState, Role};
use crate::waiters::{AckQueue, ByteLedger, FetchWaiters, Readable};

/// More than any fetch asks for.
const UNKNOWN_SIZE: u64 = i32::MAX as u64;

/// What a request that waits for the disk waits for next.
#[derive(Clone, Copy, Debug)]
pub(super) enum Then {
    /// Nothing.
    Done,
    /// All in-sync replicas.
    Replicated,
}

/// Role, offsets and waiting lists of a replica.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) role: Role,
    pub(super) min_insync_replicas: i32,
    pub(super) ledger: ByteLedger,
    pub(super) acks: AckQueue<Ticket>,
    /// Those who wait for the disk, with the offset that must be on it, and for what afterwards.
    pub(super) syncs: AckQueue<(Ticket, i64, Then)>,
    pub(super) deletes: AckQueue<Ticket>,
    pub(super) fetches: FetchWaiters<Arc<FetchWaiter>>,
    /// The high watermark, for coordinators that wait for their records to be committed.
    pub(super) watch: Option<watch::Sender<i64>>,
}

impl Core {
    pub(super) fn new(high_watermark: i64, min_insync_replicas: i32) -> Self {
        Core {
            role: Role::unassigned(high_watermark),
            min_insync_replicas,
            ledger: ByteLedger::default(),
            acks: AckQueue::default(),
            syncs: AckQueue::default(),
            deletes: AckQueue::default(),
            fetches: FetchWaiters::default(),
            watch: None,
        }
    }

    /// Begins to count bytes as the leader of a `log` that may hold records that are not committed
    /// yet. Their size is not known: whoever waits looks again as soon as one is.
    pub(super) fn count_from(&mut self, log: &Log) {
        let stable = log.last_stable_offset(self.role.high_watermark());
        self.ledger = ByteLedger::starting_at(stable, log.log_end_offset(), UNKNOWN_SIZE);
    }

    /// Passes on that `size` bytes up to `end_offset` were appended to `log`, after the role has
    /// taken note.
    pub(super) fn log_grew(&mut self, log: &Log, end_offset: i64, size: u64, wakes: &mut Wakes) {
        let high_watermark = log.set_high_watermark(self.role.high_watermark());
        let stable = log.last_stable_offset(high_watermark);
        let readable = self
            .ledger
            .appended(end_offset, size, high_watermark, stable);
        self.became_readable(readable, wakes);
    }

    /// Passes on that the role's high watermark may have moved.
    pub(super) fn high_watermark_moved(&mut self, log: &Log, wakes: &mut Wakes) {
        let high_watermark = log.set_high_watermark(self.role.high_watermark());
        let stable = log.last_stable_offset(high_watermark);
        let readable = self.ledger.moved(high_watermark, stable);
        self.became_readable(readable, wakes);
    }

    fn became_readable(&mut self, readable: Readable, wakes: &mut Wakes) {
        self.fetches.credit(readable, |waiter, bytes| {
            if waiter.credit(bytes) {
                wakes.fetches.push(Arc::clone(waiter));
            }
        });
        if readable.committed > 0 {
            for waiter in self.fetches.lacking(self.role.high_watermark()) {
                waiter.disturb();
            }
        }
        self.settle_acks(wakes);
        self.announce();
    }

    /// How records below `required_offset` are acknowledged; enqueues a ticket if not yet.
    pub(super) fn acknowledge(
        &mut self,
        required_offset: i64,
        ticket: &mut dyn FnMut() -> Ticket,
    ) -> (bool, Outcome) {
        let Some(leader) = self.role.as_leader() else {
            return (false, Outcome::NotLeader);
        };
        match leader.ack_state(required_offset) {
            AckState::Done => (false, Outcome::Done),
            AckState::NotEnoughReplicas => (false, Outcome::NotEnoughReplicas),
            AckState::Waiting => {
                self.acks.push(required_offset, ticket());
                (true, Outcome::Waiting)
            }
        }
    }

    /// As [`Core::acknowledge`], but first of all the records below `required_offset` have to be
    /// on disk.
    pub(super) fn await_sync(
        &mut self,
        log: &Log,
        required_offset: i64,
        then: Then,
        ticket: &mut dyn FnMut() -> Ticket,
    ) -> (bool, Outcome) {
        if log.durable_offset() < required_offset {
            let waiter = (ticket(), required_offset, then);
            self.syncs.push(required_offset, waiter);
            return (true, Outcome::Waiting);
        }
        match then {
            Then::Done => (false, Outcome::Done),
            Then::Replicated => self.acknowledge(required_offset, ticket),
        }
    }

    /// Passes on that everything below `durable_offset` is on disk.
    pub(super) fn settle_syncs(&mut self, durable_offset: i64, wakes: &mut Wakes) {
        while let Some((ticket, required_offset, then)) = self.syncs.pop_reached(durable_offset) {
            let state = match (then, self.role.as_leader()) {
                (Then::Done, _) => AckState::Done,
                (Then::Replicated, Some(leader)) => leader.ack_state(required_offset),
                (Then::Replicated, None) => {
                    wakes.offsets.extend(ticket.settle(Outcome::NotLeader));
                    continue;
                }
            };
            match state {
                AckState::Waiting => self.acks.push(required_offset, ticket),
                AckState::Done => wakes.offsets.extend(ticket.settle(Outcome::Done)),
                AckState::NotEnoughReplicas => {
                    let outcome = Outcome::NotEnoughReplicas;
                    wakes.offsets.extend(ticket.settle(outcome));
                }
            }
        }
    }

    fn settle_acks(&mut self, wakes: &mut Wakes) {
        if !self.acks.is_empty() {
            let high_watermark = self.role.high_watermark();
            while let Some(ticket) = self.acks.pop_reached(high_watermark) {
                let enough = self
                    .role
                    .as_leader()
                    .map(|leader| leader.ack_state(high_watermark));
                let outcome = match enough {
                    Some(AckState::NotEnoughReplicas) => Outcome::NotEnoughReplicas,
                    Some(_) => Outcome::Done,
                    None => Outcome::NotLeader,
                };
                wakes.offsets.extend(ticket.settle(outcome));
            }
        }
    }

    /// Tells everyone who waits that the epoch or the role is another one.
    pub(super) fn interrupt(&mut self, wakes: &mut Wakes) {
        for waiter in self.fetches.iter() {
            waiter.disturb();
        }
        if self.role.as_leader().is_none() {
            for ticket in self.acks.drain() {
                wakes.offsets.extend(ticket.settle(Outcome::NotLeader));
            }
            for (ticket, ..) in self.syncs.drain() {
                wakes.offsets.extend(ticket.settle(Outcome::NotLeader));
            }
            for ticket in self.deletes.drain() {
                wakes.offsets.extend(ticket.settle(Outcome::NotLeader));
            }
        }
    }

    pub(super) fn announce(&self) {
        if let Some(watch) = &self.watch {
            let now = self.role.high_watermark();
            watch.send_if_modified(|seen| {
                let changed = *seen != now;
                *seen = now;
                changed
            });
        }
    }
}
