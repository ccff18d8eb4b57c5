//! What the decoder and the encoder refuse.

use bytes::Bytes;
use klamm_protocol::messages::{
    ApiVersionsRequest, ApiVersionsResponse, CreateTopicsRequest, FetchRequest, MetadataRequest,
};
use klamm_protocol::{
    ByteStr, DecodeError, Decoder, EncodeError, Encoder, Message, UnknownTag, UnknownTags,
};

fn decoder(bytes: &[u8], flexible: bool) -> Decoder {
    let mut decoder = Decoder::new(Bytes::copy_from_slice(bytes));
    decoder.set_flexible(flexible);
    decoder
}

#[test]
fn rejects_numbers_cut_short() {
    let cut = |needed, remaining| DecodeError::Truncated {
        offset: 0,
        needed,
        remaining,
    };
    assert_eq!(decoder(&[], false).i8(), Err(cut(1, 0)));
    assert_eq!(decoder(&[0], false).i16(), Err(cut(2, 1)));
    assert_eq!(decoder(&[0; 3], false).i32(), Err(cut(4, 3)));
    assert_eq!(decoder(&[0; 7], false).i64(), Err(cut(8, 7)));
    assert_eq!(decoder(&[0; 15], false).uuid(), Err(cut(16, 15)));
    assert_eq!(decoder(&[], false).bool(), Err(cut(1, 0)));
}

#[test]
fn rejects_strings_longer_than_the_frame() {
    assert!(matches!(
        decoder(&[0x7f, 0xff, b'a'], false).string(),
        Err(DecodeError::Truncated {
            offset: 2,
            needed: 0x7fff,
            remaining: 1
        })
    ));
    assert!(matches!(
        decoder(&[3, b'a'], true).string(),
        Err(DecodeError::Truncated {
            offset: 1,
            needed: 2,
            remaining: 1
        })
    ));
}

#[test]
fn rejects_strings_longer_than_any_may_be() {
    let mut encoder = Encoder::new();
    encoder.unsigned_varint(32768 + 1);
    encoder.raw(&[b'a'; 32768]);
    let mut decoder = decoder(&encoder.into_bytes().unwrap(), true);
    assert_eq!(
        decoder.string(),
        Err(DecodeError::StringTooLong {
            offset: 0,
            length: 32768
        })
    );
    assert_eq!(
        Encoder::new().string(&"a".repeat(32768)),
        Err(EncodeError::StringTooLong { length: 32768 })
    );
}

#[test]
fn rejects_null_where_there_is_none() {
    for (bytes, flexible) in [
        (&[0xff, 0xff][..], false),
        (&[0x80, 0], false),
        (&[0], true),
    ] {
        assert_eq!(
            decoder(bytes, flexible).string(),
            Err(DecodeError::UnexpectedNull { offset: 0 })
        );
        assert_eq!(decoder(bytes, flexible).nullable_string(), Ok(None));
    }
    for (bytes, flexible) in [
        (&[0xff; 4][..], false),
        (&[0x80, 0, 0, 0], false),
        (&[0], true),
    ] {
        assert_eq!(
            decoder(bytes, flexible).bytes(),
            Err(DecodeError::UnexpectedNull { offset: 0 })
        );
        assert_eq!(decoder(bytes, flexible).nullable_bytes(), Ok(None));
        assert_eq!(
            decoder(bytes, flexible).list(Decoder::i32),
            Err(DecodeError::UnexpectedNull { offset: 0 })
        );
        assert_eq!(
            decoder(bytes, flexible).nullable_list(Decoder::i32),
            Ok(None)
        );
    }
}

#[test]
fn rejects_arrays_that_claim_more_elements_than_bytes() {
    assert_eq!(
        decoder(&[0x7f, 0xff, 0xff, 0xff, 0, 0], false).list(Decoder::i8),
        Err(DecodeError::ArrayTooLong {
            offset: 0,
            length: 0x7fff_ffff,
            remaining: 2
        })
    );
    assert_eq!(
        decoder(&[0xff, 0xff, 0xff, 0xff, 0x0f], true).list(Decoder::i8),
        Err(DecodeError::ArrayTooLong {
            offset: 0,
            length: 0xffff_fffe,
            remaining: 0
        })
    );
    // As many elements as bytes passes that test and fails for want of bytes.
    assert!(matches!(
        decoder(&[0, 0, 0, 2, 0, 0], false).list(Decoder::i64),
        Err(DecodeError::Truncated {
            offset: 4,
            needed: 8,
            remaining: 2
        })
    ));
}

