use std::collections::VecDeque;

/// Appends remembered one by one before neighbours are merged.
const RUNS_MAX: usize = 64;

/// Counts the bytes of a log that lie between two positions of an offset that moves forward.
///
/// Appends tell offset and size; the high watermark and the last stable offset follow later and
/// tell offsets alone. Between the two the ledger remembers where each append ended. Where both
/// follow at once, the usual case of a single replica, it remembers nothing.
///
/// If they stay behind for many appends (an open transaction), neighbouring appends are merged,
/// and a merged run counts as a whole once its first part is passed. So the ledger may count bytes
/// early, never late; whoever is woken by it looks again.
#[derive(Debug, Default)]
pub struct ByteLedger {
    appended: u64,
    committed: u64,
    stable: u64,
    runs: VecDeque<Run>,
    first_run_start: i64,
}

#[derive(Clone, Copy, Debug)]
struct Run {
    /// Offset after the last record of the run.
    end_offset: i64,
    /// Bytes appended up to that offset.
    total: u64,
}

/// Bytes that have become readable, by how far a reader may see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readable {
    /// To the end of the log (followers).
    pub appended: u64,
    /// To the high watermark.
    pub committed: u64,
    /// To the last stable offset (`read_committed`).
    pub stable: u64,
}

impl ByteLedger {
    /// Notes an append of `bytes` up to `end_offset`, after which the high watermark and the last
    /// stable offset are as given. Returns what has become readable since the last call.
    pub fn appended(
        &mut self,
        end_offset: i64,
        bytes: u64,
        high_watermark: i64,
        last_stable_offset: i64,
    ) -> Readable {
        self.appended += bytes;
        if self.runs.is_empty() && last_stable_offset >= end_offset && high_watermark >= end_offset
        {
            let readable = Readable {
                appended: bytes,
                committed: self.appended - self.committed,
                stable: self.appended - self.stable,
            };
            self.committed = self.appended;
            self.stable = self.appended;
            return readable;
        }
        if self.runs.is_empty() {
            self.first_run_start = end_offset - 1;
        }
        // Appends may be reported the other way around; the later offset covers both.
        let end_offset = self
            .runs
            .back()
            .map_or(end_offset, |last| last.end_offset.max(end_offset));
        self.runs.push_back(Run {
            end_offset,
            total: self.appended,
        });
        if self.runs.len() > RUNS_MAX {
            self.merge();
        }
        Readable {
            appended: bytes,
            ..self.moved(high_watermark, last_stable_offset)
        }
    }

    /// Notes that the high watermark or the last stable offset moved. Returns what has become
    /// readable.
    pub fn moved(&mut self, high_watermark: i64, last_stable_offset: i64) -> Readable {
        let committed = self.total_below(high_watermark).max(self.committed);
        let stable = self.total_below(last_stable_offset).max(self.stable);
        let readable = Readable {
            appended: 0,
            committed: committed - self.committed,
            stable: stable - self.stable,
        };
        self.committed = committed;
        self.stable = stable;
        let settled = high_watermark.min(last_stable_offset);
        while let Some(run) = self.runs.front()
            && run.end_offset <= settled
        {
            self.first_run_start = run.end_offset;
            self.runs.pop_front();
        }
        readable
    }

    /// Bytes up to the end of the run that `offset` is in.
    fn total_below(&self, offset: i64) -> u64 {
        if self.runs.is_empty() {
            return self.appended;
        }
        if offset <= self.first_run_start {
            return 0;
        }
        let run = self.runs.partition_point(|run| run.end_offset < offset);
        self.runs
            .get(run)
            .or(self.runs.back())
            .map_or(0, |run| run.total)
    }

    /// Halves the number of runs.
    fn merge(&mut self) {
        let kept = self.runs.iter().skip(1).step_by(2).copied();
        let odd_one = (self.runs.len() % 2 == 1).then(|| self.runs.back().copied());
        self.runs = kept.chain(odd_one.flatten()).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readable(appended: u64, committed: u64, stable: u64) -> Readable {
        Readable {
            appended,
            committed,
            stable,
        }
    }

    #[test]
    fn with_one_replica_all_is_readable_at_once() {
        let mut ledger = ByteLedger::default();
        assert_eq!(ledger.appended(10, 100, 10, 10), readable(100, 100, 100));
        assert_eq!(ledger.appended(20, 50, 25, 25), readable(50, 50, 50));
        assert!(ledger.runs.is_empty());
        assert_eq!(ledger.moved(25, 25), readable(0, 0, 0));
    }

    #[test]
    fn bytes_follow_the_high_watermark_and_the_stable_offset() {
        let mut ledger = ByteLedger::default();
        ledger.appended(10, 100, 10, 10);
        assert_eq!(ledger.appended(20, 10, 10, 10), readable(10, 0, 0));
        assert_eq!(ledger.appended(30, 20, 10, 10), readable(20, 0, 0));
        assert_eq!(ledger.appended(40, 30, 10, 10), readable(30, 0, 0));
        assert_eq!(ledger.moved(20, 10), readable(0, 10, 0));
        assert_eq!(ledger.moved(40, 30), readable(0, 50, 30));
        assert_eq!(ledger.runs.len(), 1);
        assert_eq!(ledger.moved(40, 40), readable(0, 0, 30));
        assert!(ledger.runs.is_empty());
    }

    #[test]
    fn a_run_counts_once_its_first_record_is_passed() {
        let mut ledger = ByteLedger::default();
        ledger.appended(20, 10, 0, 0);
        ledger.appended(30, 20, 0, 0);
        assert_eq!(ledger.moved(25, 0), readable(0, 30, 0));
        assert_eq!(ledger.moved(30, 0), readable(0, 0, 0));
        assert_eq!(ledger.moved(30, 30), readable(0, 0, 30));
    }

    #[test]
    fn memory_is_bounded_and_no_byte_is_lost() {
        let mut ledger = ByteLedger::default();
        for append in 1..=1_000 {
            ledger.appended(append * 10, 7, 0, 0);
            assert!(ledger.runs.len() <= RUNS_MAX);
        }
        let mut committed = 0;
        for offset in 0..=10_000 {
            committed += ledger.moved(offset, 0).committed;
            // Early at most, never late.
            assert!(committed as i64 >= offset / 10 * 7);
        }
        assert_eq!(committed, 7_000);
        assert_eq!(ledger.moved(10_000, 10_000).stable, 7_000);
        assert!(ledger.runs.is_empty());
    }
}
