//! The way to the controller that decides, wherever it is.
//!
//! ```text
//! a client's request ──┐                          ┌─ this node decides: asked in process
//! heartbeats, ISRs,  ──┴─> ControllerHandle::ask ─┤
//! producer id blocks                              └─ another does: over its controller listener,
//!                                                    clients' requests in an Envelope
//! ```
//!
//! Who is told `NOT_CONTROLLER`, reaches nobody or learns meanwhile that another was elected tries
//! again, until the time of the request is up. A request may therefore be decided on twice, as with
//! Kafka: a topic that was created by the first attempt already exists for the second.
//!
//! - `peers`: connections to other controllers; they carry the quorum's own calls as well.
//! - `observer`: the metadata of a broker that is no controller.
//! - `envelope`: clients' requests as they are passed on.

mod envelope;
mod observer;
mod peers;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use klamm_client::{ClientError, Connection};
use klamm_config::BrokerConfig;
use klamm_controller::{ApiError, Controller, ControllerError, MetadataPublisher, VoterEndpoint};
use klamm_metadata::MetadataImage;
use klamm_net::ConnectionInfo;
use klamm_protocol::frame::decode_response;
use klamm_protocol::messages::{
    AllocateProducerIdsRequest, AllocateProducerIdsResponse, AlterPartitionRequest,
    AlterPartitionResponse, AssignReplicasToDirsRequest, AssignReplicasToDirsResponse,
    BrokerHeartbeatRequest, BrokerHeartbeatResponse, BrokerRegistrationRequest,
    BrokerRegistrationResponse, ControllerRegistrationRequest, CreateTopicsRequest,
    CreateTopicsResponse,
};
use klamm_protocol::{ByteStr, ErrorCode, Message, Request};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::debug;

pub(crate) use self::envelope::{client_address, without_size};
pub(crate) use self::observer::{Contacts, Observer, Timing};
pub(crate) use self::peers::{Peers, QUORUM_KEY, QUORUM_VERSION};
use crate::context::RequestContext;

/// How often a request that waits for a controller's answer looks whether another decides by now.
const MOVED_CHECK: Duration = Duration::from_millis(50);

/// A request that the active controller answers, wherever it comes in.
pub(crate) trait ControllerApi: Request {
    /// The answer of the controller in this process, or `NOT_CONTROLLER` if it does not decide.
    fn decide(
        self,
        controller: &Controller,
        context: &RequestContext,
    ) -> impl Future<Output = Result<Self::Response, ApiError>> + Send;

    /// The response that says why there is no answer.
    fn refused(&self, error: &ApiError) -> Self::Response;

    /// How long the client allows it to take, if it says so; the controller looks at it as well.
    fn timeout_ms(&self) -> Option<i32> {
        None
    }

    /// The error code that stands for the whole response, if it has one.
    fn error_code(_response: &Self::Response) -> ErrorCode {
        ErrorCode::None
    }
}

/// How a request gets to a controller elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// As a client's, with the client's name.
    Envelope,
    /// As this broker's own.
    Direct,
}

/// Where the controller is that decides.
enum Active<'a> {
    Here(&'a Controller),
    At(i32, Vec<VoterEndpoint>),
    Unknown,
}

/// What came of one attempt.
enum Attempt<T> {
    Answered(Result<T, ApiError>),
    Again,
}

/// Where this node has its metadata from.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// It is one of the controllers.
    Local(Controller),
    /// It follows them.
    Observed(Arc<Observer>),
}

/// Asks the active controller. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct ControllerHandle {
    source: Source,
    peers: Arc<Peers>,
    /// Whether there are other voters.
    several: bool,
    /// How long a client's request may take.
    request_limit: Duration,
    /// How long a heartbeat and the like may take.
    session_limit: Duration,
    retry_backoff: Duration,
}

