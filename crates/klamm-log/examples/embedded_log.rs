//! A log inside a program: one thread appends, another follows, a task follows, too; then only the
//! last state of each order is kept. The next start goes on from there.
//!
//! ```text
//! cargo run -p klamm-log --example embedded_log [DIRECTORY]
//! ```

use std::future::Future;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use klamm_log::{Journal, JournalError};

const ORDERS: u64 = 12;

fn main() -> Result<(), JournalError> {
    let dir = std::env::args_os().nth(1).map_or_else(
        || std::env::temp_dir().join("klamm-embedded-log"),
        PathBuf::from,
    );
    let journal = Journal::open(&dir)?;
    let first = journal.end();
    say(&format!(
        "{} holds offsets {}..{first}",
        dir.display(),
        journal.start()
    ));

    // A thread that follows sleeps until there is something to read.
    let follower = thread::spawn({
        let mut follower = journal.follow(first);
        move || follower.by_ref().take(ORDERS as usize).map(show).collect()
    });
    // So does a task, on whatever runtime there is.
    let mut tail = journal.tail(first);
    let task = thread::spawn(move || block_on(async move { tail.next().await }));

    for n in 0..ORDERS {
        journal.append(format!("order-{}", n % 4), format!("state {n}"))?;
    }
    // On disk, not only in the page cache.
    journal.flush()?;

    let heard: Result<Vec<u64>, JournalError> = join(follower);
    assert_eq!(heard?.len() as u64, ORDERS);
    let woken = join(task).transpose()?.map(|entry| entry.offset);
    assert_eq!(woken, Some(first));

    journal.compact()?;
    say("after compaction:");
    for entry in journal.read(0) {
        show(entry)?;
    }
    journal.close()
}

fn show(entry: Result<klamm_log::Entry, JournalError>) -> Result<u64, JournalError> {
    let entry = entry?;
    let text = |field: Option<bytes::Bytes>| {
        String::from_utf8_lossy(&field.unwrap_or_default()).into_owned()
    };
    let (key, value) = (text(entry.key), text(entry.value));
    say(&format!("{}: {key} = {value}", entry.offset));
    Ok(entry.offset)
}

fn join<T>(thread: thread::JoinHandle<T>) -> T {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The smallest of async runtimes: a thread that sleeps until its task is woken.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

#[expect(clippy::print_stdout, reason = "an example talks to whoever runs it")]
fn say(line: &str) {
    println!("{line}");
}
