//! The fetchers of this broker: `num.replica.fetchers` connections to each broker that leads a
//! partition followed here. A partition is fetched by one of them, always the same one. A fetcher
//! that panics is followed by another one, which takes on its partitions.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::pin::Pin;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use klamm_config::BrokerConfig;
use klamm_records::{TopicPartition, Uuid};
use klamm_replication::fetcher::{FetchLimits, Fetcher, FetcherCommand};
use klamm_replication::{ReplicaChanges, ReplicaManager};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use crate::peers::{Peers, TcpLeader};
use crate::supervise::Supervisor;

/// What a fetcher does until nobody can give it commands any more.
type Run = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Makes fetchers.
pub(crate) trait Launch: Debug + Send + Sync {
    /// Another one, of the partitions that broker `leader` leads.
    fn launch(&self, key: FetcherKey, commands: UnboundedReceiver<FetcherCommand>) -> Run;

    /// `num.replica.fetchers` of now.
    fn per_leader(&self) -> u32;
}

/// Makes fetchers that ask brokers over the network.
#[derive(Debug)]
pub(crate) struct TcpFetchers {
    pub(crate) replicas: ReplicaManager,
    pub(crate) peers: Peers,
    pub(crate) config: Arc<ArcSwap<BrokerConfig>>,
    /// Nothing is fetched before it is that of a registration.
    pub(crate) broker_epoch: Arc<AtomicI64>,
}

/// The fetchers. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Fetchers(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// For the tasks, which must not keep it alive.
    own: Weak<Inner>,
    launch: Box<dyn Launch>,
    supervisor: Supervisor,
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
    /// Fetchers started so far.
    started: u64,
    stopped: bool,
}

