use klamm_env::SplitMix64;

use super::*;

/// The answer of a made-up partition.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Answer {
    records: usize,
    high_watermark: i64,
    log_start_offset: i64,
    error: bool,
    advice: bool,
}

impl PartitionAnswer for Answer {
    fn records_len(&self) -> usize {
        self.records
    }
    fn high_watermark(&self) -> i64 {
        self.high_watermark
    }
    fn log_start_offset(&self) -> i64 {
        self.log_start_offset
    }
    fn is_error(&self) -> bool {
        self.error
    }
    fn has_advice(&self) -> bool {
        self.advice
    }
}

const QUIET: Answer = Answer {
    records: 0,
    high_watermark: 10,
    log_start_offset: 0,
    error: false,
    advice: false,
};

fn wish(fetch_offset: i64) -> FetchPartition {
    FetchPartition {
        fetch_offset,
        log_start_offset: -1,
        max_bytes: 1024,
        current_leader_epoch: None,
        last_fetched_epoch: None,
        high_watermark: None,
    }
}

fn part(name: &str) -> TopicIdPartition {
    TopicIdPartition::by_name(name, 0)
}

struct Fixture {
    cache: FetchSessionCache,
    rng: SplitMix64,
    now_ms: i64,
}

impl Fixture {
    fn new(slots: usize) -> Self {
        Fixture {
            cache: FetchSessionCache::with_shards(slots, 1),
            rng: SplitMix64::new(1),
            now_ms: 0,
        }
    }

    fn begin(
        &self,
        session_id: i32,
        epoch: i32,
        names: &[&str],
        forgotten: &[&str],
    ) -> FetchContext {
        self.begin_as(session_id, epoch, names, forgotten, false)
    }

    fn begin_as(
        &self,
        session_id: i32,
        epoch: i32,
        names: &[&str],
        forgotten: &[&str],
        from_follower: bool,
    ) -> FetchContext {
        let forgotten: Vec<_> = forgotten.iter().map(|name| part(name)).collect();
        let request = SessionRequest {
            session_id,
            epoch,
            uses_topic_ids: false,
            from_follower,
            partitions: names.iter().map(|name| (part(name), wish(0))).collect(),
            forgotten: &forgotten,
        };
        self.cache.begin(request, &|_| None, self.now_ms)
    }

    /// Answers each partition of `context` by its name.
    fn finish(&self, context: FetchContext, answer: impl Fn(&str) -> Answer) -> Finished<Answer> {
        let answers = context
            .partitions()
            .iter()
            .map(|(partition, _)| {
                let name = partition.topic.as_deref().unwrap_or("?");
                (partition.clone(), answer(name))
            })
            .collect();
        self.cache.finish(context, answers, self.now_ms, &self.rng)
    }

    fn open(&self, names: &[&str], from_follower: bool) -> i32 {
        let context = self.begin_as(0, INITIAL_EPOCH, names, &[], from_follower);
        self.finish(context, |_| QUIET).session_id
    }
}

fn names(context: &FetchContext) -> Vec<&str> {
    context
        .partitions()
        .iter()
        .map(|(partition, _)| partition.topic.as_deref().unwrap_or("?"))
        .collect()
}

fn told(finished: &Finished<Answer>) -> Vec<&str> {
    finished
        .partitions
        .iter()
        .map(|(partition, _)| partition.topic.as_deref().unwrap_or("?"))
        .collect()
}

#[test]
fn epochs_go_up_and_wrap_to_one() {
    assert_eq!(next_epoch(INITIAL_EPOCH), 1);
    assert_eq!(next_epoch(7), 8);
    assert_eq!(next_epoch(i32::MAX), 1);
    assert_eq!(next_epoch(FINAL_EPOCH), FINAL_EPOCH);
}

#[test]
fn a_full_fetch_opens_a_session_and_answers_everything() {
    let fixture = Fixture::new(10);
    let context = fixture.begin(0, INITIAL_EPOCH, &["a", "b"], &[]);
    assert_eq!(names(&context), ["a", "b"]);
    let finished = fixture.finish(context, |_| QUIET);
    assert!(finished.session_id > 0);
    assert_eq!(finished.error, None);
    assert_eq!(told(&finished), ["a", "b"]);
    let stats = fixture.cache.stats();
    assert_eq!((stats.sessions, stats.partitions), (1, 2));
}

