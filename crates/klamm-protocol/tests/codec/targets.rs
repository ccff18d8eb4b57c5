//! What must hold for any bytes at all. The fuzzers call these with bytes of their own making.

use bytes::Bytes;
use klamm_protocol::group_records::GroupRecord;
use klamm_protocol::metadata::MetadataRecord;
use klamm_protocol::share_records::ShareRecord;
use klamm_protocol::transaction_records::TransactionRecord;
use klamm_protocol::{Decoder, EncodeError, frame};

use crate::catalog::{ALL, Entry, Failure};

/// Takes the first bytes for the choice of a message and version, the rest for the message.
pub(crate) fn any_message(data: &[u8]) {
    let Some(([high, low, version], message)) = data.split_first_chunk::<3>() else {
        return;
    };
    let entry = &ALL[usize::from(u16::from_be_bytes([*high, *low])) % ALL.len()];
    let count = entry.versions.max - entry.versions.min + 1;
    let version = entry.versions.min + i16::from(*version) % count;
    message_is_stable(entry, version, Bytes::copy_from_slice(message));
}

/// Reads `bytes` as a message. If they pass, what is written must read back to the same bytes.
pub(crate) fn message_is_stable(entry: &Entry, version: i16, bytes: Bytes) {
    match (entry.recode)(bytes, version, version) {
        Ok(written) => {
            let again = (entry.recode)(written.clone(), version, version);
            assert_eq!(again, Ok(written), "{} version {version}", entry.name);
        }
        Err(Failure::Decode(_)) => {}
        Err(Failure::Encode(error)) => {
            assert!(
                may_fail(&error),
                "{} version {version}: {error}",
                entry.name
            );
        }
    }
}

/// Tagged fields may be read in an order in which they may not be written, and a name may grow
/// when what is not UTF-8 in it is replaced. All else that can be read can be written.
fn may_fail(error: &EncodeError) -> bool {
    matches!(
        error,
        EncodeError::TagOrder { .. } | EncodeError::StringTooLong { .. }
    )
}

/// Takes the bytes for a request as it comes from a connection, without the size in front.
pub(crate) fn request_frame(data: &[u8]) {
    let mut decoder = Decoder::new(Bytes::copy_from_slice(data));
    let Ok(header) = frame::decode_request_header(&mut decoder) else {
        return;
    };
    let name = klamm_protocol::ApiKey::from_code(header.api_key).map(|key| key.name());
    for entry in ALL {
        let is_request = entry
            .name
            .strip_suffix("Request")
            .is_some_and(|stem| Some(stem) == name);
        if is_request && entry.versions.contains(header.api_version) {
            message_is_stable(entry, header.api_version, decoder.rest());
        }
    }
}

/// Takes the bytes for records as they lie in internal topics.
pub(crate) fn stored_record(data: &[u8]) {
    if let Ok(record) = MetadataRecord::decode_value(Bytes::copy_from_slice(data)) {
        for version in record.versions() {
            if let Ok(value) = record.encode_value(version) {
                assert!(MetadataRecord::decode_value(value).is_ok(), "{record:?}");
            }
        }
    }
    // The first byte says how long the key is.
    let Some((len, rest)) = data.split_first() else {
        return;
    };
    let (key, value) = rest.split_at(usize::from(*len).min(rest.len()));
    let version = value
        .first_chunk()
        .map_or(0, |version| i16::from_be_bytes(*version));
    let pair = || {
        (
            Bytes::copy_from_slice(key),
            Some(Bytes::copy_from_slice(value)),
        )
    };
    macro_rules! record_is_stable {
        ($record:ty) => {
            let (key, value) = pair();
            if let Ok(record) = <$record>::decode(key, value)
                && let Ok((key, value)) = record.encode(version)
            {
                assert!(<$record>::decode(key, value).is_ok(), "{record:?}");
            }
        };
    }
    record_is_stable!(GroupRecord);
    record_is_stable!(TransactionRecord);
    record_is_stable!(ShareRecord);
}
