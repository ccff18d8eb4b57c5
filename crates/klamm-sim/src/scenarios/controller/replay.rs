//! **Replay.** The image is what the log says: reading all records from the start gives the same
//! image, and so does reading the snapshot made of it.
//!
//! Source: brokers and new controllers have nothing but the log. Known false positives: none.

use std::sync::Arc;

use klamm_metadata::{MetadataDelta, MetadataImage};
use klamm_protocol::metadata::MetadataRecord;

use super::super::Violation;
use super::cluster::Cluster;

/// Checks the property.
pub fn check(cluster: &Cluster) -> Result<(), Violation> {
    let mut from_log = MetadataDelta::new(Arc::default());
    for value in &cluster.log {
        let record = MetadataRecord::decode_value(value.clone())
            .map_err(|error| Violation::new("replay", error.to_string()))?;
        replay(&mut from_log, &record)?;
    }
    compare(cluster, &mut from_log, "the log")?;
    let mut from_snapshot = MetadataDelta::new(Arc::default());
    for record in cluster.image.to_records() {
        replay(&mut from_snapshot, &record)?;
    }
    compare(cluster, &mut from_snapshot, "the snapshot")
}

fn replay(delta: &mut MetadataDelta, record: &MetadataRecord) -> Result<(), Violation> {
    delta
        .replay(record)
        .map_err(|error| Violation::new("replay", format!("{error} in {record:?}")))
}

fn compare(cluster: &Cluster, delta: &mut MetadataDelta, what: &str) -> Result<(), Violation> {
    let image: Arc<MetadataImage> = delta.finish(cluster.image.provenance());
    if *image == *cluster.image {
        return Ok(());
    }
    let topic = cluster.image.topics().iter().find(|topic| {
        image
            .topic_by_id(topic.id())
            .is_none_or(|other| other != *topic)
    });
    Err(Violation::new(
        "replay",
        format!("{what} gives another image; first topic that differs: {topic:?}"),
    ))
}
