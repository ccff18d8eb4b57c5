//! The share partitions of this broker: loading, acknowledging, releasing, expiring.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use klamm_coordinator::share_partition::Acknowledgement;
use klamm_coordinator::share_partition::sessions::{SessionKey, SessionPartition, ShareSessions};
use klamm_protocol::{ByteStr, ErrorCode};
use tokio::sync::Notify;
use tokio::time::sleep;

use super::cells::{Cell, Cells, PartitionKey};
use super::states::{read_state, write_state};
use super::stats::GroupStats;
use crate::shared::Shared;

/// How long the expiry of locks sleeps if there are none.
const IDLE: Duration = Duration::from_secs(60);
/// How long what was counted of a group is told after its last use here.
const FORGOTTEN_AFTER_MS: u64 = 3_600_000;

/// The share partitions and share sessions of this broker.
#[derive(Debug)]
pub(crate) struct SharePartitions {
    cells: Cells,
    /// What is counted of groups that have been seen.
    groups: Mutex<BTreeMap<ByteStr, Arc<GroupStats>>>,
    sessions: Mutex<ShareSessions>,
    /// Told when records may have become available.
    pub(crate) changed: Notify,
    /// Grows with each time that is.
    version: AtomicU64,
    /// Told when a lock ends earlier than any before.
    deadlines: Notify,
    /// When the next lock ends, in monotonic milliseconds.
    next_deadline_ms: AtomicU64,
}

impl SharePartitions {
    pub(crate) fn new(sessions_max: usize) -> Self {
        SharePartitions {
            cells: Cells::default(),
            groups: Mutex::default(),
            sessions: Mutex::new(ShareSessions::new(sessions_max)),
            changed: Notify::new(),
            version: AtomicU64::new(0),
            deadlines: Notify::new(),
            next_deadline_ms: AtomicU64::new(u64::MAX),
        }
    }

    pub(crate) fn sessions(&self) -> MutexGuard<'_, ShareSessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another one than before if records may have become available since.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Records may have become available.
    fn tell(&self) {
        self.version.fetch_add(1, Ordering::AcqRel);
        self.changed.notify_waiters();
    }

    /// The partitions that are here.
    pub(crate) fn all(&self) -> Vec<Arc<Cell>> {
        self.cells.all()
    }

    fn groups(&self) -> MutexGuard<'_, BTreeMap<ByteStr, Arc<GroupStats>>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is counted of each group.
    pub(crate) fn group_stats(&self) -> Vec<(ByteStr, Arc<GroupStats>)> {
        let groups = self.groups();
        groups
            .iter()
            .map(|(group, stats)| (group.clone(), stats.clone()))
            .collect()
    }

    pub(crate) fn stats_of(&self, group: &ByteStr, now_ms: u64) -> Arc<GroupStats> {
        let mut groups = self.groups();
        let stats = match groups.get(group) {
            Some(stats) => stats.clone(),
            None => {
                let stats = Arc::<GroupStats>::default();
                groups.insert(group.detached(), stats.clone());
                stats
            }
        };
        stats.used_ms.fetch_max(now_ms, Ordering::Relaxed);
        stats
    }

    /// Forgets what was counted of groups that nobody has read here for long: this broker does not
    /// hear of the deletion of groups that others coordinate.
    fn forget_unused(&self, now_ms: u64) {
        let cells = self.cells.all();
        let used: BTreeSet<&ByteStr> = cells.iter().map(|cell| &cell.key.0).collect();
        let forgotten_ms = now_ms.saturating_sub(FORGOTTEN_AFTER_MS);
        self.groups().retain(|group, stats| {
            used.contains(group) || stats.used_ms.load(Ordering::Relaxed) >= forgotten_ms
        });
    }

