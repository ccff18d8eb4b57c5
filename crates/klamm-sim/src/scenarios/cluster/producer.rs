//! Producers: each writes numbered records to one partition, batch after batch.

use std::time::Duration;

use bytes::Bytes;
use klamm_env::Rng as _;
use klamm_protocol::ErrorCode;
use klamm_records::{BatchBuilder, BatchOptions, TopicPartition};
use klamm_replication::ProduceResult;

use super::Flaw;
use super::history::{Kept, Value};
use super::plan::Keeping;
use super::serve::{self, Lead};
use super::world::World;
use crate::{Address, NoAnswer, SimRng};

/// Keys of records, where they have keys.
const KEYS: u64 = 12;

/// What a producer promises and is promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Repeats a batch under its sequence number until all in-sync replicas have acknowledged it.
    Idempotent,
    /// Waits for all in-sync replicas, but gives up a batch of which it does not hear.
    All,
    /// Is content with the leader.
    One,
}

/// A client's knowledge of who leads a partition. It never goes back to an older epoch.
#[derive(Debug, Default)]
pub(super) struct Known {
    lead: Option<Lead>,
    epoch: i32,
}

impl Known {
    /// Asks some broker who leads, unless that is known.
    pub(super) async fn find(
        &mut self,
        world: &World,
        rng: &SimRng,
        client: Address,
        partition: &TopicPartition,
    ) -> Option<Lead> {
        if self.lead.is_none() {
            let asked = *rng.pick(&world.plan.brokers)?;
            let (there, name) = (world.clone(), partition.clone());
            let serve = move || {
                let (there, name) = (there.clone(), name.clone());
                async move { serve::lead(&there, asked, &name) }
            };
            let timeout = Duration::from_millis(500);
            let answer = world
                .net
                .call((client, asked), "lead", timeout, serve)
                .await;
            self.lead = answer
                .ok()
                .flatten()
                .filter(|lead| lead.leader >= 0 && lead.epoch >= self.epoch);
            self.epoch = self.lead.map_or(self.epoch, |lead| lead.epoch);
        }
        self.lead
    }

    /// The leader is another one, or cannot be reached.
    pub(super) fn forget(&mut self) {
        self.lead = None;
    }
}

struct Producer {
    world: World,
    rng: SimRng,
    id: i64,
    client: Address,
    kind: Kind,
    partition: TopicPartition,
    known: Known,
    next_number: i64,
    next_sequence: i32,
    /// Whether it is not known what became of the last batch.
    gave_up: bool,
}

/// Produces until the world calms down.
pub(super) async fn produce(world: World, id: i64, kind: Kind, partition: TopicPartition) {
    let mut producer = Producer {
        rng: world.rng.fork("producer"),
        client: 100 + (id % 10) as Address,
        id,
        kind,
        partition,
        known: Known::default(),
        next_number: 0,
        next_sequence: 0,
        gave_up: false,
        world,
    };
    if kind == Kind::Idempotent {
        producer.world.history().idempotent.insert(id);
    }
    while producer.world.at_work().await && producer.has_topic() {
        producer.renew();
        let busy = producer
            .rng
            .below(if producer.rng.one_in(10) { 1_000 } else { 120 });
        // What is to be kept for days must not be too much.
        let times = producer.world.plan.long.map_or(1, |_| 8);
        producer.world.sleep_ms(times * busy).await;
        producer.send().await;
    }
}

impl Producer {
    /// Whether there is still something to write to.
    fn has_topic(&self) -> bool {
        self.world.topic(&self.partition.topic).is_some()
    }

    /// Where clusters live for long, programs are started anew now and then: as another producer.
    fn renew(&mut self) {
        if self.gave_up || self.world.plan.long.is_some() && self.rng.one_in(200) {
            let mut history = self.world.history();
            self.id = history.new_producer();
            (self.next_number, self.next_sequence) = (0, 0);
            self.gave_up = false;
            if self.kind == Kind::Idempotent {
                history.idempotent.insert(self.id);
            }
        }
    }

