use super::*;
use crate::batch::HEADER_LEN;
use crate::test_support::TestDir;
use klamm_env::FsExt;
use klamm_records::control::EndTransactionMarker;
use klamm_records::{BatchHeader, BatchOptions};

const PRODUCER: i64 = 7;
const COMMIT: EndTransactionMarker = EndTransactionMarker {
    committed: true,
    coordinator_epoch: 0,
};
const ABORT: EndTransactionMarker = EndTransactionMarker {
    committed: false,
    coordinator_epoch: 0,
};

/// A batch of `count` records of [`PRODUCER`].
#[derive(Clone, Copy)]
struct Batch {
    epoch: i16,
    sequence: i32,
    offset: i64,
    count: i32,
    transactional: bool,
    control: bool,
}

impl Batch {
    fn data(epoch: i16, sequence: i32, offset: i64) -> Batch {
        Batch {
            epoch,
            sequence,
            offset,
            count: 1,
            transactional: false,
            control: false,
        }
    }

    fn transactional(epoch: i16, sequence: i32, offset: i64) -> Batch {
        Batch {
            transactional: true,
            ..Batch::data(epoch, sequence, offset)
        }
    }

    fn marker(epoch: i16, offset: i64) -> Batch {
        Batch {
            transactional: true,
            control: true,
            ..Batch::data(epoch, -1, offset)
        }
    }

    fn meta(self) -> BatchMeta {
        let empty = klamm_records::BatchBuilder::new(BatchOptions {
            producer_id: PRODUCER,
            producer_epoch: self.epoch,
            base_sequence: self.sequence,
            base_offset: self.offset,
            transactional: self.transactional,
            control: self.control,
            ..BatchOptions::default()
        });
        let mut header = BatchHeader::parse(&empty.build().unwrap()).unwrap();
        header.last_offset_delta = self.count - 1;
        header.max_timestamp = 1000 + self.offset;
        let bytes: [u8; HEADER_LEN] = header.to_array();
        BatchMeta::parse(&bytes).unwrap()
    }
}

struct Fixture {
    dir: TestDir,
    states: ProducerStates,
}

impl Fixture {
    fn new() -> Fixture {
        let dir = TestDir::new();
        let states = ProducerStates::new(dir.log_dir(), BTreeSet::new(), 86_400_000);
        Fixture { dir, states }
    }

    fn append(&mut self, batch: Batch) -> Result<(), LogError> {
        self.append_as(batch, AppendOrigin::Client)
    }

    fn append_as(&mut self, batch: Batch, origin: AppendOrigin) -> Result<(), LogError> {
        let mut update = PendingUpdate::new(PRODUCER, self.states.get(PRODUCER), None, origin);
        update.add(&batch.meta(), None)?;
        self.states.commit(update);
        self.states.set_map_end(batch.meta().next_offset());
        Ok(())
    }

    fn end_txn(
        &mut self,
        batch: Batch,
        marker: EndTransactionMarker,
        transaction_version: i16,
    ) -> Result<Option<CompletedTxn>, LogError> {
        let origin = AppendOrigin::TxnMarkers {
            transaction_version,
        };
        let mut update = PendingUpdate::new(PRODUCER, self.states.get(PRODUCER), None, origin);
        let completed = update.add(&batch.meta(), Some(marker))?;
        self.states.commit(update);
        if let Some(txn) = &completed {
            self.states.complete(txn);
        }
        self.states.set_map_end(batch.meta().next_offset());
        Ok(completed)
    }

    fn duplicate(&self, batch: Batch) -> Option<i64> {
        let entry = self.states.get(PRODUCER)?;
        entry
            .duplicate_of(&batch.meta())
            .map(|known| known.last_offset)
    }
}

fn is_out_of_order(result: Result<(), LogError>) -> bool {
    matches!(result, Err(LogError::OutOfOrderSequence { .. }))
}

#[test]
fn sequences_must_follow() {
    let mut f = Fixture::new();
    f.append(Batch::data(0, 0, 0)).unwrap();
    f.append(Batch {
        count: 3,
        ..Batch::data(0, 1, 1)
    })
    .unwrap();
    f.append(Batch::data(0, 4, 4)).unwrap();
    assert!(is_out_of_order(f.append(Batch::data(0, 6, 5))), "a gap");
    assert!(
        is_out_of_order(f.append(Batch::data(0, 4, 5))),
        "a step back"
    );
    f.append(Batch::data(0, 5, 5)).unwrap();
}

#[test]
fn sequences_wrap_to_zero() {
    let mut f = Fixture::new();
    f.append(Batch {
        count: 10,
        ..Batch::data(0, i32::MAX - 9, 0)
    })
    .unwrap();
    f.append(Batch::data(0, 0, 10)).unwrap();
    let mut g = Fixture::new();
    g.append(Batch {
        count: 20,
        ..Batch::data(0, i32::MAX - 9, 0)
    })
    .unwrap();
    assert_eq!(g.states.get(PRODUCER).unwrap().last_sequence(), 9);
    g.append(Batch::data(0, 10, 20)).unwrap();
}

