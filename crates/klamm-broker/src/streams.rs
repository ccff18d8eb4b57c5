//! The internal topics of streams groups: made in the background, in the way that the application
//! asks for. Its members see that they are missing, and ask again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use klamm_coordinator::group::Cluster;
use klamm_coordinator::group::streams::MISSING_INTERNAL_TOPICS;
use klamm_protocol::messages::create_topics_request::CreatableTopic;
use klamm_protocol::messages::{
    CreateTopicsRequest, CreateTopicsResponse, StreamsGroupHeartbeatResponse,
};
use klamm_protocol::{ByteStr, ErrorCode};
use tracing::{info, warn};

use crate::shared::Shared;

/// How many failures are remembered.
const FAILURES_MAX: usize = 1_000;
/// How many failures a member is told of by name.
const TOLD_MAX: usize = 3;

/// Internal topics on their way.
#[derive(Debug, Default)]
pub(crate) struct InternalTopics {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Asked for, and not answered yet.
    in_flight: BTreeSet<ByteStr>,
    /// What went wrong, and until when that is told instead of trying again.
    failed: BTreeMap<ByteStr, Failure>,
}

#[derive(Debug)]
struct Failure {
    message: String,
    until_ms: u64,
}

impl InternalTopics {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps those that nobody has asked for yet and that have not failed lately.
    fn begin(&self, topics: &mut Vec<CreatableTopic>, now_ms: u64) {
        let mut state = self.state();
        state.failed.retain(|_, failure| now_ms < failure.until_ms);
        topics.retain(|topic| {
            !state.failed.contains_key(&topic.name) && state.in_flight.insert(topic.name.detached())
        });
    }

    /// Takes note of how the creation of these topics ended.
    fn end(&self, names: &[ByteStr], failed: Vec<(ByteStr, String)>, until_ms: u64) {
        let mut state = self.state();
        for name in names {
            state.in_flight.remove(name);
        }
        for (name, message) in failed {
            if state.failed.len() >= FAILURES_MAX {
                let first = state
                    .failed
                    .iter()
                    .min_by_key(|(_, failure)| failure.until_ms)
                    .map(|(name, _)| name.clone());
                if let Some(first) = first {
                    state.failed.remove(&first);
                }
            }
            state.failed.insert(name, Failure { message, until_ms });
        }
    }

    /// What went wrong with these topics, in words.
    fn failures(&self, names: &[ByteStr]) -> Option<String> {
        let state = self.state();
        let failed: Vec<String> = names
            .iter()
            .filter_map(|name| {
                let failure = state.failed.get(name)?;
                Some(format!("{name} ({})", failure.message))
            })
            .collect();
        if failed.is_empty() {
            return None;
        }
        let told = failed.get(..TOLD_MAX).unwrap_or(&failed).join(", ");
        Some(match failed.len().saturating_sub(TOLD_MAX) {
            0 => told,
            more => format!("{told} and {more} more"),
        })
    }
}

/// Has internal topics made in the background. Adds to the answer why that did not work before, for
/// two heartbeats, after which it is tried again.
#[expect(
    clippy::disallowed_methods,
    reason = "nobody waits for internal topics: the members ask again"
)]
pub(crate) fn create_internal_topics(
    broker: &Arc<Shared>,
    group_id: &str,
    mut topics: Vec<CreatableTopic>,
    response: &mut StreamsGroupHeartbeatResponse,
) {
    let all: Vec<ByteStr> = topics.iter().map(|topic| topic.name.clone()).collect();
    broker
        .internal_topics
        .begin(&mut topics, broker.monotonic_ms());
    if !topics.is_empty() {
        let settings = broker.group_cluster.streams_settings(group_id);
        let told_ms = u64::try_from(settings.heartbeat_interval_ms).unwrap_or(0) * 2;
        tokio::spawn(create(broker.clone(), topics, told_ms));
    }
    let statuses = response.status.iter_mut().flatten();
    let mut missing = statuses.filter(|status| status.status_code == MISSING_INTERNAL_TOPICS);
    if let Some(status) = missing.next()
        && let Some(failures) = broker.internal_topics.failures(&all)
    {
        let detail = format!("{}; Creation failed: {failures}.", status.status_detail);
        status.status_detail = detail.into();
    }
}

