//! **Whole or not at all.** Of a transaction, `read_committed` consumers see all or nothing, as the
//! client was told; every input is transformed once, in every output, in order.
//!
//! Source: KIP-98, KIP-447. Looks at what is committed below the last stable offset, which no
//! election takes back. Known and allowed: a client without an answer knows nothing; it may have
//! been either. Partitions get their markers one after the other: that all of them show a
//! transaction is asked at the end only.

use std::collections::BTreeMap;

use klamm_log::AbortedTxn;
use klamm_records::{BatchView, Scratch, batches};

use super::super::super::Violation;
use super::super::Flaw;
use super::super::world::{DATA, World};
use super::{History, Transaction};

/// What was seen, by output partition.
#[derive(Debug, Default)]
pub(in super::super) struct Visible {
    outputs: BTreeMap<i32, Output>,
}

#[derive(Debug, Default)]
struct Output {
    /// Where to look next.
    position: i64,
    /// By processor, the transactions that wrote its outputs.
    written: BTreeMap<usize, Vec<u64>>,
}

/// A record's value: processor, offset and transaction.
pub(super) fn value(processor: usize, offset: i64, transaction: u64) -> String {
    format!("{processor}:{offset}:{transaction}")
}

fn parse(value: &[u8]) -> Option<(usize, i64, u64)> {
    let text = std::str::from_utf8(value).ok()?;
    let mut parts = text.split(':');
    let processor = parts.next()?.parse().ok()?;
    let offset = parts.next()?.parse().ok()?;
    Some((processor, offset, parts.next()?.parse().ok()?))
}

fn violation(detail: String) -> Violation {
    Violation::new("transactions", detail)
}

impl Visible {
    /// Every output shows what a processor has consumed, and no more.
    pub(super) fn whole(&self, processor: usize, offset: i64) -> Result<(), Violation> {
        for (number, output) in &self.outputs {
            let seen = output.written.get(&processor).map_or(0, Vec::len) as i64;
            if seen != offset {
                let detail =
                    format!("{processor} consumed {offset}, of which {number} shows {seen}");
                return Err(violation(detail));
            }
        }
        Ok(())
    }

    /// A transaction is where its client was told.
    pub(super) fn as_told(&self, number: u64, of: &Transaction) -> Result<(), Violation> {
        for (partition, output) in &self.outputs {
            let written = output.written.get(&of.processor);
            let writer = written.and_then(|written| written.get(of.offset as usize));
            let is_there = writer == Some(&number);
            if of.told.is_some_and(|committed| committed != is_there) {
                let detail = format!("{of:?} ({number}) in {partition}: {is_there}");
                return Err(violation(detail));
            }
        }
        Ok(())
    }
}

/// Looks at what became visible.
pub(in super::super) fn look(world: &World) -> Result<(), Violation> {
    let mut history = world.transactions();
    for (place, partition) in &world.partitions {
        if place.0 != DATA {
            continue;
        }
        let log = partition.truth();
        let end = match world.flaw {
            Flaw::DirtyReads => log.log_end_offset(),
            _ => log.last_stable_offset(partition.committed()),
        };
        let position = history.visible.outputs.entry(place.1).or_default().position;
        if position >= end {
            continue;
        }
        let aborted = log.aborted_transactions(position, end).unwrap_or_default();
        let read = partition.read(&log, position, usize::MAX >> 1);
        let read = read.map_err(|error| Violation::new("disk", error.to_string()))?;
        for batch in batches(&read) {
            let batch = batch.map_err(|error| Violation::new("disk", error.to_string()))?;
            if batch.header().base_offset < position || batch.header().next_offset() > end {
                continue;
            }
            let is_aborted = world.flaw != Flaw::DirtyReads && is_aborted(&batch, &aborted);
            if !is_aborted && !batch.header().attributes.is_control() {
                history.see(place.1, &batch)?;
            }
        }
        if let Some(output) = history.visible.outputs.get_mut(&place.1) {
            output.position = end;
        }
    }
    Ok(())
}

fn is_aborted(batch: &BatchView<'_>, aborted: &[AbortedTxn]) -> bool {
    let header = batch.header();
    header.attributes.is_transactional()
        && aborted.iter().any(|txn| {
            let range = txn.first_offset..=txn.last_offset;
            txn.producer_id == header.producer_id && range.contains(&header.base_offset)
        })
}

impl History {
    fn see(&mut self, partition: i32, batch: &BatchView<'_>) -> Result<(), Violation> {
        let mut scratch = Scratch::new();
        let records = batch.records(&mut scratch);
        let records = records.map_err(|error| Violation::new("disk", error.to_string()))?;
        for record in records.flatten() {
            let Some((processor, offset, number)) = record.value.and_then(parse) else {
                continue;
            };
            let transaction = self.transactions.get(&number).copied().unwrap_or_default();
            if transaction.asked != Some(true) || transaction.told == Some(false) {
                let detail = format!("{number} is visible in {partition}: {transaction:?}");
                return Err(violation(detail));
            }
            let output = self.visible.outputs.entry(partition).or_default();
            let written = output.written.entry(processor).or_default();
            if written.len() as i64 != offset {
                let (seen, by) = (written.len(), written.last());
                let detail = format!(
                    "{processor}'s output {offset} by {number} follows {seen} outputs in \
                     {partition}, the last by {by:?}"
                );
                return Err(violation(detail));
            }
            written.push(number);
        }
        Ok(())
    }
}
