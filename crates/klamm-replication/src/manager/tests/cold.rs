//! Fetches far behind look for their place where that keeps nobody waiting.

use std::pin::pin;

use tokio::sync::oneshot;

use super::*;

type Work = (Box<dyn FnOnce() + Send>, oneshot::Sender<()>);

/// Keeps the work that it is given until it is told to do it.
#[derive(Default)]
struct HeldPool(Mutex<Vec<Work>>);

impl std::fmt::Debug for HeldPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HeldPool")
    }
}

impl BlockingPool for HeldPool {
    fn run(&self, work: Box<dyn FnOnce() + Send>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let (done, over) = oneshot::channel();
        lock(&self.0).push((work, done));
        Box::pin(async move { over.await.unwrap() })
    }
}

impl HeldPool {
    /// Does what it was given; returns how much that was.
    fn work(&self) -> usize {
        let given = std::mem::take(&mut *lock(&self.0));
        let count = given.len();
        for (work, done) in given {
            work();
            done.send(()).unwrap();
        }
        count
    }
}

#[test]
fn a_place_in_a_closed_segment_is_looked_for_in_the_pool() {
    let mut broker = Broker::new();
    let size = batch(&["a"], &BatchOptions::default()).len();
    broker.settings.log.segment_bytes = u32::try_from(size).unwrap() + 1;
    broker.create("t", &[partition(0, &[NODE])]);
    let pool = Arc::new(HeldPool::default());
    broker.manager.set_blocking_pool(Arc::clone(&pool) as _);
    for record in ["a", "b", "c"] {
        broker.produce(&[record]);
    }
    let wishes = [(t(), wish(1))];
    let mut behind = pin!(broker.manager.fetch(&CONSUMER, &wishes));
    assert!(poll(&mut behind).is_pending());
    assert_eq!(pool.work(), 1);
    let Poll::Ready(answers) = poll(&mut behind) else {
        panic!("it still waits");
    };
    assert_eq!(values(&answers[0], 1), ["b", "c"]);
    let wishes = [(t(), wish(2))];
    let answers = ready(broker.manager.fetch(&CONSUMER, &wishes));
    assert_eq!(values(&answers[0], 2), ["c"]);
    assert_eq!(pool.work(), 0, "the active segment's index is in memory");
}
