use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use klamm_env::{Clock, Env, FileExt, ManualClock, OpenMode};
use klamm_records::Compression;

use super::{Entry, Journal, JournalError, Options};

fn texts(entries: impl Iterator<Item = Result<Entry, JournalError>>) -> Vec<(u64, String)> {
    entries
        .map(|entry| {
            let entry = entry.unwrap();
            let value = entry.value.unwrap_or_default();
            (entry.offset, String::from_utf8(value.to_vec()).unwrap())
        })
        .collect()
}

fn value(offset: u64) -> String {
    format!("value {offset} {}", "x".repeat((offset % 50) as usize))
}

/// A journal of `count` records, each the value of its offset, some alone and some together.
fn filled(dir: &Path, options: Options, count: u64) -> Journal {
    let journal = Journal::open_with(dir, options).unwrap();
    while journal.end() < count {
        let next = journal.end();
        if next.is_multiple_of(3) {
            assert_eq!(journal.append("k", value(next)).unwrap(), next);
        } else {
            let to = (next + 20).min(count);
            let records = (next..to).map(|n| (n.to_string(), value(n)));
            assert_eq!(journal.append_all(records).unwrap(), next..to);
        }
    }
    journal
}

#[test]
fn reads_what_it_wrote_from_any_offset_over_segments_codecs_and_restarts() {
    for compression in Compression::ALL {
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            segment_bytes: 4096,
            compression,
            ..Options::default()
        };
        let journal = filled(dir.path(), options.clone(), 500);
        assert!(journal.inner.log.segment_base_offsets().len() > 1);
        journal.close().unwrap();
        assert!(journal.append("k", "late").unwrap_err().is_closed());
        drop(journal);
        let journal = Journal::open_with(dir.path(), options).unwrap();
        for from in [0, 1, 250, 499, 500, 900] {
            let expected: Vec<_> = (from..500).map(|n| (n, value(n))).collect();
            assert_eq!(texts(journal.read(from)), expected, "{compression} {from}");
        }
    }
}

#[test]
fn keys_values_and_their_absence_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    assert!(journal.is_empty());
    journal.append("key", "value").unwrap();
    journal.push(b"\x00\xff").unwrap();
    journal.remove("key").unwrap();
    assert_eq!(journal.append_all::<&str, &str>([]).unwrap(), 3..3);
    let entries: Vec<Entry> = journal.read(0).map(Result::unwrap).collect();
    let fields: Vec<_> = entries
        .iter()
        .map(|e| (e.key.as_deref(), e.value.as_deref()))
        .collect();
    let (key, bytes): (&[u8], &[u8]) = (b"key", b"\x00\xff");
    assert_eq!(
        fields,
        [
            (Some(key), Some(&b"value"[..])),
            (None, Some(bytes)),
            (Some(key), None)
        ]
    );
    assert!(entries.iter().all(|e| e.timestamp_ms > 0));
}

#[test]
fn a_read_ends_where_the_end_was() {
    let dir = tempfile::tempdir().unwrap();
    let journal = filled(dir.path(), Options::default(), 10);
    let mut entries = journal.read(8);
    assert_eq!(entries.next().unwrap().unwrap().offset, 8);
    journal.push("more").unwrap();
    assert_eq!(entries.next().unwrap().unwrap().offset, 9);
    assert!(entries.next().is_none());
}

#[test]
fn a_follower_hears_of_what_comes_and_of_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let journal = filled(dir.path(), Options::default(), 3);
    let mut follower = journal.follow(2);
    assert_eq!(follower.next().unwrap().unwrap().offset, 2);
    assert_eq!(follower.next_within(Duration::ZERO).unwrap(), None);
    let thread = thread::spawn(move || texts(follower));
    for n in 3..100 {
        journal.push(value(n)).unwrap();
    }
    journal.close().unwrap();
    let expected: Vec<_> = (3..100).map(|n| (n, value(n))).collect();
    let heard = thread.join().unwrap();
    // The close may overtake the follower, but nothing is left out in between.
    assert_eq!(heard, expected[..heard.len()]);
}

