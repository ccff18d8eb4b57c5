//! What is asked of the controller that decides, and how it is found: as brokers find it in
//! production, from what they follow the metadata by.

use std::time::Duration;

use klamm_controller::managers::{
    ApiError, Context, Outcome, Settings, configs, elections, isr, reassignments, topics,
};
use klamm_controller::{Controller, Describable};
use klamm_env::Rng as _;
use klamm_protocol::messages::{
    AllocateProducerIdsRequest, AllocateProducerIdsResponse, AlterClientQuotasRequest,
    AlterClientQuotasResponse, AlterPartitionReassignmentsRequest,
    AlterPartitionReassignmentsResponse, AlterPartitionRequest, AlterPartitionResponse,
    BrokerHeartbeatRequest, BrokerHeartbeatResponse, BrokerRegistrationRequest,
    BrokerRegistrationResponse, CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest,
    DeleteTopicsResponse, ElectLeadersRequest, ElectLeadersResponse,
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
};
use klamm_protocol::{ErrorCode, Request};

use super::Flaw;
use super::controller::{CLUSTER_ID, Controller as Plain};
use super::node::Broker;
use super::world::{CONTROLLER, Control, World};
use crate::Address;

/// Where administrators ask from.
const ADMINISTRATOR: Address = 150;
/// Before asking again.
const BACKOFF_MS: u64 = 20;
/// How often who waits for an answer looks whether another controller decides by now.
const MOVED_CHECK_MS: u64 = 50;

/// A request that the controller that decides answers.
pub(super) trait Decision: Request + Clone + Send + Sync + 'static {
    /// For the trace.
    const WHAT: &'static str;

    /// What the controller that never fails says.
    fn plain(&self, controller: &mut Plain) -> Result<Self::Response, ApiError>;

    /// What a controller of a quorum says. `same_process` says that it is in the broker's process.
    fn decide(
        self,
        controller: Controller,
        same_process: bool,
    ) -> impl Future<Output = Result<Self::Response, ApiError>> + Send;

    /// The flaw: what a controller says before it is committed.
    fn early(&self, _world: &World, _controller: &Controller) -> Option<Self::Response> {
        None
    }
}

impl Decision for BrokerRegistrationRequest {
    const WHAT: &'static str = "registration";

    fn plain(&self, controller: &mut Plain) -> Result<BrokerRegistrationResponse, ApiError> {
        controller.register(self)
    }

    async fn decide(
        self,
        controller: Controller,
        same_process: bool,
    ) -> Result<BrokerRegistrationResponse, ApiError> {
        controller.register_broker(self, same_process).await
    }
}

impl Decision for BrokerHeartbeatRequest {
    const WHAT: &'static str = "heartbeat";

    fn plain(&self, controller: &mut Plain) -> Result<BrokerHeartbeatResponse, ApiError> {
        controller.heartbeat(self)
    }

    async fn decide(
        self,
        controller: Controller,
        _: bool,
    ) -> Result<BrokerHeartbeatResponse, ApiError> {
        controller.broker_heartbeat(self).await
    }
}

impl Decision for AlterPartitionRequest {
    const WHAT: &'static str = "alter";

    fn plain(&self, controller: &mut Plain) -> Result<AlterPartitionResponse, ApiError> {
        controller.alter_partition(self)
    }

    async fn decide(
        self,
        controller: Controller,
        _: bool,
    ) -> Result<AlterPartitionResponse, ApiError> {
        controller.alter_partition(self).await
    }

    fn early(&self, world: &World, controller: &Controller) -> Option<AlterPartitionResponse> {
        let quorum = world.quorum()?;
        if world.flaw != Flaw::AnswersEarly || !controller.is_active() {
            return None;
        }
        let image = controller.image();
        let context = Context {
            image: &image,
            node_id: controller.node_id(),
            cluster_id: CLUSTER_ID,
            settings: &Settings::default(),
            schema: &*quorum.schema,
            rng: &world.rng,
            next_offset: image.offset() + 1,
        };
        let outcome = isr::alter_partition(&context, self).ok();
        outcome.map(|Outcome { reply, .. }| reply)
    }
}

impl Decision for CreateTopicsRequest {
    const WHAT: &'static str = "topics";

    fn plain(&self, controller: &mut Plain) -> Result<CreateTopicsResponse, ApiError> {
        controller.administer(|context| Ok(topics::create_topics(context, self, &|_| true)))
    }

    async fn decide(
        self,
        controller: Controller,
        _: bool,
    ) -> Result<CreateTopicsResponse, ApiError> {
        controller.create_topics(self, Describable::All).await
    }
}

impl Decision for AlterPartitionReassignmentsRequest {
    const WHAT: &'static str = "reassignments";

    fn plain(
        &self,
        controller: &mut Plain,
    ) -> Result<AlterPartitionReassignmentsResponse, ApiError> {
        let alter = reassignments::alter_partition_reassignments;
        controller.administer(|context| Ok(alter(context, self)))
    }

    async fn decide(
        self,
        controller: Controller,
        _: bool,
    ) -> Result<AlterPartitionReassignmentsResponse, ApiError> {
        controller.alter_partition_reassignments(self).await
    }
}

impl Decision for ElectLeadersRequest {
    const WHAT: &'static str = "elections";

    fn plain(&self, controller: &mut Plain) -> Result<ElectLeadersResponse, ApiError> {
        controller.administer(|context| elections::elect_leaders(context, self))
    }

    async fn decide(
        self,
        controller: Controller,
        _: bool,
    ) -> Result<ElectLeadersResponse, ApiError> {
        controller.elect_leaders(self).await
    }
}

impl Decision for IncrementalAlterConfigsRequest {
    const WHAT: &'static str = "configs";

