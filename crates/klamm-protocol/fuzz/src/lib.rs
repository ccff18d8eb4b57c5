//! Fuzzers of klamm-protocol. The checks themselves lie beside the tests, in `tests/codec`.
//!
//! ```console
//! cargo run --bin seed                    # a corpus out of the golden file
//! cargo +nightly fuzz run any_message     # or request_frame, or stored_record
//! ```

#[path = "../../tests/codec/all_messages.rs"]
mod all_messages;
#[path = "../../tests/codec/catalog.rs"]
mod catalog;
#[path = "../../tests/codec/golden_file.rs"]
#[expect(dead_code, reason = "the seeds need only part of the golden file")]
mod golden_file;
#[path = "../../tests/codec/targets.rs"]
mod targets;

/// A message whose kind and version the first three bytes choose.
pub fn any_message(data: &[u8]) {
    targets::any_message(data);
}

/// A request with its header.
pub fn request_frame(data: &[u8]) {
    targets::request_frame(data);
}

/// A record of an internal topic.
pub fn stored_record(data: &[u8]) {
    targets::stored_record(data);
}

/// Inputs out of the golden file: the name of the target and the bytes.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let mut seeds = Vec::new();
    for golden in golden_file::read() {
        if golden.name.starts_with("prefixed:") {
            // A key without a value, or a value behind a key of no length: enough to start from.
            let key_len = if golden.name.ends_with("Key") { golden.bytes.len() } else { 0 };
            seeds.push(("stored_record", [&[key_len as u8], &golden.bytes[..]].concat()));
            continue;
        }
        let Some(index) = catalog::ALL.iter().position(|entry| entry.name == golden.name) else {
            seeds.push(("stored_record", golden.bytes.to_vec()));
            continue;
        };
        let entry = &catalog::ALL[index];
        let [high, low] = (index as u16).to_be_bytes();
        let mut seed = vec![high, low, (golden.version - entry.versions.min) as u8];
        seed.extend_from_slice(&golden.bytes);
        seeds.push(("any_message", seed));

        let Some(stem) = entry.name.strip_suffix("Request") else { continue };
        let Some(key) = klamm_protocol::ApiKey::all().find(|key| key.name() == stem) else { continue };
        let mut frame = [key.code().to_be_bytes(), golden.version.to_be_bytes()].concat();
        frame.extend([0, 0, 0, 1, 0xff, 0xff]);
        if key.request_header_version(golden.version) == 2 {
            frame.push(0);
        }
        frame.extend_from_slice(&golden.bytes);
        seeds.push(("request_frame", frame));
    }
    seeds
}
