//! **Reads repeat.** What a consumer has read at an offset, every consumer reads there, whoever
//! leads; and what a consumer is told of the end of what is committed never goes back: the high
//! watermark within an epoch of a leader, the answer to ListOffsets at all.
//!
//! Source: KIP-101, KIP-207. Known false positives: the high watermark of a new leader may start
//! below that of the one before, so it is compared within an epoch only.

use std::collections::BTreeMap;
use std::fmt::Debug;

use klamm_records::TopicPartition;

use super::super::Violation;
use super::history::Kept;
use super::view::Entry;

/// Checks the property for a record that is read.
pub fn read(
    before: &mut BTreeMap<i64, Kept>,
    consumer: i64,
    partition: &TopicPartition,
    entry: &Entry,
) -> Result<(), Violation> {
    let (offset, value) = (entry.offset, entry.value);
    let kept = Kept {
        value,
        at_ms: entry.at_ms,
        key: entry.key,
    };
    let known = before.entry(offset).or_insert(kept).value;
    if known == value {
        return Ok(());
    }
    let detail =
        format!("{consumer} reads {value:?} at {offset} of {partition}, where {known:?} was read");
    Err(Violation::new("reads", detail))
}

/// Checks that an offset told under `key` does not go back.
pub fn forward<K: Ord + Debug>(
    what: &str,
    before: &mut BTreeMap<K, i64>,
    key: K,
    now: i64,
) -> Result<(), Violation> {
    match before.get_mut(&key) {
        Some(known) if now < *known => {
            let detail = format!("the {what} goes back from {known} to {now} for {key:?}");
            Err(Violation::new("reads", detail))
        }
        Some(known) => {
            *known = now;
            Ok(())
        }
        None => {
            before.insert(key, now);
            Ok(())
        }
    }
}
