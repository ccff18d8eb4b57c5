//! Which segments must go. A segment goes, from the oldest on, while it lies wholly below the
//! start of the log; while the log without it is still at least as large as `retention.bytes`;
//! while its newest record is older than `retention.ms`.
//!
//! Source: KIP-107 (deleted records) and Kafka's documentation of both configs. The active segment
//! goes, too, if it holds anything.

use klamm_log::LogConfig;

use super::reference::Reference;

/// Base offset, base offset of the next, bytes, newest timestamp of a segment.
type Row = (i64, i64, i64, i64);

/// Whether the model knows all that retention goes by: not how old segments without records are, which
/// compaction leaves and a crash; nor, of a compacted log, what lies below the start.
pub fn is_known(model: &Reference, segments: &[i64]) -> bool {
    let first = segments.first().copied().unwrap_or(0);
    let has_records = |pair: &[i64]| {
        let mut batches = model.batches.iter();
        batches.any(|batch| (pair[0]..pair[1]).contains(&batch.base))
    };
    (model.cleaned_below <= first || model.start <= first) && segments.windows(2).all(has_records)
}

/// The segments of a log that remain, by their base offsets; none of the old ones if all go.
pub fn remaining(model: &Reference, segments: &[i64], config: &LogConfig, now_ms: i64) -> Vec<i64> {
    let mut kept: Vec<Row> = Vec::new();
    for (index, &base) in segments.iter().enumerate() {
        let next = segments.get(index + 1).copied().unwrap_or(model.end);
        let within = || {
            let all = model.batches.iter();
            all.filter(|batch| (base..next).contains(&batch.base))
        };
        let size: i64 = within().map(|batch| batch.size as i64).sum();
        let newest = within().map(|batch| batch.max_timestamp).max();
        kept.push((base, next, size, newest.unwrap_or(i64::MAX)));
    }
    let last = segments.last().copied();
    let empty = |&(base, _, size, _): &Row| Some(base) == last && size == 0;
    let mut drop_while = |condemned: &mut dyn FnMut(&Row) -> bool| {
        while let Some(first) = kept.first()
            && !empty(first)
            && condemned(first)
        {
            kept.remove(0);
        }
        kept.iter().map(|segment| segment.2).sum::<i64>()
    };
    let start = model.start;
    let total = drop_while(&mut |&(base, next, ..)| Some(base) != last && next <= start);
    if config.delete && config.retention_bytes >= 0 {
        let mut excess = total - config.retention_bytes;
        drop_while(&mut |&(_, _, size, _)| {
            excess -= size;
            excess >= 0
        });
    }
    if config.delete && config.retention_ms >= 0 {
        drop_while(&mut |&(.., newest)| now_ms.saturating_sub(newest) > config.retention_ms);
    }
    kept.into_iter().map(|segment| segment.0).collect()
}
