//! **Every request is answered.** Once writes go through and time has passed, no request is left
//! without an answer.
//!
//! Source: a parked request that is forgotten hangs a client. Known false positives: none: the
//! longest that a request may be parked is a rebalance timeout.

use std::collections::BTreeMap;

use klamm_coordinator::runtime::ReplyToken;

use super::super::Violation;

/// Checks the property over the requests still open.
pub fn check(open: &BTreeMap<ReplyToken, String>) -> Result<(), Violation> {
    match open.first_key_value() {
        None => Ok(()),
        Some((token, what)) => Err(Violation::new(
            "answers",
            format!("\"{what}\" ({}) was never answered", token.0),
        )),
    }
}
