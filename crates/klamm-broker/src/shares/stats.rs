//! What is counted of share partitions and of the groups that read them, under the names of Kafka's
//! `SharePartitionMetrics` and `ShareGroupMetrics`.

use std::time::Duration;

use klamm_coordinator::share_partition::{AcknowledgeType, Acknowledgement};

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

/// What is counted of one partition as one group reads it, since it was loaded.
#[derive(Debug, Default)]
pub(crate) struct CellStats {
    /// Records that came back because their lock ran out.
    pub(crate) lock_timeouts: Counter,
    /// How long requests kept others from reading for it.
    pub(crate) reading: Durations,
}

/// What is counted of one group.
#[derive(Debug, Default)]
pub(crate) struct GroupStats {
    /// Records by what members said of them: accept, release, reject, renew.
    pub(crate) acknowledged: [Counter; 4],
    /// How long it took to load partitions.
    pub(crate) loads: Durations,
}

/// The types of acknowledgements in the order of [`GroupStats::acknowledged`], as metrics name them.
pub(crate) const ACK_TYPES: [&str; 4] = ["Accept", "Release", "Reject", "Renew"];

impl GroupStats {
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
}
