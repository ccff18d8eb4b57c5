//! Kafka's storage engine as a crate: segments, indexes, recovery, retention
