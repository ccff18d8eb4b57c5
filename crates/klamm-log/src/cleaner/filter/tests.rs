//! Batch by batch, above all of the formats before v2, which no leader writes any more.

use super::*;

const NOW_MS: i64 = 1_000_000;

/// A message of magic 0 or 1.
fn message(magic: i8, offset: i64, attributes: u8, key: &[u8], value: Option<&[u8]>) -> Vec<u8> {
    let mut rest = vec![magic as u8, attributes];
    if magic == 1 {
        rest.extend_from_slice(&(500 + offset).to_be_bytes());
    }
    rest.extend_from_slice(&(key.len() as i32).to_be_bytes());
    rest.extend_from_slice(key);
    match value {
        Some(value) => {
            rest.extend_from_slice(&(value.len() as i32).to_be_bytes());
            rest.extend_from_slice(value);
        }
        None => rest.extend_from_slice(&(-1_i32).to_be_bytes()),
    }
    let mut bytes = offset.to_be_bytes().to_vec();
    bytes.extend_from_slice(&(rest.len() as i32 + 4).to_be_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&rest).to_be_bytes());
    bytes.extend_from_slice(&rest);
    bytes
}

/// A message around others, compressed with gzip.
fn wrapper(magic: i8, last_offset: i64, inner: &[u8]) -> Vec<u8> {
    let mut compressed = Vec::new();
    let codec = Codec::from(Compression::Gzip);
    Scratch::new()
        .compress(codec, inner, &mut compressed)
        .unwrap();
    message(
        magic,
        last_offset,
        Compression::Gzip.id(),
        b"",
        Some(&compressed),
    )
}

fn map_of(keys: &[(&[u8], i64)], latest_offset: i64) -> OffsetMap {
    let mut map = OffsetMap::new(1 << 16, 0.9, 1);
    map.begin(100);
    for (key, offset) in keys {
        assert!(map.put(key, *offset));
    }
    map.set_latest_offset(latest_offset);
    map
}

fn apply(map: &OffsetMap, keep_legacy_tombstones: bool, end: i64, bytes: &[u8]) -> Vec<u8> {
    let producers = BTreeMap::new();
    let filter = Filter {
        map,
        producers: &producers,
        end,
        keep_legacy_tombstones,
        now_ms: NOW_MS,
        delete_retention_ms: 77,
    };
    let meta = BatchMeta::parse(bytes).unwrap();
    let mut out = Vec::new();
    filter
        .apply(
            &meta,
            bytes,
            &mut Transactions::default(),
            &mut Buffers::default(),
            &mut out,
        )
        .unwrap();
    out
}

fn records(bytes: &[u8]) -> Vec<(i64, i64, Vec<u8>, bool)> {
    let view = BatchView::parse(bytes).unwrap();
    view.verify_crc().unwrap();
    let mut scratch = Scratch::new();
    view.records(&mut scratch)
        .unwrap()
        .map(|record| {
            let record = record.unwrap();
            let key = record.key.unwrap().to_vec();
            (record.offset, record.timestamp, key, record.value.is_some())
        })
        .collect()
}

#[test]
fn old_messages_become_batches_of_v2() {
    let map = map_of(&[(b"a", 9)], 9);
    for magic in [0, 1] {
        let time = |offset: i64| if magic == 1 { 500 + offset } else { -1 };
        assert!(apply(&map, true, 100, &message(magic, 3, 0, b"a", Some(b"v"))).is_empty());
        let kept = apply(&map, true, 100, &message(magic, 4, 0, b"b", Some(b"v")));
        assert_eq!(records(&kept), [(4, time(4), b"b".to_vec(), true)]);
        let header = *BatchView::parse(&kept).unwrap().header();
        assert_eq!(
            (header.partition_leader_epoch, header.producer_id),
            (-1, -1)
        );
        assert_eq!(header.delete_horizon_ms(), None);
    }
}

