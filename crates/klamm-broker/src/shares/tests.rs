//! Share state that comes late, or twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use klamm_coordinator::share_partition::{SharePartition, StoredState};
use klamm_protocol::{ByteStr, ErrorCode};
use klamm_records::Uuid;
use tokio::sync::oneshot;

use super::cells::{Cell, Cells, PartitionKey};

const LATE: Result<(), ErrorCode> = Err(ErrorCode::NotLeaderOrFollower);

fn key() -> PartitionKey {
    ("g".into(), Uuid::from_bytes([7; 16]), 0)
}

fn enter(cells: &Cells, leader_epoch: i32) -> Arc<Cell> {
    cells.enter(&key(), &"t".into(), leader_epoch).unwrap()
}

/// State that is done with everything below an offset.
fn done_to(start_offset: i64) -> SharePartition {
    let stored = StoredState {
        state_epoch: 0,
        start_offset,
        batches: Vec::new(),
    };
    SharePartition::load(&stored, 0).unwrap()
}

/// What comes of a request when somebody says so.
fn answered_later() -> (
    oneshot::Sender<SharePartition>,
    impl Future<Output = Result<SharePartition, ErrorCode>>,
) {
    let (answer, answered) = oneshot::channel();
    let read = async move { answered.await.map_err(|_| ErrorCode::NetworkException) };
    (answer, read)
}

fn start_offset(cell: &Cell) -> Option<i64> {
    let state = cell.state();
    state.partition.as_ref().map(SharePartition::start_offset)
}

#[tokio::test]
async fn state_for_an_earlier_term_is_not_taken_in() {
    let cells = Cells::default();
    let old = enter(&cells, 1);
    let (answer, read) = answered_later();
    let (late, new) = tokio::join!(biased; cells.load(&old, read), async {
        // Others lead for a while, and are done with more; then this broker leads again.
        let new = enter(&cells, 3);
        let loaded = cells.load(&new, async { Ok(done_to(20)) }).await;
        assert_eq!(loaded, Ok(()));
        answer.send(done_to(10)).unwrap();
        new
    });
    assert_eq!(late, LATE);
    assert_eq!(start_offset(&old), None);
    assert_eq!(start_offset(&new), Some(20));
    let present = cells.present(&key()).unwrap();
    assert!(Arc::ptr_eq(&present, &new));
    // Nor does anybody get back to the earlier term who is late himself.
    let refused = cells.enter(&key(), &"t".into(), 1);
    assert_eq!(refused.unwrap_err(), ErrorCode::NotLeaderOrFollower);
    assert_eq!(start_offset(&new), Some(20));
}

#[tokio::test]
async fn a_cell_that_is_replaced_is_of_no_use_any_more() {
    let cells = Cells::default();
    let old = enter(&cells, 1);
    cells.load(&old, async { Ok(done_to(5)) }).await.unwrap();
    let new = enter(&cells, 2);
    assert_eq!(start_offset(&old), None);
    // A write of the earlier term is told that others have led since: the present one stays.
    cells.load(&new, async { Ok(done_to(6)) }).await.unwrap();
    cells.drop_fenced(&old);
    assert_eq!(start_offset(&new), Some(6));
    assert!(cells.present(&key()).is_some());
    cells.drop_fenced(&new);
    assert_eq!(start_offset(&new), None);
    assert!(cells.present(&key()).is_none());
}

#[tokio::test]
async fn state_that_comes_after_the_fence_is_not_taken_in() {
    let cells = Cells::default();
    let cell = enter(&cells, 1);
    let (answer, read) = answered_later();
    let (late, ()) = tokio::join!(biased; cells.load(&cell, read), async {
        cells.drop_fenced(&cell);
        answer.send(done_to(10)).unwrap();
    });
    assert_eq!(late, LATE);
    assert_eq!(start_offset(&cell), None);
    // Another one begins anew, in the same term.
    let again = enter(&cells, 1);
    cells.load(&again, async { Ok(done_to(12)) }).await.unwrap();
    assert_eq!(start_offset(&again), Some(12));
}

#[tokio::test]
async fn state_is_asked_for_once_for_all_and_again_after_a_failure() {
    let cells = Cells::default();
    let cell = enter(&cells, 1);
    let asked = AtomicUsize::new(0);
    let read = |outcome: Result<i64, ErrorCode>| async move { outcome.map(done_to) };
    let failing = || async {
        asked.fetch_add(1, Ordering::Relaxed);
        read(Err(ErrorCode::CoordinatorNotAvailable)).await
    };
    let failed = cells.load(&cell, failing()).await;
    assert_eq!(failed, Err(ErrorCode::CoordinatorNotAvailable));
    assert_eq!(start_offset(&cell), None);
    let (answer, first) = answered_later();
    let second = async {
        asked.fetch_add(1, Ordering::Relaxed);
        Ok(done_to(99))
    };
    let (first, second, ()) = tokio::join!(
        biased;
        cells.load(&cell, first),
        cells.load(&cell, second),
        async {
            answer.send(done_to(10)).unwrap();
        }
    );
    assert_eq!((first, second), (Ok(()), Ok(())));
    assert_eq!(start_offset(&cell), Some(10));
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_group_that_nobody_reads_is_let_go_of_unless_it_is_loaded_just_now() {
    let group: ByteStr = "g".into();
    let cells = Cells::default();
    let cell = enter(&cells, 1);
    let (answer, read) = answered_later();
    let (loaded, ()) = tokio::join!(biased; cells.load(&cell, read), async {
        cells.let_go(&group);
        answer.send(done_to(10)).unwrap();
    });
    assert_eq!(loaded, Ok(()));
    cells.let_go(&"other".into());
    assert_eq!(start_offset(&cell), Some(10));
    cells.let_go(&group);
    assert_eq!(start_offset(&cell), None);
    assert!(cells.present(&key()).is_none());
}