#[test]
fn a_final_fetch_closes_its_session() {
    let fixture = Fixture::new(10);
    let id = fixture.open(&["a"], false);
    let context = fixture.begin(id, FINAL_EPOCH, &["b"], &[]);
    assert_eq!(names(&context), ["b"]);
    let finished = fixture.finish(context, |_| QUIET);
    assert_eq!(finished.session_id, INVALID_SESSION_ID);
    assert_eq!(told(&finished), ["b"]);
    assert_eq!(fixture.cache.stats(), CacheStats::default());
}

#[test]
fn a_full_fetch_replaces_the_session_it_names() {
    let fixture = Fixture::new(10);
    let id = fixture.open(&["a"], false);
    let context = fixture.begin(id, INITIAL_EPOCH, &["b"], &[]);
    let finished = fixture.finish(context, |_| QUIET);
    assert_ne!(finished.session_id, id);
    assert_eq!(fixture.cache.stats().sessions, 1);
    assert_eq!(
        fixture.begin(id, 1, &[], &[]).error(),
        Some(SessionError::IdNotFound)
    );
}

#[test]
fn an_incremental_answer_holds_only_news() {
    let fixture = Fixture::new(10);
    let id = fixture.open(&["a", "b", "c", "d", "e", "f"], false);
    let finished = fixture.finish(fixture.begin(id, 1, &[], &[]), |_| QUIET);
    assert_eq!((finished.session_id, told(&finished).len()), (id, 0));

    let changed = |name: &str| match name {
        "a" => Answer {
            records: 5,
            ..QUIET
        },
        "b" => Answer {
            high_watermark: 11,
            ..QUIET
        },
        "c" => Answer {
            log_start_offset: 3,
            ..QUIET
        },
        "d" => Answer {
            advice: true,
            ..QUIET
        },
        "e" => Answer {
            error: true,
            high_watermark: -1,
            ..QUIET
        },
        _ => QUIET,
    };
    let finished = fixture.finish(fixture.begin(id, 2, &[], &[]), changed);
    assert_eq!(told(&finished), ["a", "b", "c", "d", "e"]);

    // News once told are none the next time, but the end of an error is.
    let settled = |name: &str| match name {
        "b" => Answer {
            high_watermark: 11,
            ..QUIET
        },
        "c" => Answer {
            log_start_offset: 3,
            ..QUIET
        },
        _ => QUIET,
    };
    let finished = fixture.finish(fixture.begin(id, 3, &[], &[]), settled);
    assert_eq!(told(&finished), ["e"]);
}

#[test]
fn partitions_that_returned_records_go_to_the_end() {
    let fixture = Fixture::new(10);
    let id = fixture.open(&["a", "b", "c"], false);
    let busy = |name: &str| Answer {
        records: usize::from(name != "b"),
        ..QUIET
    };
    fixture.finish(fixture.begin(id, 1, &[], &[]), busy);
    assert_eq!(names(&fixture.begin(id, 2, &[], &[])), ["b", "a", "c"]);
}

#[test]
fn partitions_are_added_changed_and_forgotten() {
    let fixture = Fixture::new(10);
    let id = fixture.open(&["a", "b"], false);
    let request = SessionRequest {
        session_id: id,
        epoch: 1,
        uses_topic_ids: false,
        from_follower: false,
        partitions: vec![(part("b"), wish(77)), (part("c"), wish(5))],
        forgotten: &[part("a"), part("unknown")],
    };
    let context = fixture.cache.begin(request, &|_| None, 0);
    assert_eq!(
        context.partitions(),
        [(part("b"), wish(77)), (part("c"), wish(5))]
    );
    let finished = fixture.finish(context, |_| QUIET);
    assert_eq!(told(&finished), ["c"], "new to the client");
    assert_eq!(fixture.cache.stats().partitions, 2);
}

