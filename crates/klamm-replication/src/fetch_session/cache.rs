//! The session slots of a broker and who may take whose.
//!
//! A new session takes a free slot; if there is none, it takes that of
//! 1. the session idle the longest, if that is longer than the eviction time (2 minutes), else
//! 2. the least valuable one that it may evict and that is not worth more than itself, where
//!    followers are worth more than consumers and more partitions more than fewer. Sessions
//!    younger than the eviction time can only be evicted by a follower, and only if they are a
//!    consumer's.
//!
//! Slots and ids are shared out over shards, as in Kafka (8 of them), so that a broker's
//! connections seldom meet at one lock. Lock order: shard, then session.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashSet};
use klamm_env::Rng;
use klamm_records::Uuid;

use super::context::{FetchContext, Finished, Kind, lock};
use super::session::{Key, Session, SessionError};
use super::{
    FINAL_EPOCH, FetchPartition, INITIAL_EPOCH, INVALID_SESSION_ID, PartitionAnswer,
    TopicIdPartition, next_epoch,
};

const SHARDS: usize = 8;
const EVICTION_MS: i64 = 120_000;

/// The sessions of a broker.
#[derive(Debug)]
pub struct FetchSessionCache {
    shards: Vec<Mutex<Shard>>,
    ids_per_shard: i32,
    next_shard: AtomicUsize,
    evictions: AtomicU64,
}

/// The session part of a fetch request.
#[derive(Debug)]
pub struct SessionRequest<'a> {
    /// Session id of the request, 0 for none.
    pub session_id: i32,
    /// Session epoch of the request.
    pub epoch: i32,
    /// Whether the request names topics by id (version 13 and up).
    pub uses_topic_ids: bool,
    /// Whether the request comes from a follower.
    pub from_follower: bool,
    /// The partitions that the request names, in its order.
    pub partitions: Vec<(TopicIdPartition, FetchPartition)>,
    /// The partitions to drop from the session.
    pub forgotten: &'a [TopicIdPartition],
}

/// Sizes for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Sessions in the cache.
    pub sessions: usize,
    /// Partitions over all sessions.
    pub partitions: usize,
    /// Sessions evicted so far.
    pub evictions: u64,
}

#[derive(Debug)]
struct Shard {
    slots: usize,
    ids: std::ops::Range<i32>,
    sessions: HashMap<i32, Slot, RandomState>,
    last_used: BTreeSet<(i64, i32)>,
    evictable_by_all: BTreeSet<Worth>,
    evictable_by_followers: BTreeSet<Worth>,
    partitions: usize,
}

#[derive(Debug)]
struct Slot {
    session: Arc<Mutex<Session>>,
    privileged: bool,
    created_ms: i64,
    last_used_ms: i64,
    /// Partitions when last touched; `None` before the first touch.
    size: Option<usize>,
}

/// What a session is worth; the least goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Worth {
    privileged: bool,
    size: usize,
    id: i32,
}

impl FetchSessionCache {
    /// A cache with `slots` in all (`max.incremental.fetch.session.cache.slots`).
    pub fn new(slots: usize) -> Self {
        FetchSessionCache::with_shards(slots, SHARDS)
    }

    /// A cache whose slots are divided over a number of shards, rounded down per shard.
    pub(super) fn with_shards(slots: usize, shards: usize) -> Self {
        let ids_per_shard = i32::MAX / i32::try_from(shards).unwrap_or(i32::MAX);
        let shard = |index: usize| {
            let first = ids_per_shard * i32::try_from(index).unwrap_or(0);
            Mutex::new(Shard {
                slots: slots / shards,
                ids: first.max(1)..first + ids_per_shard,
                sessions: HashMap::default(),
                last_used: BTreeSet::new(),
                evictable_by_all: BTreeSet::new(),
                evictable_by_followers: BTreeSet::new(),
                partitions: 0,
            })
        };
        FetchSessionCache {
            shards: (0..shards).map(shard).collect(),
            ids_per_shard,
            next_shard: AtomicUsize::new(0),
            evictions: AtomicU64::new(0),
        }
    }

