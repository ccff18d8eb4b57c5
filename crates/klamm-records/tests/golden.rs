//! Batches that Kafka built, and Kafka's verdicts over good and bad ones. Where the files come
//! from: `golden/README.md`.

use std::fmt::Write as _;
use std::io::Read as _;

use bytes::Bytes;
use klamm_records::batch::{Frame, RecordRef, TimestampType};
use klamm_records::control::{ControlType, EndTransactionMarker};
use klamm_records::legacy::Message;
use klamm_records::produce::{TopicCompression, validate};
use klamm_records::{
    BatchBuilder, BatchOptions, BatchView, Codec, Compression, PreparedBatch, ProduceError,
    ProduceRules, Scratch, TopicPartition, batches,
};

const NOW: i64 = 1_700_000_000_000;

fn text(gzipped: &[u8]) -> String {
    let mut text = String::new();
    flate2::read::GzDecoder::new(gzipped)
        .read_to_string(&mut text)
        .unwrap();
    text
}

fn unhex(digits: &str) -> Vec<u8> {
    digits
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn hex_or_null(bytes: Option<&[u8]>) -> String {
    bytes.map_or("null".to_owned(), |bytes| {
        bytes.iter().fold("x".to_owned(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        })
    })
}

/// One batch of `batches.txt`: its name, its bytes, its records as lines.
struct Built {
    name: String,
    bytes: Vec<u8>,
    records: Vec<String>,
}

fn built() -> Vec<Built> {
    let mut all = Vec::<Built>::new();
    for line in text(include_bytes!("golden/batches.txt.gz")).lines() {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "batch" => all.push(Built {
                name: rest.to_owned(),
                bytes: Vec::new(),
                records: Vec::new(),
            }),
            "bytes" => all.last_mut().unwrap().bytes = unhex(rest),
            "record" => all.last_mut().unwrap().records.push(rest.to_owned()),
            _ => {}
        }
    }
    all
}

fn line_of(record: &RecordRef<'_>) -> String {
    let mut line = format!(
        "{} {} {} {} {}",
        record.offset,
        record.timestamp,
        record.sequence,
        hex_or_null(record.key),
        hex_or_null(record.value)
    );
    for (key, value) in record.headers.iter() {
        let key = std::str::from_utf8(key).unwrap();
        write!(line, " {key}={}", hex_or_null(value)).unwrap();
    }
    line
}

#[test]
fn reads_what_kafka_built() {
    let mut scratch = Scratch::new();
    let all = built();
    assert!(all.len() > 20);
    for Built {
        name,
        bytes,
        records,
    } in &all
    {
        let mut lines = Vec::new();
        if Frame::peek(bytes).unwrap().unwrap().magic == 2 {
            for batch in batches(bytes) {
                let batch = batch.unwrap();
                batch.verify_crc().unwrap();
                let records = batch.records(&mut scratch).unwrap();
                lines.extend(records.map(|record| line_of(&record.unwrap())));
            }
        } else {
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let message = Message::parse(rest).unwrap();
                message.verify_crc().unwrap();
                let records = message.records(&mut scratch).unwrap();
                lines.extend(records.iter().map(line_of));
                rest = &rest[message.bytes().len()..];
            }
        }
        assert_eq!(&lines, records, "{name}");
    }
}

/// Building the same batch gives the same bytes, or the same header and content if the codec may
/// choose.
#[test]
fn builds_what_kafka_built() {
    let mut scratch = Scratch::new();
    let mut compared = 0;
    for Built { name, bytes, .. } in built() {
        let Some(codec) = name.strip_prefix("built magic=2 codec=") else {
            continue;
        };
        let (codec, level) = codec.split_once(" level=").unwrap();
        let codec = Codec::new(codec.parse().unwrap(), level.parse().unwrap()).unwrap();
        let golden = BatchView::parse(&bytes).unwrap();
        let mut builder = BatchBuilder::new(BatchOptions {
            codec,
            base_offset: golden.header().base_offset,
            ..BatchOptions::default()
        });
        for record in golden.records(&mut scratch).unwrap() {
            let record = record.unwrap();
            builder
                .append(
                    record.timestamp,
                    record.key,
                    record.value,
                    record.headers.to_vec(),
                )
                .unwrap();
        }
        let ours = builder.build().unwrap();
        if codec == Codec::NONE {
            assert_eq!(ours, bytes, "{name}");
        }
        assert_same_content(&bytes, &ours, &name);
        compared += 1;
    }
    assert_eq!(compared, 12);
}