impl ControllerHandle {
    /// A handle on the controller in this process, if there is one, with a way to the other voters.
    pub(crate) fn new(source: Source, peers: Arc<Peers>, config: &BrokerConfig) -> Self {
        let ms = |ms: i64| Duration::from_millis(u64::try_from(ms).unwrap_or(0));
        ControllerHandle {
            several: config.quorum_voters().len() > 1
                || has_dynamic_quorum(config)
                || matches!(source, Source::Observed(_)),
            source,
            peers,
            request_limit: ms(config.int("request.timeout.ms").into()),
            session_limit: ms(config.broker_session_timeout_ms().into()),
            retry_backoff: ms(config.int("controller.quorum.retry.backoff.ms").into()),
        }
    }

    /// The metadata of now. It never goes back.
    pub(crate) fn image(&self) -> Arc<MetadataImage> {
        match &self.source {
            Source::Local(controller) => controller.image(),
            Source::Observed(observer) => observer.replica().image(),
        }
    }

    /// Up to where those who follow the metadata were told of it.
    pub(crate) fn published_offset(&self) -> i64 {
        match &self.source {
            Source::Local(controller) => controller.published_offset(),
            Source::Observed(observer) => observer.replica().published_offset(),
        }
    }

    /// Tells `publisher` of the metadata of now and of each change.
    pub(crate) async fn subscribe(&self, publisher: Arc<dyn MetadataPublisher>) {
        match &self.source {
            Source::Local(controller) => controller.subscribe(publisher).await,
            Source::Observed(observer) => observer.replica().subscribe(publisher).await,
        }
    }

    /// Whether this node decides.
    pub(crate) fn is_active(&self) -> bool {
        self.local().is_some_and(Controller::is_active)
    }

    /// Node id of the controller that decides, if it is known.
    pub(crate) fn leader(&self) -> Option<i32> {
        match &self.source {
            Source::Local(controller) => controller.leader(),
            Source::Observed(observer) => observer.leader(),
        }
    }

    /// The controller in this process.
    pub(crate) fn local(&self) -> Option<&Controller> {
        match &self.source {
            Source::Local(controller) => Some(controller),
            Source::Observed(_) => None,
        }
    }

    /// What follows the controllers, if this node is none.
    pub(crate) fn observer(&self) -> Option<&Arc<Observer>> {
        match &self.source {
            Source::Local(_) => None,
            Source::Observed(observer) => Some(observer),
        }
    }

    /// Hands the lead to another controller, if the one in this process has it; waits for at most
    /// `limit`.
    pub(crate) async fn resign(&self, limit: Duration) {
        if let Some(controller) = self.local() {
            controller.resign(limit).await;
        }
    }

    /// Stops the controller in this process.
    pub(crate) async fn shutdown(&self) -> Result<(), ControllerError> {
        match &self.source {
            Source::Local(controller) => controller.shutdown().await,
            Source::Observed(observer) => Ok(observer.replica().close()?),
        }
    }

    /// Answers a request that came in on a controller listener: only the active controller does.
    pub(crate) async fn answer_here<R: ControllerApi>(
        &self,
        request: R,
        context: &RequestContext,
    ) -> Result<R::Response, ApiError> {
        let deadline = Instant::now() + within(&request, self.request_limit);
        let Some(controller) = self.local() else {
            return Err(ErrorCode::NotController.into());
        };
        let decided = timeout_at(deadline, request.decide(controller, context));
        decided.await.unwrap_or_else(|_| Err(no_answer()))
    }

    /// Has a client's request answered, wherever the active controller is.
    pub(crate) async fn answer_client<R: ControllerApi>(
        &self,
        request: R,
        context: &RequestContext,
    ) -> Result<R::Response, ApiError> {
        self.ask(request, context, Way::Envelope, self.request_limit)
            .await
    }

    /// Makes topics that this broker needs.
    pub(crate) async fn create_topics(
        &self,
        request: CreateTopicsRequest,
    ) -> Result<CreateTopicsResponse, ApiError> {
        let context = own_context(<CreateTopicsRequest as Message>::VERSIONS.max);
        self.ask(request, &context, Way::Envelope, self.request_limit)
            .await
    }

    /// Registers the broker of this process.
    pub(crate) async fn register_broker(
        &self,
        request: BrokerRegistrationRequest,
    ) -> Result<BrokerRegistrationResponse, ApiError> {
        self.own(request, self.session_limit).await
    }