    /// Finds the session of a fetch and applies the fetch's changes to it. `resolve` gives the
    /// names of topic ids that were unknown when they joined the session.
    pub fn begin(
        &self,
        request: SessionRequest<'_>,
        resolve: &dyn Fn(Uuid) -> Option<Arc<str>>,
        now_ms: i64,
    ) -> FetchContext {
        if request.epoch != INITIAL_EPOCH && request.epoch != FINAL_EPOCH {
            return self.begin_incremental(request, resolve, now_ms);
        }
        if request.session_id != INVALID_SESSION_ID
            && let Some(shard) = self.shard(request.session_id)
        {
            lock(shard).remove(request.session_id);
        }
        let kind = if request.epoch == FINAL_EPOCH {
            Kind::Sessionless
        } else {
            Kind::Full {
                uses_topic_ids: request.uses_topic_ids,
                from_follower: request.from_follower,
            }
        };
        FetchContext {
            kind,
            partitions: without_duplicates(request.partitions),
        }
    }

    fn begin_incremental(
        &self,
        request: SessionRequest<'_>,
        resolve: &dyn Fn(Uuid) -> Option<Arc<str>>,
        now_ms: i64,
    ) -> FetchContext {
        let refused = |error| FetchContext {
            kind: Kind::Error(error),
            partitions: Vec::new(),
        };
        let Some(shard) = self.shard(request.session_id) else {
            return refused(SessionError::IdNotFound);
        };
        let mut shard = lock(shard);
        let Some(slot) = shard.sessions.get(&request.session_id) else {
            return refused(SessionError::IdNotFound);
        };
        let shared = Arc::clone(&slot.session);
        let mut session = lock(&shared);
        if session.epoch != request.epoch {
            return refused(SessionError::InvalidEpoch);
        }
        if session.uses_topic_ids != request.uses_topic_ids {
            return refused(SessionError::TopicIds);
        }
        session.update(request.partitions, request.forgotten);
        if session.len() == 0 {
            shard.remove(request.session_id);
            return FetchContext {
                kind: Kind::Sessionless,
                partitions: Vec::new(),
            };
        }
        shard.touch(request.session_id, session.len(), now_ms);
        session.epoch = next_epoch(session.epoch);
        let expected_epoch = session.epoch;
        let partitions = session.snapshot(resolve);
        drop(session);
        FetchContext {
            kind: Kind::Incremental {
                session: shared,
                expected_epoch,
            },
            partitions,
        }
    }

    /// Reduces the answers to what must be told and names the session of the answer; a full fetch
    /// gets a new session here if there is a slot for it.
    pub fn finish<A: PartitionAnswer>(
        &self,
        context: FetchContext,
        mut answers: Vec<(TopicIdPartition, A)>,
        now_ms: i64,
        rng: &dyn Rng,
    ) -> Finished<A> {
        let (session_id, error) = match context.kind {
            Kind::Error(error) => (INVALID_SESSION_ID, Some(error)),
            Kind::Sessionless => (INVALID_SESSION_ID, None),
            Kind::Full {
                uses_topic_ids,
                from_follower,
            } => {
                let id = self.create(
                    &context.partitions,
                    &answers,
                    uses_topic_ids,
                    from_follower,
                    now_ms,
                    rng,
                );
                (id, None)
            }
            Kind::Incremental {
                session,
                expected_epoch,
            } => {
                let mut session = lock(&session);
                if session.epoch == expected_epoch {
                    answers.retain(|(partition, answer)| session.tell(partition, answer));
                    (session.id, None)
                } else {
                    (session.id, Some(SessionError::InvalidEpoch))
                }
            }
        };
        if error.is_some() {
            answers.clear();
        }
        Finished {
            session_id,
            error,
            partitions: answers,
        }
    }

    fn create<A: PartitionAnswer>(
        &self,
        requests: &[(TopicIdPartition, FetchPartition)],
        answers: &[(TopicIdPartition, A)],
        uses_topic_ids: bool,
        privileged: bool,
        now_ms: i64,
        rng: &dyn Rng,
    ) -> i32 {
        let index = self.next_shard.fetch_add(1, Ordering::Relaxed) % self.shards.len();
        let mut shard = lock(&self.shards[index]);
        if shard.sessions.len() >= shard.slots {
            if !shard.evict(privileged, answers.len(), now_ms) {
                return INVALID_SESSION_ID;
            }
            self.evictions.fetch_add(1, Ordering::Relaxed);
        }
        let id = shard.new_id(rng);
        let mut session = Session::new(id, uses_topic_ids, next_epoch(INITIAL_EPOCH));
        let by_key: HashMap<Key, FetchPartition, RandomState> = requests
            .iter()
            .map(|(partition, request)| (Key::of(partition), *request))
            .collect();
        for (partition, answer) in answers {
            if let Some(&request) = by_key.get(&Key::of(partition)) {
                session.add(
                    partition.clone(),
                    request,
                    answer.high_watermark(),
                    answer.log_start_offset(),
                );
            }
        }
        let size = session.len();
        let slot = Slot {
            session: Arc::new(Mutex::new(session)),
            privileged,
            created_ms: now_ms,
            last_used_ms: now_ms,
            size: None,
        };
        shard.sessions.insert(id, slot);
        shard.touch(id, size, now_ms);
        id
    }

