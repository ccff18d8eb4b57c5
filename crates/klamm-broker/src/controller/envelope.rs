//! Requests of clients that a broker passes on, with the name of who asked (KIP-590).

use std::net::IpAddr;

use bytes::{BufMut, Bytes, BytesMut};
use klamm_protocol::frame::{SIZE_LEN, encode_request};
use klamm_protocol::messages::{DefaultPrincipalData, EnvelopeRequest};
use klamm_protocol::{Decoder, EncodeError, ErrorCode, Message, Request, Segment};

use crate::context::RequestContext;

/// The version in front of a principal.
const PRINCIPAL_VERSION: i16 = 0;

/// Puts a request into an envelope, as the client sent it.
pub(crate) fn seal<R: Request>(
    request: &R,
    context: &RequestContext,
) -> Result<EnvelopeRequest, EncodeError> {
    let (id, client) = (context.correlation_id, &*context.client_id);
    let segments = encode_request(id, Some(client), context.api_version, request)?;
    let address = match context.connection.peer.ip() {
        IpAddr::V4(address) => Bytes::copy_from_slice(&address.octets()),
        IpAddr::V6(address) => Bytes::copy_from_slice(&address.octets()),
    };
    Ok(EnvelopeRequest {
        request_data: without_size(segments),
        request_principal: Some(principal()?),
        client_host_address: address,
        ..EnvelopeRequest::default()
    })
}

/// Header and body of a frame in one piece.
pub(crate) fn without_size(segments: Vec<Segment>) -> Bytes {
    let mut whole = BytesMut::new();
    for segment in segments {
        // Only fetches have others.
        if let Segment::Bytes(bytes) = segment {
            whole.extend_from_slice(&bytes);
        }
    }
    let whole = whole.freeze();
    whole.slice(SIZE_LEN.min(whole.len())..)
}

/// Who asks, as Kafka's `DefaultKafkaPrincipalBuilder` writes it. Nobody proves who they are yet.
fn principal() -> Result<Bytes, EncodeError> {
    let anonymous = DefaultPrincipalData {
        type_: "User".into(),
        name: "ANONYMOUS".into(),
        ..DefaultPrincipalData::default()
    };
    let data = anonymous.to_bytes(PRINCIPAL_VERSION)?;
    let mut bytes = BytesMut::with_capacity(2 + data.len());
    bytes.put_i16(PRINCIPAL_VERSION);
    bytes.extend_from_slice(&data);
    Ok(bytes.freeze())
}

/// The address of the client that an envelope names.
///
/// # Errors
/// What Kafka answers: the address, or the principal, cannot be read.
pub(crate) fn client_address(envelope: &EnvelopeRequest) -> Result<IpAddr, ErrorCode> {
    let unreadable = ErrorCode::PrincipalDeserializationFailure;
    let principal = envelope.request_principal.clone().ok_or(unreadable)?;
    let mut decoder = Decoder::new(principal);
    let version = decoder.i16().map_err(|_| unreadable)?;
    DefaultPrincipalData::decode(&mut decoder, version).map_err(|_| unreadable)?;
    let address = &envelope.client_host_address;
    if let Ok(four) = <[u8; 4]>::try_from(&address[..]) {
        return Ok(four.into());
    }
    let six = <[u8; 16]>::try_from(&address[..]);
    six.map(IpAddr::from).map_err(|_| ErrorCode::InvalidRequest)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn envelope(address: &[u8]) -> EnvelopeRequest {
        EnvelopeRequest {
            request_principal: Some(principal().unwrap()),
            client_host_address: Bytes::copy_from_slice(address),
            ..EnvelopeRequest::default()
        }
    }

    /// The bytes that Kafka's `DefaultKafkaPrincipalBuilder.serialize` makes of `User:ANONYMOUS`.
    #[test]
    fn principals_are_written_as_kafka_writes_them() {
        let expected = b"\x00\x00\x05User\x0aANONYMOUS\x00\x00";
        assert_eq!(&principal().unwrap()[..], expected);
    }

    #[test]
    fn addresses_of_both_kinds_are_read_and_others_refused() {
        let four = Ipv4Addr::new(10, 0, 0, 7);
        let six = Ipv6Addr::LOCALHOST;
        assert_eq!(client_address(&envelope(&four.octets())), Ok(four.into()));
        assert_eq!(client_address(&envelope(&six.octets())), Ok(six.into()));
        let refused = client_address(&envelope(&[1, 2, 3]));
        assert_eq!(refused, Err(ErrorCode::InvalidRequest));
    }

    #[test]
    fn an_unreadable_principal_is_refused() {
        let missing = EnvelopeRequest {
            request_principal: None,
            ..envelope(&[127, 0, 0, 1])
        };
        let cut = EnvelopeRequest {
            request_principal: Some(principal().unwrap().slice(..4)),
            ..envelope(&[127, 0, 0, 1])
        };
        for bad in [missing, cut] {
            let refused = client_address(&bad);
            assert_eq!(refused, Err(ErrorCode::PrincipalDeserializationFailure));
        }
    }
}
