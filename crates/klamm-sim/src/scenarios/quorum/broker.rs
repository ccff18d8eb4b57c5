//! What brokers ask of the controllers: registration, signs of life, and things that have to stay.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use klamm_controller::managers::features::SUPPORTED;
use klamm_controller::{ApiError, Controller, Describable, MetadataLogOptions, MetadataReplica};
use klamm_env::{Env, Rng as _};
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::alter_client_quotas_request::{EntityData, EntryData, OpData};
use klamm_protocol::messages::broker_registration_request::{Feature, Listener};
use klamm_protocol::messages::create_topics_request::CreatableTopic;
use klamm_protocol::messages::delete_topics_request::DeleteTopicState;
use klamm_protocol::messages::{
    AllocateProducerIdsRequest, AlterClientQuotasRequest, BrokerHeartbeatRequest,
    BrokerRegistrationRequest, CreateTopicsRequest, DeleteTopicsRequest,
};
use klamm_records::Uuid;

use super::Flaw;
use super::observer::Observer;
use super::promises::QUOTA;
use super::world::{CLUSTER_ID, Witness, World};
use crate::{Process, SimFs, SimRng};

const DIR: &str = "/metadata";

/// The brokers that run, and their disks, which outlive them.
#[derive(Default)]
pub(super) struct Brokers {
    running: Mutex<BTreeMap<i32, Running>>,
    disks: Mutex<BTreeMap<i32, SimFs>>,
}

#[derive(Clone)]
struct Running {
    process: Process,
    /// Its metadata, once they are open.
    replica: Option<MetadataReplica>,
    /// Whether it was answered since nothing goes wrong any more.
    content: bool,
}

impl Brokers {
    fn all(&self) -> MutexGuard<'_, BTreeMap<i32, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk of a broker whose process has ended; the machine may have lost power, too.
    fn disk(&self, world: &World, id: i32) -> SimFs {
        let mut disks = self.disks.lock().unwrap_or_else(PoisonError::into_inner);
        let (rng, clock) = (&world.rng, world.clock.clone());
        let new = || SimFs::new(rng.fork("broker's disk"), clock, world.trace.clone());
        let disk = disks.entry(id).or_insert_with(new);
        if rng.one_in(2) {
            disk.crash();
        } else {
            disk.kill();
        }
        disk.clone()
    }

    /// Starts a broker, or starts it again.
    pub(super) fn start(&self, world: &World, id: i32) {
        let process = world.executor.new_process();
        let running = Running {
            process,
            replica: None,
            content: false,
        };
        let before = self.all().insert(id, running);
        if let Some(before) = before {
            world.executor.end(before.process);
        }
        let disk = self.disk(world, id);
        world.note(format_args!("broker {id} starts"));
        world.known().images.began(id);
        let life = live(world.clone(), id, process, disk);
        let name = format!("broker {id}");
        world.executor.spawn_in(process, name, life);
    }

    /// Forgets them when all is over: what follows their metadata owns the world.
    pub(super) fn forget(&self) {
        let all = std::mem::take(&mut *self.all());
        drop(all);
    }

    /// The metadata of a broker, and whether it was answered lately.
    pub(super) fn get(&self, id: i32) -> Option<(MetadataReplica, bool)> {
        let all = self.all();
        let running = all.get(&id)?;
        Some((running.replica.clone()?, running.content))
    }

    fn is_open(&self, id: i32, replica: &MetadataReplica) {
        if let Some(running) = self.all().get_mut(&id) {
            running.replica = Some(replica.clone());
        }
    }

    fn is_content(&self, id: i32) {
        if let Some(running) = self.all().get_mut(&id) {
            running.content = true;
        }
    }
}

/// From the start on.
async fn live(world: World, id: i32, process: Process, disk: SimFs) {
    let rng = world.rng.fork("broker");
    let env = Env {
        clock: Arc::new(world.clock.clone()),
        rng: Arc::new(rng.fork("process")),
        fs: Arc::new(disk),
    };
    let options = MetadataLogOptions::default();
    let replica = match MetadataReplica::open(&env, Path::new(DIR), options).await {
        Ok(replica) => replica,
        Err(error) => {
            let detail = format!("broker {id} cannot open its metadata: {error}");
            return world.fail("recovery", detail);
        }
    };
    world.brokers.is_open(id, &replica);
    let broker = Broker {
        world,
        id,
        rng,
        replica,
        leader: 0,
        epoch: -1,
        count: 0,
    };
    broker.live(process).await;
}

