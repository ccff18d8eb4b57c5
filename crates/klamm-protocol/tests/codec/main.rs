//! Tests of the codec as its users see it, in one binary so that they link once.
//!
//! [`golden`] compares with bytes that Kafka wrote; [`mutations`] damages those bytes and looks
//! for panics and unstable readings, with [`targets`] that the fuzzers in `fuzz/` share;
//! [`rejects`] and [`round_trips`] go through the primitive types; [`frames`] through headers and
//! the frames of stored records.

mod all_messages;
mod catalog;
mod golden_file;
mod targets;

mod frames;
mod golden;
mod mutations;
mod rejects;
mod round_trips;