#[test]
fn an_unknown_producer_may_start_anywhere() {
    let mut f = Fixture::new();
    f.append(Batch::data(5, 16, 0)).unwrap();
    f.append(Batch::data(5, 17, 1)).unwrap();
}

#[test]
fn a_new_epoch_starts_at_zero() {
    let mut f = Fixture::new();
    f.append(Batch::data(0, 0, 0)).unwrap();
    assert!(is_out_of_order(f.append(Batch::data(1, 5, 1))));
    f.append(Batch::data(1, 0, 1)).unwrap();
    let fenced = f.append(Batch::data(0, 1, 2));
    assert!(matches!(
        fenced,
        Err(LogError::InvalidProducerEpoch {
            got: 0,
            current: 1,
            ..
        })
    ));
}

#[test]
fn replicas_do_not_check() {
    let mut f = Fixture::new();
    f.append(Batch::data(3, 0, 0)).unwrap();
    f.append_as(Batch::data(3, 9, 1), AppendOrigin::Replication)
        .unwrap();
    f.append_as(Batch::data(2, 0, 2), AppendOrigin::Replication)
        .unwrap();
    // The group coordinator writes without sequences, but is fenced.
    f.append_as(Batch::data(2, -1, 3), AppendOrigin::Coordinator)
        .unwrap();
    assert!(
        f.append_as(Batch::data(1, -1, 4), AppendOrigin::Coordinator)
            .is_err()
    );
}

#[test]
fn the_last_five_batches_are_recognised() {
    let mut f = Fixture::new();
    for n in 0..6 {
        f.append(Batch {
            count: 2,
            ..Batch::data(0, n * 2, i64::from(n) * 2)
        })
        .unwrap();
    }
    let again = |n: i32| Batch {
        count: 2,
        ..Batch::data(0, n * 2, 1000)
    };
    assert_eq!(f.duplicate(again(0)), None, "six batches ago");
    for n in 1..6 {
        assert_eq!(f.duplicate(again(n)), Some(i64::from(n) * 2 + 1));
    }
    assert_eq!(
        f.duplicate(Batch::data(0, 10, 1000)),
        None,
        "another extent"
    );
    assert_eq!(
        f.duplicate(Batch {
            epoch: 1,
            ..again(5)
        }),
        None,
        "another epoch"
    );
}

#[test]
fn transactions_hold_back_the_stable_offset() {
    let mut f = Fixture::new();
    f.append(Batch::transactional(0, 0, 10)).unwrap();
    f.append(Batch::transactional(0, 1, 11)).unwrap();
    assert_eq!(f.states.first_unstable_offset(12), Some(10));
    assert!(matches!(
        f.append(Batch::data(0, 2, 12)),
        Err(LogError::InvalidTxnState { .. })
    ));
    let completed = f.end_txn(Batch::marker(0, 12), COMMIT, 0).unwrap().unwrap();
    assert_eq!(
        (
            completed.first_offset,
            completed.last_offset,
            completed.aborted
        ),
        (10, 12, false)
    );
    assert_eq!(
        f.states.first_unstable_offset(12),
        Some(10),
        "the marker is not replicated"
    );
    assert_eq!(f.states.first_unstable_offset(13), None);
    assert!(!f.states.has_transactions());
}

#[test]
fn a_marker_without_data_ends_nothing() {
    let mut f = Fixture::new();
    assert_eq!(f.end_txn(Batch::marker(0, 0), ABORT, 0).unwrap(), None);
    f.append(Batch::transactional(0, 0, 1)).unwrap();
    assert!(
        f.end_txn(Batch::marker(0, 2), ABORT, 0)
            .unwrap()
            .unwrap()
            .aborted
    );
}

#[test]
fn an_old_coordinator_is_fenced() {
    let mut f = Fixture::new();
    f.append(Batch::transactional(0, 0, 0)).unwrap();
    f.end_txn(
        Batch::marker(0, 1),
        EndTransactionMarker {
            coordinator_epoch: 4,
            ..ABORT
        },
        0,
    )
    .unwrap();
    let error = f.end_txn(Batch::marker(0, 2), ABORT, 0).unwrap_err();
    assert!(matches!(
        error,
        LogError::TransactionCoordinatorFenced {
            got: 0,
            current: 4,
            ..
        }
    ));
}

#[test]
fn markers_of_version_two_bump_the_epoch() {
    let mut f = Fixture::new();
    f.append(Batch::transactional(3, 0, 0)).unwrap();
    let same_epoch = f.end_txn(Batch::marker(3, 1), COMMIT, 2);
    assert!(matches!(
        same_epoch,
        Err(LogError::InvalidProducerEpoch { .. })
    ));
    f.end_txn(Batch::marker(4, 1), COMMIT, 2).unwrap().unwrap();
    // The coordinator may not know that it succeeded.
    assert_eq!(f.end_txn(Batch::marker(4, 2), COMMIT, 2).unwrap(), None);
    assert!(f.end_txn(Batch::marker(3, 3), COMMIT, 2).is_err());
    f.append(Batch::transactional(4, 0, 3)).unwrap();
}