    /// Registers the controller of this process with the one that decides.
    pub(crate) async fn register_controller(
        &self,
        request: ControllerRegistrationRequest,
    ) -> Result<(), ApiError> {
        self.own(request, self.session_limit).await.map(|_| ())
    }

    /// Tells the one that decides where the controller of this process listens, if that is news.
    pub(crate) async fn update_voter(&self) -> Result<(), ApiError> {
        let Some(controller) = self.local() else {
            return Ok(());
        };
        if let Some(request) = controller.voter_update() {
            let epoch = request.current_leader_epoch;
            self.own(request, self.session_limit).await?;
            controller.voter_is_known_in(epoch);
        }
        Ok(())
    }

    /// Gives a sign of life of the broker of this process.
    pub(crate) async fn broker_heartbeat(
        &self,
        request: BrokerHeartbeatRequest,
    ) -> Result<BrokerHeartbeatResponse, ApiError> {
        self.own(request, self.session_limit).await
    }

    /// Proposes changes of in-sync replicas.
    pub(crate) async fn alter_partition(
        &self,
        request: AlterPartitionRequest,
    ) -> Result<AlterPartitionResponse, ApiError> {
        self.own(request, self.request_limit).await
    }

    /// Tells in which directories replicas of this broker are.
    pub(crate) async fn assign_replicas_to_dirs(
        &self,
        request: AssignReplicasToDirsRequest,
    ) -> Result<AssignReplicasToDirsResponse, ApiError> {
        self.own(request, self.request_limit).await
    }

    /// Asks for a block of producer ids.
    pub(crate) async fn allocate_producer_ids(
        &self,
        request: AllocateProducerIdsRequest,
    ) -> Result<AllocateProducerIdsResponse, ApiError> {
        self.own(request, self.request_limit).await
    }

    /// A request of this broker for itself. An error that stands for the whole response is an
    /// error here.
    async fn own<R: ControllerApi>(
        &self,
        request: R,
        limit: Duration,
    ) -> Result<R::Response, ApiError> {
        let context = own_context(<R as Message>::VERSIONS.max);
        let response = self.ask(request, &context, Way::Direct, limit).await?;
        match R::error_code(&response) {
            ErrorCode::None => Ok(response),
            error => Err(error.into()),
        }
    }

    fn active(&self) -> Active<'_> {
        let leader = match &self.source {
            Source::Local(controller) if controller.is_active() => return Active::Here(controller),
            Source::Local(controller) => controller.leader_endpoints(),
            Source::Observed(observer) => observer.leader_endpoints(),
        };
        leader.map_or(Active::Unknown, |(id, endpoints)| Active::At(id, endpoints))
    }

    async fn ask<R: ControllerApi>(
        &self,
        request: R,
        context: &RequestContext,
        way: Way,
        limit: Duration,
    ) -> Result<R::Response, ApiError> {
        if let (false, Some(controller)) = (self.several, self.local()) {
            // There is nobody else to ask: a refusal is final.
            return request.decide(controller, context).await;
        }
        let deadline = Instant::now() + within(&request, limit);
        loop {
            match timeout_at(deadline, self.attempt(&request, context, way)).await {
                Ok(Attempt::Answered(answer)) => return answer,
                Ok(Attempt::Again) if Instant::now() + self.retry_backoff < deadline => {
                    sleep(self.retry_backoff).await;
                }
                Ok(Attempt::Again) | Err(_) => return Err(no_answer()),
            }
        }
    }

    async fn attempt<R: ControllerApi>(
        &self,
        request: &R,
        context: &RequestContext,
        way: Way,
    ) -> Attempt<R::Response> {
        match self.active() {
            Active::Here(controller) => match request.clone().decide(controller, context).await {
                Err(error) if error.code == ErrorCode::NotController => Attempt::Again,
                answer => Attempt::Answered(answer),
            },
            Active::At(leader, endpoints) => {
                let asked = self.ask_at(leader, &endpoints, request, context, way);
                tokio::select! {
                    answered = asked => match answered {
                        Ok(attempt) => attempt,
                        Err(error) => {
                            debug!(controller = leader, %error, "the controller cannot be asked");
                            Attempt::Again
                        }
                    },
                    () = self.moved_from(leader) => Attempt::Again,
                }
            }
            Active::Unknown => Attempt::Again,
        }
    }

    /// Returns once another controller than `leader` decides.
    async fn moved_from(&self, leader: i32) {
        loop {
            sleep(MOVED_CHECK).await;
            if self.leader().is_some_and(|now| now != leader) {
                return;
            }
        }
    }

    async fn ask_at<R: ControllerApi>(
        &self,
        leader: i32,
        endpoints: &[VoterEndpoint],
        request: &R,
        context: &RequestContext,
        way: Way,
    ) -> Result<Attempt<R::Response>, ClientError> {
        let connection = self.peers.for_requests(leader, endpoints).await?;
        match way {
            Way::Envelope => enveloped(&connection, request, context).await,
            Way::Direct => {
                let response = connection.request(request).await?;
                if R::error_code(&response) == ErrorCode::NotController {
                    return Ok(Attempt::Again);
                }
                Ok(Attempt::Answered(Ok(response)))
            }
        }
    }
}