#[test]
fn a_session_without_partitions_ends() {
    let fixture = Fixture::new(10);
    let id = fixture.open(&["a"], false);
    let context = fixture.begin(id, 1, &[], &["a"]);
    let finished = fixture.finish(context, |_| QUIET);
    assert_eq!(
        (finished.session_id, finished.error),
        (INVALID_SESSION_ID, None)
    );
    assert_eq!(fixture.cache.stats(), CacheStats::default());
}

#[test]
fn refuses_fetches_out_of_turn() {
    let fixture = Fixture::new(10);
    let id = fixture.open(&["a"], false);
    for epoch in [2, 7, i32::MIN] {
        assert_eq!(
            fixture.begin(id, epoch, &[], &[]).error(),
            Some(SessionError::InvalidEpoch)
        );
    }
    let late = fixture.begin(id, 1, &[], &[]);
    let next = fixture.begin(id, 2, &[], &[]);
    assert_eq!(
        late.throttled::<Answer>().error,
        Some(SessionError::InvalidEpoch)
    );
    assert_eq!(next.throttled::<Answer>().error, None);
    let finished = fixture.finish(late, |_| Answer {
        records: 1,
        ..QUIET
    });
    assert_eq!(finished.error, Some(SessionError::InvalidEpoch));
    assert_eq!(finished.session_id, id);
    assert!(finished.partitions.is_empty());
    assert_eq!(fixture.finish(next, |_| QUIET).error, None);
}

#[test]
fn refuses_ids_that_were_never_given_out() {
    let fixture = Fixture {
        cache: FetchSessionCache::new(1000),
        ..Fixture::new(0)
    };
    for id in [0, 1, 12345, -5, i32::MAX, i32::MIN] {
        let context = fixture.begin(id, 1, &[], &[]);
        assert_eq!(context.error(), Some(SessionError::IdNotFound), "{id}");
        let finished = fixture.finish(context, |_| QUIET);
        assert_eq!(finished.error, Some(SessionError::IdNotFound));
        assert_eq!(finished.session_id, INVALID_SESSION_ID);
    }
}

#[test]
fn refuses_a_change_between_names_and_ids() {
    let fixture = Fixture::new(10);
    let id = fixture.open(&["a"], false);
    let request = SessionRequest {
        session_id: id,
        epoch: 1,
        uses_topic_ids: true,
        from_follower: false,
        partitions: Vec::new(),
        forgotten: &[],
    };
    let context = fixture.cache.begin(request, &|_| None, 0);
    assert_eq!(context.error(), Some(SessionError::TopicIds));
}

#[test]
fn names_of_ids_are_filled_in_once_known() {
    let fixture = Fixture::new(10);
    let topic_id = Uuid::from_bytes([9; 16]);
    let unknown = TopicIdPartition {
        topic: None,
        topic_id,
        partition: 3,
    };
    let begin = |session_id, epoch, partitions, name: Option<&str>| {
        let request = SessionRequest {
            session_id,
            epoch,
            uses_topic_ids: true,
            from_follower: false,
            partitions,
            forgotten: &[],
        };
        let resolve = |id| (id == topic_id).then(|| name.map(Arc::from)).flatten();
        fixture.cache.begin(request, &resolve, 0)
    };
    let context = begin(0, INITIAL_EPOCH, vec![(unknown.clone(), wish(0))], None);
    let failed = |_: &str| Answer {
        error: true,
        high_watermark: -1,
        ..QUIET
    };
    let id = fixture.finish(context, failed).session_id;
    let context = begin(id, 1, Vec::new(), None);
    assert_eq!(names(&context), ["?"]);
    fixture.finish(context, failed);
    let context = begin(id, 2, Vec::new(), Some("t"));
    assert_eq!(names(&context), ["t"]);
    assert_eq!(told(&fixture.finish(context, |_| QUIET)), ["t"]);
    // The same partition, named by the client without the name.
    let context = begin(id, 3, vec![(unknown, wish(4))], Some("t"));
    assert_eq!(context.partitions().len(), 1);
    assert_eq!(context.partitions()[0].1, wish(4));
}