struct Broker {
    world: World,
    id: i32,
    rng: SimRng,
    replica: MetadataReplica,
    /// Which controller is asked first.
    leader: usize,
    /// Of the registration.
    epoch: i64,
    /// Counts what was asked for, so that each thing has a name of its own.
    count: u64,
}

impl Broker {
    async fn live(mut self, process: Process) {
        let witness = Witness {
            world: self.world.clone(),
            who: self.id,
        };
        self.replica.subscribe(Arc::new(witness)).await;
        let observer = Observer {
            world: self.world.clone(),
            who: self.id,
            replica: self.replica.clone(),
            leader: Arc::default(),
            is_disturbed: Arc::new(|| false),
            is_faithful: false,
        };
        let name = format!("observer {}", self.id);
        let executor = &self.world.executor;
        executor.spawn_in(process, name, observer.run());
        self.register(process).await;
        loop {
            if self.heartbeat().await == Err(ErrorCode::StaleBrokerEpoch) {
                // A request of an earlier process came late.
                self.register(process).await;
            }
            let is_calm = self.world.is_calm();
            if !is_calm || !self.world.brokers.get(self.id).is_some_and(|(_, it)| it) {
                let answered = self.ask_for_something().await;
                if is_calm && answered {
                    self.world.brokers.is_content(self.id);
                }
            }
            let most = self.world.plan.heartbeat.as_millis() as u64;
            self.world.sleep_ms(self.rng.below(most)).await;
        }
    }

    /// Asks the controller that leads, as far as is known; `None` if there is no answer.
    async fn ask<T, F>(
        &mut self,
        what: &'static str,
        act: impl Fn(Controller) -> F + Clone + Send + Sync + 'static,
    ) -> Option<Result<T, ApiError>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, ApiError>> + Send + 'static,
    {
        let controllers = &self.world.plan.controllers;
        let node = controllers[self.leader % controllers.len()];
        let there = self.world.clone();
        let serve = move || {
            let (controller, act) = (there.controller(node), act.clone());
            async move {
                match controller {
                    Some(controller) => act(controller).await,
                    None => Err(ErrorCode::NotController.into()),
                }
            }
        };
        let timeout = self.world.plan.request;
        let way = (self.id, node);
        let answer = self.world.net.call(way, what, timeout, serve).await;
        let moved = |error: &ApiError| error.code == ErrorCode::NotController;
        if !matches!(&answer, Ok(answer) if !answer.as_ref().is_err_and(moved)) {
            self.leader += 1;
        }
        if let Ok(Err(error)) = &answer {
            let id = self.id;
            self.world.note(format_args!("{what} of {id}: {error}"));
        }
        answer.ok()
    }

    async fn register(&mut self, process: Process) {
        let request = BrokerRegistrationRequest {
            broker_id: self.id,
            cluster_id: CLUSTER_ID.into(),
            incarnation_id: Uuid::from_bytes(self.rng.next_16_bytes()),
            listeners: vec![Listener {
                name: "PLAINTEXT".into(),
                host: "localhost".into(),
                port: 9000 + self.id.unsigned_abs() as u16,
                ..Listener::default()
            }],
            features: SUPPORTED
                .iter()
                .map(|feature| Feature {
                    name: feature.name.into(),
                    min_supported_version: feature.min,
                    max_supported_version: feature.max,
                    ..Feature::default()
                })
                .collect(),
            log_dirs: vec![Uuid::from_bytes([self.id.unsigned_abs() as u8; 16])],
            previous_broker_epoch: -1,
            ..BrokerRegistrationRequest::default()
        };
        self.world
            .note(format_args!("{process:?} is of {}", self.id));
        // Who asks again is told the epoch that an earlier try of the same process was given.
        let asked = self.world.now();
        loop {
            let request = request.clone();
            let act = move |controller: Controller| {
                let request = request.clone();
                async move { controller.register_broker(request, false).await }
            };
            if let Some(Ok(reply)) = self.ask("registration", act).await {
                self.epoch = reply.broker_epoch;
                let mut known = self.world.known();
                let checked = known.promises.epoch(self.epoch, asked, self.world.now());
                known.check(checked);
                return;
            }
            self.world.sleep_ms(50 + self.rng.below(200)).await;
        }
    }

