//! From a decoded header to the handler of its API key and back to bytes.
//!
//! An API is one file in `apis/` that implements [`Api`] for its request, and one line in
//! `apis/mod.rs`. The table made of these lines is also what ApiVersions advertises, so what is
//! listed is what is served.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use klamm_net::{Handling, Part, Reply};
use klamm_protocol::frame::encode_response;
use klamm_protocol::{ApiKey, Decoder, EncodeError, ErrorCode, Message, Request, Segment};
use tracing::{error, warn};

use crate::context::RequestContext;
use crate::controller::{ControllerApi, without_size};
use crate::shared::Shared;

/// A request that the broker answers.
pub(crate) trait Api: Request {
    /// Whether later requests of the connection may be handled before this one is answered.
    /// Only for requests that change nothing a later request could see.
    const MAY_BE_OVERTAKEN: bool = false;

    /// The answer.
    fn handle(
        self,
        broker: Arc<Shared>,
        context: RequestContext,
    ) -> impl Future<Output = Self::Response> + Send;
}

/// How an API is dispatched.
pub(crate) type Dispatch = fn(&Arc<Shared>, RequestContext, Decoder) -> Handling;

/// A served API.
pub(crate) struct Entry {
    /// Which.
    pub(crate) key: ApiKey,
    /// Decodes the body and handles it.
    pub(crate) dispatch: Dispatch,
}

/// The entry of an API that is handled by [`Api::handle`].
pub(crate) const fn entry<R: Api>() -> Entry {
    Entry {
        key: R::API_KEY,
        dispatch: dispatch::<R>,
    }
}

impl<R: ControllerApi> Api for R {
    async fn handle(self, broker: Arc<Shared>, context: RequestContext) -> R::Response {
        let request = self.clone();
        let answer = if broker.is_controller_listener(&context.connection.listener) {
            broker.controller.answer_here(request, &context).await
        } else {
            broker.controller.answer_client(request, &context).await
        };
        answer.unwrap_or_else(|error| self.refused(&error))
    }
}

/// A request out of an Envelope: the bytes of its response, header and body, or the error that the
/// Envelope is answered with.
type Answer = Pin<Box<dyn Future<Output = Result<Bytes, ErrorCode>> + Send>>;

/// A request that is answered out of an Envelope.
pub(crate) struct Forwarded {
    /// Which.
    pub(crate) key: ApiKey,
    /// Decodes the body and has the controller in this process answer it.
    pub(crate) answer: fn(&Arc<Shared>, RequestContext, Decoder) -> Answer,
}

/// The entry of a request that the active controller answers.
pub(crate) const fn forwarded<R: ControllerApi>() -> Forwarded {
    Forwarded {
        key: R::API_KEY,
        answer: answer_forwarded::<R>,
    }
}

fn answer_forwarded<R: ControllerApi>(
    broker: &Arc<Shared>,
    context: RequestContext,
    mut body: Decoder,
) -> Answer {
    let broker = broker.clone();
    Box::pin(async move {
        let request = R::decode(&mut body, context.api_version).map_err(|error| {
            warn!(api = R::API_KEY.name(), %error, "an envelope with a malformed request");
            ErrorCode::InvalidRequest
        })?;
        let answer = broker.controller.answer_here(request.clone(), &context);
        let response = match answer.await {
            Err(error) if error.code == ErrorCode::NotController => return Err(error.code),
            answer => answer.unwrap_or_else(|error| request.refused(&error)),
        };
        encode_segments::<R>(&context, &response)
            .map(without_size)
            .map_err(|error| {
                error!(api = R::API_KEY.name(), version = context.api_version, %error, "cannot encode");
                ErrorCode::UnknownServerError
            })
    })
}

fn dispatch<R: Api>(broker: &Arc<Shared>, context: RequestContext, body: Decoder) -> Handling {
    let request = match decode::<R>(&context, body) {
        Ok(request) => request,
        Err(reply) => return Handling::Ready(reply),
    };
    let broker = broker.clone();
    let answer = Box::pin(async move {
        let timer = broker.metrics.request_started(R::API_KEY, &context);
        let response = request.handle(broker.clone(), context.clone()).await;
        timer.handled();
        encode::<R>(&context, &response)
    });
    if R::MAY_BE_OVERTAKEN {
        Handling::Pipelined(answer)
    } else {
        Handling::Barrier(answer)
    }
}

/// Decodes a request body; a body that cannot be decoded costs the connection, as in Kafka, because
/// no response could be framed for it.
pub(crate) fn decode<R: Request>(context: &RequestContext, mut body: Decoder) -> Result<R, Reply> {
    R::decode(&mut body, context.api_version).map_err(|error| {
        warn!(
            peer = %context.connection.peer, api = R::API_KEY.name(),
            version = context.api_version, %error, "closing a connection: malformed request"
        );
        Reply::Close
    })
}

/// Frames a response that has no external segments.
pub(crate) fn encode<R: Request>(context: &RequestContext, response: &R::Response) -> Reply {
    match encode_segments::<R>(context, response) {
        Ok(segments) => Reply::Send(
            segments
                .into_iter()
                .filter_map(|segment| match segment {
                    Segment::Bytes(bytes) => Some(Part::Bytes(bytes)),
                    Segment::External { .. } => None,
                })
                .collect(),
        ),
        Err(error) => {
            // A response that its version cannot carry is a defect of the handler.
            error!(api = R::API_KEY.name(), version = context.api_version, %error, "cannot encode");
            Reply::Close
        }
    }
}

/// Frames a response.
pub(crate) fn encode_segments<R: Request>(
    context: &RequestContext,
    response: &R::Response,
) -> Result<Vec<Segment>, EncodeError>
where
    R::Response: Message,
{
    encode_response(
        context.correlation_id,
        R::API_KEY,
        context.api_version,
        response,
    )
}
