//! Every Kafka wire message and internal record, generated from Kafka's schemas
