//! The runtime, with a shard as small as can be: a sum that records add to.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use klamm_env::Clock;
use klamm_protocol::ErrorCode;
use klamm_records::control::EndTransactionMarker;
use klamm_records::{BatchBuilder, BatchOptions, Codec, batches};

use super::*;

/// Time as tokio tells it, which stands still until all tasks wait.
#[derive(Debug)]
struct TokioClock(tokio::time::Instant);

impl Clock for TokioClock {
    fn wall_ms(&self) -> i64 {
        1_700_000_000_000 + i64::try_from(self.0.elapsed().as_millis()).unwrap()
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Add(i64);

impl CoordinatorRecord for Add {
    fn encode(&self) -> Result<EncodedRecord, RecordError> {
        Ok(EncodedRecord {
            key: Bytes::from_static(b"add"),
            value: Some(Bytes::copy_from_slice(&self.0.to_be_bytes())),
        })
    }

    fn decode(key: Option<Bytes>, value: Option<Bytes>) -> Result<Self, RecordError> {
        key.ok_or(RecordError::MissingKey)?;
        let value = value.ok_or(RecordError::MissingKey)?;
        let value = value[..].try_into().map_err(|_| RecordError::MissingKey)?;
        Ok(Add(i64::from_be_bytes(value)))
    }
}

#[derive(Debug)]
enum Ask {
    /// Adds each number with a record of its own, all in one batch or not.
    Add(Vec<i64>, bool),
    /// The sum, committed or not, at once.
    Peek,
    /// The sum, when it is committed.
    Read,
    /// Answers after so many milliseconds with what became of a record.
    Later(u64),
    /// A bug: changes the sum, and panics.
    Fall,
}

#[derive(Debug, Default)]
struct Sum {
    sum: i64,
    committed: i64,
    timers: Timers<ReplyToken>,
}

impl Shard for Sum {
    type Request = Ask;
    type Response = i64;
    type Record = Add;
    type Undo = i64;
    type Completion = ReplyToken;
    type Action = Infallible;

    fn handle(&mut self, request: Ask, token: ReplyToken, now: Now) -> Effects<Self> {
        let mut out = Effects::default();
        match request {
            Ask::Add(numbers, atomic) => {
                out.records = numbers.iter().copied().map(Add).collect();
                out.atomic = atomic;
                out.deferred = Some((token, self.sum + numbers.iter().sum::<i64>()));
            }
            Ask::Peek => out.reply(token, self.sum),
            Ask::Read => out.deferred = Some((token, self.sum)),
            Ask::Later(delay_ms) => self
                .timers
                .schedule(token, now.after_ms(i64::try_from(delay_ms).unwrap())),
            Ask::Fall => {
                self.sum += 1_000;
                panic!("an injected fault");
            }
        }
        out
    }

    fn next_deadline_ms(&self) -> Option<u64> {
        self.timers.next_deadline_ms()
    }

    fn tick(&mut self, now: Now) -> Option<Effects<Self>> {
        let token = self.timers.pop_due(now.monotonic_ms)?;
        Some(Effects {
            records: vec![Add(1)],
            completion: Some(token),
            ..Effects::default()
        })
    }

    fn loaded(&mut self, _now: Now) -> Vec<Effects<Self>> {
        Vec::new()
    }

    fn replay(&mut self, _origin: RecordOrigin, record: &Add, _now: Now) -> i64 {
        self.sum += record.0;
        record.0
    }

    fn replay_marker(&mut self, _producer_id: i64, committed: bool) -> Vec<i64> {
        self.sum += if committed { 1_000_000 } else { 2_000_000 };
        Vec::new()
    }

    fn undo(&mut self, added: i64) {
        self.sum -= added;
    }

    fn commit(&mut self, added: i64) {
        self.committed += added;
    }

    fn complete(&mut self, token: ReplyToken, outcome: WriteOutcome, _now: Now) -> Effects<Self> {
        let mut out = Effects::default();
        let verdict = match outcome {
            WriteOutcome::Committed => self.committed,
            WriteOutcome::Failed(_) => -1,
            WriteOutcome::TimedOut => -2,
        };
        out.reply(token, verdict);
        out
    }
}

struct World {
    log: Arc<MemoryPartitions>,
    runtime: Arc<Runtime<Sum>>,
}

const P: i32 = 7;

impl World {
    fn new(max_batch_bytes: usize) -> World {
        World::over(Arc::new(MemoryPartitions::new(max_batch_bytes)))
    }

    fn over(log: Arc<MemoryPartitions>) -> World {
        let options = RuntimeOptions {
            write_timeout_ms: 5_000,
            load_buffer_bytes: 64,
            codec: Codec::NONE,
        };
        let clock = Arc::new(TokioClock(tokio::time::Instant::now()));
        let runtime = Runtime::new(
            log.clone(),
            log.clone(),
            clock,
            options,
            |_| Sum::default(),
            |_, _, action| match action {},
        );
        World {
            log,
            runtime: Arc::new(runtime),
        }
    }

    async fn elected(max_batch_bytes: usize) -> World {
        let world = World::new(max_batch_bytes);
        world.runtime.elected(P, 1);
        world.loaded().await;
        world
    }

    async fn loaded(&self) {
        while self.runtime.submit(P, Ask::Peek).await == Err(ErrorCode::CoordinatorLoadInProgress) {
            tokio::task::yield_now().await;
        }
    }

    async fn ask(&self, ask: Ask) -> Result<i64, ErrorCode> {
        self.runtime.submit(P, ask).await
    }

    #[expect(clippy::disallowed_methods, reason = "a client of the runtime")]
    fn ask_later(&self, ask: Ask) -> tokio::task::JoinHandle<Result<i64, ErrorCode>> {
        let runtime = self.runtime.clone();
        tokio::spawn(async move { runtime.submit(P, ask).await })
    }

    async fn quiet(&self) {
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_is_not_led_has_no_coordinator_here() {
    let world = World::new(1_000);
    assert_eq!(world.ask(Ask::Peek).await, Err(ErrorCode::NotCoordinator));
    world.runtime.elected(P, 1);
    let loading = world.ask(Ask::Peek).await;
    assert_eq!(loading, Err(ErrorCode::CoordinatorLoadInProgress));
    world.loaded().await;
    assert_eq!(world.ask(Ask::Peek).await, Ok(0));
    world.runtime.resigned(P, Some(2));
    assert_eq!(world.ask(Ask::Peek).await, Err(ErrorCode::NotCoordinator));
}

#[tokio::test(start_paused = true)]
async fn what_comes_together_goes_into_one_batch() {
    let world = World::elected(10_000).await;
    let asks: Vec<_> = (0..10)
        .map(|_| world.ask_later(Ask::Add(vec![1], true)))
        .collect();
    for (nth, ask) in (1..).zip(asks) {
        assert_eq!(ask.await.unwrap(), Ok(nth));
    }
    assert_eq!(world.log.batch_count(P), 1);
    assert_eq!(world.runtime.metrics().records_appended.get(), 10);
}

#[tokio::test(start_paused = true)]
async fn answers_wait_for_the_commit_but_requests_see_the_state() {
    let world = World::elected(10_000).await;
    world.log.hold_commits(P, true);
    let added = world.ask_later(Ask::Add(vec![5], true));
    let read = world.ask_later(Ask::Read);
    world.quiet().await;
    assert!(!added.is_finished() && !read.is_finished());
    assert_eq!(world.ask(Ask::Peek).await, Ok(5));
    world.log.hold_commits(P, false);
    assert_eq!(added.await.unwrap(), Ok(5));
    assert_eq!(read.await.unwrap(), Ok(5));
}

#[tokio::test(start_paused = true)]
async fn a_failed_append_takes_everything_back() {
    let world = World::elected(10_000).await;
    assert_eq!(world.ask(Ask::Add(vec![5], true)).await, Ok(5));
    world
        .log
        .fail_appends(P, Some(WriteError::NotEnoughReplicas));
    let first = world.ask_later(Ask::Add(vec![1, 2], true));
    let second = world.ask_later(Ask::Add(vec![4], true));
    let read = world.ask_later(Ask::Read);
    for ask in [first, second, read] {
        assert_eq!(ask.await.unwrap(), Err(ErrorCode::NotEnoughReplicas));
    }
    assert_eq!(world.ask(Ask::Peek).await, Ok(5));
    assert_eq!(world.runtime.metrics().appends_failed.get(), 1);
    world.log.fail_appends(P, None);
    assert_eq!(world.ask(Ask::Add(vec![1], true)).await, Ok(6));
}

#[tokio::test(start_paused = true)]
async fn a_completion_learns_what_became_of_the_records() {
    let world = World::elected(10_000).await;
    assert_eq!(world.ask(Ask::Later(10)).await, Ok(1));
    world.log.fail_appends(P, Some(WriteError::Storage));
    assert_eq!(world.ask(Ask::Later(10)).await, Ok(-1));
    world.log.fail_appends(P, None);
    world.log.hold_commits(P, true);
    assert_eq!(world.ask(Ask::Later(10)).await, Ok(-2));
}

#[tokio::test(start_paused = true)]
async fn timers_fire_on_time() {
    let world = World::elected(10_000).await;
    let started = tokio::time::Instant::now();
    let late = world.ask_later(Ask::Later(1_500));
    assert_eq!(world.ask(Ask::Later(1_000)).await, Ok(1));
    assert_eq!(started.elapsed().as_millis(), 1_000);
    assert_eq!(late.await.unwrap(), Ok(2));
    assert_eq!(started.elapsed().as_millis(), 1_500);
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_takes_too_long_times_out_and_still_counts() {
    let world = World::elected(10_000).await;
    world.log.hold_commits(P, true);
    let started = tokio::time::Instant::now();
    let timed_out = world.ask(Ask::Add(vec![5], true)).await;
    assert_eq!(timed_out, Err(ErrorCode::RequestTimedOut));
    assert_eq!(started.elapsed().as_millis(), 5_000);
    assert_eq!(world.runtime.metrics().writes_timed_out.get(), 1);
    assert_eq!(world.ask(Ask::Peek).await, Ok(5));
    world.log.hold_commits(P, false);
    assert_eq!(world.ask(Ask::Read).await, Ok(5));
}

#[tokio::test(start_paused = true)]
async fn a_request_too_large_for_a_batch_is_refused_or_cut() {
    let world = World::elected(61 + 3 * (3 + 8 + 32)).await;
    let refused = world.ask(Ask::Add(vec![1; 4], true)).await;
    assert_eq!(refused, Err(ErrorCode::RecordListTooLarge));
    assert_eq!(world.ask(Ask::Peek).await, Ok(0));
    assert_eq!(world.ask(Ask::Add(vec![1; 7], false)).await, Ok(7));
    assert_eq!(world.log.batch_count(P), 3);
    // One that does not fit beside the others gets a batch of its own.
    let first = world.ask_later(Ask::Add(vec![1; 2], true));
    let second = world.ask_later(Ask::Add(vec![1; 2], true));
    assert_eq!(
        (first.await.unwrap(), second.await.unwrap()),
        (Ok(9), Ok(11))
    );
    assert_eq!(world.log.batch_count(P), 5);
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_reads_what_the_old_one_wrote() {
    let world = World::elected(10_000).await;
    for number in 1..=20 {
        world.ask(Ask::Add(vec![number], true)).await.unwrap();
    }
    let successor = World::over(world.log.clone());
    successor.runtime.elected(P, 2);
    successor.loaded().await;
    assert_eq!(successor.ask(Ask::Read).await, Ok(210));
    assert_eq!(successor.runtime.metrics().records_loaded.get(), 20);
    assert_eq!(successor.ask(Ask::Add(vec![1], true)).await, Ok(211));
    // The old leader does not know yet, but its log does.
    let fenced = world.ask(Ask::Add(vec![1], true)).await;
    assert_eq!(fenced, Err(ErrorCode::NotLeaderOrFollower));
    assert_eq!(world.ask(Ask::Peek).await, Ok(210));
}

#[tokio::test(start_paused = true)]
async fn what_was_not_committed_when_it_was_read_waits() {
    let world = World::elected(10_000).await;
    world.log.hold_commits(P, true);
    drop(world.ask_later(Ask::Add(vec![5], true)));
    world.quiet().await;
    let successor = World::over(world.log.clone());
    successor.runtime.elected(P, 2);
    successor.loaded().await;
    assert_eq!(successor.ask(Ask::Peek).await, Ok(5));
    let read = successor.ask_later(Ask::Read);
    successor.quiet().await;
    assert!(!read.is_finished());
    successor.log.hold_commits(P, false);
    assert_eq!(read.await.unwrap(), Ok(5));
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_when_the_leadership_goes_is_told() {
    let world = World::elected(10_000).await;
    world.log.hold_commits(P, true);
    let parked = world.ask_later(Ask::Add(vec![5], true));
    let waiting = world.ask_later(Ask::Later(1_000_000));
    world.quiet().await;
    // An old notice is ignored, as is an old election.
    world.runtime.elected(P, 3);
    world.runtime.resigned(P, Some(2));
    world.runtime.elected(P, 1);
    assert_eq!(world.ask(Ask::Peek).await, Ok(5));
    world.runtime.resigned(P, Some(4));
    for ask in [parked, waiting] {
        assert_eq!(ask.await.unwrap(), Err(ErrorCode::NotCoordinator));
    }
    assert!(world.runtime.partitions().is_empty());
}

/// What one shard asked for is not told to the next.
#[tokio::test(start_paused = true)]
async fn a_shard_hears_of_its_own_work_only() {
    let world = World::elected(10_000).await;
    let tell = |epoch| world.runtime.submit_since(P, epoch, Ask::Peek);
    assert_eq!(tell(1).await, Ok(0));
    world.runtime.elected(P, 3);
    assert_eq!(tell(1).await, Ok(0), "it went on in the next epoch");
    world.runtime.resigned(P, Some(4));
    assert_eq!(tell(3).await, Err(ErrorCode::NotCoordinator));
    world.log.set_leader_epoch(P, 5);
    world.runtime.elected(P, 5);
    world.loaded().await;
    assert_eq!(tell(3).await, Err(ErrorCode::NotCoordinator));
    assert_eq!(tell(5).await, Ok(0));
}

#[tokio::test(start_paused = true)]
async fn a_newer_epoch_goes_on_with_what_is_loaded() {
    let world = World::elected(10_000).await;
    world.ask(Ask::Add(vec![5], true)).await.unwrap();
    world.runtime.elected(P, 2);
    world.log.set_leader_epoch(P, 2);
    assert_eq!(world.ask(Ask::Add(vec![1], true)).await, Ok(6));
    let contents = world.log.contents(P);
    let last = batches(&contents).last().unwrap().unwrap();
    assert_eq!(last.header().partition_leader_epoch, 2);
    assert_eq!(world.runtime.metrics().partitions_loaded.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_damaged_partition_has_no_coordinator_until_the_next_election() {
    let log = Arc::new(MemoryPartitions::new(10_000));
    let mut builder = BatchBuilder::new(BatchOptions::default());
    builder.append(0, None, Some(b"no key"), []).unwrap();
    log.append_now(P, &builder.build().unwrap()).unwrap();
    let world = World::over(log);
    world.runtime.elected(P, 1);
    world.loaded().await;
    assert_eq!(world.ask(Ask::Peek).await, Err(ErrorCode::NotCoordinator));
    assert_eq!(world.runtime.metrics().loads_failed.get(), 1);
    world.runtime.elected(P, 2);
    let again = world.ask(Ask::Peek).await;
    assert_eq!(again, Err(ErrorCode::CoordinatorLoadInProgress));
}

#[tokio::test(start_paused = true)]
async fn compressed_batches_and_markers_are_read() {
    let log = Arc::new(MemoryPartitions::new(10_000));
    let options = BatchOptions {
        codec: Codec::from(klamm_records::Compression::Zstd),
        ..BatchOptions::default()
    };
    let mut builder = BatchBuilder::new(options);
    for number in 1..=3 {
        let record = Add(number).encode().unwrap();
        let value = record.value.as_deref();
        builder.append(0, Some(&record.key), value, []).unwrap();
    }
    log.append_now(P, &builder.build().unwrap()).unwrap();
    let marker = EndTransactionMarker {
        committed: true,
        coordinator_epoch: 0,
    };
    let options = BatchOptions {
        producer_id: 9,
        producer_epoch: 0,
        transactional: true,
        control: true,
        ..BatchOptions::default()
    };
    let mut builder = BatchBuilder::new(options);
    let (key, value) = (marker.control_type().key(), marker.value());
    builder.append(0, Some(&key), Some(&value), []).unwrap();
    log.append_now(P, &builder.build().unwrap()).unwrap();
    let world = World::over(log);
    world.runtime.elected(P, 1);
    world.loaded().await;
    assert_eq!(world.ask(Ask::Peek).await, Ok(1_000_006));
    assert_eq!(world.ask(Ask::Add(vec![1], true)).await, Ok(1_000_007));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_away_disturbs_nobody() {
    let world = World::elected(10_000).await;
    let gone = world.ask_later(Ask::Later(100));
    world.quiet().await;
    gone.abort();
    assert_eq!(world.ask(Ask::Later(200)).await, Ok(2));
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_panics_is_loaded_again() {
    let world = World::elected(1_000).await;
    assert_eq!(world.ask(Ask::Add(vec![1, 2], false)).await, Ok(3));
    world.log.hold_commits(P, true);
    let waiting = world.ask_later(Ask::Add(vec![4], false));
    world.quiet().await;
    // Who asked for it is not to ask again; whoever else waits is.
    let fell = world.ask(Ask::Fall).await;
    assert_eq!(fell, Err(ErrorCode::UnknownServerError));
    let unavailable = Err(ErrorCode::CoordinatorNotAvailable);
    assert_eq!(waiting.await.unwrap(), unavailable);
    assert_eq!(world.ask(Ask::Peek).await, unavailable);
    assert_eq!(world.runtime.metrics().panics.get(), 1);
    world.log.hold_commits(P, false);
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.loaded().await;
    // What was in the log is there, and nothing of what the shard had in its head.
    assert_eq!(world.ask(Ask::Read).await, Ok(7));
    assert_eq!(world.ask(Ask::Add(vec![1], false)).await, Ok(8));
    // One that rests can be resigned.
    assert_eq!(world.ask(Ask::Fall).await, fell);
    world.runtime.resigned(P, None);
    assert_eq!(world.ask(Ask::Peek).await, Err(ErrorCode::NotCoordinator));
}