    fn plain(&self, controller: &mut Plain) -> Result<IncrementalAlterConfigsResponse, ApiError> {
        controller.administer(|context| Ok(configs::incremental_alter_configs(context, self)))
    }

    async fn decide(
        self,
        controller: Controller,
        _: bool,
    ) -> Result<IncrementalAlterConfigsResponse, ApiError> {
        controller.incremental_alter_configs(self).await
    }
}

/// What only a quorum is asked: the controller that never fails has nothing to say about it.
macro_rules! asked_of_quorums {
    ($($request:ident => $response:ident, $what:literal, $method:ident;)*) => {$(
        impl Decision for $request {
            const WHAT: &'static str = $what;

            fn plain(&self, _: &mut Plain) -> Result<$response, ApiError> {
                Err(ErrorCode::UnsupportedVersion.into())
            }

            async fn decide(self, controller: Controller, _: bool) -> Result<$response, ApiError> {
                controller.$method(self).await
            }
        }
    )*};
}

asked_of_quorums! {
    AlterClientQuotasRequest => AlterClientQuotasResponse, "quota", alter_client_quotas;
    AllocateProducerIdsRequest => AllocateProducerIdsResponse, "block", allocate_producer_ids;
    DeleteTopicsRequest => DeleteTopicsResponse, "deletion", delete_topics;
}

/// What a controller answers that may or may not decide.
async fn served<R: Decision>(
    world: World,
    node: Address,
    request: R,
    same_process: bool,
) -> Result<R::Response, ApiError> {
    let not_here = || Err(ErrorCode::NotController.into());
    let Some(controller) = world.quorum().and_then(|quorum| quorum.controller(node)) else {
        return not_here();
    };
    if R::WHAT == AlterPartitionRequest::WHAT && controller.is_active() {
        super::whole::ambush(&world, node);
    }
    if let Some(answer) = request.early(&world, &controller) {
        let late = async move {
            let _ = request.decide(controller, same_process).await;
        };
        world.executor.spawn("too late", late);
        return Ok(answer);
    }
    request.decide(controller, same_process).await
}

/// One try to have `node` decide, over the network.
async fn call<R: Decision>(
    world: &World,
    (from, node): (Address, Address),
    request: &R,
    timeout: Duration,
) -> Result<R::Response, ErrorCode> {
    let (there, request) = (world.clone(), request.clone());
    let serve = move || served(there.clone(), node, request.clone(), false);
    let answer = world.net.call((from, node), R::WHAT, timeout, serve).await;
    match answer {
        Ok(answer) => answer.map_err(|error| error.code),
        Err(_) => Err(ErrorCode::NetworkException),
    }
}

async fn call_plain<R: Decision>(
    world: &World,
    from: Address,
    request: &R,
    timeout: Duration,
) -> Result<R::Response, ErrorCode> {
    let (there, request) = (world.clone(), request.clone());
    let serve = move || {
        let (there, request) = (there.clone(), request.clone());
        async move { there.control(|controller| request.plain(controller)) }
    };
    let way = (from, CONTROLLER);
    let answer = world.net.call(way, R::WHAT, timeout, serve).await;
    match answer {
        Ok(Some(answer)) => answer.map_err(|error| error.code),
        Ok(None) => Err(ErrorCode::NotController),
        Err(_) => Err(ErrorCode::NetworkException),
    }
}

/// Has the controller decide on a broker's request; tries for as long as `limit`, but the
/// controller that never fails once.
pub(super) async fn ask<R: Decision>(
    world: &World,
    broker: &Broker,
    request: R,
    limit: Duration,
) -> Result<R::Response, ErrorCode> {
    if matches!(world.control, Control::Plain(_)) {
        return call_plain(world, broker.id, &request, limit).await;
    }
    let late = world.executor.sleep(limit);
    let answer = async {
        loop {
            match attempt(world, broker, &request, limit).await {
                Err(ErrorCode::NotController | ErrorCode::NetworkException) => {
                    world.sleep_ms(BACKOFF_MS).await;
                }
                answer => return answer,
            }
        }
    };
    tokio::select! {
        biased;
        answer = answer => answer,
        () = late => Err(ErrorCode::RequestTimedOut),
    }
}

async fn attempt<R: Decision>(
    world: &World,
    broker: &Broker,
    request: &R,
    limit: Duration,
) -> Result<R::Response, ErrorCode> {
    let (Some(leader), local) = (broker.decider(), broker.local()) else {
        return Err(ErrorCode::NotController);
    };
    if local.is_some_and(|local| local.node_id() == leader) {
        let answer = served(world.clone(), leader, request.clone(), true).await;
        return answer.map_err(|error| error.code);
    }
    let moved = async {
        loop {
            world.sleep_ms(MOVED_CHECK_MS).await;
            if broker.decider().is_some_and(|now| now != leader) {
                return;
            }
        }
    };
    tokio::select! {
        biased;
        answer = call(world, (broker.id, leader), request, limit) => answer,
        () = moved => Err(ErrorCode::NotController),
    }
}

/// Has an administrator ask each controller in turn until one decides, or time is up.
pub(super) async fn administer<R: Decision>(world: &World, request: R) -> Option<R::Response> {
    let timeout = world.plan.timing.request;
    let Some(quorum) = world.quorum() else {
        return world.control(|controller| request.plain(controller))?.ok();
    };
    let controllers = &quorum.plan.controllers;
    let mut turn = world.rng.index(controllers.len());
    for _ in 0..20 {
        let node = controllers[turn % controllers.len()];
        match call(world, (ADMINISTRATOR, node), &request, timeout).await {
            Err(ErrorCode::NotController | ErrorCode::NetworkException) => turn += 1,
            answer => return answer.ok(),
        }
        world.sleep_ms(50 + world.rng.below(100)).await;
    }
    None
}
