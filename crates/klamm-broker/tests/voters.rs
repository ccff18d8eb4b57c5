//! Controllers that are added and removed while the cluster runs (KIP-853).

mod common;

use std::path::Path;

use common::nodes::{CLUSTER_ID, Nodes, Roles, create, quorum_request, wait_for};
use klamm_broker::BrokerError;
use klamm_broker::format::{self, FirstVoters, Format, FormatError};
use klamm_env::Env;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::add_raft_voter_request::Listener;
use klamm_protocol::messages::describe_quorum_response::{PartitionData, ReplicaState};
use klamm_protocol::messages::{AddRaftVoterRequest, RemoveRaftVoterRequest};
use klamm_records::Uuid;

/// Controllers 1 to 3, the first of which votes; broker 4.
const GROWING: [Roles; 4] = [
    Roles::Both,
    Roles::Controller,
    Roles::Controller,
    Roles::Broker,
];

/// Nodes that find the controllers by their addresses.
fn nodes(roles: &[Roles]) -> Nodes {
    let mut nodes = Nodes::new(roles, &[("controller.quorum.voters", "")]);
    let addresses: Vec<String> = (1..)
        .zip(roles)
        .filter(|(_, roles)| **roles != Roles::Broker)
        .map(|(id, _)| nodes.controller_address(id).to_string())
        .collect();
    for id in (1..).take(roles.len()) {
        nodes.set(
            id,
            "controller.quorum.bootstrap.servers",
            &addresses.join(","),
        );
    }
    nodes
}

fn format_node(nodes: &Nodes, id: i32, voters: FirstVoters) {
    let format = Format {
        cluster_id: CLUSTER_ID.to_owned(),
        voters,
        ..Format::default()
    };
    format::format(&nodes.config(id), &format, &Env::os()).unwrap();
}

fn described(nodes: &Nodes, at: i32) -> PartitionData {
    let mut client = nodes.client(at);
    let quorum = nodes.block_on(client.ask(2, &quorum_request()));
    quorum.topics[0].partitions[0].clone()
}

fn ids(replicas: &[ReplicaState]) -> Vec<i32> {
    let mut ids: Vec<i32> = replicas.iter().map(|r| r.replica_id).collect();
    ids.sort_unstable();
    ids
}

/// The directory of a controller that follows, once it does.
fn observed(nodes: &Nodes, id: i32) -> Uuid {
    wait_for("an observer", || {
        let quorum = described(nodes, 1);
        let mut observers = quorum.observers.into_iter();
        let found = observers.find(|observer| observer.replica_id == id)?;
        Some(found.replica_directory_id)
    })
}

fn add(nodes: &Nodes, at: i32, id: i32, directory: Uuid) -> i16 {
    let address = nodes.controller_address(id);
    let request = AddRaftVoterRequest {
        cluster_id: Some(CLUSTER_ID.into()),
        timeout_ms: 20_000,
        voter_id: id,
        voter_directory_id: directory,
        listeners: vec![Listener {
            name: "CONTROLLER".into(),
            host: address.ip().to_string().into(),
            port: address.port(),
            ..Listener::default()
        }],
        ..AddRaftVoterRequest::default()
    };
    let mut client = nodes.client(at);
    nodes.block_on(client.ask(1, &request)).error_code
}

fn remove(nodes: &Nodes, at: i32, id: i32, directory: Uuid) -> i16 {
    let request = RemoveRaftVoterRequest {
        cluster_id: Some(CLUSTER_ID.into()),
        voter_id: id,
        voter_directory_id: directory,
        ..RemoveRaftVoterRequest::default()
    };
    let mut client = nodes.client(at);
    nodes.block_on(client.ask(0, &request)).error_code
}

#[test]
fn a_cluster_of_one_gets_more_controllers_and_outlives_the_first() {
    let mut nodes = nodes(&GROWING);
    format_node(&nodes, 1, FirstVoters::ThisNode);
    // The others need not be formatted as long as they are told the cluster's id.
    nodes.start_nodes(&[1, 2, 3, 4]);
    let own = described(&nodes, 4).current_voters[0].replica_directory_id;
    let (second, third) = (observed(&nodes, 2), observed(&nodes, 3));
    // A broker passes it on to the controller that decides.
    assert_eq!(add(&nodes, 4, 2, second), 0);
    assert_eq!(add(&nodes, 1, 3, third), 0);
    assert_eq!(add(&nodes, 4, 3, third), ErrorCode::DuplicateVoter.code());
    let wrong = remove(&nodes, 4, 3, second);
    assert_eq!(wrong, ErrorCode::VoterNotFound.code());
    assert_eq!(ids(&described(&nodes, 4).current_voters), [1, 2, 3]);
    assert_eq!(remove(&nodes, 4, 1, own), 0);
    let left = wait_for("another to lead", || {
        let quorum = described(&nodes, 4);
        (quorum.leader_id != 1 && ids(&quorum.current_voters) == [2, 3]).then_some(quorum)
    });
    assert!(left.leader_id == 2 || left.leader_id == 3);
    // Where the first controller was there is still a broker, and it hears of all.
    assert_eq!(observed(&nodes, 1), own);
    let mut client = nodes.client(1);
    assert_eq!(nodes.block_on(create(&mut client, "after")), 0);
    nodes.wait_for_images("the topic", |image| image.topic("after").is_some());
    nodes.stop(1);
    let mut client = nodes.client(4);
    assert_eq!(nodes.block_on(create(&mut client, "without")), 0);
}

