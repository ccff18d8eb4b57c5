//! From the first controller's start to the last image compared.

use std::collections::BTreeMap;
use std::time::Duration;

use klamm_controller::Controller;
use klamm_env::Rng as _;
use klamm_protocol::messages::DescribeQuorumRequest;
use klamm_protocol::messages::describe_quorum_request::{PartitionData, TopicData};
use klamm_protocol::messages::describe_quorum_response::PartitionData as Described;
use klamm_protocol::topic_name;
use klamm_records::Uuid;

use super::super::{Run, Violation};
use super::nemesis::Nemesis;
use super::world::World;
use super::{Flaw, healing};
use crate::Stalled;

/// Longer than any run takes.
const LIMIT: Duration = Duration::from_secs(3_600);

/// Lets a seed decide what happens.
pub(super) fn drive(run: &Run, flaw: Flaw) -> Result<(), Violation> {
    let world = World::new(run, flaw)?;
    run_to_the_end(&world, play(world.clone()))
}

/// Runs what there is to run, and has an end made of everything.
pub(super) fn run_to_the_end(
    world: &World,
    play: impl Future<Output = Result<(), Violation>> + Send + 'static,
) -> Result<(), Violation> {
    let played = world.executor.block_on(LIMIT, play);
    // Tasks, controllers, brokers and the world own each other.
    world.executor.shut_down();
    world.brokers.forget();
    for node in world.nodes.values() {
        node.die(world, false);
    }
    played.unwrap_or_else(|stalled: Stalled| {
        let detail = format!("it stalled: {stalled:?}");
        Err(Violation::new("healing", detail))
    })
}

/// Starts controllers and brokers.
pub(super) fn start_all(world: &World) {
    for node in world.nodes.values() {
        node.start(world);
    }
    for id in &world.plan.brokers {
        world.brokers.start(world, *id);
    }
}

async fn play(world: World) -> Result<(), Violation> {
    start_all(&world);
    world.sleep_ms(world.rng.below(3_000)).await;
    let nemesis = Nemesis::new(&world);
    world.net.set_faults(world.plan.faults);
    let end = world.now() + world.plan.trouble;
    while world.now() < end {
        world.sleep_ms(20 + world.rng.below(900)).await;
        nemesis.strike();
        inspect(&world)?;
    }
    nemesis.relent();
    world.calm();
    let end = world.now() + world.plan.heal;
    loop {
        world.sleep_ms(300).await;
        // Who was about to stop has stopped by now.
        nemesis.relent();
        inspect(&world)?;
        let missing = healing::controllers(&world).or_else(|| healing::brokers(&world));
        match missing {
            None => break,
            Some(missing) if world.now() > end => {
                return Err(Violation::new("healing", missing));
            }
            Some(_) => {}
        }
    }
    check_the_end(&world)
}

/// Once all have the same image: what was promised is in it.
pub(super) fn check_the_end(world: &World) -> Result<(), Violation> {
    let known = world.known();
    for id in &world.plan.controllers {
        if let Some(controller) = world.controller(*id) {
            known.promises.check(&controller.image())?;
        }
    }
    world.note(format_args!(
        "{} answers, {} epochs, {} records",
        known.promises.answers,
        known.leaders.len(),
        known.images.last().offset() + 1
    ));
    Ok(())
}

/// Looks at all that is, and holds it against the properties.
pub(in crate::scenarios) fn inspect(world: &World) -> Result<(), Violation> {
    let mut known = world.known();
    for id in &world.plan.controllers {
        if let Some((leader, epoch)) = world.controller(*id).as_ref().and_then(describe) {
            known.leads(*id, epoch, leader);
        }
    }
    if let Some(violation) = known.violation.take() {
        return Err(violation);
    }
    known.check_decisions()?;
    known.promises.check(&known.images.last())
}

/// Who leads, as a controller has it, and in which epoch.
pub(super) fn describe(controller: &Controller) -> Option<(i32, i32)> {
    let partition = describe_quorum(controller)?;
    (partition.leader_id >= 0).then_some((partition.leader_id, partition.leader_epoch))
}

/// Who votes, as a controller has it.
pub(super) fn describe_voters(controller: &Controller) -> BTreeMap<i32, Uuid> {
    let partition = describe_quorum(controller);
    let voters = partition.map(|it| it.current_voters).unwrap_or_default();
    let keys = voters.iter();
    keys.map(|it| (it.replica_id, it.replica_directory_id))
        .collect()
}

fn describe_quorum(controller: &Controller) -> Option<Described> {
    let request = DescribeQuorumRequest {
        topics: vec![TopicData {
            topic_name: topic_name::CLUSTER_METADATA.into(),
            partitions: vec![PartitionData {
                partition_index: 0,
                ..PartitionData::default()
            }],
            ..TopicData::default()
        }],
        ..DescribeQuorumRequest::default()
    };
    let mut response = controller.describe_quorum(&request);
    response.topics.pop()?.partitions.pop()
}
