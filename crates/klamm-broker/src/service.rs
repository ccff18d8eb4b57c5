//! The Kafka protocol over [`klamm_net`]: headers, version checks, dispatch.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use klamm_net::{ConnectionInfo, Handling, Part, Reply, Service};
use klamm_protocol::frame::{RequestHeader, decode_request_header};
use klamm_protocol::{ApiKey, ByteStr, Decoder, Listener};
use tracing::warn;

use crate::apis;
use crate::context::RequestContext;
use crate::controller::{QUORUM_KEY, QUORUM_VERSION};
use crate::shared::Shared;
use crate::shares;

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

    /// Whether another controller of the quorum speaks; they do so on controller listeners only.
    fn is_quorum_call(&self, header: &RequestHeader) -> bool {
        self.table.listener == Listener::Controller
            && header.api_key == QUORUM_KEY
            && header.api_version == QUORUM_VERSION
    }
}

/// The answer to another controller of the quorum: size, correlation id, bytes.
fn private_answer(context: &RequestContext, answer: Vec<u8>) -> Reply {
    let Ok(size) = i32::try_from(size_of::<i32>() + answer.len()) else {
        return Reply::Close;
    };
    let mut front = BytesMut::with_capacity(8);
    front.put_i32(size);
    front.put_i32(context.correlation_id);
    Reply::Send(vec![
        Part::Bytes(front.freeze()),
        Part::Bytes(answer.into()),
    ])
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
            in_process: false,
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
            apis::Found::UnknownKey if self.is_quorum_call(&header) => {
                let broker = self.broker.clone();
                Handling::Pipelined(Box::pin(async move {
                    let Some(controller) = broker.controller.local() else {
                        return Reply::Close;
                    };
                    let answer = controller.serve_quorum(&decoder.rest()).await;
                    private_answer(&context, answer)
                }))
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

    fn closed(&self, session: Session) {
        self.broker.metrics.connection_closed();
        shares::disconnected(&self.broker, session.connection.id);
    }
}