#[test]
fn voters_that_were_formatted_together_begin_together() {
    let mut nodes = nodes(&[Roles::Both, Roles::Controller, Roles::Controller]);
    let list: Vec<String> = (1..=3u8)
        .map(|id| {
            let address = nodes.controller_address(id.into());
            format!("{id}@{address}:{}", Uuid::from_bytes([id; 16]))
        })
        .collect();
    let voters = format::parse_controllers(&list.join(","), "CONTROLLER").unwrap();
    for id in 1..=3 {
        format_node(&nodes, id, FirstVoters::These(voters.clone()));
    }
    nodes.start_nodes(&[1, 2, 3]);
    let quorum = described(&nodes, 1);
    assert_eq!(ids(&quorum.current_voters), [1, 2, 3]);
    for voter in &quorum.current_voters {
        let id = u8::try_from(voter.replica_id).unwrap();
        assert_eq!(voter.replica_directory_id, Uuid::from_bytes([id; 16]));
    }
    nodes.kill(nodes.active_controller().max(2));
    let mut client = nodes.client(1);
    assert_eq!(nodes.block_on(create(&mut client, "after")), 0);
}

#[test]
fn voters_of_the_configuration_cannot_be_changed() {
    let nodes = Nodes::start(&[Roles::Both, Roles::Both, Roles::Broker], &[]);
    let image = nodes.image(3);
    assert_eq!(image.features().level("kraft.version"), 0);
    let refused = ErrorCode::UnsupportedVersion.code();
    assert_eq!(add(&nodes, 3, 2, Uuid::ONE), refused);
    assert_eq!(remove(&nodes, 3, 1, Uuid::ONE), refused);
}

#[test]
fn formatting_is_refused_where_it_does_not_fit() {
    let nodes = nodes(&GROWING);
    let format = |id: i32, change: &dyn Fn(&mut Format)| {
        let mut format = Format {
            cluster_id: CLUSTER_ID.to_owned(),
            ..Format::default()
        };
        change(&mut format);
        format::format(&nodes.config(id), &format, &Env::os())
    };
    let error = format(2, &|_| {}).unwrap_err();
    assert!(matches!(error, FormatError::NoVoters), "{error}");
    let error = format(4, &|f| f.voters = FirstVoters::ThisNode).unwrap_err();
    assert!(matches!(error, FormatError::NotAController), "{error}");
    let error = format(2, &|f| {
        f.voters = FirstVoters::Others;
        f.features.insert("nonsense".to_owned(), 1);
    });
    assert!(matches!(error, Err(FormatError::UnknownFeature { .. })));
    format(2, &|f| f.voters = FirstVoters::Others).unwrap();
    let error = format(2, &|f| f.voters = FirstVoters::Others).unwrap_err();
    assert!(matches!(error, FormatError::Formatted(_)), "{error}");
    let error = format(2, &|f| {
        f.voters = FirstVoters::Others;
        f.cluster_id = "another".to_owned();
    });
    assert!(matches!(error, Err(FormatError::Mismatch { .. })));
    let again = format(2, &|f| {
        f.voters = FirstVoters::Others;
        f.ignore_formatted = true;
    });
    assert_eq!(
        again.unwrap(),
        ["All of the log directories are already formatted."]
    );
    let info = format::info(&nodes.config(2), &Env::os()).unwrap();
    assert_eq!(info.problems, Vec::<String>::new());
    assert_eq!(info.metadata["cluster.id"], CLUSTER_ID);
    let problems = format::info(&nodes.config(1), &Env::os()).unwrap().problems;
    assert!(problems[0].ends_with("is not formatted."), "{problems:?}");
    for bad in [
        "1@host:1",
        "x@host:1:AQEBAQEBAQEBAQEBAQEBAQ",
        "1@:1:AQEBAQEBAQEBAQEBAQEBAQ",
    ] {
        let refused = format::parse_controllers(bad, "CONTROLLER");
        assert!(matches!(refused, Err(FormatError::InitialController(_))));
    }
    assert!(
        Path::new(&nodes.config(2).metadata_log_dir())
            .join("bootstrap.checkpoint")
            .exists()
    );
}

#[test]
fn a_controller_without_a_cluster_id_does_not_start() {
    let nodes = nodes(&GROWING);
    let refused = nodes.try_start(nodes.layers(2));
    assert!(matches!(refused, Err(BrokerError::NoClusterId)));
}
