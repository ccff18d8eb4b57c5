//! A machine that can be broken on purpose.
//!
//! - [`SimRng`]: all randomness of a run, from its seed;
//! - [`Trace`]: what happened, with a hash over it: the same seed gives the same trace;
//! - [`SimClock`] and [`Executor`]: virtual time and tasks in an order that the seed decides;
//! - [`Network`]: requests between processes, which come late, twice or not at all;
//! - [`SimFs`]: a file system that forgets what was not synced;
//! - [`scenarios`]: what is run under all that, and the properties that must hold.

#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod clock;
mod executor;
pub mod fs;
mod net;
mod rng;
pub mod scenarios;
mod trace;

pub use clock::SimClock;
pub use executor::{Executor, Process, Sleep, Stalled, poll_once};
pub use fs::{Errno, Faults, SimFs};
pub use net::{Address, NetFaults, Network, NoAnswer};
pub use rng::SimRng;
pub use trace::Trace;
