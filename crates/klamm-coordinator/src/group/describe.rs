//! What ListGroups (key 16) and DescribeGroups (key 15) show.

use std::collections::BTreeSet;

use klamm_protocol::messages::ListGroupsRequest;
use klamm_protocol::messages::describe_groups_response::DescribedGroup;
use klamm_protocol::messages::list_groups_response::ListedGroup;
use klamm_protocol::{ByteStr, ErrorCode};

use super::classic::DEAD;
use super::shard::Group;

/// From this version on, DescribeGroups says that a group does not exist; before, it is "Dead".
const NOT_FOUND_FROM: i16 = 6;

/// The description of a group that is not classic, or not at all.
pub(super) fn not_classic(group_id: &ByteStr, exists: bool, api_version: i16) -> DescribedGroup {
    let dead = DescribedGroup {
        group_id: group_id.clone(),
        group_state: DEAD.into(),
        ..DescribedGroup::default()
    };
    if api_version < NOT_FOUND_FROM {
        return dead;
    }
    let message = if exists {
        format!("Group {group_id} is not a classic group.")
    } else {
        format!("Group {group_id} not found.")
    };
    DescribedGroup {
        error_code: ErrorCode::GroupIdNotFound.into(),
        error_message: Some(message.into()),
        ..dead
    }
}

/// The groups that pass the filters. Names of states and types count without case; an empty
/// filter passes all, and a name that is unknown passes nothing.
pub(super) fn list<'a>(
    groups: impl Iterator<Item = &'a Group>,
    request: &ListGroupsRequest,
) -> Vec<ListedGroup> {
    let lower = |names: &[ByteStr]| -> BTreeSet<String> {
        names
            .iter()
            .map(|name| name.trim().to_lowercase())
            .collect()
    };
    let states = lower(&request.states_filter);
    let types: BTreeSet<String> = request
        .types_filter
        .iter()
        .map(|name| name.to_lowercase())
        .collect();
    let passes = |filter: &BTreeSet<String>, name: &str| {
        filter.is_empty() || filter.contains(&name.to_lowercase())
    };
    groups
        .map(|group| match group {
            Group::Classic(group) => group.listed(),
            Group::Consumer(group) => group.listed(),
            Group::Share(group) => group.listed(),
            Group::Streams(group) => group.listed(),
        })
        .filter(|listed| {
            passes(&states, state_to_filter(listed)) && passes(&types, &listed.group_type)
        })
        .collect()
}

/// What filters call a state. Kafka has one name with a `_` that its own tools do not know of, which
/// therefore find no group in that state.
fn state_to_filter(listed: &ListedGroup) -> &str {
    match &*listed.group_state {
        "NotReady" => "not_ready",
        state => state,
    }
}