async fn enveloped<R: ControllerApi>(
    connection: &Connection,
    request: &R,
    context: &RequestContext,
) -> Result<Attempt<R::Response>, ClientError> {
    let answer = connection
        .request(&envelope::seal(request, context)?)
        .await?;
    match (code(answer.error_code), answer.response_data) {
        (ErrorCode::NotController, _) => Ok(Attempt::Again),
        (ErrorCode::None, Some(data)) => {
            let (_, response) = decode_response::<R>(data, context.api_version)?;
            Ok(Attempt::Answered(Ok(response)))
        }
        (ErrorCode::None, None) => Ok(Attempt::Answered(Err(ErrorCode::UnknownServerError.into()))),
        (error, _) => Ok(Attempt::Answered(Err(error.into()))),
    }
}

/// An error code as it came over the wire.
pub(crate) fn code(code: i16) -> ErrorCode {
    ErrorCode::from_code(code).unwrap_or(ErrorCode::UnknownServerError)
}

/// How long a request may take, of `most`.
fn within<R: ControllerApi>(request: &R, most: Duration) -> Duration {
    let own = request.timeout_ms();
    own.map_or(most, |ms| {
        most.min(Duration::from_millis(u64::try_from(ms).unwrap_or(0)))
    })
}

fn no_answer() -> ApiError {
    ApiError::new(
        ErrorCode::RequestTimedOut,
        "No active controller answered in time.",
    )
}

/// What is known of a request that this process makes itself.
fn own_context(api_version: i16) -> RequestContext {
    let nowhere = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
    RequestContext {
        api_version,
        correlation_id: 0,
        client_id: ByteStr::default(),
        connection: Arc::new(ConnectionInfo {
            id: 0,
            peer: nowhere,
            local: nowhere,
            listener: "".into(),
        }),
        in_process: true,
    }
}

/// Whether the voters are those in the metadata log, and the configuration only tells where to ask.
pub(crate) fn has_dynamic_quorum(config: &BrokerConfig) -> bool {
    config.quorum_voters().is_empty() && !config.is_standalone()
}

/// The addresses in `controller.quorum.bootstrap.servers`.
pub(crate) fn bootstrap_servers(config: &BrokerConfig) -> Vec<VoterEndpoint> {
    let servers = config.quorum_bootstrap_servers().into_iter();
    let endpoint = |(host, port)| VoterEndpoint {
        name: String::new(),
        host,
        port,
    };
    servers.map(endpoint).collect()
}

/// The addresses in `controller.quorum.voters`, but for this node's own.
pub(crate) fn configured_voters(config: &BrokerConfig) -> BTreeMap<i32, (String, u16)> {
    let others = config.quorum_voters().iter();
    others
        .filter(|voter| voter.id != config.node_id())
        .map(|voter| (voter.id, (voter.host.clone(), voter.port)))
        .collect()
}
