//! Handing records out.

use klamm_protocol::ByteStr;

use super::partition::{ShareLimits, SharePartition};
use super::window::{Delivery, Lock, RecordState, Run, Transition};

/// How strictly `max_records` is meant (KIP-1206). The numbers are those of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcquireMode {
    /// A batch that was begun is handed out as a whole.
    BatchOptimized,
    /// Never more than asked for.
    RecordLimit,
}

impl AcquireMode {
    /// The mode of a number.
    pub fn from_id(id: i8) -> Option<Self> {
        match id {
            0 => Some(AcquireMode::BatchOptimized),
            1 => Some(AcquireMode::RecordLimit),
            _ => None,
        }
    }
}

/// The offsets of a batch that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchSpan {
    /// Its first offset.
    pub base_offset: i64,
    /// Its last offset.
    pub last_offset: i64,
    /// Whether it belongs to an aborted transaction, which the group is not to see.
    pub is_aborted: bool,
}

/// Records that a member wants, and what was read for it.
#[derive(Clone, Debug)]
pub struct AcquireRequest<'a> {
    /// Who.
    pub member: &'a ByteStr,
    /// How strict.
    pub mode: AcquireMode,
    /// How many records at most.
    pub max_records: i32,
    /// How many records a range of the answer should have, where batches allow it.
    pub batch_size: i32,
    /// Where the read began: [`SharePartition::next_fetch_offset`] at that time.
    pub fetch_offset: i64,
    /// The batches that were read, in order.
    pub batches: &'a [BatchSpan],
}

/// Records that a member has now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcquiredRange {
    /// The first.
    pub first_offset: i64,
    /// The last.
    pub last_offset: i64,
    /// How often they were handed out, this time included.
    pub delivery_count: i16,
}

/// An acquisition under way.
struct Acquiring<'a> {
    request: &'a AcquireRequest<'a>,
    limits: &'a ShareLimits,
    lock: Lock,
    taken: i64,
    ranges: Vec<AcquiredRange>,
}

impl Acquiring<'_> {
    fn wanted(&self) -> i64 {
        i64::from(self.request.max_records) - self.taken
    }

    fn took(&mut self, first: i64, last: i64, delivery_count: i16) {
        self.taken += last - first + 1;
        // New records keep the bounds of their batches.
        if let Some(range) = self.ranges.last_mut()
            && range.last_offset + 1 == first
            && range.delivery_count == delivery_count
            && delivery_count > 1
        {
            range.last_offset = last;
            return;
        }
        self.ranges.push(AcquiredRange {
            first_offset: first,
            last_offset: last,
            delivery_count,
        });
    }
}

impl SharePartition {
    /// Hands out what is available of the batches that were read, within the limits. Empty if
    /// nothing is.
    pub fn acquire(
        &mut self,
        request: &AcquireRequest<'_>,
        limits: &ShareLimits,
        now_ms: u64,
    ) -> Vec<AcquiredRange> {
        let (Some(first), Some(last)) = (request.batches.first(), request.batches.last()) else {
            return Vec::new();
        };
        if request.max_records <= 0 {
            return Vec::new();
        }
        self.archive_missing(request.fetch_offset, first.base_offset - 1);
        let first_offset = first.base_offset.max(self.start_offset);
        let duration_ms = u64::try_from(limits.lock_duration_ms).unwrap_or(0);
        let mut acquiring = Acquiring {
            request,
            limits,
            lock: Lock {
                member: request.member.detached(),
                deadline_ms: now_ms.saturating_add(duration_ms),
            },
            taken: 0,
            ranges: Vec::new(),
        };
        let goes_on = self.acquire_again(&mut acquiring, first_offset, last.last_offset);
        if goes_on {
            self.acquire_new(&mut acquiring, first_offset, last.last_offset);
        }
        let ranges = acquiring.ranges;
        let ranges = self.archive_aborted(ranges, request.batches);
        self.advance();
        ranges
    }

    /// Records that were to be read and are not in the log, as compaction leaves it.
    fn archive_missing(&mut self, first: i64, last: i64) {
        for (first, run) in self.window.within(first, last) {
            if run.is_available() {
                self.window.set(first, run.last, |run| {
                    run.now = Delivery::new(RecordState::Archived, run.now.count);
                });
            }
        }
    }