/// Compares header fields and decompressed bodies.
fn assert_same_content(theirs: &[u8], ours: &[u8], name: &str) {
    let [theirs, ours] = [theirs, ours].map(|bytes| BatchView::parse(bytes).unwrap());
    ours.verify_crc().unwrap();
    let mut header = *ours.header();
    header.length = theirs.header().length;
    header.crc = theirs.header().crc;
    assert_eq!(&header, theirs.header(), "{name}");
    let [theirs, ours] = [theirs, ours].map(|batch| {
        let compression = batch.header().compression().unwrap();
        Scratch::new()
            .decompress(compression, batch.body())
            .unwrap()
            .to_vec()
    });
    assert!(theirs == ours, "{name}: bodies differ");
}

#[test]
fn control_batches_are_kafkas_to_the_byte() {
    let all = built();
    let find = |name| &all.iter().find(|built| built.name == name).unwrap().bytes;
    for (name, committed, coordinator_epoch, offset, leader_epoch) in
        [("commit", true, 77, 12, 5), ("abort", false, 0, 0, -1)]
    {
        let marker = EndTransactionMarker {
            committed,
            coordinator_epoch,
        };
        let batch = marker.to_batch(4000, 3, NOW).unwrap();
        let mut prepared = PreparedBatch::trusted(batch).unwrap();
        prepared.assign(offset, leader_epoch, None);
        assert_eq!(&prepared.to_bytes(), find(name), "{name}");

        let view = BatchView::parse(find(name)).unwrap();
        let mut scratch = Scratch::new();
        let record = view.records(&mut scratch).unwrap().next().unwrap().unwrap();
        assert_eq!(EndTransactionMarker::from_record(&record), Ok(marker));
    }
    let view = BatchView::parse(find("leader change")).unwrap();
    let mut scratch = Scratch::new();
    let record = view.records(&mut scratch).unwrap().next().unwrap().unwrap();
    let control_type = ControlType::from_key(record.key.unwrap()).unwrap();
    assert_eq!(control_type, ControlType::LeaderChange);
    assert_eq!(&control_type.key()[..], record.key.unwrap());
    assert!(EndTransactionMarker::from_record(&record).is_err());
}

#[test]
fn an_empty_batch_keeps_its_range() {
    let all = built();
    let empty = all.iter().find(|built| built.name == "empty").unwrap();
    let view = BatchView::parse(&empty.bytes).unwrap();
    view.verify_crc().unwrap();
    assert_eq!(view.header().record_count, 0);
    assert_eq!(
        (view.header().base_offset, view.header().last_offset()),
        (20, 24)
    );
    assert_eq!(view.header().last_sequence(), 14);
    assert_eq!(view.records(&mut Scratch::new()).unwrap().count(), 0);
}

fn rules_of(name: &str) -> ProduceRules {
    let default = ProduceRules::default();
    let to = |compression: Compression| TopicCompression::Codec(compression.into());
    match name {
        "default" => default,
        "compacted" => ProduceRules {
            compacted: true,
            ..default
        },
        "append-time" => ProduceRules {
            timestamp_type: TimestampType::LogAppendTime,
            ..default
        },
        "to-uncompressed" => ProduceRules {
            compression: to(Compression::None),
            ..default
        },
        "to-gzip" | "to-snappy" | "to-lz4" | "to-zstd" => ProduceRules {
            compression: to(name[3..].parse().unwrap()),
            ..default
        },
        "to-lz4-append-time-compacted" => ProduceRules {
            compression: to(Compression::Lz4),
            timestamp_type: TimestampType::LogAppendTime,
            compacted: true,
            ..default
        },
        "before-1000" => ProduceRules {
            timestamp_before_max_ms: 1000,
            ..default
        },
        "max-110" => ProduceRules {
            max_message_bytes: 110,
            ..default
        },
        "to-uncompressed-max-110" => ProduceRules {
            max_message_bytes: 110,
            compression: to(Compression::None),
            ..default
        },
        "version-6" => ProduceRules {
            api_version: 6,
            ..default
        },
        "coordinator" => ProduceRules {
            from_client: false,
            ..default
        },
        "coordinator-to-gzip" => ProduceRules {
            from_client: false,
            compression: to(Compression::Gzip),
            ..default
        },
        other => panic!("rules {other}"),
    }
}

