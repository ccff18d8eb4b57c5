//! Kafka record batches: view, validate, patch, build, walk; compression; ids