    /// `None` for an id that no shard gives out.
    fn shard(&self, session_id: i32) -> Option<&Mutex<Shard>> {
        let index = usize::try_from(session_id / self.ids_per_shard).ok()?;
        self.shards.get(index)
    }

    /// Sizes for metrics.
    pub fn stats(&self) -> CacheStats {
        let mut stats = CacheStats {
            evictions: self.evictions.load(Ordering::Relaxed),
            ..CacheStats::default()
        };
        for shard in &self.shards {
            let shard = lock(shard);
            stats.sessions += shard.sessions.len();
            stats.partitions += shard.partitions;
        }
        stats
    }
}

impl Shard {
    fn new_id(&self, rng: &dyn Rng) -> i32 {
        let count = u64::from(self.ids.end.abs_diff(self.ids.start));
        loop {
            // Below the range's length, which an i32 holds.
            let id = self.ids.start + rng.below(count) as i32;
            if !self.sessions.contains_key(&id) {
                return id;
            }
        }
    }

    /// Makes room for a session of `size` partitions; returns whether it could.
    fn evict(&mut self, privileged: bool, size: usize, now_ms: i64) -> bool {
        let Some(&(last_used_ms, idle_longest)) = self.last_used.first() else {
            return false;
        };
        if now_ms - last_used_ms > EVICTION_MS {
            self.remove(idle_longest);
            return true;
        }
        let candidates = if privileged {
            &self.evictable_by_followers
        } else {
            &self.evictable_by_all
        };
        let newcomer = Worth {
            privileged,
            size,
            id: 0,
        };
        match candidates.first() {
            Some(&least) if newcomer >= least => {
                self.remove(least.id);
                true
            }
            _ => false,
        }
    }

    fn remove(&mut self, id: i32) {
        if let Some(slot) = self.sessions.remove(&id) {
            self.unlist(id, &slot);
        }
    }

    fn unlist(&mut self, id: i32, slot: &Slot) {
        self.last_used.remove(&(slot.last_used_ms, id));
        if let Some(size) = slot.size {
            let worth = Worth {
                privileged: slot.privileged,
                size,
                id,
            };
            self.evictable_by_all.remove(&worth);
            self.evictable_by_followers.remove(&worth);
            self.partitions -= size;
        }
    }

    /// Notes that session `id` is in use and has `size` partitions now.
    fn touch(&mut self, id: i32, size: usize, now_ms: i64) {
        let Some(mut slot) = self.sessions.remove(&id) else {
            return;
        };
        self.unlist(id, &slot);
        slot.last_used_ms = now_ms;
        slot.size = Some(size);
        self.last_used.insert((now_ms, id));
        self.partitions += size;
        let worth = Worth {
            privileged: slot.privileged,
            size,
            id,
        };
        let grown_up = now_ms - slot.created_ms > EVICTION_MS;
        if grown_up {
            self.evictable_by_all.insert(worth);
        }
        if grown_up || !slot.privileged {
            self.evictable_by_followers.insert(worth);
        }
        self.sessions.insert(id, slot);
    }
}

/// A partition named twice keeps its first place and its last wish, as in Kafka's linked map.
fn without_duplicates(
    partitions: Vec<(TopicIdPartition, FetchPartition)>,
) -> Vec<(TopicIdPartition, FetchPartition)> {
    let mut seen: HashSet<Key, RandomState> = HashSet::default();
    let distinct = partitions.len() < 2
        || partitions
            .iter()
            .all(|(partition, _)| seen.insert(Key::of(partition)));
    if distinct {
        return partitions;
    }
    let mut places: HashMap<Key, usize, RandomState> = HashMap::default();
    let mut kept: Vec<(TopicIdPartition, FetchPartition)> = Vec::with_capacity(partitions.len());
    for (partition, request) in partitions {
        let place = *places.entry(Key::of(&partition)).or_insert(kept.len());
        match kept.get_mut(place) {
            Some((_, first)) => *first = request,
            None => kept.push((partition, request)),
        }
    }
    kept
}
