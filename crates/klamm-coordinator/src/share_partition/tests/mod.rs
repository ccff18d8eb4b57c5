mod deliveries;
mod histories;
mod sessions;

use klamm_protocol::ByteStr;

use super::{AcknowledgeType, Acknowledgement, StoredState};
use super::{AcquireMode, AcquireRequest, AcquiredRange, BatchSpan, ShareLimits, SharePartition};

/// A partition of which nothing was read, from offset 0.
fn fresh() -> SharePartition {
    let stored = StoredState {
        start_offset: -1,
        ..StoredState::default()
    };
    SharePartition::load(&stored, 0).unwrap()
}

fn member(name: &str) -> ByteStr {
    name.into()
}

fn span(base_offset: i64, last_offset: i64) -> BatchSpan {
    BatchSpan {
        base_offset,
        last_offset,
        is_aborted: false,
    }
}

fn range(first_offset: i64, last_offset: i64, delivery_count: i16) -> AcquiredRange {
    AcquiredRange {
        first_offset,
        last_offset,
        delivery_count,
    }
}

/// Reads what is next of these batches, and acquires.
fn acquire(
    partition: &mut SharePartition,
    name: &str,
    batches: &[BatchSpan],
    max_records: i32,
    now_ms: u64,
) -> Vec<AcquiredRange> {
    acquire_as(
        partition,
        name,
        batches,
        max_records,
        AcquireMode::BatchOptimized,
        now_ms,
    )
}

fn acquire_as(
    partition: &mut SharePartition,
    name: &str,
    batches: &[BatchSpan],
    max_records: i32,
    mode: AcquireMode,
    now_ms: u64,
) -> Vec<AcquiredRange> {
    let fetch_offset = partition.next_fetch_offset();
    let read: Vec<BatchSpan> = batches
        .iter()
        .filter(|batch| batch.last_offset >= fetch_offset)
        .copied()
        .collect();
    let request = AcquireRequest {
        member: &member(name),
        mode,
        max_records,
        batch_size: 500,
        fetch_offset,
        batches: &read,
    };
    partition.acquire(&request, &ShareLimits::default(), now_ms)
}

fn ack(first_offset: i64, last_offset: i64, kind: AcknowledgeType) -> Acknowledgement {
    Acknowledgement {
        first_offset,
        last_offset,
        types: vec![kind],
    }
}