#[test]
fn rejects_bytes_longer_than_the_frame() {
    assert_eq!(
        decoder(&[0x7f, 0xff, 0xff, 0xff, 0], false).bytes(),
        Err(DecodeError::Truncated {
            offset: 4,
            needed: 0x7fff_ffff,
            remaining: 1
        })
    );
    assert_eq!(
        decoder(&[9, 0], true).records(),
        Err(DecodeError::Truncated {
            offset: 1,
            needed: 8,
            remaining: 1
        })
    );
}

#[test]
fn rejects_variable_length_numbers_without_end() {
    let endless = Err(DecodeError::InvalidVarint { offset: 0 });
    assert_eq!(decoder(&[0x80; 6], true).unsigned_varint(), endless);
    assert_eq!(
        decoder(&[0xff, 0xff, 0xff, 0xff, 0x8f, 0], true).unsigned_varint(),
        endless
    );
    // Five bytes hold 35 bits; the top three have to be 0.
    assert_eq!(
        decoder(&[0xff, 0xff, 0xff, 0xff, 0x1f], true).unsigned_varint(),
        endless
    );
    assert_eq!(
        decoder(&[0xff, 0xff, 0xff, 0xff, 0x0f], true).unsigned_varint(),
        Ok(u32::MAX)
    );
    // Longer than needed, but within bounds.
    assert_eq!(decoder(&[0x81, 0x80, 0], true).unsigned_varint(), Ok(1));
}

#[test]
fn rejects_tagged_fields_longer_than_the_frame() {
    assert!(matches!(
        decoder(&[1, 7, 0xff, 0xff, 0x03], true).unknown_tags(),
        Err(DecodeError::Truncated {
            needed: 0xffff,
            remaining: 0,
            ..
        })
    ));
    assert!(matches!(
        decoder(&[0xff, 0xff, 0xff, 0xff, 0x0f], true).unknown_tags(),
        Err(DecodeError::Truncated { .. })
    ));
}

#[test]
fn rejects_a_known_tag_of_another_size() {
    // FetchRequest 12 with an empty cluster id that says it takes two bytes.
    let mut bytes = FetchRequest::default().to_bytes(12).unwrap().to_vec();
    assert_eq!(bytes.pop(), Some(0));
    bytes.extend([1, 0, 2, 1, 0]);
    assert!(matches!(
        FetchRequest::from_bytes(Bytes::from(bytes), 12),
        Err(DecodeError::TagSize {
            tag: 0,
            declared: 2,
            actual: 1,
            ..
        })
    ));
}

#[test]
fn rejects_a_known_tag_in_a_version_that_lacks_it() {
    // The replica state came with version 15.
    let mut bytes = FetchRequest::default().to_bytes(14).unwrap().to_vec();
    assert_eq!(bytes.pop(), Some(0));
    bytes.extend([1, 1, 0]);
    assert_eq!(
        FetchRequest::from_bytes(Bytes::from(bytes), 14),
        Err(DecodeError::TagNotInVersion {
            tag: 1,
            version: 14
        })
    );
}

#[test]
fn rejects_a_message_of_a_version_it_does_not_have() {
    let error = MetadataRequest::from_bytes(Bytes::from_static(&[0; 32]), 14).unwrap_err();
    assert_eq!(
        error.to_string(),
        "MetadataRequest has no version 14, only 0-13"
    );
    let error = MetadataRequest::default().to_bytes(-1).unwrap_err();
    assert_eq!(
        error.to_string(),
        "MetadataRequest has no version -1, only 0-13"
    );
}

#[test]
fn refuses_to_lose_a_field_that_matters() {
    let request = MetadataRequest {
        allow_auto_topic_creation: false,
        ..Default::default()
    };
    assert!(request.to_bytes(4).is_ok());
    assert_eq!(
        request.to_bytes(3),
        Err(EncodeError::UnsupportedField {
            field: "MetadataRequest.allow_auto_topic_creation",
            version: 3
        })
    );
}

