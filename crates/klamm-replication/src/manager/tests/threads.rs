//! Producers and consumers on threads of their own: no wake is lost between a read and the sleep
//! that follows it.

use std::task::Wake;
use std::thread::{self, Thread};

use super::*;

const PRODUCERS: usize = 4;
const BATCHES: usize = 150;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future on this thread; fails if nothing wakes it for long.
fn run<F: Future>(future: F) -> F::Output {
    let waker = Arc::new(Unpark(thread::current())).into();
    let mut future = std::pin::pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        let clock = klamm_env::OsClock::new();
        thread::park_timeout(Duration::from_secs(20));
        let slept = klamm_env::Clock::monotonic(&clock);
        assert!(slept < Duration::from_secs(20), "nobody woke the fetch");
    }
}

/// Reads `t-0` from its start until all records have come; the clock stands still, so that no
/// timeout helps.
fn consume(manager: &ReplicaManager, min_bytes: i32) -> i64 {
    let all = (PRODUCERS * BATCHES) as i64;
    let mut next = 0;
    while next < all {
        let params = FetchParams {
            min_bytes: if all - next > 20 { min_bytes } else { 1 },
            max_bytes: 700,
            ..CONSUMER
        };
        let answers = run(manager.fetch(&params, &[(t(), wish(next))]));
        assert_eq!(answers[0].error, ErrorCode::None);
        let count = values(&answers[0], next).len() as i64;
        assert!(count > 0);
        next += count;
    }
    next
}

#[test]
fn consumers_get_every_record_of_concurrent_producers() {
    let broker = Broker::with_topic();
    let manager = &broker.manager;
    thread::scope(|scope| {
        for min_bytes in [1, 1, 500] {
            scope.spawn(move || consume(manager, min_bytes));
        }
        for _ in 0..PRODUCERS {
            scope.spawn(move || {
                for _ in 0..BATCHES {
                    let records = batch(&["x"], &BatchOptions::default());
                    let prepared = manager.prepare(TopicRef::Name("t"), 0, records, CONTEXT);
                    let results = run(manager.append_now(vec![prepared], -1, 0).wait());
                    assert_eq!(results[0].error, ErrorCode::None);
                }
            });
        }
    });
    assert_eq!(
        broker.offsets().high_watermark,
        (PRODUCERS * BATCHES) as i64
    );
    assert_eq!(manager.expire(), None);
}
