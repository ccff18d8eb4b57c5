use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::batch::{BatchBuilder, BatchHeader, BatchOptions, HEADER_LEN, Record, batches};
use crate::{BatchView, Scratch};

const NOW: i64 = 1_700_000_000_000;

fn record_strategy() -> impl Strategy<Value = Record> {
    let bytes = |max| proptest::collection::vec(any::<u8>(), 0..max).prop_map(Bytes::from);
    (
        NOW - 1_000_000..NOW + 1000,
        proptest::option::of(bytes(30)),
        proptest::option::of(bytes(300)),
        proptest::collection::vec((bytes(10), proptest::option::of(bytes(10))), 0..4),
    )
        .prop_map(|(timestamp, key, value, headers)| Record {
            offset: 0,
            timestamp,
            key,
            value,
            headers,
        })
}

fn build(compression: Compression, records: &[Record]) -> Bytes {
    let mut builder = BatchBuilder::new(BatchOptions {
        codec: compression.into(),
        ..BatchOptions::default()
    });
    for record in records {
        let headers: Vec<_> = record
            .headers
            .iter()
            .map(|(key, value)| (&key[..], value.as_deref()))
            .collect();
        builder
            .append(
                record.timestamp,
                record.key.as_deref(),
                record.value.as_deref(),
                headers,
            )
            .unwrap();
    }
    builder.build().unwrap()
}

fn simple(compression: Compression) -> Bytes {
    let records: Vec<Record> = (0..3)
        .map(|i| Record {
            timestamp: NOW + i,
            key: Some("key".into()),
            value: Some("value ".repeat(50).into()),
            ..Record::default()
        })
        .collect();
    build(compression, &records)
}

fn read(batch: &[u8]) -> Vec<Record> {
    let view = BatchView::parse(batch).unwrap();
    view.verify_crc().unwrap();
    let mut scratch = Scratch::new();
    let records = view.records(&mut scratch).unwrap();
    records.map(|record| record.unwrap().to_record()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What was built comes out again at the offsets assigned, in whichever codec it is stored.
    #[test]
    fn records_survive_the_whole_way(
        mut records in proptest::collection::vec(record_strategy(), 1..20),
        source in 0_u8..5,
        target in 0_u8..6,
        base_offset in 0..i64::MAX - 100,
        append_time in any::<bool>(),
    ) {
        let rules = ProduceRules {
            compression: Compression::from_id(target)
                .map_or(TopicCompression::Producer, |codec| TopicCompression::Codec(codec.into())),
            timestamp_type: if append_time {
                TimestampType::LogAppendTime
            } else {
                TimestampType::CreateTime
            },
            ..ProduceRules::default()
        };
        let batch = build(Compression::from_id(source).unwrap(), &records);
        let mut prepared = validate(batch, &rules, &mut Scratch::new(), NOW).unwrap();
        prop_assert_eq!(prepared.is_rebuilt(), target < 5 && source != target);
        prepared.assign(base_offset, 3, append_time.then_some(NOW + 5));
        let stored = prepared.to_bytes();
        prop_assert_eq!(&BatchHeader::parse(&stored).unwrap(), prepared.header());
        for (index, record) in records.iter_mut().enumerate() {
            record.offset = base_offset + index as i64;
            if append_time {
                record.timestamp = NOW + 5;
            }
        }
        prop_assert_eq!(read(&stored), records);
    }

    #[test]
    fn arbitrary_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut scratch = Scratch::new();
        let _ = validate(bytes.clone().into(), &ProduceRules::default(), &mut scratch, NOW);
        for batch in batches(&bytes).flatten() {
            if let Ok(records) = batch.records(&mut scratch) {
                let _ = records.count();
            }
        }
        let _ = crate::legacy::Message::parse(&bytes).map(|message| message.records(&mut scratch).is_ok());
    }
}

/// Flips bits of good batches, mends the checksum, and runs everything over the result.
#[test]
fn mutated_batches_are_survived() {
    let mut state = 88_172_645_463_325_252_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as usize
    };
    let mut scratch = Scratch::with_limit(1 << 22);
    let rules = [
        TopicCompression::Producer,
        TopicCompression::Codec(Codec::NONE),
    ]
    .map(|compression| ProduceRules {
        compression,
        ..ProduceRules::default()
    });
    let mut accepted = 0;
    for round in 0..3000 {
        let compression = Compression::ALL[round % 5];
        let mut bytes = simple(compression).to_vec();
        for _ in 0..1 + next() % 4 {
            let at = 21 + next() % (bytes.len() - 21);
            bytes[at] = match next() % 4 {
                0 => next() as u8,
                1 => 0xff,
                2 => 0x7f,
                _ => bytes[at] ^ 1 << (next() % 8),
            };
        }
        let crc = crate::crc::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        let bytes = Bytes::from(bytes);
        for rules in &rules {
            accepted += usize::from(validate(bytes.clone(), rules, &mut scratch, NOW).is_ok());
        }
        if let Ok(view) = BatchView::parse(&bytes)
            && let Ok(records) = view.records(&mut scratch)
        {
            for record in records.flatten() {
                record.headers.iter().count();
            }
        }
    }
    assert!(
        accepted > 50,
        "{accepted}: the mutations never get past the header"
    );
}

#[test]
fn what_is_kept_is_not_copied() {
    for compression in Compression::ALL {
        let frame = simple(compression);
        let prepared = validate(
            frame.clone(),
            &ProduceRules::default(),
            &mut Scratch::new(),
            NOW,
        )
        .unwrap();
        assert_eq!(prepared.body().as_ptr(), frame[HEADER_LEN..].as_ptr());
    }
}

