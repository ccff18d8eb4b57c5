//! The codec against Kafka's own, by the bytes that `tests/golden/Golden.java` had it write.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use klamm_protocol::group_records::GroupRecord;
use klamm_protocol::metadata::MetadataRecord;
use klamm_protocol::share_records::ShareRecord;
use klamm_protocol::transaction_records::TransactionRecord;
use klamm_protocol::{ApiKey, ErrorCode, Listener};

use crate::catalog::{ALL, Entry, Failure};
use crate::golden_file;

fn entry(name: &str) -> &'static Entry {
    ALL.iter()
        .find(|entry| entry.name == name)
        .unwrap_or_else(|| panic!("no message {name}"))
}

#[test]
fn every_message_has_golden_bytes_in_every_version() {
    let mut missing = BTreeSet::new();
    for entry in ALL {
        missing.extend(
            entry
                .versions
                .into_iter()
                .map(|version| (entry.name.to_owned(), version)),
        );
    }
    assert!(missing.len() > 700);
    for golden in golden_file::read() {
        missing.remove(&(golden.name, golden.version));
    }
    assert_eq!(missing, BTreeSet::new());
}

#[test]
fn names_are_unique() {
    let names: BTreeSet<&str> = ALL.iter().map(|entry| entry.name).collect();
    assert_eq!(names.len(), ALL.len());
}

#[test]
fn kafkas_bytes_come_out_as_they_went_in() {
    let mut framed = 0;
    for golden in golden_file::read() {
        if golden.name.starts_with("framed:") {
            let record = MetadataRecord::decode_value(golden.bytes.clone()).unwrap();
            assert_eq!(format!("framed:{}", record.name()), golden.name);
            assert_eq!(record.encode_value(golden.version).unwrap(), golden.bytes);
            framed += 1;
        } else if !golden.name.contains(':') {
            let again =
                (entry(&golden.name).recode)(golden.bytes.clone(), golden.version, golden.version);
            assert_eq!(
                again,
                Ok(golden.bytes),
                "{} version {}",
                golden.name,
                golden.version
            );
        }
    }
    assert!(framed > 26);
}

/// Key and value of a coordinator record as they lie in its topic, read and written by the enum of
/// all records of that topic.
fn recode_pair(
    stem: &str,
    key: &Bytes,
    value: Option<&Bytes>,
    version: i16,
) -> (Bytes, Option<Bytes>) {
    let (key, value) = (key.clone(), value.cloned());
    let result = match stem {
        "TransactionLog" => TransactionRecord::decode(key, value)
            .unwrap()
            .encode(version),
        "ShareSnapshot" | "ShareUpdate" => ShareRecord::decode(key, value).unwrap().encode(version),
        _ => GroupRecord::decode(key, value).unwrap().encode(version),
    };
    result.unwrap()
}

#[test]
fn coordinator_records_are_kafkas() {
    let mut keys: BTreeMap<String, Bytes> = BTreeMap::new();
    let mut values = BTreeSet::new();
    for golden in golden_file::read() {
        let Some(name) = golden.name.strip_prefix("prefixed:") else {
            continue;
        };
        if let Some(stem) = name.strip_suffix("Key") {
            let (key, value) = recode_pair(stem, &golden.bytes, None, 0);
            assert_eq!((&key, value), (&golden.bytes, None), "{name}");
            keys.insert(stem.to_owned(), key);
        } else {
            let stem = name.strip_suffix("Value").unwrap();
            let pair = recode_pair(stem, &keys[stem], Some(&golden.bytes), golden.version);
            assert_eq!(pair, (keys[stem].clone(), Some(golden.bytes)), "{name}");
            values.insert(stem.to_owned());
        }
    }
    assert!(keys.len() == 25 && keys.keys().eq(&values));
}