/// Counts how often a task was woken.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_tail_is_woken_once_for_what_comes_and_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(wakes.clone());
    let mut context = Context::from_waker(&waker);
    let mut tail = journal.tail(0);
    assert!(tail.poll_entry(&mut context).is_pending());
    journal.push("one").unwrap();
    journal.push("two").unwrap();
    assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
    for expected in ["one", "two"] {
        let mut next = pin!(tail.next());
        let Poll::Ready(Some(Ok(entry))) = next.as_mut().poll(&mut context) else {
            panic!("{expected} is not there");
        };
        assert_eq!(entry.value.as_deref(), Some(expected.as_bytes()));
    }
    assert!(tail.poll_entry(&mut context).is_pending());
    journal.close().unwrap();
    assert_eq!(wakes.0.load(Ordering::SeqCst), 2);
    assert!(matches!(tail.poll_entry(&mut context), Poll::Ready(None)));
}

#[test]
fn damage_is_an_error_and_never_data() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    for n in 0..10 {
        journal.push(value(n)).unwrap();
    }
    let path = dir.path().join("00000000000000000000.log");
    let file = Env::os().fs.open(&path, OpenMode::Write).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    let at = bytes.windows(7).position(|w| w == b"value 5").unwrap();
    file.write_all_at(b"w", at as u64).unwrap();
    let mut good = 0;
    let mut entries = journal.read(0);
    let error = loop {
        match entries.next().unwrap() {
            Ok(entry) => {
                let read = String::from_utf8(entry.value.unwrap().to_vec()).unwrap();
                assert_eq!((entry.offset, read), (good, value(good)));
                good += 1;
            }
            Err(error) => break error,
        }
    };
    assert!(
        matches!(error, JournalError::Damaged { offset, .. } if offset == good),
        "{error}"
    );
    assert_eq!(good, 5);
    assert!(entries.next().is_none());
    assert_eq!(journal.read(6).count(), 4);
    // A length that reaches past the end is no reason to wait for more.
    let batch = at as u64 - 61 - 6;
    assert_eq!(bytes[batch as usize..][..8], 5_i64.to_be_bytes());
    file.write_all_at(&[1], batch + 9).unwrap();
    assert!(journal.follow(5).next().unwrap().is_err());
}

#[test]
fn age_and_size_drop_the_oldest() {
    let clock = Arc::new(ManualClock::new(1_700_000_000_000));
    let env = Env {
        clock: clock.clone(),
        ..Env::os()
    };
    let options = |keep_for, keep_bytes| Options {
        segment_bytes: 2048,
        keep_for,
        keep_bytes,
        env: env.clone(),
        ..Options::default()
    };
    let dir = tempfile::tempdir().unwrap();
    let journal = filled(dir.path(), options(None, Some(4096)), 300);
    journal.maintain().unwrap();
    assert!(journal.size_bytes() <= 4096 + 2048);
    let start = journal.start();
    assert!(start > 0);
    // Who comes too late begins with what is there.
    assert_eq!(texts(journal.read(0))[0], (start, value(start)));
    assert_eq!(journal.offset_at(clock.wall_ms()).unwrap(), Some(start));
    assert_eq!(journal.offset_at(clock.wall_ms() + 1).unwrap(), None);
    drop(journal);

    let journal = filled(dir.path(), options(Some(Duration::from_secs(1)), None), 310);
    clock.advance_ms(1001);
    journal.maintain().unwrap();
    assert!(journal.is_empty());
    assert_eq!((journal.end(), journal.push("next").unwrap()), (310, 310));

    journal
        .append_all((0..5).map(|n| (n.to_string(), "v")))
        .unwrap();
    journal.drop_before(313).unwrap();
    assert_eq!(journal.start(), 313);
    assert_eq!(journal.read(0).count(), 3);
    assert!(journal.drop_before(400).is_err());
}

