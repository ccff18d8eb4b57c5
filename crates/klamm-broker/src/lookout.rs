//! The active controller's lookout for brokers that are gone.
//!
//! A broker that dies falls silent, and its session ends in time. But where its process died and its
//! machine did not, there is a quicker sign: the machine closes its connections and refuses new
//! ones. So the controller that decides keeps a connection to each broker that serves, says nothing
//! on it, and when it ends tries another one. A refusal is the proof that nobody listens: the broker
//! is fenced at once, and its partitions get other leaders. Everything else (silence, a network that
//! drops packets) proves nothing and is left to the session.
//!
//! Fencing is always safe: a broker that lives after all is back with its next heartbeat.
//!
//! Controllers that follow look out for the one that decides in the same way ([`until_refused`]).

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use klamm_metadata::MetadataImage;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::shared::Shared;

/// How often to look who has to be watched.
const ROUND: Duration = Duration::from_millis(100);
/// The same while this node is the only broker: whoever joins is watched soon enough then, and a node
/// by itself has better things to do than to wake up.
const ROUND_ALONE: Duration = Duration::from_secs(2);
/// How soon a connection is tried again that was not refused.
const RETRY: Duration = Duration::from_millis(500);
/// Between the two refusals that it takes.
const SECOND_LOOK: Duration = Duration::from_millis(20);

/// A registration of a broker: its id and epoch.
type Registration = (i32, i64);

/// Watches the brokers while the controller of this process decides, until the task is ended.
pub(crate) async fn watch_brokers(shared: Arc<Shared>) {
    let mut tasks = JoinSet::new();
    let mut watched: BTreeMap<Registration, AbortHandle> = BTreeMap::new();
    loop {
        while tasks.try_join_next().is_some() {}
        let image = shared.image();
        let serving = if shared.controller.is_active() {
            serving(&shared, &image)
        } else {
            BTreeMap::new()
        };
        watched.retain(|registration, task| {
            let keep = serving.contains_key(registration) && !task.is_finished();
            if !keep {
                task.abort();
            }
            keep
        });
        for (registration, address) in serving {
            watched
                .entry(registration)
                .or_insert_with(|| tasks.spawn(watch(shared.clone(), registration, address)));
        }
        let alone = image.brokers().all(|broker| broker.id == shared.node_id);
        sleep(if alone { ROUND_ALONE } else { ROUND }).await;
    }
}

/// The other brokers that serve, and where they listen for brokers.
fn serving(shared: &Shared, image: &MetadataImage) -> BTreeMap<Registration, (String, u16)> {
    let listener = shared.config().inter_broker_listener_name().to_owned();
    let others = image.cluster().alive_endpoints(&listener);
    let others = others.filter(|(broker, _)| broker.id != shared.node_id);
    others
        .map(|(broker, endpoint)| {
            let address = (endpoint.host.clone(), endpoint.port);
            ((broker.id, broker.epoch), address)
        })
        .collect()
}

/// Watches one registration of a broker until nobody listens there any more.
async fn watch(shared: Arc<Shared>, (id, epoch): Registration, address: (String, u16)) {
    let patience = Duration::from_millis(
        u64::try_from(shared.config().broker_session_timeout_ms()).unwrap_or(9_000),
    );
    until_refused(&address, patience).await;
    let Some(controller) = shared.controller.local() else {
        return;
    };
    info!(
        broker = id,
        "nobody listens at this broker's address any more"
    );
    if let Err(refused) = controller.fence_broker(id, epoch).await {
        warn!(broker = id, error = %refused, "a broker that is gone cannot be fenced");
        sleep(RETRY).await;
    }
}

/// Waits until nobody listens at an address any more, and the machine there says so. `patience` is how
/// long an attempt to connect may take.
pub(crate) async fn until_refused((host, port): &(String, u16), patience: Duration) {
    let mut refusals = 0;
    while refusals < 2 {
        let connected = timeout(patience, TcpStream::connect((&**host, *port))).await;
        match connected {
            Ok(Ok(stream)) => {
                refusals = 0;
                closed(stream).await;
            }
            Ok(Err(failed)) if failed.kind() == ErrorKind::ConnectionRefused => {
                refusals += 1;
                sleep(SECOND_LOOK).await;
            }
            Ok(Err(_)) | Err(_) => {
                refusals = 0;
                sleep(RETRY).await;
            }
        }
    }
}

/// Waits until the other side closes a connection on which nothing is said.
async fn closed(mut stream: TcpStream) {
    let mut nothing = [0; 64];
    while matches!(stream.read(&mut nothing).await, Ok(1..)) {}
}
