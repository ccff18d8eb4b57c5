use std::time::Duration;

/// Time over which the rate is measured, as in Kafka.
const PERIOD: Duration = Duration::from_millis(300);

/// Holds what is read and written to a rate. Pure: it is told the time and says how long to wait.
#[derive(Clone, Debug)]
pub struct Throttle {
    bytes_per_second: f64,
    period_start: Duration,
    bytes: f64,
}

impl Throttle {
    /// A throttle to `bytes_per_second`, at the monotonic time `now`.
    pub fn new(bytes_per_second: f64, now: Duration) -> Throttle {
        Throttle {
            bytes_per_second,
            period_start: now,
            bytes: 0.0,
        }
    }

    /// Changes the rate from now on.
    pub fn set_rate(&mut self, bytes_per_second: f64) {
        self.bytes_per_second = bytes_per_second;
    }

    /// Notes bytes that were just read or written. Returns how long to wait before the next.
    pub fn observe(&mut self, bytes: u64, now: Duration) -> Duration {
        let bytes = bytes as f64;
        self.bytes += bytes;
        let elapsed = now.saturating_sub(self.period_start);
        if elapsed < PERIOD || self.bytes <= 0.0 {
            return Duration::ZERO;
        }
        let due_seconds = self.bytes / self.bytes_per_second;
        let wait_seconds = due_seconds - elapsed.as_secs_f64();
        // A rate of nothing, or of next to it, waits for as long as one can tell.
        let wait = if wait_seconds > 0.0 {
            Duration::try_from_secs_f64(wait_seconds).unwrap_or(Duration::MAX)
        } else {
            Duration::ZERO
        };
        self.period_start = now.saturating_add(wait);
        self.bytes = 0.0;
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn holds_to_the_rate() {
        let mut throttle = Throttle::new(1_000.0, Duration::ZERO);
        let mut now = Duration::ZERO;
        for _ in 0..1_000 {
            now += Duration::from_millis(10);
            now += throttle.observe(100, now);
        }
        let seconds = now.as_secs_f64();
        assert!((95.0..105.0).contains(&seconds), "{seconds}");
    }

    #[test]
    fn does_not_wait_below_the_rate_or_without_one() {
        let mut throttle = Throttle::new(1_000.0, Duration::ZERO);
        assert_eq!(throttle.observe(900, SECOND), Duration::ZERO);
        let mut throttle = Throttle::new(f64::MAX, Duration::ZERO);
        assert_eq!(throttle.observe(u64::MAX, SECOND), Duration::ZERO);
    }

    #[test]
    fn takes_a_new_rate() {
        let mut throttle = Throttle::new(f64::MAX, Duration::ZERO);
        throttle.set_rate(100.0);
        assert_eq!(throttle.observe(200, SECOND), SECOND);
    }

    #[test]
    fn a_rate_of_nothing_waits_for_ever() {
        let mut throttle = Throttle::new(0.0, Duration::ZERO);
        assert_eq!(throttle.observe(1, SECOND), Duration::MAX);
    }
}
