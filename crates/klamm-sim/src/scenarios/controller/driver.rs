use std::collections::BTreeMap;
use std::time::Duration;

use klamm_controller::managers::{
    brokers, deletion, elections, features, isr, partitions, producer_ids, reassignments, topics,
};
use klamm_env::Rng as _;
use klamm_protocol::messages::{AllocateProducerIdsRequest, ElectLeadersRequest};
use klamm_records::Uuid;

use super::super::{Run, Violation};
use super::cluster::{BROKERS, Cluster};
use super::requests::{self, Alter};
use super::{Flaw, replay};

const STEPS: usize = 220;

/// Lets a seed decide what happens.
pub(super) fn drive(run: &Run, flaw: Flaw) -> Result<(), Violation> {
    let mut cluster = Cluster::new(run, flaw)?;
    let records = cluster.decide(|context, _| features::activation(context, &BTreeMap::new()));
    cluster.commit(records, &[], false)?;
    for id in BROKERS {
        start(&mut cluster, id)?;
        heartbeat(&mut cluster, id)?;
    }
    for step in 0..STEPS {
        one(&mut cluster)?;
        if step % 40 == 39 {
            replay::check(&cluster)?;
        }
    }
    replay::check(&cluster)
}

fn one(cluster: &mut Cluster) -> Result<(), Violation> {
    let id = cluster
        .rng
        .range(i64::from(BROKERS.start), i64::from(BROKERS.end)) as i32;
    match cluster.rng.index(100) {
        0..30 => heartbeat(cluster, id),
        30..38 => create_topic(cluster),
        38..41 => delete_topic(cluster),
        41..45 => grow_topic(cluster),
        45..52 => move_partition(cluster),
        52..74 => alter_partition(cluster),
        74..79 => elect(cluster),
        79..82 => allocate(cluster, id),
        82..88 => {
            let pause = cluster.rng.below(4_000);
            cluster.clock.advance(Duration::from_millis(pause));
            expire(cluster)
        }
        88..90 => {
            if let Some(process) = cluster.processes.get_mut(&id) {
                process.up = false;
                process.clean_epoch = -1;
            }
            cluster.note(format_args!("{id} dies"));
            Ok(())
        }
        90..92 => {
            if let Some(process) = cluster.processes.get_mut(&id) {
                process.wants_shut_down = process.up;
            }
            heartbeat(cluster, id)
        }
        _ => start(cluster, id),
    }
}

fn start(cluster: &mut Cluster, id: i32) -> Result<(), Violation> {
    let incarnation = Uuid::from_bytes(cluster.rng.next_16_bytes());
    let Some(process) = cluster.processes.get_mut(&id).filter(|process| !process.up) else {
        return Ok(());
    };
    process.incarnation = incarnation;
    process.wants_shut_down = false;
    let request = requests::register(id, process);
    let now = cluster.now();
    let outcome = cluster.decide(|context, sessions| {
        brokers::register_broker(context, sessions, &request, false, now)
    });
    match outcome {
        Ok(outcome) => {
            if let Some(process) = cluster.processes.get_mut(&id) {
                process.up = true;
                process.epoch = outcome.reply.broker_epoch;
            }
            cluster.commit(outcome.records, &[], false)
        }
        Err(error) => {
            cluster.note(format_args!("{id} is not registered: {error}"));
            Ok(())
        }
    }
}

fn heartbeat(cluster: &mut Cluster, id: i32) -> Result<(), Violation> {
    // Some brokers are behind with the metadata.
    let behind = if cluster.rng.one_in(4) {
        cluster.rng.range(0, 20)
    } else {
        0
    };
    let offset = cluster.image.offset() - behind;
    let Some(process) = cluster.processes.get(&id).filter(|process| process.up) else {
        return Ok(());
    };
    let request = requests::heartbeat(id, process, offset);
    let now = cluster.now();
    let outcome =
        cluster.decide(|context, sessions| brokers::heartbeat(context, sessions, &request, now));
    match outcome {
        Ok(outcome) => {
            if outcome.reply.should_shut_down
                && let Some(process) = cluster.processes.get_mut(&id)
            {
                process.up = false;
                process.clean_epoch = process.epoch;
            }
            cluster.commit(outcome.records, &[], false)
        }
        Err(error) => {
            cluster.note(format_args!("{id} is refused: {error}"));
            Ok(())
        }
    }
}

fn expire(cluster: &mut Cluster) -> Result<(), Violation> {
    let now = cluster.now();
    while let Some((id, records)) =
        cluster.decide(|context, sessions| brokers::fence_expired(context, sessions, now))
    {
        cluster.note(format_args!("the session of {id} is over"));
        cluster.commit(records, &[], false)?;
    }
    Ok(())
}

fn create_topic(cluster: &mut Cluster) -> Result<(), Violation> {
    if cluster.image.topics().len() >= 8 {
        return Ok(());
    }
    cluster.next_topic += 1;
    let name = format!("topic-{}", cluster.next_topic);
    let (count, replicas) = (cluster.rng.range(1, 5), cluster.rng.range(1, 4));
    let min_isr = 1 + cluster.rng.index(2);
    let request = requests::create_topic(&name, count as i32, replicas as i16, min_isr);
    let outcome = cluster.decide(|context, _| topics::create_topics(context, &request, &|_| true));
    cluster.commit(outcome.records, &[], false)
}

