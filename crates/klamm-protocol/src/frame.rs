//! Whole requests and responses: size, header, body.
//!
//! A frame is a 32-bit size, then a header whose version follows from the API key and version of
//! the request, then the body. Functions that read take what follows the size.

use bytes::Bytes;

use crate::messages::ResponseHeader;
use crate::{ApiKey, DecodeError, Decoder, EncodeError, Encoder, Message, Request, Segment};

pub use crate::messages::RequestHeader;

/// Bytes of the size in front of a frame.
pub const SIZE_LEN: usize = 4;

/// Reads the header of a request and leaves the decoder at the body.
///
/// An unknown API key, or a version that the key does not have, is no error here: the header is
/// then read in the oldest form that can hold it, with no tagged fields, so that there is a
/// correlation id to answer with. Whether to read the body is for the caller to decide.
pub fn decode_request_header(d: &mut Decoder) -> Result<RequestHeader, DecodeError> {
    let start = d.clone();
    let api_key = d.i16()?;
    let api_version = d.i16()?;
    *d = start;
    let header_version = match ApiKey::from_code(api_key) {
        Some(key) => key.request_header_version(api_version),
        None => 1,
    };
    RequestHeader::decode(d, header_version)
}

/// A request as sent, with its size in front.
pub fn encode_request<R: Request>(
    correlation_id: i32,
    client_id: Option<&str>,
    version: i16,
    request: &R,
) -> Result<Vec<Segment>, EncodeError> {
    let header = RequestHeader {
        api_key: R::API_KEY.code(),
        api_version: version,
        correlation_id,
        client_id: client_id.map(Into::into),
        unknown_tags: None,
    };
    encode_frame(
        &header,
        R::API_KEY.request_header_version(version),
        request,
        version,
    )
}

/// A response as sent, with its size in front.
pub fn encode_response<M: Message>(
    correlation_id: i32,
    api_key: ApiKey,
    version: i16,
    response: &M,
) -> Result<Vec<Segment>, EncodeError> {
    let header = ResponseHeader {
        correlation_id,
        unknown_tags: None,
    };
    encode_frame(
        &header,
        api_key.response_header_version(version),
        response,
        version,
    )
}

fn encode_frame<H: Message, M: Message>(
    header: &H,
    header_version: i16,
    body: &M,
    version: i16,
) -> Result<Vec<Segment>, EncodeError> {
    let mut e = Encoder::with_capacity(256);
    e.i32(0);
    header.encode(&mut e, header_version)?;
    body.encode(&mut e, version)?;
    let length = e.len() - SIZE_LEN;
    let size = i32::try_from(length).map_err(|_| EncodeError::TooLong { length })?;
    e.patch_i32(0, size);
    Ok(e.finish())
}

/// Reads a response to a request `R` that was sent in `version`: its correlation id and body.
pub fn decode_response<R: Request>(
    frame: Bytes,
    version: i16,
) -> Result<(i32, R::Response), DecodeError> {
    let mut d = Decoder::new(frame);
    let header = ResponseHeader::decode(&mut d, R::API_KEY.response_header_version(version))?;
    Ok((header.correlation_id, R::Response::decode(&mut d, version)?))
}
