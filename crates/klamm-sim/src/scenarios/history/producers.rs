//! What a log must know of its producers, and what it must say to each of their batches.
//!
//! Source: KIP-98 and KIP-360 (sequence numbers), KIP-890 (epochs per transaction).
//!
//! After a reload a log may know less, as it has read a snapshot and the batches since. A snapshot
//! keeps only a producer's newest batch, so retries of older ones may be known or not. Of a
//! producer who expired, or whose records were deleted, what came before may count or not: those
//! moments are [`Producers::cuts`], and what the log says must follow from all batches of the
//! producer, or from those after one of its cuts.

use std::collections::{BTreeMap, BTreeSet};

use klamm_log::ActiveProducer;

use super::batch::Batch;

/// Batches of a producer that a log remembers.
const REMEMBERED: usize = 5;

/// Adds to the moments before which a producer may be forgotten those at which it had expired by now: a
/// snapshot of such a moment is read without it. Whether it had may depend on what was forgotten before,
/// as a transaction keeps its producer known.
fn add_expiries(
    cuts: &mut BTreeSet<i64>,
    id: i64,
    batches: &[Batch],
    (now_ms, expiration_ms): (i64, i64),
) {
    let mut from = Some(i64::MIN);
    while let Some(cut) = from {
        let mut until = Producers::default();
        for batch in batches {
            if batch.next() <= cut || batch.tag.is_none_or(|tag| tag.id != id) {
                continue;
            }
            until.note(batch);
            if until.known[&id].is_expired(now_ms, expiration_ms) {
                cuts.insert(batch.next());
            }
        }
        from = cuts.range(cut.saturating_add(1)..).next().copied();
    }
}

/// One producer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Producer {
    /// Epoch.
    pub epoch: i16,
    /// Epoch of the coordinator that wrote the last marker, -1 if none did.
    pub coordinator_epoch: i32,
    /// Largest timestamp of the last batch.
    pub last_timestamp: i64,
    /// Where the open transaction begins.
    pub txn: Option<i64>,
    /// Sequence numbers and offsets, first and last, of the last batches of this epoch.
    pub batches: Vec<(i32, i32, i64, i64)>,
    /// How many of them, from the newest on, the log knows for certain.
    pub certain: usize,
}

/// What a log must say to a batch of a client or coordinator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Write it.
    Append,
    /// It is there already, at these offsets.
    Duplicate(i64, i64),
    /// Refuse: a gap or a step back.
    OutOfOrder,
    /// Refuse: an older epoch.
    Fenced,
    /// Refuse: not part of the open transaction.
    InvalidTxnState,
    /// Refuse: a marker of an older coordinator.
    CoordinatorFenced,
}

/// All producers of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Producers {
    /// Those it knows, by id.
    pub known: BTreeMap<i64, Producer>,
    /// Offsets below which a producer's batches may be forgotten.
    cuts: BTreeMap<i64, BTreeSet<i64>>,
}

