//! What differs between two images, for whoever goes from one to the other without the records in
//! between: a snapshot was installed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use klamm_records::Uuid;

use crate::delta::{MetadataDelta, TopicDelta};
use crate::image::{MetadataImage, TopicImage};

/// Keys whose values differ, or that only one side has.
fn changed_keys<'a, K: Ord + Clone + 'a, V: PartialEq + 'a>(
    old: impl Iterator<Item = (&'a K, &'a V)>,
    new: impl Iterator<Item = (&'a K, &'a V)>,
) -> BTreeSet<K> {
    let old: BTreeMap<&K, &V> = old.collect();
    let new: BTreeMap<&K, &V> = new.collect();
    let differs = |key: &&&K| old.get(**key) != new.get(**key);
    old.keys()
        .chain(new.keys())
        .filter(differs)
        .map(|key| K::clone(key))
        .collect()
}

fn topic_delta(old: Option<&TopicImage>, new: &TopicImage) -> TopicDelta {
    let partitions = new
        .partitions()
        .filter(|(index, partition)| old.and_then(|old| old.partition(*index)) != Some(partition))
        .map(|(index, _)| index)
        .collect();
    TopicDelta {
        created: old.is_none(),
        partitions,
    }
}

impl MetadataDelta {
    /// The changes that lead from one image to another.
    pub fn between(old: &Arc<MetadataImage>, new: &Arc<MetadataImage>) -> Self {
        let mut delta = MetadataDelta::new(Arc::clone(old));
        delta.image = MetadataImage::clone(new);
        for topic in new.topics.iter() {
            let before = old.topic_by_id(topic.id);
            if before != Some(topic) {
                let change = topic_delta(before.map(|topic| &**topic), topic);
                delta.changed_topics.insert(topic.id, change);
            }
        }
        let gone = |topic: &&Arc<TopicImage>| new.topic_by_id(topic.id).is_none();
        delta.deleted_topics = old
            .topics
            .iter()
            .filter(gone)
            .map(|t| (t.id, Arc::clone(t)))
            .collect::<BTreeMap<Uuid, _>>();
        let (a, b) = (&old.cluster, &new.cluster);
        delta.changed_brokers = changed_keys(a.brokers.iter(), b.brokers.iter());
        delta.changed_controllers = changed_keys(a.controllers.iter(), b.controllers.iter());
        let (a, b) = (&old.configs.resources, &new.configs.resources);
        delta.changed_configs = changed_keys(a.iter(), b.iter());
        let (a, b) = (old.features.finalized(), new.features.finalized());
        delta.changed_features = changed_keys(a.iter(), b.iter());
        let (a, b) = (&old.quotas.entities, &new.quotas.entities);
        delta.changed_quotas = changed_keys(a.iter(), b.iter());
        delta.changed_acls = changed_keys(old.acls.entries.iter(), new.acls.entries.iter());
        let (a, b) = (&old.scram.credentials, &new.scram.credentials);
        delta.changed_scram = changed_keys(a.iter(), b.iter());
        delta.changed_tokens = changed_keys(old.tokens.iter(), new.tokens.iter());
        delta
    }
}
