//! The Kafka protocol over [`klamm_net`]: headers, version checks, dispatch.

use std::sync::Arc;

use bytes::Bytes;
use klamm_net::{ConnectionInfo, Handling, Reply, Service};
use klamm_protocol::frame::decode_request_header;
use klamm_protocol::{ApiKey, ByteStr, Decoder};
use tracing::warn;

use crate::apis;
use crate::context::RequestContext;
use crate::shared::Shared;

/// Serves the clients of one kind of listener.
#[derive(Clone, Debug)]
pub(crate) struct KafkaService {
    broker: Arc<Shared>,
    /// Which APIs this listener offers.
    table: Arc<apis::Table>,
}

impl KafkaService {
    pub(crate) fn new(broker: Arc<Shared>, table: Arc<apis::Table>) -> Self {
        KafkaService { broker, table }
    }
}

/// What is kept of a connection between its requests.
pub(crate) struct Session {
    connection: Arc<ConnectionInfo>,
    /// Clients send the same id with every request: it is kept so that a context shares it.
    client_id: ByteStr,
}

impl Service for KafkaService {
    type Session = Session;

    fn open(&self, connection: ConnectionInfo) -> Session {
        self.broker.metrics.connection_opened();
        Session {
            connection: Arc::new(connection),
            client_id: ByteStr::default(),
        }
    }

    fn handle(self: &Arc<Self>, session: &mut Session, frame: Bytes) -> Handling {
        let mut decoder = Decoder::new(frame);
        let header = match decode_request_header(&mut decoder) {
            Ok(header) => header,
            Err(error) => {
                let peer = session.connection.peer;
                warn!(%peer, %error, "closing a connection: malformed request header");
                return Handling::Ready(Reply::Close);
            }
        };
        if header.client_id.as_ref() != Some(&session.client_id) {
            // Copied out of the frame, which would otherwise live as long as the connection.
            let id = header.client_id.as_deref().unwrap_or_default();
            session.client_id = ByteStr::from(id.to_owned());
        }
        let mut context = RequestContext {
            api_version: header.api_version,
            correlation_id: header.correlation_id,
            client_id: session.client_id.clone(),
            connection: session.connection.clone(),
        };
        match self.table.find(header.api_key, header.api_version) {
            apis::Found::Served(dispatch) => dispatch(&self.broker, context, decoder),
            apis::Found::UnknownVersion(ApiKey::ApiVersions) => {
                // KIP-511: the client cannot know our versions before it has asked for them.
                context.api_version = 0;
                Handling::Ready(apis::api_versions::unsupported_version(
                    &self.table,
                    &context,
                ))
            }
            apis::Found::UnknownVersion(key) => {
                warn!(
                    peer = %context.connection.peer, api = key.name(), version = header.api_version,
                    "closing a connection: unsupported version"
                );
                Handling::Ready(Reply::Close)
            }
            apis::Found::UnknownKey => {
                warn!(
                    peer = %context.connection.peer, api_key = header.api_key,
                    "closing a connection: unsupported API key"
                );
                Handling::Ready(Reply::Close)
            }
        }
    }

    fn closed(&self, _session: Session) {
        self.broker.metrics.connection_closed();
    }
}
