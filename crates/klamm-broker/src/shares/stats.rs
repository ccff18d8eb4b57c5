//! What is counted of share partitions and of the groups that read them, under the names of Kafka's
//! `SharePartitionMetrics` and `ShareGroupMetrics`.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use klamm_coordinator::share_partition::{AcknowledgeType, Acknowledgement, AcquiredRange};

use crate::ops::Counter;

/// Durations that were added up.
#[derive(Debug, Default)]
pub(crate) struct Durations {
    /// How many.
    pub(crate) count: Counter,
    /// Their sum in microseconds.
    pub(crate) sum_us: Counter,
}

impl Durations {
    pub(crate) fn add(&self, took: Duration) {
        self.count.add(1);
        self.sum_us
            .add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }
}

/// Numbers that were added up.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    /// How many.
    pub(crate) count: Counter,
    /// Their sum.
    pub(crate) sum: Counter,
}

impl Numbers {
    pub(crate) fn add(&self, number: u64) {
        self.count.add(1);
        self.sum.add(number);
    }
}

/// What is counted of one partition as one group reads it, since it was loaded.
#[derive(Debug, Default)]
pub(crate) struct CellStats {
    /// Records that came back because their lock ran out.
    pub(crate) lock_timeouts: Counter,
    /// How long requests kept others from reading for it.
    pub(crate) reading: Durations,
    /// Of the time since the request before, the part in which one did, in percent.
    pub(crate) read_percent: Numbers,
    /// The sizes of ranges that were handed out for the first time.
    pub(crate) batches: Numbers,
}

impl CellStats {
    /// Counts what a member was given.
    pub(crate) fn acquired(&self, ranges: &[AcquiredRange]) {
        for range in ranges.iter().filter(|range| range.delivery_count == 1) {
            let size = range.last_offset - range.first_offset + 1;
            self.batches.add(u64::try_from(size).unwrap_or(0));
        }
    }

    /// Counts a request that kept others from reading for `held`, `idle` after the one before, if
    /// there was one.
    pub(crate) fn was_read(&self, held: Duration, idle: Option<Duration>) {
        self.reading.add(held);
        if let Some(idle) = idle {
            let whole = (held + idle).as_nanos();
            let percent = (held.as_nanos() * 100).checked_div(whole).unwrap_or(100);
            self.read_percent.add(u64::try_from(percent).unwrap_or(100));
        }
    }
}

/// What is counted of one group.
#[derive(Debug, Default)]
pub(crate) struct GroupStats {
    /// Records by what members said of them: accept, release, reject, renew.
    pub(crate) acknowledged: [Counter; 4],
    /// How long it took to load partitions.
    pub(crate) loads: Durations,
    /// How long requests waited until they could read for partitions, or found that they could not.
    pub(crate) acquires: Durations,
    /// Of the partitions that a request asked for, those that were read for it, in percent.
    pub(crate) read_percent: Numbers,
    /// When it was last used here, in monotonic milliseconds.
    pub(super) used_ms: AtomicU64,
}

/// The types of acknowledgements in the order of [`GroupStats::acknowledged`], as metrics name them.
pub(crate) const ACK_TYPES: [&str; 4] = ["Accept", "Release", "Reject", "Renew"];

impl GroupStats {
    /// Counts a request that is answered.
    pub(crate) fn answered(&self, asked: usize, read: usize) {
        let percent = (read * 100).checked_div(asked).unwrap_or(0);
        self.read_percent.add(u64::try_from(percent).unwrap_or(0));
    }

    /// Counts what a member said, if it was taken.
    pub(crate) fn acknowledged(&self, acknowledgements: &[Acknowledgement]) {
        for acknowledgement in acknowledgements {
            let all = acknowledgement.last_offset - acknowledgement.first_offset + 1;
            let each = match acknowledgement.types[..] {
                [_] => u64::try_from(all).unwrap_or(0),
                _ => 1,
            };
            for kind in &acknowledgement.types {
                let at = match kind {
                    AcknowledgeType::Gap => continue,
                    AcknowledgeType::Accept => 0,
                    AcknowledgeType::Release => 1,
                    AcknowledgeType::Reject => 2,
                    AcknowledgeType::Renew => 3,
                };
                self.acknowledged[at].add(each);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_counted_by_what_was_said_of_them() {
        use AcknowledgeType::{Accept, Gap, Reject, Renew};
        let said = |first_offset, last_offset, types: &[_]| Acknowledgement {
            first_offset,
            last_offset,
            types: types.to_vec(),
        };
        let stats = GroupStats::default();
        stats.acknowledged(&[
            said(0, 9, &[Accept]),
            said(10, 13, &[Reject, Gap, Accept, Renew]),
        ]);
        assert_eq!(
            stats.acknowledged.each_ref().map(Counter::get),
            [11, 0, 1, 1]
        );
    }

    #[test]
    fn only_what_is_handed_out_for_the_first_time_is_a_new_batch() {
        let range = |first_offset, last_offset, delivery_count| AcquiredRange {
            first_offset,
            last_offset,
            delivery_count,
        };
        let stats = CellStats::default();
        stats.acquired(&[range(0, 9, 2), range(10, 14, 1), range(15, 15, 1)]);
        let batches = &stats.batches;
        assert_eq!((batches.count.get(), batches.sum.get()), (2, 6));
    }

    #[test]
    fn how_busy_a_partition_is_shows_from_its_second_request_on() {
        let ms = Duration::from_millis;
        let stats = CellStats::default();
        stats.was_read(ms(5), None);
        assert_eq!(stats.read_percent.count.get(), 0);
        for (held, idle, percent) in [(1, 3, 25), (2, 1, 66), (0, 7, 0), (0, 0, 100)] {
            let before = stats.read_percent.sum.get();
            stats.was_read(ms(held), Some(ms(idle)));
            assert_eq!(stats.read_percent.sum.get() - before, percent);
        }
        assert_eq!(stats.reading.count.get(), 5);
        assert_eq!(stats.reading.sum_us.get(), 8_000);
    }

    #[test]
    fn requests_tell_how_many_of_their_partitions_they_got() {
        let stats = GroupStats::default();
        for (asked, read) in [(4, 3), (3, 0), (0, 0), (3, 2)] {
            stats.answered(asked, read);
        }
        let percent = &stats.read_percent;
        assert_eq!((percent.count.get(), percent.sum.get()), (4, 75 + 66));
    }
}