async fn create(broker: Arc<Shared>, topics: Vec<CreatableTopic>, told_ms: u64) {
    let names: Vec<ByteStr> = topics.iter().map(|topic| topic.name.detached()).collect();
    let request = CreateTopicsRequest {
        topics,
        timeout_ms: broker.config().int("request.timeout.ms"),
        ..CreateTopicsRequest::default()
    };
    let failed = match broker.controller.create_topics(request).await {
        Ok(response) => failures(&response),
        Err(refused) => {
            let message = refused.to_string();
            let each = names.iter().map(|name| (name.clone(), message.clone()));
            each.collect()
        }
    };
    for (topic, reason) in &failed {
        warn!(%topic, reason, "an internal topic of a streams group cannot be made");
    }
    if failed.is_empty() {
        info!(topics = ?names, "made internal topics of a streams group");
    }
    let until_ms = broker.monotonic_ms().saturating_add(told_ms);
    broker.internal_topics.end(&names, failed, until_ms);
}

fn failures(response: &CreateTopicsResponse) -> Vec<(ByteStr, String)> {
    // One that is there already was made by another coordinator: the metadata is on its way.
    let fine = [ErrorCode::None, ErrorCode::TopicAlreadyExists].map(i16::from);
    let failed = response.topics.iter();
    let failed = failed.filter(|topic| !fine.contains(&topic.error_code));
    let failed = failed.map(|topic| {
        let own = topic
            .error_message
            .as_deref()
            .filter(|text| !text.is_empty());
        let message = own.map_or_else(
            || {
                let error = ErrorCode::from_code(topic.error_code);
                let error = error.unwrap_or(ErrorCode::UnknownServerError);
                error.message().to_owned()
            },
            str::to_owned,
        );
        (topic.name.detached(), message)
    });
    failed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(name: &str) -> CreatableTopic {
        CreatableTopic {
            name: name.into(),
            ..CreatableTopic::default()
        }
    }

    fn begun(topics: &InternalTopics, names: &[&str], now_ms: u64) -> Vec<String> {
        let mut wanted = names.iter().map(|name| topic(name)).collect();
        topics.begin(&mut wanted, now_ms);
        wanted.iter().map(|topic| topic.name.to_string()).collect()
    }

    #[test]
    fn a_topic_is_asked_for_once_and_again_when_its_failure_is_told() {
        let topics = InternalTopics::default();
        assert_eq!(begun(&topics, &["a", "b"], 0), ["a", "b"]);
        assert_eq!(begun(&topics, &["a", "b", "c"], 1), ["c"]);
        let names = ["a", "b", "c"].map(ByteStr::from);
        topics.end(&names, vec![("b".into(), "no room".into())], 100);
        assert_eq!(topics.failures(&names).unwrap(), "b (no room)");
        assert_eq!(topics.failures(&names[..1]), None);
        assert_eq!(begun(&topics, &["a", "b"], 99), ["a"]);
        assert_eq!(begun(&topics, &["b"], 100), ["b"]);
        assert_eq!(topics.failures(&names), None);
    }

    #[test]
    fn a_topic_that_is_there_already_is_no_failure() {
        use klamm_protocol::messages::create_topics_response::CreatableTopicResult;
        let result = |name: &str, error: ErrorCode| CreatableTopicResult {
            name: name.into(),
            error_code: error.into(),
            ..CreatableTopicResult::default()
        };
        let response = CreateTopicsResponse {
            topics: vec![
                result("a", ErrorCode::None),
                result("b", ErrorCode::TopicAlreadyExists),
                result("c", ErrorCode::InvalidReplicationFactor),
            ],
            ..CreateTopicsResponse::default()
        };
        let failed = failures(&response);
        let message = ErrorCode::InvalidReplicationFactor.message();
        assert_eq!(failed, [("c".into(), message.to_owned())]);
    }

    #[test]
    fn only_some_failures_are_told_and_remembered() {
        let topics = InternalTopics::default();
        let names: Vec<ByteStr> = (0..5).map(|n| ByteStr::from(format!("t{n}"))).collect();
        let failed = names.iter().map(|name| (name.clone(), "x".into()));
        topics.end(&names, failed.collect(), 10);
        assert_eq!(
            topics.failures(&names).unwrap(),
            "t0 (x), t1 (x), t2 (x) and 2 more"
        );
        let many = (0..2_000).map(|n| (ByteStr::from(format!("m{n}")), "x".into()));
        topics.end(&[], many.collect(), 20);
        assert_eq!(topics.state().failed.len(), FAILURES_MAX);
    }
}
