//! Random histories of clients, their zombies, timeouts, coordinators that come and go, writes that
//! fail and markers that come late or twice: no transaction may ever be half visible.
//!
//! The partitions are a model of what the log does with transactions: a first batch is taken only
//! if its transaction was verified after it was known, an epoch below the newest is fenced, and a
//! marker ends what its producer has open.

use std::collections::{BTreeMap, BTreeSet};

use klamm_protocol::{ByteStr, ErrorCode};
use proptest::prelude::*;

use super::bench::{Bench, Writes};
use crate::runtime::TransactionEnd;
use crate::transaction::{TransactionPartition, TransactionResponse};

const IDS: [&str; 2] = ["a", "b"];
const PARTITIONS: i32 = 3;

#[derive(Clone, Debug)]
enum Step {
    /// A new client takes over an id.
    Start(usize),
    /// A client, current or zombie, writes to a partition.
    Write(usize, i32),
    /// A client ends its transaction.
    End(usize, bool),
    /// A client asks for the end of its last transaction once more.
    EndAgain(usize),
    /// The oldest markers that are due are written, or fail in part.
    Markers(bool),
    /// Markers that were written once are written again.
    OldMarkers,
    /// Time passes.
    Wait(u64),
    /// The coordinator goes, with what is not committed.
    Crash,
    /// Appends work, hang, or fail.
    Writes(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0..IDS.len()).prop_map(Step::Start),
        8 => (any::<usize>(), 0..PARTITIONS).prop_map(|(c, p)| Step::Write(c, p)),
        5 => (any::<usize>(), any::<bool>()).prop_map(|(c, commit)| Step::End(c, commit)),
        1 => any::<usize>().prop_map(Step::EndAgain),
        6 => prop::bool::weighted(0.8).prop_map(Step::Markers),
        1 => Just(Step::OldMarkers),
        1 => (1_u64..80_000).prop_map(Step::Wait),
        1 => Just(Step::Crash),
        2 => (0_u8..6).prop_map(Step::Writes),
    ]
}

/// One transaction of one client, by number.
type Tag = usize;

/// What a partition knows of a producer.
#[derive(Debug, Default)]
struct Seen {
    epoch: i16,
    /// Of the last marker.
    coordinator_epoch: i32,
    /// The transaction that is open.
    open: Option<Tag>,
}

#[derive(Debug, Default)]
struct Partition {
    producers: BTreeMap<i64, Seen>,
    outcomes: BTreeMap<Tag, bool>,
}

impl Partition {
    fn write(&mut self, (producer_id, epoch): (i64, i16), tag: Tag, verified: bool) -> bool {
        let seen = self.producers.entry(producer_id).or_default();
        if epoch < seen.epoch || (!verified && (seen.open.is_none() || seen.epoch != epoch)) {
            return false;
        }
        if let Some(open) = seen.open {
            assert_eq!(open, tag, "two transactions of a producer in one");
        }
        seen.epoch = epoch;
        seen.open = Some(tag);
        true
    }

    fn mark(&mut self, end: &TransactionEnd) -> ErrorCode {
        let seen = self.producers.entry(end.producer_id).or_default();
        let (got, bumps) = (end.producer_epoch, end.transaction_version >= 2);
        if got < seen.epoch || (bumps && got == seen.epoch && seen.open.is_some()) {
            return ErrorCode::InvalidProducerEpoch;
        }
        if end.coordinator_epoch < seen.coordinator_epoch {
            return ErrorCode::TransactionCoordinatorFenced;
        }
        seen.coordinator_epoch = end.coordinator_epoch;
        seen.epoch = got;
        if let Some(tag) = seen.open.take() {
            let before = self.outcomes.insert(tag, end.committed);
            assert_eq!(before, None, "a transaction ended twice");
        }
        ErrorCode::None
    }
}

#[derive(Clone, Debug)]
struct Client {
    id: usize,
    producer: (i64, i16),
    tag: Tag,
    wrote: BTreeSet<i32>,
    /// How it wants the transaction to end, from when it first asked: it asks no other end and
    /// writes no more.
    decided: Option<bool>,
    /// How the transaction before ended, and with which id and epoch.
    ended: Option<((i64, i16), bool)>,
    is_broken: bool,
}

