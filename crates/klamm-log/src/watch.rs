//! Telling others that a log grew, without knowing how they wait.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::time::Duration;

use crate::storage::lock;

/// Called with the log end offset after each append, and at the close. Runs on the appending thread, so it must
/// only hand the news on: wake a task, send on a channel.
pub type EndListener = dyn Fn(i64) + Send + Sync;

/// Listeners and sleepers of one log.
#[derive(Default)]
pub(crate) struct Watch {
    listeners: Mutex<Vec<Weak<EndListener>>>,
    listening: AtomicUsize,
    sleepers: AtomicUsize,
    moment: Mutex<()>,
    woken: Condvar,
}

impl Watch {
    pub(crate) fn subscribe(&self, listener: &Arc<EndListener>) {
        let mut listeners = lock(&self.listeners);
        listeners.retain(|known| known.strong_count() > 0);
        listeners.push(Arc::downgrade(listener));
        self.listening.store(listeners.len(), Ordering::SeqCst);
    }

    /// Tells that the log ends at `end` now. Called without the log's lock.
    pub(crate) fn notify(&self, end: i64) {
        self.wake_sleepers();
        if self.listening.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut listeners = lock(&self.listeners);
        listeners.retain(|known| known.strong_count() > 0);
        self.listening.store(listeners.len(), Ordering::SeqCst);
        let current = listeners.clone();
        drop(listeners);
        for listener in current.iter().filter_map(Weak::upgrade) {
            listener(end);
        }
    }

    /// Has those who sleep look again.
    pub(crate) fn wake_sleepers(&self) {
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            // Taking the lock orders this after the sleeper's last look.
            drop(lock(&self.moment));
            self.woken.notify_all();
        }
    }

    /// Sleeps until `ready` holds, checking after each notification, or until `timeout` is over.
    pub(crate) fn wait(&self, timeout: Duration, ready: impl Fn() -> bool) -> bool {
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        let guard = lock(&self.moment);
        let result = self.woken.wait_timeout_while(guard, timeout, |()| !ready());
        drop(result);
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
        ready()
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("listening", &self.listening)
            .field("sleepers", &self.sleepers)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicI64;

    #[test]
    fn listeners_hear_until_they_are_dropped() {
        let watch = Watch::default();
        let heard = Arc::new(AtomicI64::new(0));
        let listener: Arc<EndListener> = {
            let heard = heard.clone();
            Arc::new(move |end| heard.store(end, Ordering::SeqCst))
        };
        watch.subscribe(&listener);
        watch.notify(5);
        assert_eq!(heard.load(Ordering::SeqCst), 5);
        drop(listener);
        watch.notify(6);
        assert_eq!(heard.load(Ordering::SeqCst), 5);
        assert_eq!(watch.listening.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn sleepers_wake_on_news() {
        let watch = Arc::new(Watch::default());
        let end = Arc::new(AtomicI64::new(0));
        let sleeper = std::thread::spawn({
            let (watch, end) = (watch.clone(), end.clone());
            move || watch.wait(Duration::from_secs(60), || end.load(Ordering::SeqCst) > 0)
        });
        end.store(1, Ordering::SeqCst);
        watch.notify(1);
        assert!(sleeper.join().unwrap());
        assert!(!watch.wait(Duration::ZERO, || false));
    }
}
