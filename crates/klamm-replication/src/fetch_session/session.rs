//! One session: its partitions, in the order in which they are served.

use std::collections::BTreeMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use klamm_records::Uuid;

use super::{FetchPartition, PartitionAnswer, TopicIdPartition};

/// Why a fetch is refused as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// `FETCH_SESSION_ID_NOT_FOUND`: evicted, or never there.
    #[error("no fetch session has this id")]
    IdNotFound,
    /// `INVALID_FETCH_SESSION_EPOCH`: a fetch was lost or repeated.
    #[error("the fetch is out of turn in its session")]
    InvalidEpoch,
    /// `FETCH_SESSION_TOPIC_ID_ERROR`: the session names topics by id and the fetch by name, or
    /// the reverse.
    #[error("the session and the fetch name topics differently")]
    TopicIds,
}

/// Identity of a partition within a session. A session is all ids or all names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    Id(Uuid, i32),
    Name(Arc<str>, i32),
}

impl Key {
    pub(super) fn of(partition: &TopicIdPartition) -> Key {
        match &partition.topic {
            Some(topic) if partition.topic_id.is_zero() => {
                Key::Name(Arc::clone(topic), partition.partition)
            }
            _ => Key::Id(partition.topic_id, partition.partition),
        }
    }
}

/// One partition of a session: the latest request for it and what the client was told last.
#[derive(Debug)]
struct CachedPartition {
    partition: TopicIdPartition,
    request: FetchPartition,
    high_watermark: i64,
    log_start_offset: i64,
}

impl CachedPartition {
    /// Whether `answer` holds anything that the client doesn't know yet; notes it as told.
    fn tell(&mut self, answer: &impl PartitionAnswer) -> bool {
        let mut news = answer.records_len() > 0 || answer.has_advice();
        // It may have been told when its log was too short to take it over.
        news |= self.request.lacks_high_watermark(answer.high_watermark());
        if self.high_watermark != answer.high_watermark() {
            self.high_watermark = answer.high_watermark();
            news = true;
        }
        if self.log_start_offset != answer.log_start_offset() {
            self.log_start_offset = answer.log_start_offset();
            news = true;
        }
        if answer.is_error() {
            // No valid high watermark equals this one: the first good answer will be told.
            self.high_watermark = -1;
            news = true;
        }
        news
    }
}

/// A session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: i32,
    pub(super) uses_topic_ids: bool,
    /// The epoch that the next fetch must carry.
    pub(super) epoch: i32,
    /// By turn: ascending is the order in which partitions are served.
    partitions: BTreeMap<u64, CachedPartition>,
    turns: HashMap<Key, u64, RandomState>,
    next_turn: u64,
}

impl Session {
    pub(super) fn new(id: i32, uses_topic_ids: bool, epoch: i32) -> Self {
        Session {
            id,
            uses_topic_ids,
            epoch,
            partitions: BTreeMap::new(),
            turns: HashMap::default(),
            next_turn: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.partitions.len()
    }

    /// Adds a partition with what the client has just been told of it.
    pub(super) fn add(
        &mut self,
        partition: TopicIdPartition,
        request: FetchPartition,
        high_watermark: i64,
        log_start_offset: i64,
    ) {
        let key = Key::of(&partition);
        let turn = self.next_turn;
        self.next_turn += 1;
        let cached = CachedPartition {
            partition,
            request,
            high_watermark,
            log_start_offset,
        };
        if let Some(former) = self.turns.insert(key, turn) {
            self.partitions.remove(&former);
        }
        self.partitions.insert(turn, cached);
    }

    /// Applies a fetch's changes: new partitions at the end, known ones in their place.
    pub(super) fn update(
        &mut self,
        wanted: Vec<(TopicIdPartition, FetchPartition)>,
        forgotten: &[TopicIdPartition],
    ) {
        for (partition, request) in wanted {
            let known = self
                .turns
                .get(&Key::of(&partition))
                .and_then(|turn| self.partitions.get_mut(turn));
            match known {
                Some(cached) => cached.request = request,
                None => self.add(partition, request, -1, -1),
            }
        }
        for partition in forgotten {
            if let Some(turn) = self.turns.remove(&Key::of(partition)) {
                self.partitions.remove(&turn);
            }
        }
    }

    /// All partitions in serving order; names of ids that have become known are filled in.
    pub(super) fn snapshot(
        &mut self,
        resolve: &dyn Fn(Uuid) -> Option<Arc<str>>,
    ) -> Vec<(TopicIdPartition, FetchPartition)> {
        self.partitions
            .values_mut()
            .map(|cached| {
                if cached.partition.topic.is_none() {
                    cached.partition.topic = resolve(cached.partition.topic_id);
                }
                (cached.partition.clone(), cached.request)
            })
            .collect()
    }

    /// Whether the client must be told `answer`; notes it as told, and sends a partition that
    /// returned records to the end of the queue.
    pub(super) fn tell(
        &mut self,
        partition: &TopicIdPartition,
        answer: &impl PartitionAnswer,
    ) -> bool {
        let Some(turn) = self.turns.get_mut(&Key::of(partition)) else {
            return true;
        };
        let Some(cached) = self.partitions.get_mut(turn) else {
            return true;
        };
        let news = cached.tell(answer);
        if answer.records_len() > 0
            && let Some(cached) = self.partitions.remove(turn)
        {
            *turn = self.next_turn;
            self.partitions.insert(self.next_turn, cached);
            self.next_turn += 1;
        }
        news
    }
}
