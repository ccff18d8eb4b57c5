//! **Ids are given once.** No topic gets an id that another one had, no producer id is in two
//! blocks, and a broker's epoch only grows.
//!
//! Source: fencing everywhere rests on it. Known false positives: none.

use std::collections::BTreeMap;

use klamm_metadata::MetadataImage;
use klamm_records::Uuid;

use super::super::Violation;

/// Ids given out in a run.
#[derive(Clone, Debug, Default)]
pub struct Ids {
    topics: BTreeMap<Uuid, String>,
    broker_epochs: BTreeMap<i32, i64>,
    next_producer_id: i64,
}

impl Ids {
    /// Checks topics and brokers of an image.
    pub fn check(&mut self, image: &MetadataImage) -> Result<(), Violation> {
        for topic in image.topics().iter() {
            let name = self
                .topics
                .entry(topic.id())
                .or_insert_with(|| topic.name().to_string());
            if **name != **topic.name() {
                let detail = format!("{name} and {} have id {}", topic.name(), topic.id());
                return Err(Violation::new("ids", detail));
            }
        }
        for broker in image.brokers() {
            let before = self.broker_epochs.insert(broker.id, broker.epoch);
            if before.is_some_and(|before| before > broker.epoch) {
                let detail = format!(
                    "broker {} went from {before:?} to {}",
                    broker.id, broker.epoch
                );
                return Err(Violation::new("ids", detail));
            }
        }
        Ok(())
    }

    /// Checks a block of producer ids.
    pub fn check_block(&mut self, first: i64, len: i64) -> Result<(), Violation> {
        if first < self.next_producer_id || len <= 0 {
            let next = self.next_producer_id;
            let detail = format!("block {first}+{len}, where {next} is the first that is free");
            return Err(Violation::new("ids", detail));
        }
        self.next_producer_id = first + len;
        Ok(())
    }
}
