//! A connection without a socket: requests in, bytes out; bytes in, answers out.
//!
//! - [`VersionTable`]: what the broker serves, and the version that both sides know.
//! - [`Requests`] have correlation ids and wait for their [`Answers`], which are cut
//!   out of what arrives.

mod versions;
mod wire;

#[cfg(test)]
mod tests;

pub use versions::VersionTable;
pub use wire::{Answer, Answers, Requests};
