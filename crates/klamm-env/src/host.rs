//! Who runs tasks and keeps their time: an asynchronous runtime, unless a [`Host`] says that it does.
//!
//! Code that is asynchronous all through (the Raft quorum, the loops of replication) cannot be handed
//! the time as an argument. It runs on tokio; in the simulator the thread that polls it has entered
//! a [`Host`], and tasks, sleeps and randomness come from there. Drivers ask [`current`] and fall
//! back on tokio; elsewhere nobody needs to know.

use std::cell::RefCell;
use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// A task, or what it waits for.
pub type HostFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs tasks on behalf of a process that is not alone on its thread.
pub trait Host: Debug + Send + Sync {
    /// Runs a task.
    fn spawn(&self, task: HostFuture);

    /// Runs work that may wait for the disk.
    fn spawn_blocking(&self, work: Box<dyn FnOnce() + Send>);

    /// Monotonic time, as the process's [`Clock`](crate::Clock) has it.
    fn now(&self) -> Duration;

    /// Waits until that time has come.
    fn sleep_until(&self, deadline: Duration) -> HostFuture;

    /// Random bits.
    fn random(&self) -> u64;
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<dyn Host>>> = const { RefCell::new(None) };
}

/// The host of what runs on this thread now; `None` on an ordinary runtime.
pub fn current() -> Option<Arc<dyn Host>> {
    CURRENT.with_borrow(Clone::clone)
}

/// Runs `act` with `host` as the thread's host.
pub fn with<T>(host: Arc<dyn Host>, act: impl FnOnce() -> T) -> T {
    // Also if `act` panics.
    struct Leave(Option<Arc<dyn Host>>);
    impl Drop for Leave {
        fn drop(&mut self) {
            CURRENT.set(self.0.take());
        }
    }
    let _leave = Leave(CURRENT.replace(Some(host)));
    act()
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[derive(Debug)]
    struct Stopped(u64);

    impl Host for Stopped {
        fn spawn(&self, _task: HostFuture) {}
        fn spawn_blocking(&self, work: Box<dyn FnOnce() + Send>) {
            work();
        }
        fn now(&self) -> Duration {
            Duration::from_secs(self.0)
        }
        fn sleep_until(&self, _deadline: Duration) -> HostFuture {
            Box::pin(std::future::pending())
        }
        fn random(&self) -> u64 {
            self.0
        }
    }

    fn here() -> Option<u64> {
        current().map(|host| host.now().as_secs())
    }

    #[test]
    fn a_host_is_there_as_long_as_it_is_entered() {
        assert_eq!(here(), None);
        with(Arc::new(Stopped(1)), || {
            assert_eq!(here(), Some(1));
            let panics = || with(Arc::new(Stopped(2)), || panic!("{:?}", here()));
            catch_unwind(AssertUnwindSafe(panics)).unwrap_err();
            assert_eq!(here(), Some(1));
            assert_eq!(std::thread::spawn(here).join().unwrap(), None);
        });
        assert_eq!(here(), None);
    }
}