struct World {
    bench: Bench,
    version: i16,
    partitions: Vec<Partition>,
    clients: Vec<Client>,
    tags: Tag,
    /// In which epoch the coordinator leads.
    coordinator_epoch: i32,
    written: Vec<TransactionEnd>,
    due: Vec<(ByteStr, TransactionEnd, Vec<TransactionPartition>)>,
    /// What clients were told: transaction, partitions, committed.
    told: Vec<(Tag, BTreeSet<i32>, bool)>,
}

impl World {
    fn new(version: i16) -> World {
        World {
            bench: Bench::new(version),
            version,
            partitions: (0..PARTITIONS).map(|_| Partition::default()).collect(),
            clients: Vec::new(),
            tags: 0,
            coordinator_epoch: 0,
            written: Vec::new(),
            due: Vec::new(),
            told: Vec::new(),
        }
    }

    fn run(&mut self, step: Step) {
        let client =
            |clients: &[Client], n: usize| (!clients.is_empty()).then(|| n % clients.len());
        match step {
            Step::Start(id) => self.start(id),
            Step::Write(n, partition) => {
                if let Some(n) = client(&self.clients, n) {
                    self.write(n, partition);
                }
            }
            Step::End(n, committed) => {
                if let Some(n) = client(&self.clients, n) {
                    self.end(n, committed);
                }
            }
            Step::EndAgain(n) => {
                // Without bumps the same request would end the next transaction.
                if let Some(n) = client(&self.clients, n)
                    && (self.version >= 2 || self.clients[n].wrote.is_empty())
                    && let Some((producer, committed)) = self.clients[n].ended
                {
                    let id = IDS[self.clients[n].id];
                    let _ = self.bench.try_end(id, self.version, producer, committed);
                }
            }
            Step::Markers(whole) => self.markers(whole),
            Step::OldMarkers => {
                if let Some(end) = self.written.last().copied() {
                    self.partitions.iter_mut().for_each(|partition| {
                        // A repeated marker must find nothing to end.
                        let seen = partition.producers.get(&end.producer_id);
                        if seen.is_some_and(|seen| seen.open.is_none()) {
                            partition.mark(&end);
                        }
                    });
                }
            }
            Step::Wait(ms) => self.bench.advance_ms(ms),
            Step::Crash => self.crash(),
            Step::Writes(0) => self.bench.writes = Writes::Hold,
            Step::Writes(1) => {
                self.bench.commit_held();
                self.bench.writes = Writes::Fail(ErrorCode::NotEnoughReplicas);
            }
            Step::Writes(_) => {
                self.bench.commit_held();
                self.bench.writes = Writes::Commit;
            }
        }
    }

    fn start(&mut self, id: usize) {
        let request = crate::transaction::InitProducerId {
            transactional_id: IDS[id].into(),
            timeout_ms: 60_000,
            expected: None,
        };
        let answer = self.bench.ask(|spare| {
            let request = request.clone();
            crate::transaction::TransactionRequest::InitProducerId { request, spare }
        });
        if let Some(Ok(TransactionResponse::Producer {
            producer_id,
            producer_epoch,
        })) = answer
        {
            self.tags += 1;
            self.clients.push(Client {
                id,
                producer: (producer_id, producer_epoch),
                tag: self.tags,
                wrote: BTreeSet::new(),
                decided: None,
                ended: None,
                is_broken: false,
            });
        }
    }

    fn write(&mut self, n: usize, partition: i32) {
        let client = self.clients[n].clone();
        if client.is_broken || client.decided.is_some() {
            return;
        }
        let log = &mut self.partitions[partition as usize];
        // Known to the partition already: nobody is asked. Clients without bumps tell the
        // coordinator of each partition by themselves, in each transaction anew.
        let may_write = self.version >= 2 || client.wrote.contains(&partition);
        let mut taken = may_write && log.write(client.producer, client.tag, false);
        if !taken {
            let id = IDS[client.id];
            let token = self.bench.send_add(id, client.producer, &[partition], 0);
            if self.bench.answer(token) == Some(Ok(TransactionResponse::Done)) {
                let log = &mut self.partitions[partition as usize];
                taken = log.write(client.producer, client.tag, true);
            }
        }
        if taken {
            self.clients[n].wrote.insert(partition);
        }
    }