    async fn heartbeat(&mut self) -> Result<(), ErrorCode> {
        let request = BrokerHeartbeatRequest {
            broker_id: self.id,
            broker_epoch: self.epoch,
            current_metadata_offset: self.replica.image().offset(),
            ..BrokerHeartbeatRequest::default()
        };
        let act = move |controller: Controller| {
            let request = request.clone();
            async move { controller.broker_heartbeat(request).await }
        };
        match self.ask("heartbeat", act).await {
            Some(Err(error)) => Err(error.code),
            _ => Ok(()),
        }
    }

    /// Asks for something; whether it was answered.
    async fn ask_for_something(&mut self) -> bool {
        self.count += 1;
        match self.rng.index(10) {
            0..3 => self.make_topic().await,
            3 => self.delete_topic().await,
            4..7 => self.set_quota().await,
            _ => self.get_block().await,
        }
    }

    /// A name that is used once.
    fn name(&self) -> String {
        format!("{}-{}-{}", self.id, self.epoch, self.count)
    }

    async fn make_topic(&mut self) -> bool {
        let name = self.name();
        let request = CreateTopicsRequest {
            topics: vec![CreatableTopic {
                name: name.as_str().into(),
                num_partitions: 1 + self.rng.index(3) as i32,
                replication_factor: 1 + self.rng.index(2) as i16,
                ..CreatableTopic::default()
            }],
            timeout_ms: 1_000,
            ..CreateTopicsRequest::default()
        };
        let act = move |controller: Controller| {
            let request = request.clone();
            async move { controller.create_topics(request, Describable::All).await }
        };
        let Some(Ok(mut reply)) = self.ask("topic", act).await else {
            return false;
        };
        let Some(topic) = reply.topics.pop() else {
            return false;
        };
        if topic.error_code == ErrorCode::None.code() {
            self.world.known().promises.topic(&name, topic.topic_id);
        }
        true
    }

    async fn delete_topic(&mut self) -> bool {
        let index = self.rng.index(1_000);
        let Some((name, id)) = self.world.known().promises.give_up_topic(index) else {
            return false;
        };
        self.world.note(format_args!("{} deletes {name}", self.id));
        let request = DeleteTopicsRequest {
            topics: vec![DeleteTopicState {
                name: None,
                topic_id: id,
                ..DeleteTopicState::default()
            }],
            timeout_ms: 1_000,
            ..DeleteTopicsRequest::default()
        };
        let act = move |controller: Controller| {
            let request = request.clone();
            async move { controller.delete_topics(request).await }
        };
        let Some(Ok(reply)) = self.ask("deletion", act).await else {
            return false;
        };
        if reply.responses.iter().all(|topic| topic.error_code == 0) {
            self.world.known().promises.deleted(id);
        }
        true
    }

    async fn set_quota(&mut self) -> bool {
        let (user, value) = (self.name(), 1.0 + self.rng.index(1_000) as f64);
        let request = AlterClientQuotasRequest {
            entries: vec![EntryData {
                entity: vec![EntityData {
                    entity_type: "user".into(),
                    entity_name: Some(user.as_str().into()),
                    ..EntityData::default()
                }],
                ops: vec![OpData {
                    key: QUOTA.into(),
                    value,
                    ..OpData::default()
                }],
                ..EntryData::default()
            }],
            ..AlterClientQuotasRequest::default()
        };
        let act = move |controller: Controller| {
            let request = request.clone();
            async move { controller.alter_client_quotas(request).await }
        };
        let done = match self.ask("quota", act).await {
            Some(Ok(reply)) => reply.entries.iter().all(|entry| entry.error_code == 0),
            Some(Err(_)) => self.world.flaw == Flaw::RefusalsSucceed,
            None => false,
        };
        if done {
            self.world.known().promises.quota(&user, value);
        }
        done
    }

    async fn get_block(&mut self) -> bool {
        let request = AllocateProducerIdsRequest {
            broker_id: self.id,
            broker_epoch: self.epoch,
            ..AllocateProducerIdsRequest::default()
        };
        let asked = self.world.now();
        let act = move |controller: Controller| {
            let request = request.clone();
            async move { controller.allocate_producer_ids(request).await }
        };
        let Some(Ok(reply)) = self.ask("block", act).await else {
            return false;
        };
        let mut known = self.world.known();
        let first = reply.producer_id_start;
        let checked = known.promises.block(first, asked, self.world.now());
        known.check(checked);
        true
    }
}
