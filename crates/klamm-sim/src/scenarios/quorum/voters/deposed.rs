//! **Who has lost its vote steps down.** A controller that does not vote any more decides until the
//! others have taken over, and not for longer.
//!
//! Source: KIP-853: a leader that is removed resigns once that is committed. Known false positives:
//! none; what is allowed is many times what it takes, with the longest pause.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::super::Violation;

/// How long one may decide that does not vote.
const LONGEST: Duration = Duration::from_secs(30);

/// Since when controllers decide without a vote.
#[derive(Debug, Default)]
pub struct Deposed(BTreeMap<i32, Duration>);

impl Deposed {
    /// Notes whether a controller decides without a vote.
    pub fn check(&mut self, id: i32, is_deposed: bool, now: Duration) -> Result<(), Violation> {
        if !is_deposed {
            self.0.remove(&id);
            return Ok(());
        }
        let since = *self.0.entry(id).or_insert(now);
        if now - since <= LONGEST {
            return Ok(());
        }
        let detail = format!("{id} decides since {since:?}, and does not vote");
        Err(Violation::new("deposed", detail))
    }
}
