//! Connections to the controllers of other nodes.

use std::collections::BTreeMap;
use std::future::{Future, pending};
use std::io;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use klamm_client::{ClientError, ConnectOptions, Connection};
use klamm_controller::{QuorumTransport, VoterEndpoint};
use tokio::time::timeout;

use crate::connections::{Address, Connections};
use crate::lookout::until_refused;

/// The API key by which controllers of a quorum talk to each other. Kafka's keys are small, those
/// of the future included; this one is not listed anywhere and taken on controller listeners only.
pub(crate) const QUORUM_KEY: i16 = 0x4B4C;
/// The one version of it.
pub(crate) const QUORUM_VERSION: i16 = 0;
/// Longer calls have a connection of their own, so that the others need not wait behind them.
const SMALL_CALL_BYTES: usize = 256 << 10;

/// What goes by a connection of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Lane {
    /// Votes, heartbeats and short appends of the quorum.
    Quorum,
    /// Snapshots and long appends.
    Bulk,
    /// What this broker asks of the active controller, for itself and for clients.
    Requests,
    /// Fetches of the metadata log, whose answers wait for news.
    Metadata,
}

/// Where controllers are, and the connections to them.
#[derive(Debug)]
pub(crate) struct Peers {
    /// As `controller.quorum.voters` has them. It wins over what the quorum remembers: an address
    /// that has changed is changed there.
    configured: BTreeMap<i32, (String, u16)>,
    connect_timeout: Duration,
    request_timeout: Duration,
    /// Whether nodes that refuse connections are taken to have ended (`klamm.fast.fencing.enable`).
    refusals_count: bool,
    open: Connections<(Address, Lane)>,
}

impl Peers {
    /// No connections yet. `connect_timeout` is the longest wait for a connection,
    /// `request_timeout` for the answer to a request. `refusals_count` says whether a node that refuses
    /// connections has ended.
    pub(crate) fn new(
        configured: BTreeMap<i32, (String, u16)>,
        client_id: String,
        (connect_timeout, request_timeout): (Duration, Duration),
        refusals_count: bool,
    ) -> Self {
        let options = ConnectOptions {
            client_id: Some(client_id),
            connect_timeout,
            request_timeout,
            ..ConnectOptions::default()
        };
        Peers {
            configured,
            connect_timeout,
            request_timeout,
            refusals_count,
            open: Connections::new(options),
        }
    }

    /// The connection for requests to a controller.
    pub(crate) async fn for_requests(
        &self,
        node: i32,
        endpoints: &[VoterEndpoint],
    ) -> Result<Connection, ClientError> {
        self.connection(node, endpoints, Lane::Requests).await
    }

    /// The connection for fetches of the metadata log. A negative `node` stands for whoever listens
    /// at the first of `endpoints`.
    pub(crate) async fn for_metadata(
        &self,
        node: i32,
        endpoints: &[VoterEndpoint],
    ) -> Result<Connection, ClientError> {
        self.connection(node, endpoints, Lane::Metadata).await
    }

    async fn connection(
        &self,
        node: i32,
        endpoints: &[VoterEndpoint],
        lane: Lane,
    ) -> Result<Connection, ClientError> {
        let address = self.address(node, endpoints).ok_or_else(|| {
            let unknown = format!("it is not known where controller {node} listens");
            io::Error::new(io::ErrorKind::NotFound, unknown)
        })?;
        self.open.get((address.clone(), lane), address).await
    }

    fn address(&self, node: i32, endpoints: &[VoterEndpoint]) -> Option<Address> {
        let told = endpoints.first();
        let told = told.map(|endpoint| (endpoint.host.clone(), endpoint.port));
        self.configured.get(&node).cloned().or(told)
    }
}

impl QuorumTransport for Peers {
    fn call<'a>(
        &'a self,
        node: i32,
        endpoints: &'a [VoterEndpoint],
        request: Bytes,
        limit: Duration,
    ) -> Pin<Box<dyn Future<Output = io::Result<Bytes>> + Send + 'a>> {
        Box::pin(async move {
            // What is long takes long, whatever the limit for short calls.
            let (lane, limit) = if request.len() <= SMALL_CALL_BYTES {
                (Lane::Quorum, limit)
            } else {
                (Lane::Bulk, limit.max(self.request_timeout))
            };
            let call = async {
                let connection = self.connection(node, endpoints, lane).await?;
                connection
                    .request_private(QUORUM_KEY, QUORUM_VERSION, request, limit)
                    .await
            };
            match timeout(limit, call).await {
                Ok(Err(ClientError::TimedOut(_))) => Err(io::ErrorKind::TimedOut.into()),
                Ok(answered) => answered.map_err(io::Error::other),
                Err(_) => Err(io::ErrorKind::TimedOut.into()),
            }
        })
    }

    fn gone<'a>(
        &'a self,
        node: i32,
        endpoints: &'a [VoterEndpoint],
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(async move {
            match self.address(node, endpoints) {
                Some(address) if self.refusals_count => {
                    until_refused(&address, self.connect_timeout).await;
                }
                _ => pending().await,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use tokio::net::TcpListener;

    use super::*;

    fn peers(refusals_count: bool) -> Peers {
        let long = Duration::from_secs(60);
        Peers::new(
            BTreeMap::new(),
            "a".to_owned(),
            (long, long),
            refusals_count,
        )
    }

    #[tokio::test]
    async fn a_controller_is_gone_when_its_machine_refuses_connections() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let told = [VoterEndpoint {
            name: String::new(),
            host: "127.0.0.1".to_owned(),
            port: listener.local_addr().unwrap().port(),
        }];
        let (peers, mistrusting) = (peers(true), peers(false));
        let mut gone = pin!(peers.gone(1, &told));
        // A connection that ends proves nothing while somebody listens.
        for _ in 0..3 {
            tokio::select! {
                () = &mut gone => panic!("somebody listens"),
                accepted = listener.accept() => drop(accepted.unwrap()),
            }
        }
        drop(listener);
        gone.await;
        // These look once and would wait for ever.
        assert!(
            timeout(Duration::ZERO, mistrusting.gone(1, &told))
                .await
                .is_err()
        );
        assert!(timeout(Duration::ZERO, peers.gone(1, &[])).await.is_err());
    }
}