impl Producers {
    /// What follows from batches in a log.
    pub fn of<'a>(batches: impl IntoIterator<Item = &'a Batch>) -> Producers {
        let mut producers = Producers::default();
        for batch in batches {
            producers.note(batch);
        }
        producers
    }

    /// Takes a batch into account that is in the log.
    pub fn note(&mut self, batch: &Batch) {
        let Some(tag) = batch.tag else { return };
        let producer = self.known.entry(tag.id).or_insert(Producer {
            epoch: tag.epoch,
            coordinator_epoch: -1,
            last_timestamp: -1,
            txn: None,
            batches: Vec::new(),
            certain: 0,
        });
        if producer.epoch != tag.epoch {
            producer.batches.clear();
            producer.certain = 0;
            producer.epoch = tag.epoch;
        }
        producer.last_timestamp = batch.max_timestamp;
        if let Some(marker) = batch.marker {
            producer.coordinator_epoch = marker.coordinator_epoch;
            producer.txn = None;
            return;
        }
        if batch.transactional {
            producer.txn.get_or_insert(batch.base);
        }
        let place = (tag.sequence, batch.last_sequence(), batch.base, batch.last);
        producer.batches.push(place);
        producer.certain = (producer.certain + 1).min(REMEMBERED);
        if producer.batches.len() > REMEMBERED {
            producer.batches.remove(0);
        }
    }

    /// Forgets who was idle for too long, in a log that ends at `end`.
    pub fn expire(&mut self, now_ms: i64, expiration_ms: i64, end: i64) {
        let cuts = &mut self.cuts;
        self.known.retain(|&id, producer| {
            let expired = producer.is_expired(now_ms, expiration_ms);
            if expired {
                cuts.entry(id).or_default().insert(end);
            }
            !expired
        });
    }

    /// What a log may say to a batch. `transaction_version` if a coordinator writes a marker.
    pub fn verdicts(&self, batch: &Batch, transaction_version: i16) -> Vec<Verdict> {
        let (Some(tag), Some(known)) = (batch.tag, self.of_batch(batch)) else {
            return vec![Verdict::Append];
        };
        if let Some(marker) = batch.marker {
            let epochs = (tag.epoch, marker.coordinator_epoch);
            return vec![known.marker_verdict(epochs, transaction_version)];
        }
        let mut allowed = Vec::new();
        if tag.epoch == known.epoch {
            let mut certain = false;
            for (age, &(first, last, from, to)) in known.batches.iter().rev().enumerate() {
                if (first, last) == (tag.sequence, batch.last_sequence()) {
                    allowed.push(Verdict::Duplicate(from, to));
                    certain |= age < known.certain;
                }
            }
            if certain {
                return allowed;
            }
        }
        let wanted = match known.batches.last() {
            Some(&(_, last, ..)) if tag.epoch == known.epoch => last + 1,
            _ => 0,
        };
        allowed.push(if tag.epoch < known.epoch {
            Verdict::Fenced
        } else if tag.sequence != wanted {
            Verdict::OutOfOrder
        } else if known.txn.is_some() && !batch.transactional {
            Verdict::InvalidTxnState
        } else {
            Verdict::Append
        });
        allowed
    }

    fn of_batch(&self, batch: &Batch) -> Option<&Producer> {
        self.known.get(&batch.tag?.id)
    }

    /// Holds what a log says of its producers after a reload against what follows from its batches,
    /// and takes that over where it is right. The log may have read its batches from any of
    /// `starts` on.
    ///
    /// # Errors
    /// What is wrong.
    pub fn reconcile(
        &mut self,
        said: &[ActiveProducer],
        starts: &[i64],
        batches: &[Batch],
        (now_ms, expiration_ms): (i64, i64),
    ) -> Result<(), String> {
        let all = Producers::of(batches).known;
        for said in said {
            if !all.contains_key(&said.producer_id) {
                return Err(format!("{said:?} never wrote to this log"));
            }
        }
        self.known.clear();
        for (id, whole) in all {
            let cuts = self.cuts.entry(id).or_default();
            cuts.extend(starts);
            add_expiries(cuts, id, batches, (now_ms, expiration_ms));
            let mut since = cuts.iter().map(|&cut| {
                let left = batches.iter().filter(|batch| batch.next() > cut);
                Producers::of(left).known.remove(&id)
            });
            match said.iter().find(|said| said.producer_id == id) {
                None if since.any(|known| known.is_none()) => {}
                None => return Err(format!("producer {id} is forgotten: {whole:?}")),
                Some(said) => {
                    let right = |known: &Producer| known.is_as(said);
                    let known = since.flatten().find(|known| right(known));
                    // With its newest batches gone, what an older snapshot says is as good.
                    let until = || {
                        let gone = whole_below(batches, id, starts);
                        (0..batches.len() * usize::from(gone)).find_map(|len| {
                            let known = Producers::of(&batches[..len]).known.remove(&id);
                            known.filter(right)
                        })
                    };
                    let known = known
                        .or_else(|| Some(whole.clone()).filter(right))
                        .or_else(until);
                    let Some(mut known) = known else {
                        return Err(format!("{id} is {whole:?}, the log has {said:?}"));
                    };
                    known.certain = known.batches.len().min(1);
                    self.known.insert(id, known);
                }
            }
        }
        Ok(())
    }

    /// Holds what a log says of its producers against the model, without a reload in between.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self, said: &[ActiveProducer]) -> Result<(), String> {
        for (id, producer) in &self.known {
            match said.iter().find(|said| said.producer_id == *id) {
                Some(said) if producer.is_as(said) => {}
                said => {
                    return Err(format!(
                        "producer {id} is {producer:?}, the log has {said:?}"
                    ));
                }
            }
        }
        match said
            .iter()
            .find(|said| !self.known.contains_key(&said.producer_id))
        {
            Some(said) => Err(format!("the log knows {said:?}")),
            None => Ok(()),
        }
    }
}

/// Whether all batches of a producer lie below where the log begins.
fn whole_below(batches: &[Batch], id: i64, starts: &[i64]) -> bool {
    let start = starts.iter().max();
    let of_producer = |batch: &&Batch| batch.tag.is_some_and(|tag| tag.id == id);
    let last = batches.iter().rev().find(of_producer);
    last.is_none_or(|last| start.is_some_and(|&start| last.next() <= start))
}

impl Producer {
    fn is_expired(&self, now_ms: i64, expiration_ms: i64) -> bool {
        self.txn.is_none() && now_ms - self.last_timestamp >= expiration_ms
    }

    fn last(&self) -> (i32, i64) {
        self.batches
            .last()
            .map_or((-1, -1), |&(_, sequence, _, offset)| (sequence, offset))
    }

    fn marker_verdict(&self, (epoch, coordinator_epoch): (i16, i32), version: i16) -> Verdict {
        let repeated = epoch == self.epoch && self.txn.is_none();
        let stale = if version >= 2 {
            epoch <= self.epoch && !repeated
        } else {
            epoch < self.epoch
        };
        if stale {
            Verdict::Fenced
        } else if coordinator_epoch < self.coordinator_epoch {
            Verdict::CoordinatorFenced
        } else {
            Verdict::Append
        }
    }

    fn is_as(&self, said: &ActiveProducer) -> bool {
        self.epoch == said.producer_epoch
            && self.last() == (said.last_sequence, said.last_offset)
            && self.last_timestamp == said.last_timestamp
            && self.coordinator_epoch == said.coordinator_epoch
            && self.txn.unwrap_or(-1) == said.current_txn_start_offset
    }
}
