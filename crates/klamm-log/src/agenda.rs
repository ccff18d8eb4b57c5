//! Which logs have something due, and when, so that idle ones cost nothing.
//!
//! A log that was used is due at the next round; that is an atomic load for each use after the
//! first. The round asks the log when it wants to be looked at again by itself, which for an idle
//! one is far away or never. Beside that it is noted here whose high watermark has moved since it
//! was last written down.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use crate::log::Log;
use crate::storage::lock;

/// Due at the next round.
const SOON: i64 = i64::MIN;
/// Not due before something happens.
pub(crate) const NEVER: i64 = i64::MAX;

/// The logs of a manager that have something due.
#[derive(Debug, Default)]
pub(crate) struct Agenda(Mutex<Plan>);

#[derive(Debug, Default)]
struct Plan {
    next_id: u64,
    /// By due time in milliseconds and id.
    due: BTreeMap<(i64, u64), Weak<Log>>,
    /// Those whose high watermark has moved.
    watermarks: Vec<Weak<Log>>,
}

/// What a log knows of the agenda that it is on.
#[derive(Debug)]
pub(crate) struct Duty {
    entry: OnceLock<Entry>,
    /// When the log is due; changed under the agenda's lock.
    due_ms: AtomicI64,
    watermark_moved: AtomicBool,
}

#[derive(Debug)]
struct Entry {
    agenda: Arc<Agenda>,
    id: u64,
    log: Weak<Log>,
}

impl Default for Duty {
    fn default() -> Self {
        Duty {
            entry: OnceLock::new(),
            due_ms: AtomicI64::new(NEVER),
            watermark_moved: AtomicBool::new(false),
        }
    }
}

impl Agenda {
    /// Puts a log on the agenda, due at the next round.
    pub(crate) fn add(self: &Arc<Self>, log: &Arc<Log>) {
        let id = {
            let mut plan = lock(&self.0);
            plan.next_id += 1;
            plan.next_id
        };
        let entry = Entry {
            agenda: Arc::clone(self),
            id,
            log: Arc::downgrade(log),
        };
        // A log stays on the agenda that it was first put on: there is one for all directories.
        if log.duty().entry.set(entry).is_ok() {
            log.duty().note_use();
            log.duty().note_watermark();
        }
    }

    /// Takes off the logs that are due, in the order of their times.
    pub(crate) fn take_due(&self, now_ms: i64) -> Vec<Arc<Log>> {
        let mut plan = lock(&self.0);
        let later = plan.due.split_off(&(now_ms.saturating_add(1), 0));
        let due = std::mem::replace(&mut plan.due, later);
        let logs = due.into_values().filter_map(|log| log.upgrade());
        let logs: Vec<Arc<Log>> = logs.collect();
        for log in &logs {
            log.duty().due_ms.store(NEVER, Ordering::SeqCst);
        }
        logs
    }

    /// The logs whose high watermark has moved since the last call.
    pub(crate) fn take_watermarks(&self) -> Vec<Arc<Log>> {
        let moved = std::mem::take(&mut lock(&self.0).watermarks);
        let logs: Vec<Arc<Log>> = moved.iter().filter_map(Weak::upgrade).collect();
        for log in &logs {
            // Before anybody reads the value: what comes later is noted again.
            log.duty().watermark_moved.store(false, Ordering::SeqCst);
        }
        logs
    }

    /// How many logs are due at some time.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        lock(&self.0).due.len()
    }
}

impl Duty {
    /// Has the log looked at in the next round.
    pub(crate) fn note_use(&self) {
        if self.due_ms.load(Ordering::SeqCst) != SOON {
            self.schedule(SOON);
        }
    }

    /// Has the log looked at at `due_ms` or before.
    pub(crate) fn schedule(&self, due_ms: i64) {
        let Some(entry) = self.entry.get() else {
            return;
        };
        let mut plan = lock(&entry.agenda.0);
        let former = self.due_ms.load(Ordering::SeqCst);
        if due_ms < former {
            plan.due.remove(&(former, entry.id));
            plan.due.insert((due_ms, entry.id), entry.log.clone());
            self.due_ms.store(due_ms, Ordering::SeqCst);
        }
    }

    /// Spreads what many logs would otherwise do at the same time: a part of `range_ms` that is
    /// always the same for this log.
    pub(crate) fn spread(&self, range_ms: i64) -> i64 {
        let id = self.entry.get().map_or(0, |entry| entry.id);
        // Neighbours in number are often neighbours in time.
        (id.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33).cast_signed() % range_ms.max(1)
    }

    /// Notes that the high watermark has moved.
    pub(crate) fn note_watermark(&self) {
        if self.watermark_moved.load(Ordering::SeqCst) {
            return;
        }
        let Some(entry) = self.entry.get() else {
            return;
        };
        if !self.watermark_moved.swap(true, Ordering::SeqCst) {
            let mut plan = lock(&entry.agenda.0);
            plan.watermarks.push(entry.log.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LogConfig;
    use crate::test_support::TestDir;

    fn log_on(agenda: &Arc<Agenda>) -> (TestDir, Arc<Log>) {
        let dir = TestDir::new();
        let log = Arc::new(dir.log(LogConfig::default()));
        agenda.add(&log);
        (dir, log)
    }

    #[test]
    fn a_log_is_due_once_however_often_it_was_used() {
        let agenda = Arc::new(Agenda::default());
        let (_dir, log) = log_on(&agenda);
        log.duty().note_use();
        assert_eq!(agenda.take_due(0).len(), 1);
        assert!(agenda.take_due(NEVER - 1).is_empty());
        log.duty().schedule(500);
        log.duty().schedule(900);
        assert!(agenda.take_due(499).is_empty());
        log.duty().note_use();
        assert_eq!(agenda.len(), 1);
        assert_eq!(agenda.take_due(0).len(), 1);
        assert_eq!(agenda.len(), 0);
    }

    #[test]
    fn logs_come_in_the_order_of_their_times() {
        let agenda = Arc::new(Agenda::default());
        let (_dirs, logs): (Vec<_>, Vec<_>) = (0..3).map(|_| log_on(&agenda)).unzip();
        agenda.take_due(0);
        for (log, due_ms) in logs.iter().zip([30, 10, 20]) {
            log.duty().schedule(due_ms);
        }
        let due = agenda.take_due(20);
        assert!(Arc::ptr_eq(&due[0], &logs[1]) && Arc::ptr_eq(&due[1], &logs[2]));
        assert_eq!(due.len(), 2);
    }

    #[test]
    fn logs_that_are_gone_are_forgotten() {
        let agenda = Arc::new(Agenda::default());
        let (_dir, log) = log_on(&agenda);
        drop(log);
        assert!(agenda.take_due(0).is_empty());
        assert!(agenda.take_watermarks().is_empty());
    }

    #[test]
    fn a_moved_watermark_is_told_once_a_round() {
        let agenda = Arc::new(Agenda::default());
        let (_dir, log) = log_on(&agenda);
        assert_eq!(
            agenda.take_watermarks().len(),
            1,
            "a new one is not on disk"
        );
        assert!(agenda.take_watermarks().is_empty());
        log.duty().note_watermark();
        log.duty().note_watermark();
        assert_eq!(agenda.take_watermarks().len(), 1);
    }
}
