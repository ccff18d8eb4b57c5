//! Who waits for a partition to move on, as data structures without tasks or timers.
//!
//! - [`AckQueue`]: appends that wait for the high watermark, by the offset they need.
//! - [`FetchWaiters`]: fetches that wait for bytes. Each append or commit credits the waiting
//!   fetches with the bytes that became readable, so that a fetch is woken once, when its
//!   `min.bytes` are there, and not once per append.
//! - [`ByteLedger`]: how many bytes lie below an offset that moves.
//! - [`DeadlineQueue`]: whose time is up.
//!
//! The element types are the driver's; nothing here knows how a waiter is woken.

mod acks;
mod deadlines;
mod fetches;
mod ledger;

pub use acks::AckQueue;
pub use deadlines::{DeadlineKey, DeadlineQueue};
pub use fetches::{FetchWaiters, Isolation, WaiterKey};
pub use ledger::{ByteLedger, Readable};
