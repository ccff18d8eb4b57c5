//! Deleting topics.

use std::collections::{BTreeMap, BTreeSet};

use klamm_protocol::messages::delete_topics_request::DeleteTopicState;
use klamm_protocol::messages::delete_topics_response::DeletableTopicResult;
use klamm_protocol::messages::{DeleteTopicsRequest, DeleteTopicsResponse};
use klamm_protocol::metadata::RemoveTopicRecord;
use klamm_protocol::{ByteStr, ErrorCode};
use klamm_records::Uuid;

use super::{ApiError, Context, Outcome};

/// Deletes topics, by name or by id.
pub fn delete_topics(
    context: &Context<'_>,
    request: &DeleteTopicsRequest,
) -> Outcome<DeleteTopicsResponse> {
    let by_name = request.topic_names.iter().map(|name| DeleteTopicState {
        name: Some(name.clone()),
        ..DeleteTopicState::default()
    });
    let asked: Vec<DeleteTopicState> = by_name.chain(request.topics.iter().cloned()).collect();
    let mut names: BTreeMap<&ByteStr, usize> = BTreeMap::new();
    let mut ids: BTreeMap<Uuid, usize> = BTreeMap::new();
    for topic in &asked {
        match &topic.name {
            Some(name) => *names.entry(name).or_default() += 1,
            None => *ids.entry(topic.topic_id).or_default() += 1,
        }
    }
    let mut records = Vec::new();
    let mut response = DeleteTopicsResponse::default();
    let mut deleted = BTreeSet::new();
    for topic in &asked {
        let twice = match &topic.name {
            Some(name) => names[name] > 1,
            None => ids[&topic.topic_id] > 1,
        };
        let result = find_deletable(context, topic, twice, &deleted);
        let mut answer = DeletableTopicResult {
            name: topic.name.clone(),
            topic_id: topic.topic_id,
            ..DeletableTopicResult::default()
        };
        match result {
            Ok((name, topic_id)) => {
                deleted.insert(topic_id);
                records.push(
                    RemoveTopicRecord {
                        topic_id,
                        ..Default::default()
                    }
                    .into(),
                );
                answer.name = Some(name);
                answer.topic_id = topic_id;
            }
            Err(error) => {
                answer.error_code = error.code.code();
                answer.error_message = error.wire_message();
            }
        }
        // A name or id that comes up twice is refused once.
        let refused_already = twice
            && response.responses.iter().any(|r: &DeletableTopicResult| {
                r.name == topic.name && r.topic_id == topic.topic_id
            });
        if !refused_already {
            response.responses.push(answer);
        }
    }
    Outcome {
        records,
        reply: response,
    }
}

fn find_deletable(
    context: &Context<'_>,
    asked: &DeleteTopicState,
    twice: bool,
    deleted: &BTreeSet<Uuid>,
) -> Result<(ByteStr, Uuid), ApiError> {
    let invalid = |message: &str| Err(ApiError::new(ErrorCode::InvalidRequest, message));
    if !context.settings.delete_topic_enable {
        return Err(ErrorCode::TopicDeletionDisabled.into());
    }
    let topic = match &asked.name {
        Some(_) if !asked.topic_id.is_zero() => {
            return invalid("You may not specify both topic name and topic id.");
        }
        None if asked.topic_id.is_zero() => {
            return invalid("Neither topic name nor id were specified.");
        }
        Some(_) if twice => return invalid("Duplicate topic name."),
        None if twice => return invalid("Duplicate topic id."),
        Some(name) => context
            .image
            .topic(name)
            .ok_or(ErrorCode::UnknownTopicOrPartition),
        None => context
            .image
            .topic_by_id(asked.topic_id)
            .ok_or(ErrorCode::UnknownTopicId),
    };
    let topic = topic?;
    if deleted.contains(&topic.id()) {
        return invalid("The provided topic name maps to an ID that was already supplied.");
    }
    Ok((ByteStr::from(&**topic.name()), topic.id()))
}
