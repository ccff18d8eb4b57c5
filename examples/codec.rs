//! The codec alone: a Metadata request to bytes and back, in two versions.
//!
//! `cargo run -p klamm-examples --example codec`

#![allow(clippy::print_stdout, reason = "a program for people to read")]

use std::error::Error;

use klamm_protocol::messages::MetadataRequest;
use klamm_protocol::messages::metadata_request::MetadataRequestTopic;
use klamm_protocol::{Decoder, Encoder, Message};

fn main() -> Result<(), Box<dyn Error>> {
    let topic = MetadataRequestTopic {
        name: Some("greetings".into()),
        ..MetadataRequestTopic::default()
    };
    let request = MetadataRequest {
        topics: Some(vec![topic]),
        ..MetadataRequest::default()
    };

    for version in [4, 13] {
        let mut encoder = Encoder::new();
        request.encode(&mut encoder, version)?;
        let bytes = encoder.into_bytes()?;
        println!(
            "version {version}: {} bytes {:02x?}",
            bytes.len(),
            &bytes[..]
        );

        let again = MetadataRequest::decode(&mut Decoder::new(bytes), version)?;
        assert_eq!(again, request);
    }
    Ok(())
}