#[test]
fn loses_a_field_that_may_be_lost() {
    let response = ApiVersionsResponse {
        throttle_time_ms: 7,
        ..Default::default()
    };
    let read = ApiVersionsResponse::from_bytes(response.to_bytes(0).unwrap(), 0).unwrap();
    assert_eq!(read.throttle_time_ms, 0);
}

#[test]
fn refuses_null_in_a_version_without_it() {
    let request = MetadataRequest {
        topics: None,
        ..Default::default()
    };
    assert!(request.to_bytes(1).is_ok());
    assert_eq!(
        request.to_bytes(0),
        Err(EncodeError::UnexpectedNull {
            field: "MetadataRequest.topics",
            version: 0
        })
    );
}

fn tagged(tags: &[u32]) -> Option<Box<UnknownTags>> {
    let tag = |&tag| UnknownTag {
        tag,
        data: Bytes::from_static(b"x"),
    };
    Some(Box::new(UnknownTags(tags.iter().map(tag).collect())))
}

#[test]
fn refuses_unknown_tags_out_of_order_twice_or_where_there_are_none() {
    let with = |tags: &[u32]| CreateTopicsRequest {
        unknown_tags: tagged(tags),
        ..Default::default()
    };
    assert!(with(&[0, 9, u32::MAX]).to_bytes(7).is_ok());
    assert_eq!(
        with(&[9, 3]).to_bytes(7),
        Err(EncodeError::TagOrder { tag: 3 })
    );
    assert_eq!(
        with(&[9, 9]).to_bytes(7),
        Err(EncodeError::TagOrder { tag: 9 })
    );
    assert_eq!(with(&[9]).to_bytes(4), Err(EncodeError::TagsNotSupported));

    let request = FetchRequest {
        cluster_id: Some("c".into()),
        unknown_tags: tagged(&[0]),
        ..Default::default()
    };
    assert_eq!(request.to_bytes(12), Err(EncodeError::TagOrder { tag: 0 }));
}

#[test]
fn accepts_tags_in_any_order_as_kafka_does() {
    let mut decoder = decoder(&[2, 9, 1, b'b', 3, 1, b'a'], true);
    let tags = decoder.unknown_tags().unwrap().unwrap();
    assert_eq!(
        tags.0.iter().map(|unknown| unknown.tag).collect::<Vec<_>>(),
        [9, 3]
    );
    assert_eq!(tags.get(3), Some(&Bytes::from_static(b"a")));
    assert_eq!(tags.get(4), None);
}

#[test]
fn accepts_any_byte_but_0_for_true() {
    assert_eq!(decoder(&[0], false).bool(), Ok(false));
    assert_eq!(decoder(&[1], false).bool(), Ok(true));
    assert_eq!(decoder(&[0x80], false).bool(), Ok(true));
}

#[test]
fn accepts_text_that_is_not_utf8_as_java_does() {
    let text = decoder(&[0, 3, b'a', 0xff, b'b'], false).string().unwrap();
    assert_eq!(text, "a\u{fffd}b");
}

#[test]
fn leaves_what_follows_a_message_alone() {
    let mut bytes = ApiVersionsRequest::default().to_bytes(3).unwrap().to_vec();
    bytes.extend(b"more");
    assert!(ApiVersionsRequest::from_bytes(Bytes::from(bytes), 3).is_ok());
}

#[test]
fn strings_and_bytes_share_the_memory_of_the_frame() {
    let frame = Bytes::from_static(&[0, 1, b'a', 0, 0, 0, 1, b'b']);
    let mut decoder = Decoder::new(frame.clone());
    let text = decoder.string().unwrap();
    let bytes = decoder.bytes().unwrap();
    assert_eq!(text.as_bytes().as_ptr(), frame[2..].as_ptr());
    assert_eq!(bytes.as_ptr(), frame[7..].as_ptr());
    assert_ne!(text.detached().as_bytes().as_ptr(), frame[2..].as_ptr());
    assert_eq!(ByteStr::from_static("a"), text);
}
