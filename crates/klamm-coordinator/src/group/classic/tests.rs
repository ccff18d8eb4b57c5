//! The rules of the classic protocol, one test each. Verdicts were compared with Kafka 4.3.1.

mod crowds;
mod joining;
mod leaving;
mod rebalancing;
mod statics;
mod syncing;
