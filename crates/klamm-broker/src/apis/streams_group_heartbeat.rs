use std::collections::BTreeSet;
use std::sync::Arc;

use klamm_protocol::messages::streams_group_heartbeat_request::Topology;
use klamm_protocol::messages::{StreamsGroupHeartbeatRequest, StreamsGroupHeartbeatResponse};
use klamm_protocol::{ErrorCode, topic_name};

use super::streams_groups_are_on;
use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::shared::Shared;
use crate::streams;

impl Api for StreamsGroupHeartbeatRequest {
    async fn handle(
        self,
        broker: Arc<Shared>,
        context: RequestContext,
    ) -> StreamsGroupHeartbeatResponse {
        let refuse = |error: ErrorCode, message: Option<String>| StreamsGroupHeartbeatResponse {
            error_code: error.into(),
            error_message: message.map(Into::into),
            ..StreamsGroupHeartbeatResponse::default()
        };
        if !streams_groups_are_on(&broker) {
            return refuse(ErrorCode::UnsupportedVersion, None);
        }
        if let Some(topology) = &self.topology
            && let Err(message) = check_topics(topology)
        {
            return refuse(ErrorCode::StreamsInvalidTopology, Some(message));
        }
        let group_id = self.group_id.clone();
        let context = context.group();
        let groups = &broker.groups;
        let (mut response, missing) = groups.streams_group_heartbeat(&context, self).await;
        if !missing.is_empty() {
            streams::create_internal_topics(&broker, &group_id, missing, &mut response);
        }
        response
    }
}

/// Checks the names of all topics that an application reads or writes.
fn check_topics(topology: &Topology) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    let mut names: Vec<&str> = Vec::new();
    for part in &topology.subtopologies {
        let sources = part.source_topics.iter();
        let sinks = part.repartition_sink_topics.iter();
        let repartitioned = part.repartition_source_topics.iter().map(|t| &t.name);
        let changelogs = part.state_changelog_topics.iter().map(|t| &t.name);
        for name in sources.chain(sinks).chain(repartitioned).chain(changelogs) {
            if seen.insert(&**name) {
                names.push(name);
            }
        }
    }
    let those = |is_wrong: &dyn Fn(&str) -> bool| {
        let wrong: Vec<&str> = names.iter().copied().filter(|n| is_wrong(n)).collect();
        (!wrong.is_empty()).then(|| wrong.join(","))
    };
    if let Some(wrong) = those(&topic_name::is_internal) {
        return Err(format!(
            "Use of Kafka internal topics {wrong} in a Kafka Streams topology is prohibited."
        ));
    }
    if let Some(wrong) = those(&|name| topic_name::validate(name).is_err()) {
        return Err(format!("Topic names {wrong} are not valid topic names."));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use klamm_protocol::messages::streams_group_heartbeat_request::Subtopology;

    use super::*;

    fn reading(name: &str) -> Topology {
        Topology {
            subtopologies: vec![Subtopology {
                source_topics: vec!["fine".into(), name.into()],
                repartition_sink_topics: vec![name.into()],
                ..Subtopology::default()
            }],
            ..Topology::default()
        }
    }

    #[test]
    fn topics_of_the_brokers_and_bad_names_are_refused() {
        assert_eq!(check_topics(&reading("words")), Ok(()));
        assert_eq!(
            check_topics(&reading("__consumer_offsets")).unwrap_err(),
            "Use of Kafka internal topics __consumer_offsets in a Kafka Streams topology is \
             prohibited."
        );
        assert_eq!(
            check_topics(&reading("a b")).unwrap_err(),
            "Topic names a b are not valid topic names."
        );
    }
}