    /// Whether a batch has been under way for so long that brokers may soon have forgotten the
    /// producer. It cannot be sent again then, as nobody would know it (`delivery.timeout.ms`).
    fn is_too_old(&self, began_ms: i64) -> bool {
        let long = self.world.plan.long;
        long.is_some_and(|it| self.world.now_ms() - began_ms > it.producer_expiration_ms / 3)
    }

    async fn send(&mut self) {
        let count = 1 + self.rng.below(4) as i64;
        let values: Vec<Value> = (self.next_number..self.next_number + count)
            .map(|number| Value {
                producer: self.id,
                number,
            })
            .collect();
        self.next_number += count;
        self.world.history().sent += values.len() as u64;
        self.world.history().unfinished.insert(self.id);
        let (batch, records) = self.batch(&values);
        let began_ms = self.world.now_ms();
        while self.has_topic() {
            match self.attempt(&batch).await {
                Some(result) if result.error == ErrorCode::None => {
                    if self.kind != Kind::One && result.base_offset >= 0 {
                        let mut history = self.world.history();
                        history.acknowledge(&self.partition, result.base_offset, &records);
                    }
                    break;
                }
                _ if self.kind != Kind::Idempotent => break,
                _ if self.is_too_old(began_ms) => {
                    self.gave_up = true;
                    break;
                }
                _ => {}
            }
            let pause = 20 + self.rng.below(100);
            self.world.sleep_ms(pause).await;
        }
        self.next_sequence += count as i32;
        self.world.history().unfinished.remove(&self.id);
    }

    fn batch(&self, values: &[Value]) -> (Bytes, Vec<Kept>) {
        let topic = self.world.topic(&self.partition.topic);
        let has_keys = topic.is_some_and(|it| it.keeping == Keeping::Compacted);
        let at_ms = self.world.now_ms();
        let forgets = self.world.flaw == Flaw::SequencesForgotten;
        let idempotent = self.kind == Kind::Idempotent && !forgets;
        let mut builder = BatchBuilder::new(BatchOptions {
            producer_id: if idempotent { self.id } else { -1 },
            producer_epoch: if idempotent { 0 } else { -1 },
            base_sequence: if idempotent { self.next_sequence } else { -1 },
            ..BatchOptions::default()
        });
        let mut records = Vec::new();
        for value in values {
            let key = has_keys.then(|| self.rng.below(KEYS) as u8);
            records.push(Kept {
                value: *value,
                at_ms,
                key,
            });
            let mut bytes = value.encode().to_vec();
            bytes.resize(16 + self.rng.index(100), 7);
            // A batch of a few hundred bytes always fits.
            let _ = builder.append(
                at_ms,
                key.as_ref().map(std::slice::from_ref),
                Some(&bytes),
                [],
            );
        }
        (builder.build().unwrap_or_default(), records)
    }

    async fn attempt(&mut self, batch: &Bytes) -> Option<ProduceResult> {
        let lead = self
            .known
            .find(&self.world, &self.rng, self.client, &self.partition)
            .await?;
        let (there, partition, batch) = (self.world.clone(), self.partition.clone(), batch.clone());
        let acks = if self.kind == Kind::One { 1 } else { -1 };
        let serve = move || {
            let (there, partition) = (there.clone(), partition.clone());
            let batch = batch.clone();
            async move { serve::produce(&there, lead.leader, &partition, batch, acks).await }
        };
        let way = (self.client, lead.leader);
        let timeout = self.world.plan.timing.request;
        let answer: Result<Option<ProduceResult>, NoAnswer> =
            self.world.net.call(way, "produce", timeout, serve).await;
        let result = answer.ok().flatten();
        let told = result
            .as_ref()
            .map(|result| (result.error, result.base_offset));
        self.world.note(format_args!(
            "producer {} of {}: {told:?}",
            self.id, self.partition
        ));
        if result.as_ref().is_none_or(|it| it.error != ErrorCode::None) {
            self.known.forget();
        }
        result
    }
}