#[test]
fn compressed_messages_keep_their_codec_and_offsets() {
    let map = map_of(&[(b"a", 9)], 9);
    for magic in [0, 1] {
        // Inside of magic 1 offsets are relative.
        let first = if magic == 0 { 5 } else { 0 };
        let inner = [
            message(magic, first, 0, b"a", Some(b"old")),
            message(magic, first + 1, 0, b"b", Some(b"v")),
            message(magic, first + 2, 0, b"c", Some(b"v")),
        ];
        let kept = apply(&map, true, 100, &wrapper(magic, 7, &inner.concat()));
        let found = records(&kept);
        let offsets: Vec<i64> = found.iter().map(|record| record.0).collect();
        assert_eq!(offsets, [6, 7]);
        let header = *BatchView::parse(&kept).unwrap().header();
        assert_eq!(header.compression().unwrap(), Compression::Gzip);
        assert_eq!((header.base_offset, header.last_offset()), (6, 7));
    }
}

#[test]
fn old_tombstones_stay_by_the_age_of_their_segment_and_get_a_horizon() {
    let map = map_of(&[], 9);
    let tombstone = message(1, 3, 0, b"a", None);
    assert!(apply(&map, false, 100, &tombstone).is_empty());
    let kept = apply(&map, true, 100, &tombstone);
    assert_eq!(records(&kept), [(3, 503, b"a".to_vec(), false)]);
    let header = *BatchView::parse(&kept).unwrap().header();
    assert_eq!(header.delete_horizon_ms(), Some(NOW_MS + 77));
}

#[test]
fn an_old_message_at_the_end_leaves_an_empty_batch() {
    let map = map_of(&[(b"a", 9)], 9);
    let left = apply(&map, true, 4, &message(1, 3, 0, b"a", Some(b"v")));
    let view = BatchView::parse(&left).unwrap();
    view.verify_crc().unwrap();
    assert_eq!(view.header().record_count, 0);
    assert_eq!(view.header().last_offset(), 3);
    let again = apply(&map, true, 4, &left);
    assert_eq!(again, left, "and stays as long as the end is there");
    assert!(apply(&map, true, 100, &left).is_empty());
}

#[test]
fn records_beyond_the_map_stay() {
    let map = map_of(&[(b"a", 2)], 2);
    let bytes = message(1, 3, 0, b"a", None);
    assert!(!apply(&map, false, 100, &bytes).is_empty());
}

#[test]
fn the_append_time_of_a_batch_is_kept() {
    let map = map_of(&[(b"a", 9)], 9);
    let mut builder = BatchBuilder::new(BatchOptions {
        timestamp_type: TimestampType::LogAppendTime,
        log_append_time: 4_000,
        base_offset: 1,
        ..BatchOptions::default()
    });
    builder.append(1, Some(b"a"), Some(b"v"), []).unwrap();
    builder.append(2, Some(b"b"), None, []).unwrap();
    let kept = apply(&map, true, 100, &builder.build().unwrap());
    assert_eq!(records(&kept), [(2, 4_000, b"b".to_vec(), false)]);
    let header = *BatchView::parse(&kept).unwrap().header();
    assert_eq!(header.max_timestamp, 4_000);
    assert_eq!(header.delete_horizon_ms(), Some(NOW_MS + 77));
    assert_eq!(header.base_offset, 1);
}

#[test]
fn refuses_what_cannot_be_read() {
    let map = map_of(&[], 9);
    let broken = wrapper(1, 7, b"no messages");
    assert!(Message::parse(&broken).is_ok());
    let producers = BTreeMap::new();
    let filter = Filter {
        map: &map,
        producers: &producers,
        end: 100,
        keep_legacy_tombstones: true,
        now_ms: NOW_MS,
        delete_retention_ms: 0,
    };
    let meta = BatchMeta::parse(&broken).unwrap();
    let refused = filter.apply(
        &meta,
        &broken,
        &mut Transactions::default(),
        &mut Buffers::default(),
        &mut Vec::new(),
    );
    assert_eq!(refused, Err(BatchFault::Records));
}
