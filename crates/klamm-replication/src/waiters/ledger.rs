use std::collections::VecDeque;

/// Appends remembered one by one before neighbours are merged.
const RUNS_MAX: usize = 64;

/// Counts the bytes of a log that lie between two positions of an offset that moves forward.
///
/// Appends tell offset and size; the high watermark and the last stable offset follow later and
/// tell offsets alone. Between the two the ledger remembers where each append ended. Where both
/// follow at once, the usual case of a single replica, it remembers nothing.
///
/// If they stay behind for many appends (an open transaction), neighbouring appends are merged
/// into runs, and it is not known how many bytes lie below an offset within a run. A move into a
/// run then counts as if all of the run had become readable, and so does the move to its end. So
/// the ledger may count bytes too often, never too seldom: whoever is woken by it looks again.
#[derive(Debug, Default)]
pub struct ByteLedger {
    appended: u64,
    committed: Position,
    stable: Position,
    /// Appends that are not both committed and stable, in order.
    runs: VecDeque<Run>,
    /// Where the first run starts, or a lower offset.
    first_run_start: i64,
}

/// How far a reader may see.
#[derive(Clone, Copy, Debug, Default)]
struct Position {
    offset: i64,
    /// Bytes up to the end of the last run that is wholly below the offset.
    total: u64,
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
    /// A ledger for a log that is there already: all below `settled` is readable by everyone, and
    /// what lies between it and `end_offset` counts as `bytes`.
    pub fn starting_at(settled: i64, end_offset: i64, bytes: u64) -> Self {
        let mut ledger = ByteLedger::default();
        if settled < end_offset {
            ledger.appended = bytes;
            ledger.first_run_start = settled;
            ledger.committed.offset = settled;
            ledger.stable.offset = settled;
            ledger.runs.push_back(Run {
                end_offset,
                total: bytes,
            });
        }
        ledger
    }

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
        let settled = high_watermark.min(last_stable_offset);
        if !(self.runs.is_empty() && settled >= end_offset) {
            if self.runs.is_empty() {
                self.first_run_start = settled;
            }
            // Appends may be reported the other way around; the later offset covers both.
            let last_end = self.runs.back().map_or(end_offset, |last| last.end_offset);
            self.runs.push_back(Run {
                end_offset: last_end.max(end_offset),
                total: self.appended,
            });
            if self.runs.len() > RUNS_MAX {
                self.merge();
            }
        }
        Readable {
            appended: bytes,
            ..self.moved(high_watermark, last_stable_offset)
        }
    }

    /// Notes that the high watermark or the last stable offset moved. Returns what has become
    /// readable.
    pub fn moved(&mut self, high_watermark: i64, last_stable_offset: i64) -> Readable {
        let (committed, committed_bytes) = self.advance(self.committed, high_watermark);
        let (stable, stable_bytes) = self.advance(self.stable, last_stable_offset);
        self.committed = committed;
        self.stable = stable;
        let settled = high_watermark.min(last_stable_offset);
        while let Some(run) = self.runs.front()
            && run.end_offset <= settled
        {
            self.first_run_start = run.end_offset;
            self.runs.pop_front();
        }
        Readable {
            appended: 0,
            committed: committed_bytes,
            stable: stable_bytes,
        }
    }

    /// Where a reader stands once it may see up to `offset`, and the bytes to count for the move.
    fn advance(&self, from: Position, offset: i64) -> (Position, u64) {
        let passed = self.runs.partition_point(|run| run.end_offset <= offset);
        let (below_start, total) = match passed.checked_sub(1).and_then(|i| self.runs.get(i)) {
            Some(run) => (run.end_offset, run.total),
            None => (self.first_run_start, from.total),
        };
        let Some(run) = self.runs.get(passed) else {
            // Nothing remembered lies above.
            let to = Position {
                offset,
                total: self.appended,
            };
            return (to, self.appended - from.total);
        };
        let total = total.max(from.total);
        let within = offset > below_start && offset > from.offset;
        let partly = if within {
            run.total.saturating_sub(total)
        } else {
            0
        };
        (Position { offset, total }, total - from.total + partly)
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
    fn a_run_counts_as_a_whole_with_each_move_into_it() {
        let mut ledger = ByteLedger::default();
        ledger.appended(20, 10, 0, 0);
        ledger.appended(30, 20, 0, 0);
        assert_eq!(ledger.moved(20, 0), readable(0, 10, 0));
        assert_eq!(ledger.moved(25, 0), readable(0, 20, 0));
        assert_eq!(ledger.moved(25, 0), readable(0, 0, 0));
        assert_eq!(ledger.moved(30, 0), readable(0, 20, 0));
        assert_eq!(ledger.moved(30, 30), readable(0, 0, 30));
        assert!(ledger.runs.is_empty());
    }

    #[test]
    fn what_was_there_before_counts_with_each_move_into_it() {
        let mut ledger = ByteLedger::starting_at(5, 9, 1_000);
        assert_eq!(ledger.moved(5, 5), readable(0, 0, 0));
        assert_eq!(ledger.moved(6, 5), readable(0, 1_000, 0));
        assert_eq!(ledger.appended(10, 7, 6, 5), readable(7, 0, 0));
        assert_eq!(ledger.moved(10, 10), readable(0, 1_007, 1_007));
        let nothing = ByteLedger::starting_at(5, 5, 9).moved(5, 5);
        assert_eq!(nothing, readable(0, 0, 0));
    }

    #[test]
    fn memory_is_bounded_and_no_move_is_lost() {
        let mut ledger = ByteLedger::default();
        for append in 1..=1_000 {
            ledger.appended(append * 10, 7, 0, 0);
            assert!(ledger.runs.len() <= RUNS_MAX);
        }
        for offset in 1..=1_000 {
            assert!(ledger.moved(offset * 10, 0).committed >= 7, "{offset}");
        }
        assert_eq!(ledger.moved(10_000, 10_000).stable, 7_000);
        assert!(ledger.runs.is_empty());
    }
}