/// Where we mean to differ.
fn is_departure(case: &str, rules: &str, golden: &str) -> bool {
    let from_coordinator = rules.starts_with("coordinator");
    // Kafka rewrites header keys through a Java string when it rebuilds a batch, which turns what
    // is not UTF-8 into replacement characters; we keep the bytes.
    case.ends_with("header key not UTF-8") && rules.contains("to-")
        // What would break Kafka's own state further on; no coordinator builds such batches.
        || from_coordinator && golden.contains("Received invalid partition leader epoch entry")
        || from_coordinator && golden.contains("Invalid negative sequence number")
        || from_coordinator && case.contains("offset delta ")
        || from_coordinator && case.contains("count 0") && golden.starts_with("ok")
}

/// What we make of a batch, in the words of `verdicts.txt`.
fn assert_verdict(name: &str, golden: &str, ours: Result<PreparedBatch, ProduceError>) {
    let (word, rest) = golden.split_once(' ').unwrap();
    let error = match (word, ours) {
        ("ok", Ok(mut prepared)) => {
            let (max_timestamp, stored) = rest.split_once(' ').unwrap();
            let append_time = prepared.header().log_append_time();
            prepared.assign(0, 5, append_time);
            let (ours, theirs) = (prepared.to_bytes(), unhex(stored));
            assert_eq!(
                prepared.header().max_timestamp.to_string(),
                max_timestamp,
                "{name}"
            );
            assert_same_content(&theirs, &ours, name);
            if !prepared.is_rebuilt() || !prepared.header().attributes.is_compressed() {
                assert_eq!(ours, theirs, "{name}");
            }
            return;
        }
        ("ok", Err(error)) => panic!("{name}: Kafka accepts, we say {error:?}"),
        (_, Ok(_)) => panic!("{name}: Kafka says {golden}, we accept"),
        (_, Err(error)) => error,
    };
    if word == "error" {
        let code = rest.split_once(' ').unwrap().0;
        let ours = error.kind().code().to_string();
        assert_eq!(ours, code, "{name}: {golden}, ours {error:?}");
        assert!(error.rejected_records().is_empty(), "{name}");
        return;
    }
    assert_eq!(word, "rejected", "{name}");
    let partition = TopicPartition::new("t", 0);
    let mut fields = rest.split('|');
    assert_eq!(
        fields.next(),
        Some(&*error.kind().code().to_string()),
        "{name}"
    );
    let message = error.response_message(&partition).unwrap();
    assert_eq!(
        fields.next().unwrap().replace("TP", "t-0"),
        message,
        "{name}"
    );
    let theirs: Vec<(String, String)> = fields
        .map(|field| field.split_once(' ').unwrap())
        .map(|(index, message)| (index.to_owned(), message.replace("TP", "t-0")))
        .collect();
    let ours: Vec<(String, String)> = error
        .rejected_records()
        .iter()
        .map(|record| (record.batch_index.to_string(), record.message(&partition)))
        .collect();
    assert_eq!(theirs.len(), ours.len(), "{name}");
    for (theirs, ours) in theirs.iter().zip(&ours) {
        // Kafka prints its own record object into this one message.
        if !theirs.1.starts_with("Invalid timestamp type") {
            assert_eq!(theirs, ours, "{name}");
        }
    }
}

#[test]
fn judges_as_kafka_does() {
    let verdicts = text(include_bytes!("golden/verdicts.txt.gz"));
    let mut scratch = Scratch::new();
    let (mut case, mut input, mut judged) = (String::new(), Bytes::new(), 0);
    for line in verdicts.lines() {
        let (word, rest) = line.split_once(' ').unwrap();
        match word {
            "case" => rest.clone_into(&mut case),
            "input" => input = unhex(rest).into(),
            _ => {
                let (rules, golden) = rest.split_once(' ').unwrap();
                if is_departure(&case, rules, golden) {
                    continue;
                }
                let name = format!("{case}, rules {rules}");
                let ours = validate(input.clone(), &rules_of(rules), &mut scratch, NOW);
                assert_verdict(&name, golden, ours);
                judged += 1;
            }
        }
    }
    assert!(judged > 6000, "{judged}");
}

/// Kafka's answer to any cut is that there is no batch, but where the length itself is cut off.
#[test]
fn refuses_every_truncation() {
    let mut scratch = Scratch::new();
    for built in built().iter().filter(|built| built.bytes.len() < 20_000) {
        for len in 0..built.bytes.len() {
            let cut = Bytes::copy_from_slice(&built.bytes[..len]);
            validate(cut, &ProduceRules::default(), &mut scratch, NOW).unwrap_err();
        }
    }
}
