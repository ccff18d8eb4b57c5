use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// An append that takes longer was held up by the disk: a copy of a whole mebibyte into memory
/// takes a fraction of a millisecond.
const SLOW: Duration = Duration::from_millis(20);
/// How long appends count as slow after one was. While they do, each is handed to another thread,
/// which costs more than the append itself; so not for long after a wait that may have been one for a
/// processor, and as long as it takes if appends go on being slow.
const SLOW_FOR: Duration = Duration::from_millis(100);
/// Bytes whose writeback may be due and not begun: the device does not take them as they come.
const PENDING_MAX: u64 = 64 << 20;

/// Whether the device of a directory keeps up with the appends there.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// Bytes whose writeback was asked for and has not begun.
    pending_bytes: AtomicU64,
    /// Until when appends count as slow, in nanoseconds of the monotonic clock.
    slow_until_ns: AtomicU64,
}

impl Pace {
    /// Notes an append that took `took` and ended at `now`.
    pub(crate) fn appended(&self, took: Duration, now: Duration) {
        if took > SLOW {
            let until = now.saturating_add(SLOW_FOR).as_nanos();
            let until = u64::try_from(until).unwrap_or(u64::MAX);
            self.slow_until_ns.fetch_max(until, Ordering::Relaxed);
        }
    }

    /// Notes that the writeback of so many bytes is due.
    pub(crate) fn due(&self, bytes: u64) {
        self.pending_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Notes that the writeback of so many bytes has begun.
    pub(crate) fn begun(&self, bytes: u64) {
        self.pending_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Whether an append is likely to wait for the device. `now` is only asked for if it matters.
    pub(crate) fn is_stalled(&self, now: impl FnOnce() -> Duration) -> bool {
        if self.pending_bytes.load(Ordering::Relaxed) > PENDING_MAX {
            return true;
        }
        let until = self.slow_until_ns.load(Ordering::Relaxed);
        until > 0 && now().as_nanos() < u128::from(until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    #[test]
    fn one_slow_append_counts_for_a_while() {
        let pace = Pace::default();
        pace.appended(SLOW, NOW);
        assert!(!pace.is_stalled(|| NOW));
        pace.appended(SLOW * 2, NOW);
        pace.appended(Duration::ZERO, NOW);
        assert!(pace.is_stalled(|| NOW));
        assert!(pace.is_stalled(|| NOW + SLOW_FOR - Duration::from_nanos(1)));
        assert!(!pace.is_stalled(|| NOW + SLOW_FOR));
    }

    #[test]
    fn a_device_that_falls_behind_stalls_until_it_has_caught_up() {
        let pace = Pace::default();
        pace.due(PENDING_MAX);
        assert!(!pace.is_stalled(|| NOW));
        pace.due(1);
        assert!(pace.is_stalled(|| NOW));
        pace.begun(PENDING_MAX);
        assert!(!pace.is_stalled(|| NOW));
    }
}
