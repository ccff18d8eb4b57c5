//! Klamm: Apache Kafka's job, done in Rust
