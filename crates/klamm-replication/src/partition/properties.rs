//! Random histories of a leader, checked against what must hold in each.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Event {
    Append(i64),
    Fetch { replica: i32, advance: i64 },
    CheckLag,
    Answer(u8),
    Liveness { replica: i32, fenced: bool },
    Reelect,
    Sleep(i64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (1_i64..20).prop_map(Event::Append),
        (2_i32..5, 0_i64..20).prop_map(|(replica, advance)| Event::Fetch { replica, advance }),
        Just(Event::CheckLag),
        (0_u8..4).prop_map(Event::Answer),
        (2_i32..5, any::<bool>()).prop_map(|(replica, fenced)| Event::Liveness { replica, fenced }),
        Just(Event::Reelect),
        (1_i64..20_000).prop_map(Event::Sleep),
    ]
}

/// The followers as they truly are, and the controller's record.
struct World {
    now_ms: i64,
    leader: LeaderState,
    record: PartitionMetadata,
    proposal: Option<IsrProposal>,
    ends: BTreeMap<i32, i64>,
    min_isr: i32,
}

impl World {
    fn new(min_isr: i32) -> Self {
        let record = PartitionMetadata {
            replicas: vec![1, 2, 3, 4],
            isr: vec![1, 2, 3],
            leader: 1,
            leader_epoch: 1,
            partition_epoch: 1,
            ..PartitionMetadata::default()
        };
        let mut world = World {
            now_ms: 1_000_000,
            leader: LeaderState::elected(1, &record, Self::log(0, 0, min_isr), 1_000_000),
            record,
            proposal: None,
            ends: BTreeMap::from([(2, 0), (3, 0), (4, 0)]),
            min_isr,
        };
        for replica in 2..5 {
            world.liveness(replica, false);
        }
        world
    }

    fn log(end_offset: i64, high_watermark: i64, min_insync_replicas: i32) -> LocalLog {
        LocalLog {
            durable_offset: None,
            end_offset,
            high_watermark,
            min_insync_replicas,
            lag_max_ms: 30_000,
        }
    }

    fn liveness(&mut self, replica: i32, fenced: bool) {
        self.leader.set_liveness(
            replica,
            BrokerLiveness {
                epoch: Some(7),
                fenced,
                shutting_down: false,
            },
        );
    }

    fn on(&mut self, event: Event) {
        let end = self.leader.log_end_offset();
        match event {
            Event::Append(count) => {
                self.leader.appended(end + count, self.now_ms);
            }
            Event::Fetch { replica, advance } => {
                let offset = (self.ends[&replica] + advance).min(end);
                self.ends.insert(replica, offset);
                let effects = self
                    .leader
                    .follower_fetched(FollowerFetch {
                        replica,
                        broker_epoch: 7,
                        offset,
                        log_start_offset: 0,
                        leader_end_offset: end,
                        now_ms: self.now_ms,
                    })
                    .expect("a known replica");
                self.proposed(effects.proposal);
            }
            Event::CheckLag => {
                let proposal = self.leader.check_lag(self.now_ms);
                self.proposed(proposal);
            }
            Event::Answer(kind) => self.answer(kind),
            Event::Liveness { replica, fenced } => self.liveness(replica, fenced),
            Event::Reelect => {
                self.record.leader_epoch += 1;
                self.record.partition_epoch += 1;
                let log = Self::log(end, self.leader.high_watermark(), self.min_isr);
                self.leader.update(&self.record, log, self.now_ms);
                self.proposal = None;
            }
            Event::Sleep(ms) => self.now_ms += ms,
        }
    }

    fn proposed(&mut self, proposal: Option<IsrProposal>) {
        if let Some(proposal) = proposal {
            assert!(self.proposal.is_none(), "two proposals in flight");
            assert_eq!(proposal.partition_epoch, self.record.partition_epoch);
            assert!(proposal.isr.iter().any(|member| member.id == 1));
            self.proposal = Some(proposal);
        }
    }

    fn answer(&mut self, kind: u8) {
        let Some(proposal) = self.proposal.take() else {
            return;
        };
        let answer = match kind {
            0 | 1 => {
                self.record.isr = proposal.isr.iter().map(|member| member.id).collect();
                self.record.partition_epoch += 1;
                Ok(&self.record)
            }
            2 => Err(AlterPartitionError::Refused),
            _ => Err(AlterPartitionError::Retry),
        };
        match self
            .leader
            .alter_partition_answered(proposal.id, answer, self.now_ms)
        {
            AlterOutcome::Retry(again) => self.proposal = Some(again),
            AlterOutcome::Committed { .. } | AlterOutcome::Withdrawn => {}
            other => panic!("{other:?} for the proposal in flight"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn a_leader_commits_only_what_its_isr_has(
        min_isr in 1_i32..4,
        events in prop::collection::vec(event(), 1..120),
    ) {
        let mut world = World::new(min_isr);
        for event in events {
            let before = world.leader.high_watermark();
            let under_min_isr = world.leader.is_under_min_isr();
            let appended = matches!(event, Event::Append(_));
            world.on(event);
            let leader = &world.leader;
            let high_watermark = leader.high_watermark();
            prop_assert!(high_watermark >= before, "the high watermark fell");
            prop_assert!(high_watermark <= leader.log_end_offset());
            for (&id, &end) in &world.ends {
                if leader.isr().maximal_contains(id) {
                    prop_assert!(high_watermark <= end, "{id} lacks committed records");
                }
            }
            if under_min_isr && appended {
                prop_assert_eq!(high_watermark, before, "committed below min.insync.replicas");
            }
            prop_assert_eq!(leader.isr().members(), &world.record.isr[..]);
        }
    }
}
