//! What is there and goes: a topic that is deleted and made again, the group with its offsets,
//! offsets whose time is up.

use std::collections::BTreeSet;

use klamm_coordinator::group::DeletedTopic;
use klamm_env::Rng as _;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::{DeleteGroupsRequest, ListGroupsRequest};

use super::super::super::Violation;
use super::super::broker::{Broker, Node};
use super::super::world::{Answer, World};
use super::client::{Client, error};
use super::{GROUP, SECOND, leave_all, place, streams};

/// How long a deletion may take effect after whoever asked for it gave up.
const LINGERS_MS: i64 = 15_000;
/// How many partitions the second topic has.
const SECOND_PARTITIONS: i32 = 2;
/// How long it may take until all has expired, beyond its time: sessions, checks, commits.
const EXPIRES_MS: i64 = 60_000;

/// The second topic is made, or deleted.
pub(super) fn toggle_topic(world: &World) {
    match world.topics.remove(&world.cluster, SECOND) {
        Some(deleted) => {
            world.note(format_args!("{SECOND} is deleted"));
            for broker in world.nodes.values().filter_map(Node::broker) {
                hear_of(world, broker, deleted.clone());
            }
        }
        None => {
            world.note(format_args!("{SECOND} is made"));
            world.topics.make(&world.cluster, SECOND, SECOND_PARTITIONS);
        }
    }
}

/// A broker hears of it, sooner or later.
fn hear_of(world: &World, broker: Broker, deleted: DeletedTopic) {
    let (waits, process) = (world.clone(), broker.process);
    let name = format!("deletion at {}", broker.id);
    world.executor.spawn_in(process, name, async move {
        waits.sleep_ms(waits.rng.below(2_000)).await;
        broker.groups.on_topics_deleted(vec![deleted]).await;
    });
}

/// Somebody asks for the deletion of the group, one at a time. It is refused while there are
/// members.
pub(super) fn delete_group(world: &World) {
    let Some(before_ms) = world.groups().offsets.begin_wiping() else {
        return;
    };
    world.note("the group is to be deleted");
    let asks = world.clone();
    let process = world.executor.new_process();
    world.executor.spawn_in(process, "deletion", async move {
        let request = DeleteGroupsRequest {
            groups_names: vec![GROUP.into()],
            ..DeleteGroupsRequest::default()
        };
        let serve = move |broker: Broker| {
            let request = request.clone();
            async move { broker.groups.delete_groups(request).await }
        };
        let way = (asks.address(), asks.leader(place()));
        let answer = asks.call(way, "delete group", (place(), true), serve).await;
        let result = answer.and_then(|Answer { answer, .. }| answer.results.first().cloned());
        let result = result.map(|result| error(result.error_code));
        asks.note(format_args!("the deletion of the group: {result:?}"));
        match result {
            Some(
                ErrorCode::NonEmptyGroup
                | ErrorCode::GroupIdNotFound
                | ErrorCode::CoordinatorLoadInProgress,
            ) => asks.groups().offsets.wiped(before_ms),
            Some(ErrorCode::None) => asks.groups().offsets.wiped(asks.now_ms()),
            Some(ErrorCode::UnknownServerError) => {
                let detail = "the group cannot be deleted for UNKNOWN_SERVER_ERROR";
                asks.check(Err(Violation::new("errors", detail)));
            }
            // It may be, and may yet.
            _ => {
                asks.sleep_ms(LINGERS_MS as u64).await;
                asks.groups().offsets.wiped(asks.now_ms());
            }
        }
    });
}

/// Once all have left, offsets go when their time is up, and the group goes with the last.
pub(super) async fn all_expires(world: &World, client: &mut Client) {
    leave_all(world);
    let end_ms = world.now_ms() + world.plan.retention_ms.unwrap_or(0) + EXPIRES_MS;
    let partitions: BTreeSet<i32> = streams::all_tasks(world).into_iter().collect();
    loop {
        world.sleep_ms(1_000).await;
        let left = client.fetch(&partitions, true).await;
        let left = left.values().any(|offset| *offset >= 0);
        let lists = |broker: Broker| async move {
            let listed = broker
                .groups
                .list_groups(ListGroupsRequest::default())
                .await;
            let is_listed = listed.groups.iter().any(|group| group.group_id == GROUP);
            listed.error_code == 0 && !is_listed
        };
        let is_gone = client.ask("list groups", false, lists).await;
        let is_gone = is_gone.is_some_and(|gone| gone.genuine && gone.answer);
        if !left && is_gone {
            return;
        }
        if world.now_ms() > end_ms {
            let detail = format!("offsets are left: {left}, the group is gone: {is_gone}");
            return world.check(Err(Violation::new("expiry", detail)));
        }
    }
}