    /// The partition, loaded.
    ///
    /// # Errors
    /// What clients are told of partitions that are not led here or whose state cannot be had.
    pub(crate) async fn load(
        &self,
        broker: &Shared,
        key: &PartitionKey,
        topic: &Arc<str>,
    ) -> Result<Arc<Cell>, ErrorCode> {
        let leader_epoch = broker
            .replicas
            .leader_epoch(topic, key.2)
            .ok_or(ErrorCode::NotLeaderOrFollower)?;
        let cell = self.cells.enter(key, topic, leader_epoch)?;
        let read = async {
            let began = broker.env.clock.monotonic();
            let partition = read_state(broker, &cell).await?;
            let took = broker.env.clock.monotonic().saturating_sub(began);
            let stats = self.stats_of(&cell.key.0, broker.monotonic_ms());
            stats.loads.add(took);
            Ok(partition)
        };
        self.cells.load(&cell, read).await?;
        Ok(cell)
    }

    /// A lock was given out: the expiry has to wake in time.
    pub(crate) fn watch_deadline(&self, deadline_ms: Option<u64>) {
        let Some(deadline_ms) = deadline_ms else {
            return;
        };
        if self
            .next_deadline_ms
            .fetch_min(deadline_ms, Ordering::AcqRel)
            > deadline_ms
        {
            self.deadlines.notify_one();
        }
    }

    /// Takes a member's word for records of a partition, and answers when that is written.
    pub(crate) async fn acknowledge(
        &self,
        broker: &Arc<Shared>,
        key: &PartitionKey,
        member: &ByteStr,
        acknowledgements: &[Acknowledgement],
    ) -> ErrorCode {
        let Some(cell) = self.cells.present(key) else {
            return ErrorCode::UnknownTopicOrPartition;
        };
        let limits = broker.group_cluster.share_config(&key.0).limits;
        let now_ms = broker.monotonic_ms();
        let (taken, deadline_ms) = {
            let mut state = cell.state();
            let Some(partition) = &mut state.partition else {
                return ErrorCode::UnknownTopicOrPartition;
            };
            let taken = partition.acknowledge(member, acknowledgements, &limits, now_ms);
            let deadline_ms = partition.next_deadline_ms();
            let taken = taken.map(|write| write.map(|write| state.put(write)));
            (taken, deadline_ms)
        };
        self.watch_deadline(deadline_ms);
        if taken.is_ok() {
            self.stats_of(&key.0, now_ms).acknowledged(acknowledgements);
        }
        match taken {
            Err(error) => error,
            Ok(None) => ErrorCode::None,
            Ok(Some(outcome)) => {
                write_outbox(broker, cell);
                outcome.await.unwrap_or(ErrorCode::UnknownServerError)
            }
        }
    }

    /// Takes back everything that a member has in these partitions; its session is over.
    pub(crate) async fn release(
        &self,
        broker: &Arc<Shared>,
        session: &SessionKey,
        partitions: &[SessionPartition],
    ) {
        let (group, member) = session;
        for (topic_id, partition) in partitions {
            let key = (group.clone(), *topic_id, *partition);
            let Some(cell) = self.cells.present(&key) else {
                continue;
            };
            let limits = broker.group_cluster.share_config(group).limits;
            let outcome = {
                let mut state = cell.state();
                let partition = state.partition.as_mut();
                let write = partition.and_then(|partition| partition.release(member, &limits));
                write.map(|write| state.put(write))
            };
            if let Some(outcome) = outcome {
                write_outbox(broker, cell);
                // If it failed, the locks end in their time.
                let _ = outcome.await;
            }
        }
        self.forget_idle(group);
    }

    /// Lets go of the partitions of a group that nobody fetches for any more: what it is done with
    /// may be set anew while it is away.
    fn forget_idle(&self, group: &ByteStr) {
        if self.sessions().has_group(group) {
            return;
        }
        self.cells.let_go(group);
    }

