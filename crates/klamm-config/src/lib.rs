//! Kafka's broker and topic configurations: names, types, defaults, validity, sources
