//! Programs that show Klamm's crates at work: `embedded_broker` (the whole broker inside a program),
//! `codec` (the protocol alone). The log alone is `crates/klamm-log/examples/embedded_log.rs`.
//!
//! `cargo run -p klamm-examples --example embedded_broker`