    /// Hands out records of the window. Tells whether to go on behind it.
    fn acquire_again(&mut self, acquiring: &mut Acquiring<'_>, first: i64, last: i64) -> bool {
        let limits = acquiring.limits;
        let max = limits.delivery_count_max;
        let throttle_from = ((max + 1) / 2).max(2);
        // How much may still be taken of a batch that was delivered often.
        let mut share: Option<((i64, i64), i64)> = None;
        for (first, run) in self.window.within(first, last.min(self.end_offset)) {
            if acquiring.wanted() <= 0 {
                return false;
            }
            if !run.is_available() {
                continue;
            }
            let count = run.now.count;
            let available = run.last - first + 1;
            let mut take = match acquiring.request.mode {
                AcquireMode::BatchOptimized => available,
                AcquireMode::RecordLimit => available.min(acquiring.wanted()),
            };
            let is_last_attempt = max > 2 && count == max - 1;
            if is_last_attempt {
                // Alone, so that a record that brings its member down takes no other along.
                if acquiring.taken > 0 {
                    return false;
                }
                take = 1;
            } else if count >= throttle_from {
                let left = match share {
                    // The part before took all of it.
                    Some((origin, 0)) if origin == run.origin => return false,
                    Some((origin, left)) if origin == run.origin => left,
                    _ => {
                        let size = run.origin.1 - run.origin.0 + 1;
                        (size >> (count - throttle_from + 1)).max(1)
                    }
                };
                take = take.min(left);
                share = Some((run.origin, left - take));
            }
            self.hand_out(acquiring, first, first + take - 1, count + 1);
            let is_throttled =
                share.is_some_and(|(origin, left)| origin == run.origin && left == 0);
            if is_last_attempt || (is_throttled && take < available) {
                return false;
            }
        }
        acquiring.wanted() > 0
    }

    /// Hands out records behind the window, as far as it may grow.
    fn acquire_new(&mut self, acquiring: &mut Acquiring<'_>, first: i64, last: i64) {
        let room = i64::from(acquiring.limits.in_flight_max) - self.in_flight();
        let wanted = acquiring.wanted().min(room);
        let first = first.max(self.end_offset + 1);
        if wanted <= 0 || first > last {
            return;
        }
        let batches = acquiring.request.batches;
        let until = (first + wanted - 1).min(last);
        let until = match acquiring.request.mode {
            AcquireMode::RecordLimit => until,
            // To the end of the batch.
            AcquireMode::BatchOptimized => {
                let of = batches.iter().find(|batch| batch.last_offset >= until);
                of.map_or(until, |batch| batch.last_offset)
            }
        };
        if first > self.end_offset + 1 {
            if self.window.is_empty() {
                self.start_offset = first;
                self.end_offset = first - 1;
            } else {
                // No records there: nothing to hand out, ever.
                self.extend(first - 1, Delivery::new(RecordState::Archived, 0));
            }
        }
        let mut from = first;
        if acquiring.request.mode == AcquireMode::BatchOptimized {
            let size = i64::from(acquiring.request.batch_size.max(1));
            for batch in batches.iter().filter(|batch| batch.base_offset > first) {
                if batch.base_offset > until {
                    break;
                }
                if batch.base_offset - from >= size {
                    self.hand_out_new(acquiring, from, batch.base_offset - 1);
                    from = batch.base_offset;
                }
            }
        }
        self.hand_out_new(acquiring, from, until);
    }

    fn hand_out_new(&mut self, acquiring: &mut Acquiring<'_>, first: i64, last: i64) {
        self.extend(last, Delivery::new(RecordState::Available, 0));
        self.hand_out(acquiring, first, last, 1);
    }

    fn hand_out(&mut self, acquiring: &mut Acquiring<'_>, first: i64, last: i64, count: i16) {
        let lock = acquiring.lock.clone();
        self.window.set(first, last, |run: &mut Run| {
            run.now = Delivery {
                state: RecordState::Acquired,
                count,
                lock: Some(lock),
            };
        });
        acquiring.took(first, last, count);
    }

    /// Takes records of aborted transactions out of what was handed out.
    fn archive_aborted(
        &mut self,
        ranges: Vec<AcquiredRange>,
        batches: &[BatchSpan],
    ) -> Vec<AcquiredRange> {
        if batches.iter().all(|batch| !batch.is_aborted) {
            return ranges;
        }
        let mut kept = Vec::with_capacity(ranges.len());
        for range in ranges {
            let mut from = range.first_offset;
            for batch in batches.iter().filter(|batch| batch.is_aborted) {
                let first = batch.base_offset.max(from);
                let last = batch.last_offset.min(range.last_offset);
                if first > last {
                    continue;
                }
                if from < first {
                    kept.push(AcquiredRange {
                        first_offset: from,
                        last_offset: first - 1,
                        ..range
                    });
                }
                for (first, run) in self.window.within(first, last) {
                    self.window.set(first, run.last, |run| {
                        run.now = Delivery::new(RecordState::Archived, run.now.count);
                    });
                }
                from = last + 1;
            }
            if from <= range.last_offset {
                kept.push(AcquiredRange {
                    first_offset: from,
                    ..range
                });
            }
        }
        kept
    }

    /// Begins a change of records that is to be written.
    pub(super) fn begin(&mut self, ticket: u64, first: i64, last: i64, to: Delivery) {
        for (first, run) in self.window.within(first, last) {
            let to = to.clone();
            self.window.set(first, run.last, |run| {
                let before = std::mem::replace(&mut run.now, to);
                run.transition = Some(Transition { ticket, before });
            });
        }
    }
}