#[test]
fn a_bomb_is_walked_in_little_memory_and_not_rebuilt_in_much() {
    let record = Record {
        timestamp: NOW,
        value: Some(vec![0; 8 << 20].into()),
        ..Record::default()
    };
    let batch = build(Compression::Zstd, &[record]);
    assert!(batch.len() < 1 << 20);
    let mut scratch = Scratch::with_limit(1 << 20);
    validate(batch.clone(), &ProduceRules::default(), &mut scratch, NOW).unwrap();
    assert!(scratch.buffer.capacity() < 1 << 20);
    let rules = ProduceRules {
        compression: TopicCompression::Codec(Compression::Lz4.into()),
        ..ProduceRules::default()
    };
    let error = validate(batch, &rules, &mut scratch, NOW).unwrap_err();
    assert_eq!(error.kind(), ProduceErrorKind::MessageTooLarge);
}

#[test]
fn the_append_time_is_written_with_a_checksum_that_holds() {
    let rules = ProduceRules {
        timestamp_type: TimestampType::LogAppendTime,
        ..ProduceRules::default()
    };
    for compression in Compression::ALL {
        let mut prepared = validate(simple(compression), &rules, &mut Scratch::new(), NOW).unwrap();
        prepared.assign(10, 1, Some(NOW + 77));
        let stored = prepared.to_bytes();
        assert!(
            read(&stored)
                .iter()
                .all(|record| record.timestamp == NOW + 77)
        );
        // A batch of the program itself, of which no checksum was computed on the way.
        let mut trusted = PreparedBatch::trusted(simple(compression)).unwrap();
        trusted.assign(10, 1, Some(NOW + 77));
        assert_eq!(trusted.to_bytes(), stored);
    }
}

#[test]
fn an_old_message_is_refused_and_so_is_an_empty_request() {
    let mut scratch = Scratch::new();
    let mut judge = |bytes: &'static [u8]| {
        validate(
            Bytes::from_static(bytes),
            &ProduceRules::default(),
            &mut scratch,
            NOW,
        )
        .unwrap_err()
    };
    assert_eq!(judge(b""), ProduceError::NoBatch);
    assert_eq!(judge(&[0; 11]), ProduceError::NoBatch);
    assert_eq!(judge(&[0; 12]).kind(), ProduceErrorKind::CorruptMessage);
    let mut trailing = simple(Compression::None).to_vec();
    trailing.extend_from_slice(&simple(Compression::None));
    assert_eq!(
        validate(trailing.into(), &ProduceRules::default(), &mut scratch, NOW).unwrap_err(),
        ProduceError::ManyBatches
    );
}

#[test]
fn a_trusted_batch_must_be_one_batch() {
    let mut bytes = simple(Compression::None).to_vec();
    bytes.push(0);
    PreparedBatch::trusted(bytes.into()).unwrap_err();
    PreparedBatch::trusted(simple(Compression::None).slice(..100)).unwrap_err();
}

/// A batch whose checksum holds over a body that no codec reads.
fn unreadable(compression: Compression) -> Bytes {
    let mut bytes = simple(compression).to_vec();
    bytes[HEADER_LEN..].fill(0xa5);
    mend(bytes)
}

fn mend(mut bytes: Vec<u8>) -> Bytes {
    let crc = crate::crc::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes.into()
}

#[test]
fn the_header_of_a_compressed_batch_is_believed_where_the_topic_says_so() {
    let mut scratch = Scratch::new();
    let mut judge = |batch: &Bytes, rules: &ProduceRules| {
        validate(batch.clone(), rules, &mut scratch, NOW).map(|batch| batch.to_bytes())
    };
    let strict = ProduceRules::default();
    let header = ProduceRules {
        validation: Validation::Header,
        ..strict
    };
    for compression in Compression::ALL {
        let good = simple(compression);
        assert_eq!(judge(&good, &header), judge(&good, &strict));
        let bad = unreadable(compression);
        judge(&bad, &strict).unwrap_err();
        if compression == Compression::None {
            judge(&bad, &header).unwrap_err();
            continue;
        }
        assert_eq!(judge(&bad, &header).unwrap(), bad);
        let compacted = ProduceRules {
            compacted: true,
            ..header
        };
        judge(&bad, &compacted).unwrap_err();
        let recompressed = ProduceRules {
            compression: TopicCompression::Codec(Codec::NONE),
            ..header
        };
        judge(&bad, &recompressed).unwrap_err();
    }
}

#[test]
fn what_a_header_tells_is_checked_also_where_it_is_believed() {
    let rules = ProduceRules {
        validation: Validation::Header,
        timestamp_before_max_ms: 1_000,
        timestamp_after_max_ms: 1_000,
        ..ProduceRules::default()
    };
    let mut scratch = Scratch::new();
    let mut kind = |batch: Bytes, now| {
        let error = validate(batch, &rules, &mut scratch, now).unwrap_err();
        error.kind()
    };
    let good = simple(Compression::Zstd);
    assert_eq!(
        kind(good.clone(), NOW - 1_001),
        ProduceErrorKind::InvalidTimestamp
    );
    assert_eq!(
        kind(good.clone(), NOW + 1_001),
        ProduceErrorKind::InvalidTimestamp
    );
    let mut flipped = good.to_vec();
    flipped[HEADER_LEN] ^= 1;
    assert_eq!(kind(flipped.into(), NOW), ProduceErrorKind::CorruptMessage);
    let mut miscounted = good.to_vec();
    miscounted[HEADER_LEN - 1] += 1;
    assert_eq!(kind(mend(miscounted), NOW), ProduceErrorKind::InvalidRecord);
}