#[test]
fn appends_of_many_threads_get_offsets_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    let threads: Vec<_> = (0..4)
        .map(|t| {
            let journal = journal.clone();
            thread::spawn(move || {
                let append = |n| {
                    (
                        journal.push(format!("{t} {n}")).unwrap(),
                        format!("{t} {n}"),
                    )
                };
                (0..50).map(append).collect::<Vec<_>>()
            })
        })
        .collect();
    let mut written = BTreeMap::new();
    for thread in threads {
        written.extend(thread.join().unwrap());
    }
    assert_eq!(
        texts(journal.read(0)),
        written.into_iter().collect::<Vec<_>>()
    );
}

#[test]
fn compaction_keeps_the_last_of_each_key() {
    let clock = Arc::new(ManualClock::new(1_700_000_000_000));
    let options = Options {
        segment_bytes: 4096,
        keep_removals_for: Duration::from_secs(1),
        env: Env {
            clock: clock.clone(),
            ..Env::os()
        },
        ..Options::default()
    };
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open_with(dir.path(), options.clone()).unwrap();
    let mut last = BTreeMap::new();
    for n in 0..1000_u64 {
        let key = format!("key {}", n * n % 37);
        let offset = journal.append(&key, value(n)).unwrap();
        last.insert(key, (offset, value(n)));
    }
    journal.push("without a key").unwrap();
    let removed = journal.remove("key 1").unwrap();
    last.insert("key 1".into(), (removed, String::new()));
    let before = journal.size_bytes();
    let mut reader = journal.read(0);
    assert_eq!(reader.next().unwrap().unwrap().offset, 0);
    journal.compact().unwrap();
    assert!(
        journal.size_bytes() < before / 5,
        "{}",
        journal.size_bytes()
    );
    let expected: BTreeMap<u64, String> = last.clone().into_values().collect();
    let expected: Vec<_> = expected.into_iter().collect();
    assert_eq!(texts(journal.read(0)), expected);
    // Who was reading meanwhile misses nothing that stayed.
    let rest: BTreeMap<_, _> = texts(reader).into_iter().collect();
    assert!(
        expected
            .iter()
            .all(|(offset, value)| rest.get(offset) == Some(value))
    );
    // From a gap one goes on behind it.
    assert_eq!(texts(journal.read(1))[0], expected[0]);
    assert_eq!(journal.push("next").unwrap(), 1002);
    assert_eq!(
        journal
            .follow(expected[0].0 + 1)
            .next()
            .unwrap()
            .unwrap()
            .offset,
        expected[1].0
    );

    // The removal goes once it has had its time, in the compaction after the one that found the
    // key's records gone.
    clock.advance_ms(2000);
    journal.compact().unwrap();
    clock.advance_ms(2000);
    journal.compact().unwrap();
    drop(journal);
    let journal = Journal::open_with(dir.path(), options).unwrap();
    assert!(
        journal
            .read(0)
            .all(|entry| entry.unwrap().offset != removed)
    );
    assert_eq!(journal.end(), 1003);
}

#[test]
fn limits_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let options = |segment_bytes| Options {
        segment_bytes,
        ..Options::default()
    };
    let refused = Journal::open_with(dir.path(), options(100)).unwrap_err();
    assert!(matches!(refused, JournalError::Options(_)));
    let journal = Journal::open_with(dir.path(), options(1024)).unwrap();
    assert!(journal.push(vec![0; 2000]).is_err());
    assert_eq!(journal.push("small").unwrap(), 0);
    let twice = Journal::open(dir.path().join("."));
    assert!(matches!(twice, Err(JournalError::InUse { .. })));
    drop(journal);
    assert!(Journal::open(dir.path()).is_ok());
}
