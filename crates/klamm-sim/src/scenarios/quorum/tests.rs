//! That the properties can fail: quorums with a mistake are found out, each by the properties that
//! one would expect, within a few seeds.

use std::sync::Arc;
use std::time::Duration;

use klamm_controller::{Controller, ControllerConfig};
use klamm_env::{Env, Fs as _};
use klamm_protocol::messages::AlterClientQuotasRequest;
use klamm_protocol::messages::alter_client_quotas_request::{EntityData, EntryData, OpData};
use klamm_records::Uuid;

use super::super::{Run, guard};
use super::promises::QUOTA;
use super::world::World;
use super::{Flaw, driver};
use crate::{Executor, SimFs};

/// Seeds that a mistake may take to be found.
const SEEDS: u64 = 60;

/// What shows that Raft's own rules are broken. Its assertions may be the first to notice, and so may
/// a log that does not fit what is remembered of it.
const BROKEN: &[&str] = &["leaders", "history", "promises", "recovery", "no panic"];

/// Whether one of the properties finds a flaw.
fn is_found(flaw: Flaw, properties: &[&str]) {
    let mut others = Vec::new();
    for seed in 0..SEEDS {
        match guard(|| driver::drive(&Run::new(seed), flaw)) {
            Err(violation) if properties.contains(&violation.property) => return,
            found => others.extend(found.err()),
        }
    }
    panic!("{flaw:?} is found by none of {properties:?}, but {others:?}");
}

#[test]
fn who_forgets_its_vote_votes_twice() {
    is_found(Flaw::VotesForgotten, BROKEN);
}

#[test]
fn an_epoch_that_is_used_again_is_found() {
    is_found(Flaw::EpochsReused, BROKEN);
}

#[test]
fn who_takes_silence_for_consent_acknowledges_what_is_not_committed() {
    is_found(Flaw::SilenceConsents, BROKEN);
}

#[test]
fn a_disk_that_does_not_sync_is_found() {
    is_found(Flaw::SyncsLie, BROKEN);
}

#[test]
fn a_snapshot_that_lacks_a_record_is_found() {
    // What does not fit what is left cannot be read at all.
    let properties = ["history", "promises", "recovery"];
    is_found(Flaw::SnapshotsLose, &properties);
}

#[test]
fn who_is_told_that_what_was_refused_is_done_does_not_find_it() {
    is_found(Flaw::RefusalsSucceed, &["promises"]);
}

/// A controller that is a quorum by itself, on a disk.
fn alone(run: &Run, fs: &SimFs) -> (Executor, impl Future<Output = Controller> + Send + 'static) {
    let executor = Executor::new(run.rng.clone(), run.clock.clone(), run.trace.clone());
    let env = Env {
        clock: Arc::new(run.clock.clone()),
        rng: Arc::new(run.rng.clone()),
        fs: Arc::new(fs.clone()),
    };
    let schema = World::new(run, Flaw::None).unwrap().schema.clone();
    let id = Uuid::from_bytes([1; 16]);
    let config = ControllerConfig::new(1, "/metadata", id, schema);
    let start = async move { Controller::start(config, env).await.unwrap() };
    (executor, start)
}

#[test]
fn what_a_new_controller_commits_outlives_a_power_cut() {
    let limit = Duration::from_secs(60);
    for seed in 0..20 {
        let run = Run::new(seed);
        let fs = SimFs::new(run.rng.clone(), run.clock.clone(), run.trace.clone());
        fs.create_dir_all("/metadata".as_ref()).unwrap();
        fs.sync_dir("/".as_ref()).unwrap();
        let (executor, start) = alone(&run, &fs);
        let before = async move {
            let controller = start.await;
            controller.alter_client_quotas(quota()).await.unwrap();
            controller.image()
        };
        let before = executor.block_on(limit, before).unwrap();
        assert_eq!(before.quotas().iter().count(), 1);
        executor.shut_down();
        fs.crash();
        let (executor, start) = alone(&run, &fs);
        let after = async move { start.await.image() };
        let after = executor.block_on(limit, after).unwrap();
        executor.shut_down();
        assert!(after.offset() >= before.offset(), "seed {seed}");
        assert_eq!(after.quotas(), before.quotas(), "seed {seed}");
    }
}

fn quota() -> AlterClientQuotasRequest {
    AlterClientQuotasRequest {
        entries: vec![EntryData {
            entity: vec![EntityData {
                entity_type: "user".into(),
                entity_name: Some("somebody".into()),
                ..EntityData::default()
            }],
            ops: vec![OpData {
                key: QUOTA.into(),
                value: 5.0,
                ..OpData::default()
            }],
            ..EntryData::default()
        }],
        ..AlterClientQuotasRequest::default()
    }
}
