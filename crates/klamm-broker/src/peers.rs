//! Connections to other brokers, on the listener that brokers use among themselves.
//!
//! [`Peers`] knows where they are; it is kept up to date by the metadata. [`Line`] is for questions
//! that several tasks may ask a broker at once, [`TcpLeader`] for the fetches of one follower.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use klamm_client::{ClientError, ConnectOptions};
use klamm_metadata::MetadataImage;
use klamm_protocol::Request;
use klamm_protocol::messages::{
    FetchRequest, FetchResponse, ListOffsetsRequest, ListOffsetsResponse,
};
use klamm_replication::fetcher::{ChannelError, LeaderChannel};

use crate::connections::{Address, Connections, Open};

/// Why a broker gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PeerError {
    /// The metadata has no such broker, or none with that listener.
    #[error("broker {node} has no listener {listener}")]
    Unknown {
        /// The broker.
        node: i32,
        /// `inter.broker.listener.name`.
        listener: String,
    },
    /// It could not be reached, or did not answer.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// Where the other brokers are. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Peers(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// `inter.broker.listener.name`
    listener: String,
    image: ArcSwap<MetadataImage>,
}

impl Peers {
    /// Nobody is known yet.
    pub(crate) fn new(listener: &str) -> Self {
        Peers(Arc::new(Inner {
            listener: listener.to_owned(),
            image: ArcSwap::default(),
        }))
    }

    /// Takes note of a change of the metadata.
    pub(crate) fn update(&self, image: &Arc<MetadataImage>) {
        self.0.image.store(Arc::clone(image));
    }

    fn address(&self, node: i32) -> Result<Address, PeerError> {
        let image = self.0.image.load();
        let endpoint = image
            .broker(node)
            .and_then(|broker| broker.endpoint(&self.0.listener));
        let endpoint = endpoint.ok_or_else(|| PeerError::Unknown {
            node,
            listener: self.0.listener.clone(),
        })?;
        Ok((endpoint.host.clone(), endpoint.port))
    }
}

/// One connection to each broker that is asked, opened when it is. Questions overlap.
#[derive(Debug)]
pub(crate) struct Line {
    peers: Peers,
    open: Connections<i32>,
}

impl Line {
    /// A line without connections; brokers know whose it is by `client_id`. No answer may take
    /// longer than `timeout`.
    pub(crate) fn new(peers: Peers, client_id: String, timeout: Duration) -> Self {
        Line {
            peers,
            open: Connections::new(options(client_id, timeout)),
        }
    }

    /// Asks a broker.
    pub(crate) async fn ask<R: Request>(
        &self,
        node: i32,
        request: &R,
    ) -> Result<R::Response, PeerError> {
        self.ask_up_to(node, request, i16::MAX).await
    }

    /// Asks a broker in a version not above `max`.
    pub(crate) async fn ask_up_to<R: Request>(
        &self,
        node: i32,
        request: &R,
        max: i16,
    ) -> Result<R::Response, PeerError> {
        let connection = self.open.get(node, self.peers.address(node)?).await?;
        Ok(connection.request_up_to(request, max).await?)
    }
}

fn options(client_id: String, timeout: Duration) -> ConnectOptions {
    ConnectOptions {
        client_id: Some(client_id),
        connect_timeout: timeout,
        request_timeout: timeout,
        // A first batch may exceed any limit.
        response_bytes_max: i32::MAX as usize,
    }
}

/// The way from a follower to one leader: one connection, with one request under way.
#[derive(Debug)]
pub(crate) struct TcpLeader {
    peers: Peers,
    leader: i32,
    options: ConnectOptions,
    open: Option<Open>,
}

impl TcpLeader {
    /// Not connected yet. `timeout` is `replica.socket.timeout.ms`.
    pub(crate) fn new(peers: Peers, leader: i32, client_id: String, timeout: Duration) -> Self {
        TcpLeader {
            peers,
            leader,
            options: options(client_id, timeout),
            open: None,
        }
    }

    async fn ask<R: Request>(&mut self, request: &R) -> Result<R::Response, PeerError> {
        let address = self.peers.address(self.leader)?;
        // Taken out while it is used: if whoever waits gives up, the connection is closed, and
        // the leader does not hold the next request behind this one.
        let open = match self.open.take().filter(|open| open.is_good_for(&address)) {
            Some(open) => open,
            None => Open::to(address, &self.options).await?,
        };
        let response = open.connection.request(request).await?;
        self.open = Some(open);
        Ok(response)
    }
}

impl LeaderChannel for TcpLeader {
    async fn fetch(&mut self, request: FetchRequest) -> Result<FetchResponse, ChannelError> {
        Ok(self.ask(&request).await?)
    }

    async fn list_offsets(
        &mut self,
        request: ListOffsetsRequest,
    ) -> Result<ListOffsetsResponse, ChannelError> {
        Ok(self.ask(&request).await?)
    }
}

impl From<PeerError> for ChannelError {
    fn from(error: PeerError) -> ChannelError {
        match error {
            PeerError::Client(ClientError::Io(error)) => ChannelError::Io(error),
            error => ChannelError::Answer(error.to_string()),
        }
    }
}
