//! Random histories, held against a model that keeps the state of every record by itself.

use std::collections::BTreeMap;

use klamm_protocol::messages::read_share_group_state_response::StateBatch as ReadBatch;
use proptest::prelude::*;

use super::{ack, acquire_as, fresh, member, span};
use crate::share_partition::{
    AcknowledgeType, AcquireMode, BatchSpan, RecordState, ShareLimits, SharePartition, StateWrite,
    StoredState,
};
use crate::share_state::{StateBatch, combine};

const MEMBERS: [&str; 3] = ["a", "b", "c"];
/// Records in the log: batches of five.
const LOG_END: i64 = 60;

#[derive(Clone, Debug)]
enum Step {
    Acquire {
        member: usize,
        max: i32,
        strict: bool,
    },
    Acknowledge {
        member: usize,
        at: i64,
        len: i64,
        kind: u8,
    },
    Release {
        member: usize,
    },
    Pass {
        ms: u64,
    },
    Written {
        ok: bool,
    },
    LoseBeginning {
        by: i64,
    },
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3_usize, 1..12, any::<bool>())
            .prop_map(|(member, max, strict)| Step::Acquire { member, max, strict }),
        6 => (0..3_usize, 0..25_i64, 1..9_i64, 0..5_u8)
            .prop_map(|(member, at, len, kind)| Step::Acknowledge { member, at, len, kind }),
        1 => (0..3_usize).prop_map(|member| Step::Release { member }),
        2 => (1..40_000_u64).prop_map(|ms| Step::Pass { ms }),
        5 => prop::bool::weighted(0.8).prop_map(|ok| Step::Written { ok }),
        1 => (1..8_i64).prop_map(|by| Step::LoseBeginning { by }),
        1 => Just(Step::Restart),
    ]
}

#[derive(Clone, Debug, PartialEq)]
struct Record {
    state: RecordState,
    count: i16,
    holder: Option<(usize, u64)>,
    /// The write that it waits for, and what it was before.
    pending: Option<(u64, Box<Record>)>,
}

impl Record {
    fn of(state: RecordState, count: i16) -> Self {
        Record {
            state,
            count,
            holder: None,
            pending: None,
        }
    }
}

/// What a share coordinator keeps.
#[derive(Default)]
struct Kept {
    start_offset: i64,
    batches: Vec<StateBatch>,
}

struct History {
    machine: SharePartition,
    records: BTreeMap<i64, Record>,
    kept: Kept,
    writes: Vec<StateWrite>,
    now_ms: u64,
    log_start: i64,
}

impl History {
    fn new() -> Self {
        History {
            machine: fresh(),
            records: BTreeMap::new(),
            kept: Kept::default(),
            writes: Vec::new(),
            now_ms: 0,
            log_start: 0,
        }
    }

    fn limits() -> ShareLimits {
        ShareLimits::default()
    }

    fn log(&self) -> Vec<BatchSpan> {
        let batches = (0..LOG_END / 5).map(|n| span(n * 5, n * 5 + 4));
        batches
            .filter(|batch| batch.last_offset >= self.log_start)
            .collect()
    }

    fn acquire(&mut self, who: usize, max: i32, strict: bool) {
        let mode = if strict {
            AcquireMode::RecordLimit
        } else {
            AcquireMode::BatchOptimized
        };
        let is_available = |r: &Record| r.state == RecordState::Available && r.pending.is_none();
        let any = self.records.values().any(is_available) || self.machine.window_end() < LOG_END;
        let log = self.log();
        let taken = acquire_as(
            &mut self.machine,
            MEMBERS[who],
            &log,
            max,
            mode,
            self.now_ms,
        );
        assert_eq!(
            taken.is_empty(),
            !any,
            "something is handed out if anything can be"
        );
        let mut total = 0;
        let mut last_attempts = 0;
        for range in &taken {
            for offset in range.first_offset..=range.last_offset {
                total += 1;
                let fresh = Record::of(RecordState::Available, 0);
                let record = self.records.entry(offset).or_insert(fresh);
                assert!(is_available(record), "nobody else has {offset}: {record:?}");
                record.state = RecordState::Acquired;
                record.count += 1;
                record.holder = Some((who, self.now_ms + 30_000));
                assert_eq!(record.count, range.delivery_count);
                last_attempts += usize::from(record.count == History::limits().delivery_count_max);
            }
        }
        if strict {
            assert!(total <= max);
        }
        assert!(last_attempts == 0 || total == 1, "a last attempt is alone");
    }