#[test]
fn a_partition_named_twice_counts_once() {
    let fixture = Fixture::new(10);
    let request = SessionRequest {
        session_id: 0,
        epoch: INITIAL_EPOCH,
        uses_topic_ids: false,
        from_follower: false,
        partitions: vec![
            (part("a"), wish(1)),
            (part("b"), wish(2)),
            (part("a"), wish(3)),
        ],
        forgotten: &[],
    };
    let context = fixture.cache.begin(request, &|_| None, 0);
    assert_eq!(
        context.partitions(),
        [(part("a"), wish(3)), (part("b"), wish(2))]
    );
}

#[test]
fn without_a_slot_there_is_no_session() {
    let fixture = Fixture::new(1);
    let first = fixture.open(&["a"], false);
    assert!(first > 0);
    assert_eq!(
        fixture.open(&["a", "b"], false),
        INVALID_SESSION_ID,
        "the first is young"
    );
    assert_eq!(fixture.begin(first, 1, &[], &[]).error(), None);
    assert_eq!(Fixture::new(0).open(&["a"], false), INVALID_SESSION_ID);
}

#[test]
fn an_idle_session_makes_room() {
    let mut fixture = Fixture::new(2);
    let idle = fixture.open(&["a", "b", "c"], true);
    fixture.now_ms = 1;
    let used = fixture.open(&["a"], false);
    fixture.now_ms = EVICTION;
    assert_eq!(
        fixture.open(&["a"], false),
        INVALID_SESSION_ID,
        "idle, but not for long enough"
    );
    fixture.now_ms = EVICTION + 1;
    assert!(fixture.open(&["a"], false) > 0);
    assert_eq!(
        fixture.begin(idle, 1, &[], &[]).error(),
        Some(SessionError::IdNotFound)
    );
    assert_eq!(fixture.begin(used, 1, &[], &[]).error(), None);
    assert_eq!(fixture.cache.stats().evictions, 1);
}

const EVICTION: i64 = 120_000;

#[test]
fn a_follower_takes_a_young_consumers_slot_but_not_a_young_followers() {
    let fixture = Fixture::new(2);
    let consumer = fixture.open(&["a", "b", "c"], false);
    let follower = fixture.open(&["a"], true);
    assert!(fixture.open(&["a"], true) > 0);
    assert_eq!(
        fixture.begin(consumer, 1, &[], &[]).error(),
        Some(SessionError::IdNotFound)
    );
    assert_eq!(fixture.begin(follower, 1, &[], &[]).error(), None);
    assert_eq!(
        fixture.open(&["a", "b", "c", "d"], true),
        INVALID_SESSION_ID
    );
}

#[test]
fn a_larger_session_takes_the_slot_of_an_old_smaller_one() {
    let mut fixture = Fixture::new(2);
    let small = fixture.open(&["a"], false);
    let large = fixture.open(&["a", "b", "c"], false);
    // Both grow old but stay in use.
    for epoch in 1..=3 {
        fixture.now_ms += 60_000;
        fixture.begin(small, epoch, &[], &[]);
        fixture.begin(large, epoch, &[], &[]);
    }
    assert_eq!(
        fixture.open(&[], false),
        INVALID_SESSION_ID,
        "worth less than either"
    );
    assert!(fixture.open(&["a", "b"], false) > 0);
    assert_eq!(
        fixture.begin(small, 4, &[], &[]).error(),
        Some(SessionError::IdNotFound)
    );
    assert_eq!(fixture.begin(large, 4, &[], &[]).error(), None);
}

#[test]
fn ids_of_a_shard_lead_back_to_it() {
    let fixture = Fixture {
        cache: FetchSessionCache::new(1000),
        ..Fixture::new(0)
    };
    let ids: Vec<i32> = (0..100).map(|_| fixture.open(&["a"], false)).collect();
    for id in ids {
        assert_eq!(fixture.begin(id, 1, &[], &[]).error(), None);
    }
    assert_eq!(fixture.cache.stats().sessions, 100);
}
