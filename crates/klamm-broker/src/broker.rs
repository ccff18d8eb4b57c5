use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use klamm_config::BrokerConfig;
use klamm_env::Env;
use klamm_metadata::MetadataImage;
use klamm_net::Shutdown;
use klamm_protocol::messages::BrokerHeartbeatRequest;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use crate::cleaner::CleanerThreads;
use crate::error::BrokerError;
use crate::ops::{Health, Metrics, OpsServer};
use crate::shared::Shared;
use crate::start;
use crate::upkeep::Upkeep;

/// How long open connections are given to finish the request at hand.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// How long the controller is asked to move leaders away.
const CONTROLLED_SHUTDOWN_MAX: Duration = Duration::from_secs(30);
/// How long the controller may take to commit what it has decided.
const CONTROLLER_STOP_MAX: Duration = Duration::from_secs(5);
/// How long another controller may take to take over.
const RESIGN_MAX: Duration = Duration::from_secs(2);
/// How long to wait between two such questions: first, and at most.
const CONTROLLED_SHUTDOWN_PAUSES: (Duration, Duration) =
    (Duration::from_millis(1), Duration::from_millis(100));

/// A running broker, with its controller where the configuration gives it that role.
///
/// Dropping it without [`Broker::shutdown`] leaves the data as a crash would: nothing that was
/// acknowledged is lost, and the next start has to look at the logs' tails.
#[derive(Debug)]
pub struct Broker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) listeners: Vec<BoundListener>,
    pub(crate) shutdown: Shutdown,
    pub(crate) tasks: JoinSet<()>,
    pub(crate) upkeep: Option<Upkeep>,
    pub(crate) cleaner: Option<CleanerThreads>,
    pub(crate) ops: OpsServer,
}

/// A listener with the addresses it was opened on.
#[derive(Clone, Debug)]
pub(crate) struct BoundListener {
    pub(crate) name: String,
    pub(crate) addresses: Vec<SocketAddr>,
}

impl Broker {
    /// Starts a broker; it serves clients when this returns.
    ///
    /// Data directories that are empty are formatted, with a new cluster id unless the
    /// configuration has one.
    ///
    /// # Errors
    /// A directory that another process uses or that belongs to another cluster or node, an address
    /// in use, a configuration that asks for what is not there yet.
    pub async fn start(config: BrokerConfig, env: Env) -> Result<Broker, BrokerError> {
        start::start(config, env).await
    }

    /// The cluster's id.
    pub fn cluster_id(&self) -> &str {
        &self.shared.cluster_id
    }

    /// This broker's id.
    pub fn node_id(&self) -> i32 {
        self.shared.node_id
    }

    /// The first address that a listener was opened on, with the real port where 0 was asked for.
    pub fn address(&self, listener: &str) -> Option<SocketAddr> {
        let found = self.listeners.iter().find(|bound| bound.name == listener)?;
        found.addresses.first().copied()
    }

    /// All listeners with their addresses.
    pub fn addresses(&self) -> impl Iterator<Item = (&str, &[SocketAddr])> {
        self.listeners
            .iter()
            .map(|bound| (&*bound.name, &*bound.addresses))
    }

    /// Where metrics and health are served.
    pub fn ops_addresses(&self) -> &[SocketAddr] {
        self.ops.local_addrs()
    }

    /// The cluster's metadata as this broker knows it now.
    pub fn metadata(&self) -> Arc<MetadataImage> {
        self.shared.image()
    }

    /// What the broker counts.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.shared.metrics
    }

    /// Waits until the broker has lost its last log directory and can serve no longer: its health is
    /// then `failed`. Kafka ends its process at once, which is up to whoever embeds this one.
    pub async fn lost(&self) {
        self.shared.directories_lost.notified().await;
    }

    /// Waits until the controller of this process cannot go on, and tells why: its disk failed, or it
    /// panicked again and again. The health is then `failed`, and the process should end: the others
    /// elect one of them. Never where this node is no controller.
    pub async fn controller_failed(&self) -> String {
        match self.shared.controller.local() {
            Some(controller) => controller.failed().await,
            None => std::future::pending().await,
        }
    }

    /// Stops in order: hands leadership away, lets requests finish, flushes the logs and leaves
    /// the mark of a clean shutdown, so that the next start need not look at them.
    pub async fn shutdown(mut self) {
        let shared = &self.shared;
        shared.metrics.set_health(Health::Stopping);
        if shared.config().is_broker() && shared.config().controlled_shutdown_enable() {
            // A controller that has lost its quorum answers nothing at all.
            let left = timeout(CONTROLLED_SHUTDOWN_MAX, leave_cluster(shared)).await;
            if left.is_err() {
                warn!("the controller did not let go of this broker; shutting down all the same");
            }
        }
        // While the others can still ask this one.
        shared.controller.resign(RESIGN_MAX).await;
        self.shutdown.stop();
        drain(&self.shutdown).await;
        shared.groups.shut_down();
        shared.transactions.shut_down();
        shared.share_states.shut_down();
        self.tasks.shutdown().await;
        if let Some(cleaner) = &mut self.cleaner {
            cleaner.stop().await;
        }
        shared.movers.stop().await;
        shared.fetchers.stop().await;
        if let Some(upkeep) = &mut self.upkeep {
            upkeep.stop().await;
        }
        let (replicas, epoch) = (shared.replicas.clone(), shared.epoch());
        let closed = spawn_blocking(move || replicas.logs().shutdown(epoch)).await;
        match closed {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "the logs are not cleanly shut down"),
            Err(error) => warn!(%error, "the shutdown of the logs did not end"),
        }
        match timeout(CONTROLLER_STOP_MAX, shared.controller.shutdown()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "the controller is not cleanly shut down"),
            Err(_) => warn!("the controller waits for its quorum; it is shut down without it"),
        }
        info!("shut down");
    }
}

impl Drop for Broker {
    /// Ends what goes on by itself, if [`Broker::shutdown`] has not. Waits for the threads that compact,
    /// which give up at their next access to the disk; those that move logs end after the step at hand,
    /// and until then the directories stay locked.
    fn drop(&mut self) {
        self.shutdown.stop();
        self.shared.movers.end();
        drop(self.shared.fetchers.end());
    }
}

/// Controlled shutdown: the controller moves leaders off this broker and says when it may go.
async fn leave_cluster(shared: &Shared) {
    // An ordinary heartbeat behind the last one from here would let this broker in again.
    shared.leaving.store(true, Ordering::Release);
    let (mut pause, pause_max) = CONTROLLED_SHUTDOWN_PAUSES;
    loop {
        let request = BrokerHeartbeatRequest {
            broker_id: shared.node_id,
            broker_epoch: shared.epoch(),
            current_metadata_offset: shared.image().offset(),
            want_shut_down: true,
            ..BrokerHeartbeatRequest::default()
        };
        match shared.controller.broker_heartbeat(request).await {
            Ok(answer) if !answer.should_shut_down => {}
            Ok(_) | Err(_) => return,
        }
        sleep(pause).await;
        pause = (pause * 2).min(pause_max);
    }
}

async fn drain(shutdown: &Shutdown) {
    let deadline = Instant::now() + DRAIN_MAX;
    while shutdown.open_connections() > 0 && Instant::now() < deadline {
        sleep(Duration::from_millis(5)).await;
    }
}