    fn end(&mut self, n: usize, committed: bool) {
        let client = self.clients[n].clone();
        if client.is_broken || client.wrote.is_empty() {
            return;
        }
        let committed = client.decided.unwrap_or(committed);
        self.clients[n].decided = Some(committed);
        let id = IDS[client.id];
        match self
            .bench
            .try_end(id, self.version, client.producer, committed)
        {
            Some(Ok(next)) => {
                self.told.push((client.tag, client.wrote, committed));
                self.tags += 1;
                let producer = client.producer;
                let client = &mut self.clients[n];
                client.tag = self.tags;
                client.wrote = BTreeSet::new();
                client.decided = None;
                client.ended = Some((producer, committed));
                if self.version >= 2 {
                    client.producer = next;
                }
            }
            // It will ask again.
            None | Some(Err(ErrorCode::ConcurrentTransactions | ErrorCode::NotEnoughReplicas)) => {}
            Some(Err(_)) => self.clients[n].is_broken = true,
        }
    }

    fn markers(&mut self, whole: bool) {
        while let Some((id, mut end, partitions)) = self.bench.markers() {
            end.coordinator_epoch = self.coordinator_epoch;
            self.due.push((id, end, partitions));
        }
        let oldest = (!self.due.is_empty()).then(|| self.due.remove(0));
        let Some((id, end, partitions)) = oldest else {
            return;
        };
        let mut outcomes = Vec::new();
        for (n, partition) in partitions.into_iter().enumerate() {
            let outcome = if !whole && n > 0 {
                ErrorCode::NotLeaderOrFollower
            } else {
                self.partitions[partition.1 as usize].mark(&end)
            };
            outcomes.push((partition, outcome));
        }
        self.written.push(end);
        // A coordinator is told of its own markers only: those that it has asked for itself are on
        // the way yet.
        if end.coordinator_epoch < self.coordinator_epoch {
            return;
        }
        if let TransactionResponse::Remaining(left) = self.bench.written(&id, &end, outcomes) {
            self.due.push((id, end, left));
        }
    }

    fn crash(&mut self) {
        // Markers on their way may still arrive, before or after those of the next coordinator.
        self.coordinator_epoch += 1;
        let version = self.version;
        let bench = std::mem::replace(&mut self.bench, Bench::new(version));
        self.bench = bench.reload();
    }

    /// Everything heals: each transaction must be over, in all of its partitions alike.
    fn heal(mut self) {
        self.bench.commit_held();
        self.bench.writes = Writes::Commit;
        for _ in 0..4 {
            self.bench.advance_ms(80_000);
            while !self.due.is_empty() || !self.bench.actions.is_empty() {
                self.markers(true);
            }
        }
        let mut ends: BTreeMap<Tag, BTreeSet<bool>> = BTreeMap::new();
        for partition in &self.partitions {
            for (producer_id, seen) in &partition.producers {
                assert_eq!(seen.open, None, "producer {producer_id} hangs");
            }
            for (tag, committed) in &partition.outcomes {
                ends.entry(*tag).or_default().insert(*committed);
            }
        }
        for (tag, ends) in &ends {
            assert_eq!(ends.len(), 1, "transaction {tag} is half visible");
        }
        for (tag, wrote, committed) in self.told {
            for partition in wrote {
                let outcome = self.partitions[partition as usize].outcomes.get(&tag);
                assert_eq!(
                    outcome,
                    Some(&committed),
                    "transaction {tag} in {partition}"
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn no_transaction_is_half_visible(steps in prop::collection::vec(step(), 1..120), bumps: bool) {
        let mut world = World::new(if bumps { 2 } else { 0 });
        for step in steps {
            world.run(step);
        }
        world.heal();
    }
}