#[test]
fn the_last_epoch_can_still_end_its_transaction() {
    let mut f = Fixture::new();
    f.append(Batch::transactional(i16::MAX, 0, 0)).unwrap();
    f.end_txn(Batch::marker(i16::MAX, 1), ABORT, 2)
        .unwrap()
        .unwrap();
}

#[test]
fn state_survives_in_a_snapshot() {
    let mut f = Fixture::new();
    f.append(Batch {
        count: 3,
        ..Batch::data(2, 0, 0)
    })
    .unwrap();
    f.append(Batch::transactional(2, 3, 3)).unwrap();
    f.states.take_snapshot().unwrap();
    f.states.take_snapshot().unwrap();
    assert_eq!(f.states.snapshot_offsets(), [4]);

    let mut loaded = ProducerStates::new(f.dir.log_dir(), BTreeSet::from([4]), 86_400_000);
    loaded.truncate_and_reload(0, 4, 2000).unwrap();
    assert_eq!(loaded.active(), f.states.active());
    assert_eq!(loaded.first_unstable_offset(4), Some(3));
    assert_eq!(loaded.map_end(), 4);
}

#[test]
fn a_damaged_snapshot_is_dropped_for_an_older_one() {
    let mut f = Fixture::new();
    f.append(Batch::data(0, 0, 0)).unwrap();
    f.states.take_snapshot().unwrap();
    f.append(Batch::data(0, 1, 1)).unwrap();
    f.states.take_snapshot().unwrap();
    let path = f.dir.log_dir().file(2, FileKind::Snapshot);
    let mut content = f.dir.env.fs.read(&path).unwrap();
    content[20] ^= 1;
    f.dir.env.fs.write_atomically(&path, &content).unwrap();
    let mut loaded = ProducerStates::new(f.dir.log_dir(), BTreeSet::from([1, 2]), 86_400_000);
    loaded.truncate_and_reload(0, 2, 2000).unwrap();
    assert_eq!(loaded.map_end(), 1);
    assert_eq!(loaded.get(PRODUCER).unwrap().last_sequence(), 0);
    assert!(!f.dir.env.fs.exists(&path).unwrap());
}

#[test]
fn idle_producers_are_forgotten() {
    let mut f = Fixture::new();
    f.append(Batch::data(0, 0, 0)).unwrap();
    f.states.expire(1000 + 86_399_999);
    assert!(f.states.get(PRODUCER).is_some());
    f.states.expire(1000 + 86_400_000);
    assert!(f.states.get(PRODUCER).is_none());
    f.append(Batch::transactional(0, 5, 1)).unwrap();
    f.states.expire(i64::MAX);
    assert!(f.states.get(PRODUCER).is_some(), "its transaction is open");
}

#[test]
fn stray_snapshots_are_removed() {
    let dir = TestDir::new();
    let offsets = BTreeSet::from([1, 2, 5, 9, 12]);
    for &offset in &offsets {
        let path = dir.log_dir().file(offset, FileKind::Snapshot);
        snapshot::write(&*dir.env.fs, &path, &BTreeMap::new()).unwrap();
    }
    let mut states = ProducerStates::new(dir.log_dir(), offsets, 1);
    states.remove_stray_snapshots(&[0, 5, 9]).unwrap();
    assert_eq!(
        states.snapshot_offsets(),
        [5, 9, 12],
        "12 is from a clean shutdown"
    );
    states.remove_stray_snapshots(&[0, 5, 15]).unwrap();
    assert_eq!(states.snapshot_offsets(), [5]);
}

#[test]
fn snapshots_have_kafkas_form() {
    let mut f = Fixture::new();
    f.append(Batch {
        count: 3,
        ..Batch::transactional(2, 5, 40)
    })
    .unwrap();
    f.states.take_snapshot().unwrap();
    let content = f
        .dir
        .env
        .fs
        .read(&f.dir.log_dir().file(43, FileKind::Snapshot))
        .unwrap();
    let mut expected = vec![0, 1];
    expected.extend_from_slice(&content[2..6]); // checksum
    expected.extend_from_slice(&1_i32.to_be_bytes());
    expected.extend_from_slice(&PRODUCER.to_be_bytes());
    expected.extend_from_slice(&2_i16.to_be_bytes());
    expected.extend_from_slice(&7_i32.to_be_bytes()); // last sequence
    expected.extend_from_slice(&42_i64.to_be_bytes()); // last offset
    expected.extend_from_slice(&2_i32.to_be_bytes()); // offset delta
    expected.extend_from_slice(&1040_i64.to_be_bytes()); // timestamp
    expected.extend_from_slice(&(-1_i32).to_be_bytes()); // coordinator epoch
    expected.extend_from_slice(&40_i64.to_be_bytes()); // transaction start
    assert_eq!(content, expected);
}
