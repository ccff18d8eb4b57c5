//! How many partitions repartition topics get: as many as asked for, else as the part that writes
//! them has tasks.

use std::collections::BTreeMap;

use klamm_protocol::ByteStr;
use klamm_protocol::group_records::streams_group_topology_value::Subtopology;

use super::configured::{Counts, Fault};
use super::topology::Topology;

/// Decides partition counts of all repartition topics. All source topics exist.
pub(super) fn decide(
    topology: &Topology,
    counts: &Counts<'_>,
) -> Result<BTreeMap<ByteStr, i32>, Fault> {
    let parts = || topology.subtopologies.values();
    let sources = || parts().flat_map(|part| &part.repartition_source_topics);
    let mut decided: BTreeMap<ByteStr, i32> = sources()
        .filter(|topic| topic.partitions != 0)
        .map(|topic| (topic.name.clone(), topic.partitions))
        .collect();
    // A part's own inputs may be repartition topics: decided one after the other, as far as that
    // gets.
    loop {
        let mut is_open = false;
        let mut got_on = false;
        for part in parts() {
            for sink in &part.repartition_sink_topics {
                if decided.contains_key(sink) {
                    continue;
                }
                match most_inputs(part, &decided, counts) {
                    Some(count) => {
                        decided.insert(sink.clone(), count);
                        got_on = true;
                    }
                    None => is_open = true,
                }
            }
        }
        if !is_open {
            break;
        }
        if !got_on {
            return Err(Fault::invalid(
                "Failed to compute number of partitions for all repartition topics. There may be \
                 loops in the topology that cannot be resolved.",
            ));
        }
    }
    if sources().any(|topic| !decided.contains_key(&topic.name)) {
        return Err(Fault::invalid(
            "Failed to compute number of partitions for all repartition topics, because a \
             repartition source topic is never used as a sink topic.",
        ));
    }
    Ok(decided)
}

/// The most partitions of those inputs of which they are known.
fn most_inputs(
    part: &Subtopology,
    decided: &BTreeMap<ByteStr, i32>,
    counts: &Counts<'_>,
) -> Option<i32> {
    let repartitioned = part.repartition_source_topics.iter();
    let repartitioned = repartitioned.filter_map(|topic| decided.get(&topic.name).copied());
    let sources = part
        .source_topics
        .iter()
        .filter_map(|name| counts.get(name));
    repartitioned.chain(sources).max()
}
