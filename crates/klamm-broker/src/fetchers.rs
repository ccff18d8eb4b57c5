//! The fetchers of this broker: `num.replica.fetchers` connections to each broker that leads a
//! partition followed here. A partition is fetched by one of them, always the same one.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use klamm_config::BrokerConfig;
use klamm_records::{TopicPartition, Uuid};
use klamm_replication::fetcher::{FetchLimits, Fetcher, FetcherCommand};
use klamm_replication::{ReplicaChanges, ReplicaManager};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use crate::peers::{Peers, TcpLeader};

/// The fetchers. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Fetchers(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    replicas: ReplicaManager,
    peers: Peers,
    config: Arc<ArcSwap<BrokerConfig>>,
    broker_epoch: Arc<AtomicI64>,
    state: Mutex<State>,
}

/// The leader, and which of the connections to it.
type FetcherKey = (i32, u32);

#[derive(Debug, Default)]
struct State {
    fetchers: BTreeMap<FetcherKey, Running>,
    followed: BTreeMap<(Uuid, i32), Followed>,
    /// `num.replica.fetchers` by which partitions were shared out.
    per_leader: u32,
    tasks: JoinSet<()>,
    stopped: bool,
}

#[derive(Debug)]
struct Running {
    commands: UnboundedSender<FetcherCommand>,
    partitions: usize,
}

#[derive(Clone, Debug)]
struct Followed {
    partition: TopicPartition,
    leader: i32,
    fetcher: u32,
}

impl Fetchers {
    /// None run yet. Nothing is fetched before `broker_epoch` is that of a registration.
    pub(crate) fn new(
        replicas: ReplicaManager,
        peers: Peers,
        config: Arc<ArcSwap<BrokerConfig>>,
        broker_epoch: Arc<AtomicI64>,
    ) -> Self {
        Fetchers(Arc::new(Inner {
            replicas,
            peers,
            config,
            broker_epoch,
            state: Mutex::default(),
        }))
    }

    /// Follows whom the metadata says, from now on.
    pub(crate) fn apply(&self, changes: &ReplicaChanges) {
        let inner = &*self.0;
        let mut state = inner.state();
        if state.stopped {
            return;
        }
        for (partition, topic_id) in &changes.removed {
            state.unfollow((*topic_id, partition.partition));
        }
        for elected in &changes.elected {
            state.unfollow((elected.topic_id, elected.partition.partition));
        }
        for following in &changes.following {
            let key = (following.topic_id, following.partition.partition);
            match following.leader {
                Some(leader) => inner.follow(&mut state, key, &following.partition, leader),
                None => state.unfollow(key),
            }
        }
        inner.share_out(&mut state);
    }

    /// Ends all fetchers; returns when none of them touches a log any more.
    pub(crate) async fn stop(&self) {
        let mut tasks = {
            let mut state = self.0.state();
            state.stopped = true;
            state.fetchers.clear();
            state.followed.clear();
            std::mem::take(&mut state.tasks)
        };
        tasks.shutdown().await;
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn per_leader(&self) -> u32 {
        u32::try_from(self.config.load().num_replica_fetchers()).map_or(1, |count| count.max(1))
    }

    fn follow(&self, state: &mut State, key: (Uuid, i32), partition: &TopicPartition, leader: i32) {
        if state.per_leader == 0 {
            state.per_leader = self.per_leader();
        }
        let fetcher = fetcher_of(key, state.per_leader);
        let known = state.followed.get(&key);
        if known.is_some_and(|known| (known.leader, known.fetcher) != (leader, fetcher)) {
            state.unfollow(key);
        }
        let is_new = !state.followed.contains_key(&key);
        let followed = Followed {
            partition: partition.clone(),
            leader,
            fetcher,
        };
        state.followed.insert(key, followed);
        while state.tasks.try_join_next().is_some() {}
        if !state.fetchers.contains_key(&(leader, fetcher)) {
            let started = self.start(&mut state.tasks, leader, fetcher);
            state.fetchers.insert((leader, fetcher), started);
        }
        if let Some(running) = state.fetchers.get_mut(&(leader, fetcher)) {
            running.partitions += usize::from(is_new);
            let _ = running
                .commands
                .send(FetcherCommand::Follow(partition.clone(), key.0));
        }
    }

    /// Shares the partitions out anew if there are to be more or fewer connections.
    fn share_out(&self, state: &mut State) {
        let per_leader = self.per_leader();
        if std::mem::replace(&mut state.per_leader, per_leader) == per_leader {
            return;
        }
        for (key, followed) in state.followed.clone() {
            if followed.fetcher != fetcher_of(key, per_leader) {
                self.follow(state, key, &followed.partition, followed.leader);
            }
        }
    }

    fn start(&self, tasks: &mut JoinSet<()>, leader: i32, fetcher: u32) -> Running {
        let config = self.config.load();
        let ms = |name| Duration::from_millis(u64::try_from(config.int(name)).unwrap_or(0));
        let limits = FetchLimits {
            wait_max_ms: config.replica_fetch_wait_max_ms(),
            min_bytes: config.replica_fetch_min_bytes(),
            response_bytes_max: config.replica_fetch_response_max_bytes(),
            partition_bytes_max: config.replica_fetch_max_bytes(),
            backoff_ms: config.replica_fetch_backoff_ms().into(),
        };
        let client_id = format!("broker-{}-fetcher-{fetcher}", config.node_id());
        let timeout = ms("replica.socket.timeout.ms");
        let channel = TcpLeader::new(self.peers.clone(), leader, client_id, timeout);
        let (commands, received) = unbounded_channel();
        let (replicas, epoch) = (self.replicas.clone(), Arc::clone(&self.broker_epoch));
        let run = Fetcher::new(replicas, leader, epoch, channel, limits).run(received);
        tasks.spawn(run);
        Running {
            commands,
            partitions: 0,
        }
    }
}

impl State {
    fn unfollow(&mut self, key: (Uuid, i32)) {
        let Some(followed) = self.followed.remove(&key) else {
            return;
        };
        let fetcher = (followed.leader, followed.fetcher);
        let Some(running) = self.fetchers.get_mut(&fetcher) else {
            return;
        };
        running.partitions -= 1;
        if running.partitions == 0 {
            // It ends when nobody can tell it anything any more.
            self.fetchers.remove(&fetcher);
            return;
        }
        let _ = running
            .commands
            .send(FetcherCommand::Unfollow(key.0, key.1));
    }
}

/// Which of `count` connections a partition is fetched by.
fn fetcher_of((topic_id, partition): (Uuid, i32), count: u32) -> u32 {
    let id = topic_id.as_bytes().iter();
    let hash = id.fold(0_u32, |hash, byte| {
        hash.wrapping_mul(31).wrapping_add(u32::from(*byte))
    });
    hash.wrapping_mul(31).wrapping_add(partition.unsigned_abs()) % count.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_of_a_topic_are_spread_over_the_connections() {
        let id = Uuid::from_bytes([7; 16]);
        let mut counts = [0; 4];
        for partition in 0..40 {
            counts[fetcher_of((id, partition), 4) as usize] += 1;
        }
        assert_eq!(counts, [10; 4]);
        assert_eq!(fetcher_of((id, 3), 1), 0);
    }
}
