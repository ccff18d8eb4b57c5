use std::time::Duration;

/// No bandwidth is ever larger.
const UNLIMITED: i64 = i64::MAX;

/// Keeps a transfer below a bandwidth: what is taken too early is waited for afterwards.
///
/// What one second leaves unused may be taken in the next, and no more, so that a pause does not
/// end in a burst. The bandwidth may change at any time.
#[derive(Debug, Default)]
pub struct Throttle {
    /// Bytes that may be taken now; negative if too many were.
    level: i128,
    /// When the level was last raised.
    last: Duration,
}

impl Throttle {
    /// Whether something may be taken at `now`, a monotonic time, with `bytes_per_second` as the
    /// bandwidth; if not, how long that takes at the most.
    ///
    /// # Errors
    /// The time to wait before asking again.
    pub fn check(&mut self, bytes_per_second: i64, now: Duration) -> Result<(), Duration> {
        /// The bandwidth may be changed meanwhile, so nobody waits longer.
        const WAIT_MAX: Duration = Duration::from_secs(1);
        let elapsed = now.saturating_sub(self.last);
        self.last = now;
        if bytes_per_second == UNLIMITED {
            self.level = 0;
            return Ok(());
        }
        let rate = i128::from(bytes_per_second.max(0));
        let earned = i128::try_from(elapsed.as_micros())
            .unwrap_or(i128::MAX)
            .saturating_mul(rate)
            / 1_000_000;
        self.level = self.level.saturating_add(earned).min(rate);
        if self.level > 0 {
            return Ok(());
        }
        let missing = 1 - self.level;
        let wait_us = missing.saturating_mul(1_000_000).checked_div(rate);
        let wait_us = wait_us.and_then(|us| u64::try_from(us).ok());
        Err(wait_us.map_or(WAIT_MAX, |us| {
            Duration::from_micros(us.saturating_add(1)).min(WAIT_MAX)
        }))
    }

    /// Notes that `bytes` were taken.
    pub fn took(&mut self, bytes: u64) {
        self.level = self.level.saturating_sub(i128::from(bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn keeps_to_the_bandwidth_on_average() {
        let mut throttle = Throttle::default();
        let mut now = ms(10_000);
        let mut taken = 0;
        // Chunks of three seconds' worth, asked for as often as it says.
        while now < ms(70_000) {
            match throttle.check(1000, now) {
                Ok(()) => {
                    throttle.took(3000);
                    taken += 3000;
                }
                Err(wait) => now += wait,
            }
        }
        assert!((57_000..=64_000).contains(&taken), "{taken}");
    }

    #[test]
    fn a_pause_saves_up_no_more_than_a_second() {
        let mut throttle = Throttle::default();
        assert!(throttle.check(1000, ms(3_600_000)).is_ok());
        throttle.took(1000);
        assert_eq!(
            throttle.check(1000, ms(3_600_000)),
            Err(Duration::from_micros(1001))
        );
    }

    #[test]
    fn a_bandwidth_may_change_and_may_be_nothing() {
        let mut throttle = Throttle::default();
        assert_eq!(throttle.check(0, ms(5_000)), Err(ms(1_000)));
        assert!(throttle.check(10, ms(6_000)).is_ok());
        throttle.took(1 << 30);
        assert_eq!(throttle.check(10, ms(6_000)), Err(ms(1_000)));
        assert!(throttle.check(i64::MAX, ms(6_000)).is_ok());
        assert!(throttle.check(10, ms(7_000)).is_ok(), "debts are forgiven");
    }
}