    fn begin(&mut self, ticket: u64, offsets: &[i64], to: impl Fn(&Record) -> Record) {
        for offset in offsets {
            if let Some(record) = self.records.get_mut(offset) {
                let before = Box::new(record.clone());
                *record = to(record);
                record.pending = Some((ticket, before));
            }
        }
    }

    fn acknowledge(&mut self, who: usize, first: i64, last: i64, kind: AcknowledgeType) {
        let end = self.machine.window_end() - 1;
        let start = self.machine.start_offset();
        let mine = |record: Option<&Record>| {
            record.is_some_and(|record| {
                let is_mine = record.holder.is_some_and(|(holder, _)| holder == who);
                is_mine && record.pending.is_none()
            })
        };
        let offsets: Vec<i64> = (first.max(start)..=last).collect();
        let allowed = last <= end && offsets.iter().all(|offset| mine(self.records.get(offset)));
        let limits = History::limits();
        let acks = [ack(first, last, kind)];
        let taken = self
            .machine
            .acknowledge(&member(MEMBERS[who]), &acks, &limits, self.now_ms);
        assert_eq!(taken.is_ok(), allowed, "{first}..={last} of {who}");
        let Ok(write) = taken else {
            return;
        };
        if kind == AcknowledgeType::Renew {
            let until = self.now_ms + 30_000;
            for offset in &offsets {
                if let Some(record) = self.records.get_mut(offset) {
                    record.holder = Some((who, until));
                }
            }
            assert_eq!(write, None);
            return;
        }
        assert_eq!(write.is_some(), !offsets.is_empty());
        let Some(write) = write else {
            return;
        };
        self.begin(write.ticket, &offsets, |record| match kind {
            AcknowledgeType::Accept => Record::of(RecordState::Acknowledged, record.count),
            AcknowledgeType::Release if record.count < limits.delivery_count_max => {
                Record::of(RecordState::Available, record.count)
            }
            _ => Record::of(RecordState::Archived, record.count),
        });
        self.writes.push(write);
    }

    fn release(&mut self, who: usize) {
        let is_mine = |record: &Record| {
            record.pending.is_none() && record.holder.is_some_and(|(holder, _)| holder == who)
        };
        let offsets: Vec<i64> = self
            .records
            .iter()
            .filter(|(_, record)| is_mine(record))
            .map(|(offset, _)| *offset)
            .collect();
        let write = self.machine.release(MEMBERS[who], &History::limits());
        assert_eq!(write.is_some(), !offsets.is_empty());
        if let Some(write) = write {
            self.begin(write.ticket, &offsets, |record| {
                let again = record.count < History::limits().delivery_count_max;
                let state = if again {
                    RecordState::Available
                } else {
                    RecordState::Archived
                };
                Record::of(state, record.count)
            });
            self.writes.push(write);
        }
    }

    fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        let write = self.machine.expire(&History::limits(), self.now_ms);
        let mut any = false;
        for record in self.records.values_mut() {
            let over = record.holder.is_some_and(|(_, until)| until <= self.now_ms);
            if record.pending.is_none() && over {
                any = true;
                let state = if record.count >= History::limits().delivery_count_max {
                    RecordState::Archived
                } else {
                    RecordState::Available
                };
                *record = Record::of(state, record.count);
            }
        }
        assert_eq!(write.is_some(), any);
        if let Some(write) = write {
            // Its outcome changes nothing here, but writes are done in their order.
            self.writes.push(write);
        }
    }

    fn written(&mut self, ok: bool) {
        if self.writes.is_empty() {
            return;
        }
        let write = self.writes.remove(0);
        if ok {
            self.keep(&write);
        }
        self.machine.written(write.ticket, ok);
        for record in self.records.values_mut() {
            let Some((ticket, before)) = record.pending.take() else {
                continue;
            };
            if ticket != write.ticket {
                record.pending = Some((ticket, before));
            } else if !ok {
                *record = *before;
            }
        }
    }

    fn keep(&mut self, write: &StateWrite) {
        let newer: Vec<StateBatch> = write
            .batches
            .iter()
            .map(|batch| StateBatch {
                first_offset: batch.first_offset,
                last_offset: batch.last_offset,
                delivery_state: batch.delivery_state,
                delivery_count: batch.delivery_count,
            })
            .collect();
        self.kept.start_offset = write.start_offset;
        self.kept.batches = combine(&self.kept.batches, &newer, write.start_offset);
    }

    fn restart(&mut self) {
        let batches = self.kept.batches.iter().map(|batch| ReadBatch {
            first_offset: batch.first_offset,
            last_offset: batch.last_offset,
            delivery_state: batch.delivery_state,
            delivery_count: batch.delivery_count,
            ..ReadBatch::default()
        });
        let stored = StoredState {
            state_epoch: 0,
            start_offset: self.kept.start_offset,
            batches: batches.collect(),
        };
        let done: Vec<i64> = self
            .records
            .iter()
            .filter(|(_, r)| r.state == RecordState::Acknowledged && r.pending.is_none())
            .map(|(offset, _)| *offset)
            .collect();
        self.machine = SharePartition::load(&stored, 0).unwrap();
        self.machine.log_start_moved(self.log_start);
        self.writes.clear();
        for offset in done {
            let state = self.machine.record(offset).map(|(state, _)| state);
            let is_done =
                offset < self.machine.start_offset() || state.is_some_and(RecordState::is_terminal);
            assert!(is_done, "{offset} was done before the restart");
        }
        self.records.clear();
        for offset in self.machine.start_offset()..self.machine.window_end() {
            let (state, count) = self.machine.record(offset).unwrap();
            assert_ne!(state, RecordState::Acquired);
            self.records.insert(offset, Record::of(state, count));
        }
    }

    /// What both must agree on.
    fn check(&mut self) {
        let start = self.machine.start_offset();
        self.records.retain(|offset, record| {
            let below = *offset < start;
            let done = record.state.is_terminal() && record.pending.is_none();
            assert!(
                !below || done || *offset < self.log_start,
                "{offset} is not done"
            );
            !below
        });
        for (offset, record) in &self.records {
            let seen = self.machine.record(*offset);
            assert_eq!(seen, Some((record.state, record.count)), "{offset}");
        }
        let first = self.records.get(&start);
        assert!(
            first.is_none_or(|r| !r.state.is_terminal() || r.pending.is_some()),
            "the start is not done"
        );
        let done = self
            .records
            .values()
            .filter(|r| r.state.is_terminal())
            .count();
        assert_eq!(
            self.machine.delivery_complete_count(),
            i32::try_from(done).unwrap()
        );
        let next = self
            .records
            .iter()
            .find(|(_, r)| r.state == RecordState::Available && r.pending.is_none())
            .map_or(self.machine.window_end(), |(offset, _)| *offset);
        assert_eq!(self.machine.next_fetch_offset(), next);
        let deadline = self
            .records
            .values()
            .filter(|r| r.pending.is_none())
            .filter_map(|r| r.holder.map(|(_, until)| until))
            .min();
        assert_eq!(self.machine.next_deadline_ms(), deadline);
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Acquire {
                member,
                max,
                strict,
            } => self.acquire(member, max, strict),
            Step::Acknowledge {
                member,
                at,
                len,
                kind,
            } => {
                let first = (self.machine.start_offset() + at - 3).max(0);
                let kind = AcknowledgeType::from_id(kind as i8).unwrap();
                self.acknowledge(member, first, first + len - 1, kind);
            }
            Step::Release { member } => self.release(member),
            Step::Pass { ms } => self.pass(ms),
            Step::Written { ok } => self.written(ok),
            Step::LoseBeginning { by } => {
                self.log_start = (self.log_start + by).min(LOG_END - 10);
                self.machine.log_start_moved(self.log_start);
                self.records.retain(|offset, _| *offset >= self.log_start);
            }
            Step::Restart => self.restart(),
        }
        self.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn every_record_is_in_the_state_that_its_history_gives(
        steps in prop::collection::vec(step(), 1..80)
    ) {
        let mut history = History::new();
        for step in steps {
            history.run(step);
        }
    }
}