/// Reading in one version and writing in another shows the defaults of fields that a version
/// lacks, and which of them may be lost.
#[test]
fn moving_between_versions_gives_what_kafka_gives() {
    let mut refused = 0;
    for golden in golden_file::read() {
        for cross in &golden.crosses {
            let context = format!(
                "{} from {} to {}",
                golden.name, golden.version, cross.version
            );
            let ours =
                (entry_of(&golden).recode)(golden.bytes.clone(), golden.version, cross.version);
            match (ours, cross.result) {
                (Ok(bytes), Some((len, crc))) => {
                    assert_eq!((bytes.len(), crc32(&bytes)), (len, crc), "{context}");
                }
                (Err(Failure::Encode(_)), None) => refused += 1,
                (ours, kafkas) => panic!("{context}: {ours:?}, Kafka {kafkas:?}"),
            }
        }
    }
    assert!(refused > 100);
}

fn entry_of(golden: &golden_file::Golden) -> &'static Entry {
    entry(&golden.name)
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// Every message ends where Kafka's bytes end, so any shorter piece must be refused.
#[test]
fn rejects_every_truncation() {
    for golden in golden_file::read() {
        if golden.name.contains(':') {
            continue;
        }
        let entry = entry_of(&golden);
        // All cuts of short messages, every few bytes of long ones.
        let step = golden.bytes.len() / 128 + 1;
        for end in (0..golden.bytes.len()).step_by(step) {
            let cut = golden.bytes.slice(..end);
            match (entry.recode)(cut, golden.version, golden.version) {
                Err(Failure::Decode(_)) => {}
                other => panic!(
                    "{} version {} cut at {end}: {other:?}",
                    golden.name, golden.version
                ),
            }
        }
    }
}

#[test]
fn rejects_versions_outside_of_the_range() {
    for entry in ALL {
        for version in [
            entry.versions.min - 1,
            entry.versions.max + 1,
            i16::MIN,
            i16::MAX,
        ] {
            let result = (entry.recode)(Bytes::from_static(&[0; 64]), version, version);
            assert!(
                matches!(result, Err(Failure::Decode(_))),
                "{} version {version}",
                entry.name
            );
        }
    }
}

#[test]
fn api_keys_are_kafkas() {
    let table = include_str!("../golden/api_keys.tsv");
    assert_eq!(table.lines().count(), ApiKey::all().len());
    for (line, key) in table.lines().zip(ApiKey::all()) {
        let columns: Vec<&str> = line.split('\t').collect();
        let [id, name, oldest, latest, stable, headers, listeners] = columns[..] else {
            panic!("{line}");
        };
        assert_eq!((id, name), (&*key.code().to_string(), key.name()));
        assert_eq!(oldest, key.valid_versions().min.to_string(), "{name}");
        assert_eq!(latest, key.valid_versions().max.to_string(), "{name}");
        assert_eq!(stable, key.stable_versions().max.to_string(), "{name}");

        let header = |v| {
            format!(
                "{}/{}",
                key.request_header_version(v),
                key.response_header_version(v)
            )
        };
        let ours: Vec<String> = key.valid_versions().into_iter().map(header).collect();
        assert_eq!(headers, ours.join(","), "{name}");

        let mut ours = Vec::new();
        for (listener, label) in [
            (Listener::Broker, "BROKER"),
            (Listener::Controller, "CONTROLLER"),
        ] {
            for with_unstable in [false, true] {
                let range = key.advertised_versions(listener, with_unstable);
                ours.extend(range.map(|range| format!("{label} {}-{}", range.min, range.max)));
            }
        }
        assert_eq!(listeners, ours.join(","), "{name}");
    }
}

#[test]
fn error_codes_are_kafkas() {
    let table = include_str!("../golden/errors.tsv");
    assert_eq!(table.lines().count(), ErrorCode::ALL.len());
    let mut messages = BTreeMap::new();
    for (line, code) in table.lines().zip(ErrorCode::ALL) {
        let ours = format!(
            "{}\t{}\t{}\t{}",
            code.code(),
            code.name(),
            code.is_retriable(),
            code.invalidates_metadata()
        );
        assert_eq!(line, ours);
        assert_eq!(
            messages.insert(code.message(), code),
            None,
            "two codes with one message"
        );
    }
}
