//! What is appended, in words, for who reads a trace.

use std::fmt;

use bytes::Bytes;
use klamm_coordinator::runtime::CoordinatorRecord as _;
use klamm_coordinator::transaction::TransactionRecord;
use klamm_protocol::topic_name;
use klamm_records::control::EndTransactionMarker;
use klamm_records::{BatchView, Scratch, batches};

use super::partition::Place;

/// A batch of a place.
pub(super) struct Words<'a>(pub(super) Place, pub(super) &'a [u8]);

impl fmt::Display for Words<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Words(place, bytes) = self;
        for batch in batches(bytes).flatten() {
            let header = batch.header();
            if header.producer_id >= 0 {
                let (id, epoch) = (header.producer_id, header.producer_epoch);
                write!(out, " of ({id}, {epoch}) from {}", header.base_sequence)?;
            }
            if header.attributes.is_control() {
                marker(&batch, out)?;
            } else if place.0 == topic_name::TRANSACTION_STATE {
                states(&batch, out)?;
            }
        }
        Ok(())
    }
}

fn marker(batch: &BatchView<'_>, out: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut scratch = Scratch::new();
    let Ok(records) = batch.records(&mut scratch) else {
        return Ok(());
    };
    for record in records.flatten() {
        if let Ok(marker) = EndTransactionMarker::from_record(&record) {
            write!(out, " {marker:?}")?;
        }
    }
    Ok(())
}

fn states(batch: &BatchView<'_>, out: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut scratch = Scratch::new();
    let Ok(records) = batch.records(&mut scratch) else {
        return Ok(());
    };
    for record in records.flatten() {
        let key = record.key.map(Bytes::copy_from_slice);
        let value = record.value.map(Bytes::copy_from_slice);
        if let Ok(TransactionRecord::State {
            transactional_id,
            transaction: Some(now),
            ..
        }) = TransactionRecord::decode(key, value)
        {
            let (producer, state) = ((now.producer_id, now.producer_epoch), now.state.name());
            write!(
                out,
                " {transactional_id} is {state} as {producer:?}, next {}, of version {}, over {}",
                now.next_producer_id,
                now.client_version,
                now.partitions.len()
            )?;
        }
    }
    Ok(())
}