    /// Takes back what members had for too long. Returns when the next lock ends.
    fn expire(&self, broker: &Arc<Shared>) -> Option<u64> {
        let now_ms = broker.monotonic_ms();
        self.next_deadline_ms.store(u64::MAX, Ordering::Release);
        self.forget_unused(now_ms);
        let cells = self.cells.all();
        let mut next: Option<u64> = None;
        let mut any = false;
        for cell in cells {
            let limits = broker.group_cluster.share_config(&cell.key.0).limits;
            let (is_due, deadline_ms) = {
                let mut state = cell.state();
                let Some(partition) = &mut state.partition else {
                    continue;
                };
                let overdue = partition.overdue(now_ms);
                let write = partition.expire(&limits, now_ms);
                cell.stats.lock_timeouts.add(overdue);
                let deadline_ms = partition.next_deadline_ms();
                // Nobody waits for the outcome.
                (write.map(|write| state.put(write)).is_some(), deadline_ms)
            };
            next = [next, deadline_ms].into_iter().flatten().min();
            if is_due {
                any = true;
                write_outbox(broker, cell);
            }
        }
        if any {
            self.tell();
        }
        if let Some(next) = next {
            self.next_deadline_ms.fetch_min(next, Ordering::AcqRel);
        }
        next
    }
}

/// Takes back what members had for too long, again and again. Never returns.
pub(crate) async fn expire_locks(broker: Arc<Shared>) {
    loop {
        let next = broker.shares.expire(&broker);
        let wait = match next {
            None => IDLE,
            Some(next) => Duration::from_millis(next.saturating_sub(broker.monotonic_ms())),
        };
        tokio::select! {
            () = sleep(wait) => {}
            () = broker.shares.deadlines.notified() => {}
        }
    }
}

/// Writes what is in the outbox through the share coordinator, one after the other, and tells the
/// machine. Goes on if nobody waits for it any more: records in transition are nobody's until the
/// outcome is known.
#[expect(
    clippy::disallowed_methods,
    reason = "the driver of the share partitions' writes"
)]
fn write_outbox(broker: &Arc<Shared>, cell: Arc<Cell>) {
    if std::mem::replace(&mut cell.state().is_writing, true) {
        return;
    }
    let broker = broker.clone();
    tokio::spawn(async move {
        loop {
            let next = {
                let mut state = cell.state();
                let next = state.outbox.pop_front();
                state.is_writing = next.is_some();
                next
            };
            let Some((write, outcome)) = next else {
                return;
            };
            let ticket = write.ticket;
            let code = write_state(&broker, &cell, write).await;
            let ok = code == ErrorCode::None;
            if let Some(partition) = &mut cell.state().partition {
                partition.written(ticket, ok);
            }
            if code == ErrorCode::NotLeaderOrFollower {
                broker.shares.cells.drop_fenced(&cell);
            }
            broker.shares.tell();
            if !ok {
                // Locks that ended meanwhile were waiting for the outcome.
                broker.shares.deadlines.notify_one();
            }
            // Whoever asked may be gone.
            let _ = outcome.send(code);
        }
    });
}

/// A connection is gone: so are the share sessions on it, and what their members have comes back at
/// once.
#[expect(
    clippy::disallowed_methods,
    reason = "the driver; the connection's task ends here"
)]
pub(crate) fn disconnected(broker: &Arc<Shared>, connection: u64) {
    let ended = broker.shares.sessions().disconnected(connection);
    if ended.is_empty() {
        return;
    }
    let broker = broker.clone();
    tokio::spawn(async move {
        for (session, partitions) in ended {
            broker.shares.release(&broker, &session, &partitions).await;
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_that_nobody_reads_any_more_are_told_of_for_an_hour() {
        let shares = SharePartitions::new(1);
        let told = |now_ms| -> Vec<String> {
            shares.forget_unused(now_ms);
            let groups = shares.group_stats();
            groups.iter().map(|(name, _)| name.to_string()).collect()
        };
        shares.stats_of(&"a".into(), 0).loads.add(IDLE);
        shares.stats_of(&"b".into(), 1_000);
        shares.stats_of(&"a".into(), 2_000);
        assert_eq!(told(FORGOTTEN_AFTER_MS + 1_000), ["a", "b"]);
        assert_eq!(told(FORGOTTEN_AFTER_MS + 1_001), ["a"]);
        assert_eq!(shares.stats_of(&"a".into(), 0).loads.count.get(), 1);
        assert_eq!(told(FORGOTTEN_AFTER_MS + 2_001), Vec::<String>::new());
    }
}
