use std::sync::Arc;

use klamm_net::ConnectionInfo;
use klamm_protocol::ByteStr;

/// What a handler knows of a request besides its body.
#[derive(Clone, Debug)]
pub(crate) struct RequestContext {
    /// The version the client chose for request and response.
    pub(crate) api_version: i16,
    /// Ties the response to the request.
    pub(crate) correlation_id: i32,
    /// What the client calls itself; empty if it does not say.
    pub(crate) client_id: ByteStr,
    /// The connection the request came by.
    pub(crate) connection: Arc<ConnectionInfo>,
    /// Whether it did not come by a connection at all: this process asks itself.
    pub(crate) in_process: bool,
}

impl RequestContext {
    /// What the group coordinator wants to know of a request.
    pub(crate) fn group(&self) -> klamm_coordinator::RequestContext {
        klamm_coordinator::RequestContext::new(
            self.api_version,
            Some(&self.client_id),
            self.connection.peer.ip(),
        )
    }
}