#[derive(Debug)]
struct Running {
    /// Tells it from others of its place, before and after it.
    number: u64,
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
    /// None run yet.
    pub(crate) fn new(launch: impl Launch + 'static, supervisor: Supervisor) -> Self {
        Fetchers(Arc::new_cyclic(|own| Inner {
            own: own.clone(),
            launch: Box::new(launch),
            supervisor,
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
        self.end().shutdown().await;
    }

    /// Ends all fetchers, which is done when the tasks that are returned have ended.
    pub(crate) fn end(&self) -> JoinSet<()> {
        let mut state = self.0.state();
        state.stopped = true;
        state.fetchers.clear();
        state.followed.clear();
        std::mem::take(&mut state.tasks)
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn follow(&self, state: &mut State, key: (Uuid, i32), partition: &TopicPartition, leader: i32) {
        if state.per_leader == 0 {
            state.per_leader = self.launch.per_leader();
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
            self.start(state, (leader, fetcher), 0);
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
        let per_leader = self.launch.per_leader();
        if std::mem::replace(&mut state.per_leader, per_leader) == per_leader {
            return;
        }
        for (key, followed) in state.followed.clone() {
            if followed.fetcher != fetcher_of(key, per_leader) {
                self.follow(state, key, &followed.partition, followed.leader);
            }
        }
    }

    fn start(&self, state: &mut State, key: FetcherKey, partitions: usize) {
        let (commands, received) = unbounded_channel();
        state.started += 1;
        let number = state.started;
        let run = self.launch.launch(key, received);
        let (inner, supervisor) = (self.own.clone(), self.supervisor.clone());
        state.tasks.spawn(async move {
            if supervisor.attempt("replica fetcher", run).await.is_some() {
                return;
            }
            supervisor.rest().await;
            if let Some(inner) = inner.upgrade() {
                inner.start_again(key, number);
            }
        });
        let running = Running {
            number,
            commands,
            partitions,
        };
        state.fetchers.insert(key, running);
    }

    /// Starts a fetcher in the place of one that panicked, unless nobody misses it.
    fn start_again(&self, key: FetcherKey, number: u64) {
        let mut state = self.state();
        let died = state.fetchers.get(&key).filter(|it| it.number == number);
        let Some(partitions) = died.map(|it| it.partitions).filter(|_| !state.stopped) else {
            return;
        };
        self.start(&mut state, key, partitions);
        let Some(running) = state.fetchers.get(&key) else {
            return;
        };
        for ((topic_id, _), followed) in &state.followed {
            if (followed.leader, followed.fetcher) == key {
                let follow = FetcherCommand::Follow(followed.partition.clone(), *topic_id);
                let _ = running.commands.send(follow);
            }
        }
    }
}

impl Launch for TcpFetchers {
    fn launch(
        &self,
        (leader, fetcher): FetcherKey,
        commands: UnboundedReceiver<FetcherCommand>,
    ) -> Run {
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
        let (replicas, epoch) = (self.replicas.clone(), Arc::clone(&self.broker_epoch));
        Box::pin(Fetcher::new(replicas, leader, epoch, channel, limits).run(commands))
    }

    fn per_leader(&self) -> u32 {
        u32::try_from(self.config.load().num_replica_fetchers()).map_or(1, |count| count.max(1))
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
    use std::collections::BTreeSet;
    use std::sync::atomic::{AtomicU32, Ordering};

    use klamm_replication::Following;
    use tokio::time::timeout;

    use super::*;

    /// Fetchers that note what they follow, and panic over partition 13 the first time.
    #[derive(Clone, Debug, Default)]
    struct Noting {
        followed: Arc<Mutex<BTreeMap<FetcherKey, BTreeSet<i32>>>>,
        launched: Arc<AtomicU32>,
        panicked: Arc<AtomicU32>,
        per_leader: Arc<AtomicU32>,
    }

    impl Noting {
        fn followed(&self) -> BTreeMap<FetcherKey, BTreeSet<i32>> {
            let mut followed = self.followed.lock().unwrap().clone();
            followed.retain(|_, partitions| !partitions.is_empty());
            followed
        }
    }

    impl Launch for Noting {
        fn launch(&self, key: FetcherKey, mut commands: UnboundedReceiver<FetcherCommand>) -> Run {
            self.launched.fetch_add(1, Ordering::Relaxed);
            self.followed.lock().unwrap().remove(&key);
            let own = self.clone();
            Box::pin(async move {
                while let Some(command) = commands.recv().await {
                    let mut followed = own.followed.lock().unwrap();
                    let of_key = followed.entry(key).or_default();
                    match command {
                        FetcherCommand::Follow(partition, _) => {
                            of_key.insert(partition.partition);
                            drop(followed);
                            let first = || own.panicked.fetch_add(1, Ordering::Relaxed) == 0;
                            assert!(partition.partition != 13 || !first(), "thirteen");
                        }
                        FetcherCommand::Unfollow(_, partition) => {
                            of_key.remove(&partition);
                        }
                    }
                }
                own.followed.lock().unwrap().remove(&key);
            })
        }

        fn per_leader(&self) -> u32 {
            self.per_leader.load(Ordering::Relaxed).max(1)
        }
    }

    fn following(partitions: impl IntoIterator<Item = i32>, leader: i32) -> ReplicaChanges {
        let mut changes = ReplicaChanges::default();
        for partition in partitions {
            changes.following.push(Following {
                partition: TopicPartition::new("t", partition),
                topic_id: Uuid::from_bytes([7; 16]),
                leader: Some(leader),
            });
        }
        changes
    }

    /// Lets all tasks run that can.
    async fn settle() {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_fetcher_that_panics_is_followed_by_one_with_all_its_partitions() {
        let noting = Noting::default();
        let supervisor = Supervisor::new(Duration::ZERO);
        let fetchers = Fetchers::new(noting.clone(), supervisor.clone());
        fetchers.apply(&following([1, 2, 13], 5));
        let all = BTreeMap::from([((5, 0), BTreeSet::from([1, 2, 13]))]);
        let again = || noting.launched.load(Ordering::Relaxed) == 2 && noting.followed() == all;
        let waited = timeout(Duration::from_secs(60), async {
            while !again() {
                tokio::task::yield_now().await;
            }
        });
        waited.await.unwrap();
        assert_eq!(supervisor.panics(), 1);
        // It counts its partitions as the first one did: the last to go ends it.
        fetchers.apply(&following([1, 2, 13], 6));
        settle().await;
        let keys: Vec<_> = noting.followed().into_keys().collect();
        assert_eq!(keys, [(6, 0)]);
    }

    #[tokio::test]
    async fn the_next_fetcher_is_told_what_the_dead_one_could_not_hear() {
        let noting = Noting::default();
        let fetchers = Fetchers::new(noting.clone(), Supervisor::new(Duration::from_secs(3600)));
        fetchers.apply(&following([13], 5));
        settle().await;
        fetchers.apply(&following([3], 5));
        settle().await;
        fetchers.0.start_again((5, 0), 1);
        settle().await;
        let both = BTreeSet::from([3, 13]);
        assert_eq!(noting.followed(), BTreeMap::from([((5, 0), both)]));
        // One that nobody misses any more is not replaced.
        fetchers.apply(&following([3, 13], 6));
        fetchers.0.start_again((5, 0), 2);
        settle().await;
        let keys: Vec<_> = noting.followed().into_keys().collect();
        assert_eq!(keys, [(6, 0)]);
        fetchers.stop().await;
        assert_eq!(noting.launched.load(Ordering::Relaxed), 3);
    }

    #[tokio::test]
    async fn partitions_are_shared_out_anew_when_there_are_to_be_more_connections() {
        let noting = Noting::default();
        let fetchers = Fetchers::new(noting.clone(), Supervisor::default());
        fetchers.apply(&following(0..8, 5));
        settle().await;
        assert_eq!(noting.followed().len(), 1);
        noting.per_leader.store(4, Ordering::Relaxed);
        // Any change of the metadata, as that of the configuration is one.
        fetchers.apply(&ReplicaChanges::default());
        settle().await;
        let followed = noting.followed();
        let keys: Vec<_> = followed.keys().copied().collect();
        assert_eq!(keys, [(5, 0), (5, 1), (5, 2), (5, 3)]);
        assert!(followed.values().all(|partitions| partitions.len() == 2));
    }

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