/// Name and partition count of some topic.
fn some_topic(cluster: &Cluster) -> Option<(String, i32)> {
    let all: Vec<(String, i32)> = cluster
        .image
        .topics()
        .iter()
        .map(|topic| (topic.name().to_string(), topic.partition_count() as i32))
        .collect();
    cluster.rng.pick(&all).cloned()
}

fn delete_topic(cluster: &mut Cluster) -> Result<(), Violation> {
    let Some((name, _)) = some_topic(cluster) else {
        return Ok(());
    };
    let request = requests::delete_topic(&name);
    let outcome = cluster.decide(|context, _| deletion::delete_topics(context, &request));
    cluster.commit(outcome.records, &[], false)
}

fn grow_topic(cluster: &mut Cluster) -> Result<(), Violation> {
    let Some((name, count)) = some_topic(cluster) else {
        return Ok(());
    };
    let request = requests::grow_topic(&name, count + cluster.rng.range(-1, 3) as i32);
    let outcome = cluster.decide(|context, _| partitions::create_partitions(context, &request));
    cluster.commit(outcome.records, &[], false)
}

fn move_partition(cluster: &mut Cluster) -> Result<(), Violation> {
    let Some((name, count)) = some_topic(cluster) else {
        return Ok(());
    };
    let index = cluster.rng.range(0, i64::from(count)) as i32;
    let mut replicas: Vec<i32> = BROKERS.filter(|_| cluster.rng.one_in(2)).collect();
    let turn = cluster.rng.index(replicas.len().max(1));
    replicas.rotate_left(turn);
    let wanted = (!cluster.rng.one_in(4)).then_some(replicas);
    let request = requests::move_partition(&name, index, wanted);
    let outcome = cluster
        .decide(|context, _| reassignments::alter_partition_reassignments(context, &request));
    cluster.commit(outcome.records, &[], false)
}

/// A leader asks for a larger or smaller ISR, now and then from an old point of view.
fn alter_partition(cluster: &mut Cluster) -> Result<(), Violation> {
    let Some((name, count)) = some_topic(cluster) else {
        return Ok(());
    };
    let index = cluster.rng.range(0, i64::from(count)) as i32;
    let image = cluster.image.clone();
    let Some(topic) = image.topic(&name) else {
        return Ok(());
    };
    let Some(partition) = topic.partition(index) else {
        return Ok(());
    };
    let Some(leader) = cluster
        .processes
        .get(&partition.leader)
        .filter(|leader| leader.up)
    else {
        return Ok(());
    };
    let mut isr: Vec<i32> = partition.isr.clone();
    let outside = partition.replicas.iter().find(|id| !isr.contains(id));
    match outside {
        Some(&id) if !cluster.rng.one_in(4) => isr.push(id),
        _ => isr.retain(|&id| id == partition.leader || cluster.rng.one_in(2)),
    }
    let epoch_of = |id: &i32| {
        let epoch = image.broker(*id).map_or(-1, |broker| broker.epoch);
        (
            *id,
            if cluster.rng.one_in(12) {
                epoch - 1
            } else {
                epoch
            },
        )
    };
    let late = i32::from(cluster.rng.one_in(10));
    let request = requests::alter_partition(&Alter {
        topic_id: topic.id(),
        index,
        leader: partition.leader,
        leader_broker_epoch: leader.epoch,
        leader_epoch: partition.leader_epoch,
        partition_epoch: partition.partition_epoch - late,
        isr: isr.iter().map(epoch_of).collect(),
    });
    let outcome = cluster.decide(|context, _| isr::alter_partition(context, &request));
    match outcome {
        Ok(outcome) => cluster.commit(outcome.records, &isr, false),
        Err(error) => {
            cluster.note(format_args!("an ISR is refused: {error}"));
            Ok(())
        }
    }
}

fn elect(cluster: &mut Cluster) -> Result<(), Violation> {
    let records = if cluster.rng.one_in(2) {
        cluster.decide(|context, _| elections::balance_leaders(context, 100))
    } else {
        let request = ElectLeadersRequest {
            election_type: 0,
            topic_partitions: None,
            ..ElectLeadersRequest::default()
        };
        match cluster.decide(|context, _| elections::elect_leaders(context, &request)) {
            Ok(outcome) => outcome.records,
            Err(_) => Vec::new(),
        }
    };
    cluster.commit(records, &[], false)
}

fn allocate(cluster: &mut Cluster, id: i32) -> Result<(), Violation> {
    let Some(process) = cluster.processes.get(&id) else {
        return Ok(());
    };
    let request = AllocateProducerIdsRequest {
        broker_id: id,
        broker_epoch: process.epoch,
        ..AllocateProducerIdsRequest::default()
    };
    let outcome =
        cluster.decide(|context, _| producer_ids::allocate_producer_ids(context, &request));
    if let Ok(outcome) = outcome {
        let (first, len) = (
            outcome.reply.producer_id_start,
            outcome.reply.producer_id_len,
        );
        cluster.ids.check_block(first, i64::from(len))?;
        cluster.commit(outcome.records, &[], false)?;
    }
    Ok(())
}
