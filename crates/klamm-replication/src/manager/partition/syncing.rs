//! Following how much of the log is on disk.
//!
//! In a topic with `klamm.flush=group`, or with `flush.messages=1`, the leader counts its own log
//! as replicated only up to the durable offset. So the high watermark stays below what a power cut
//! could take: `acks=all` waits for it as always, and consumers never see what could still vanish.
//!
//! With any other `flush.messages` single requests wait, those that the count falls on.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use klamm_env::Clock;
use klamm_log::EndListener;
use tokio::sync::Notify;

use super::Partition;
use crate::manager::lock;
use crate::manager::metadata::TopicSettings;
use crate::manager::wait::Wakes;

/// How a replica hears of syncs.
pub(super) struct Syncs {
    clock: Arc<dyn Clock>,
    /// Whether only what is on disk counts as replicated.
    count: AtomicBool,
    /// There once anything depends on syncs.
    listener: OnceLock<Arc<EndListener>>,
    /// Told when the log of a follower was synced: its fetcher may be waiting for that.
    follower_synced: Arc<Notify>,
}

impl Syncs {
    pub(super) fn new(clock: Arc<dyn Clock>, follower_synced: Arc<Notify>) -> Self {
        Syncs {
            clock,
            follower_synced,
            count: AtomicBool::new(false),
            listener: OnceLock::new(),
        }
    }
}

impl Partition {
    /// The offset below which the log is on disk, where only that counts as replicated.
    pub(super) fn durable_offset(&self) -> Option<i64> {
        let counts = self.syncs.count.load(Ordering::SeqCst);
        counts.then(|| self.log.durable_offset())
    }

    /// Takes over what the topic's configuration says of syncs, after the log did.
    pub(super) fn follow_syncs(&self, settings: &TopicSettings) {
        let log = &settings.log;
        let counts = log.group_sync || log.flush_messages == 1;
        self.syncs.count.store(counts, Ordering::SeqCst);
        let depends = counts || log.flush_messages < i64::MAX;
        if depends && self.syncs.listener.get().is_none() {
            let me = self.me.clone();
            let listener: Arc<EndListener> = Arc::new(move |_| {
                if let Some(partition) = me.upgrade() {
                    partition.synced();
                }
            });
            self.log.subscribe_durable(&listener);
            // Configurations are taken over one after the other, so it is still empty.
            let _ = self.syncs.listener.set(listener);
        }
        self.sync_if_behind();
    }

    /// Has made durable what was written before that mattered, or by a process that was killed.
    pub(super) fn sync_if_behind(&self) {
        let end = self.log.log_end_offset();
        if self.durable_offset().is_some_and(|durable| durable < end) {
            self.log.request_sync();
        }
    }

    /// Passes on that more of the log is on disk. Runs on the thread that synced.
    fn synced(&self) {
        let now_ms = self.syncs.clock.wall_ms();
        let mut wakes = Wakes::default();
        let leads = {
            let mut core = lock(&self.core);
            // Asked for anew: the news may be older than a truncation and the role after it.
            let durable = self.durable_offset();
            if let Some(leader) = core.role.as_leader_mut() {
                leader.synced(durable, now_ms);
            }
            core.high_watermark_moved(&self.log, &mut wakes);
            core.settle_syncs(self.log.durable_offset(), &mut wakes);
            core.role.as_leader().is_some()
        };
        wakes.wake();
        if !leads {
            self.syncs.follower_synced.notify_waiters();
        }
    }
}

impl fmt::Debug for Syncs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Syncs")
            .field("count", &self.count)
            .finish_non_exhaustive()
    }
}
