//! A group shard in a test's hands: requests go in, answers and records come out, and the test
//! moves the clock and decides what becomes of writes. `requests` makes the requests.

mod requests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use klamm_env::SplitMix64;
use klamm_protocol::messages::leave_group_request::MemberIdentity;
use klamm_protocol::messages::leave_group_response::MemberResponse;
use klamm_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use klamm_protocol::messages::{HeartbeatRequest, JoinGroupResponse, SyncGroupResponse};
use klamm_protocol::{ByteStr, ErrorCode};

use super::classic::{ClassicGroup, ClassicState};
use super::shard::{GroupCompletion, GroupEffects, GroupUndo};
use super::{
    FixedCluster, GroupCoordinatorConfig, GroupRecord, GroupRequest, GroupResponse, GroupShard,
};
use crate::metrics::GroupMetrics;
use crate::runtime::{CoordinatorRecord, Now, RecordOrigin, ReplyToken, Shard, WriteOutcome};

pub(super) use requests::{Commit, Join, code, subscription, sync_request};

/// The group of tests that need only one.
pub(super) const GROUP: &str = "g";

/// What becomes of writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writes {
    Commit,
    Hold,
    Fail(ErrorCode),
}

type Answer = Result<GroupResponse, ErrorCode>;

pub(super) struct Bench {
    pub(super) shard: GroupShard,
    pub(super) now: Now,
    pub(super) writes: Writes,
    /// Everything that was written and not lost.
    pub(super) log: Vec<GroupRecord>,
    pub(super) metrics: Arc<GroupMetrics>,
    /// What the shard sees of the cluster.
    pub(super) cluster: Arc<FixedCluster>,
    seed: u64,
    answers: BTreeMap<ReplyToken, Answer>,
    next_token: u64,
    held: VecDeque<Held>,
}

struct Held {
    undos: Vec<GroupUndo>,
    deferred: Option<(ReplyToken, GroupResponse)>,
    completion: Option<GroupCompletion>,
}

impl Bench {
    pub(super) fn new() -> Self {
        Bench::with(GroupCoordinatorConfig::default())
    }

    pub(super) fn with(config: GroupCoordinatorConfig) -> Self {
        Bench::seeded(config, 1)
    }

    pub(super) fn seeded(config: GroupCoordinatorConfig, seed: u64) -> Self {
        Bench::in_cluster(config, seed, Arc::new(FixedCluster::default()))
    }

    fn in_cluster(config: GroupCoordinatorConfig, seed: u64, cluster: Arc<FixedCluster>) -> Self {
        let metrics = Arc::new(GroupMetrics::default());
        let rng = Arc::new(SplitMix64::new(seed));
        let now = Now {
            wall_ms: 1_700_000_000_000,
            monotonic_ms: 0,
        };
        let shard = GroupShard::new(Arc::new(config), rng, metrics.clone());
        let mut shard = shard.in_cluster(cluster.clone());
        assert!(shard.loaded(now).is_empty());
        Bench {
            shard,
            now,
            writes: Writes::Commit,
            log: Vec::new(),
            metrics,
            cluster,
            seed,
            answers: BTreeMap::new(),
            next_token: 0,
            held: VecDeque::new(),
        }
    }

    /// A new shard that reads the log of this one, as after a restart.
    pub(super) fn reload(&self) -> Bench {
        // Another process makes other ids.
        let seed = self.seed.wrapping_add(1 << 32);
        let config = (*self.shard.config).clone();
        let mut bench = Bench::in_cluster(config, seed, self.cluster.clone());
        bench.now = self.now;
        bench.log = self.log.clone();
        for (offset, record) in (0..).zip(&self.log) {
            let encoded = record.encode().unwrap();
            let decoded = GroupRecord::decode(Some(encoded.key), encoded.value).unwrap();
            assert_eq!(decoded, *record);
            let origin = RecordOrigin {
                offset,
                producer_id: -1,
            };
            bench.shard.replay_committed(origin, &decoded, self.now);
        }
        for effects in bench.shard.loaded(self.now) {
            bench.absorb(effects);
        }
        bench
    }

    /// Sends a request; its answer is looked up by the token.
    pub(super) fn send(&mut self, request: GroupRequest) -> ReplyToken {
        let token = ReplyToken(self.next_token);
        self.next_token += 1;
        let effects = self.shard.handle(request, token, self.now);
        self.absorb(effects);
        token
    }

    /// Sends a request that is answered at once.
    pub(super) fn ask(&mut self, request: GroupRequest) -> Answer {
        let token = self.send(request);
        self.take(token).expect("an answer at once")
    }

    /// Takes an answer, if it came.
    pub(super) fn take(&mut self, token: ReplyToken) -> Option<Answer> {
        let answer = self.answers.remove(&token)?;
        Some(match answer {
            Ok(GroupResponse::Refused(error)) => Err(error),
            other => other,
        })
    }

    /// The wall clock goes back, as it does when a broker takes over whose clock is behind.
    pub(super) fn turn_back_ms(&mut self, ms: i64) {
        self.now.wall_ms -= ms;
    }

    /// Moves the clock, running what falls due on the way.
    pub(super) fn advance_ms(&mut self, ms: u64) {
        let end_ms = self.now.monotonic_ms + ms;
        while let Some(deadline_ms) = self.shard.next_deadline_ms() {
            if deadline_ms > end_ms {
                break;
            }
            self.set_ms(deadline_ms.max(self.now.monotonic_ms));
            while let Some(effects) = self.shard.tick(self.now) {
                self.absorb(effects);
            }
        }
        self.set_ms(end_ms);
    }

    fn set_ms(&mut self, monotonic_ms: u64) {
        let step = i64::try_from(monotonic_ms - self.now.monotonic_ms).unwrap();
        self.now.wall_ms += step;
        self.now.monotonic_ms = monotonic_ms;
    }

    /// Settles the oldest write that is held. One that timed out stays: it may yet be committed.
    pub(super) fn settle(&mut self, outcome: WriteOutcome) {
        let held = self.held.front_mut().expect("a write that is held");
        let deferred = held.deferred.take();
        let completion = held.completion.take();
        match outcome {
            WriteOutcome::Committed => {
                for undo in self
                    .held
                    .pop_front()
                    .into_iter()
                    .flat_map(|held| held.undos)
                {
                    self.shard.commit(undo);
                }
            }
            WriteOutcome::TimedOut => {}
            WriteOutcome::Failed(_) => panic!("a failure is decided when the write is made"),
        }
        self.end(deferred, completion, outcome);
    }

    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    fn absorb(&mut self, effects: GroupEffects) {
        for (token, response) in effects.replies {
            self.answer(token, Ok(response));
        }
        let ends = effects.deferred.is_some() || effects.completion.is_some();
        if effects.records.is_empty() && !ends {
            return;
        }
        let writes = match effects.records.is_empty() {
            true if self.held.is_empty() => Writes::Commit,
            true => Writes::Hold,
            false => self.writes,
        };
        let mut undos = Vec::new();
        for record in &effects.records {
            let origin = RecordOrigin {
                offset: i64::try_from(self.log.len() + undos.len()).unwrap(),
                producer_id: -1,
            };
            if effects.replay {
                undos.push(self.shard.replay(origin, record, self.now));
            }
        }
        if let Writes::Fail(error) = writes {
            for undo in undos.into_iter().rev() {
                self.shard.undo(undo);
            }
            let outcome = WriteOutcome::Failed(error);
            self.end(effects.deferred, effects.completion, outcome);
            return;
        }
        self.log.extend(effects.records);
        self.held.push_back(Held {
            undos,
            deferred: effects.deferred,
            completion: effects.completion,
        });
        if writes == Writes::Commit {
            while !self.held.is_empty() {
                self.settle(WriteOutcome::Committed);
            }
        }
    }

    fn end(
        &mut self,
        deferred: Option<(ReplyToken, GroupResponse)>,
        completion: Option<GroupCompletion>,
        outcome: WriteOutcome,
    ) {
        if let Some((token, response)) = deferred {
            self.answer(token, outcome.error().map_or(Ok(response), Err));
        }
        if let Some(completion) = completion {
            let effects = self.shard.complete(completion, outcome, self.now);
            if !effects.is_empty() {
                self.absorb(effects);
            }
        }
    }

    fn answer(&mut self, token: ReplyToken, answer: Answer) {
        // As in the runtime, the first answer counts.
        self.answers.entry(token).or_insert(answer);
    }

    pub(super) fn group(&self) -> &ClassicGroup {
        self.shard.classic_group(GROUP).expect("the group")
    }

    pub(super) fn state(&self) -> ClassicState {
        self.group().state()
    }

    pub(super) fn join(&mut self, join: Join) -> ReplyToken {
        self.send(join.request())
    }

    pub(super) fn join_answer(&mut self, token: ReplyToken) -> JoinGroupResponse {
        match self.take(token) {
            Some(Ok(GroupResponse::JoinGroup(response))) => *response,
            other => panic!("no JoinGroup answer but {other:?}"),
        }
    }

    pub(super) fn sync_answer(&mut self, token: ReplyToken) -> SyncGroupResponse {
        match self.take(token) {
            Some(Ok(GroupResponse::SyncGroup(response))) => *response,
            other => panic!("no SyncGroup answer but {other:?}"),
        }
    }

    pub(super) fn is_parked(&self, token: ReplyToken) -> bool {
        !self.answers.contains_key(&token)
    }

    pub(super) fn sync(
        &mut self,
        member_id: &str,
        generation: i32,
        given: &[(&str, &str)],
    ) -> ReplyToken {
        self.send(sync_request(member_id, None, generation, given))
    }

    pub(super) fn heartbeat(&mut self, member_id: &str, generation: i32) -> ErrorCode {
        self.heartbeat_as(member_id, None, generation)
    }

    pub(super) fn heartbeat_as(
        &mut self,
        member_id: &str,
        name: Option<&str>,
        generation: i32,
    ) -> ErrorCode {
        let request = HeartbeatRequest {
            group_id: GROUP.into(),
            generation_id: generation,
            member_id: member_id.into(),
            group_instance_id: name.map(ByteStr::from),
            ..HeartbeatRequest::default()
        };
        match self.ask(GroupRequest::Heartbeat(Box::new(request))) {
            Ok(GroupResponse::Done) => ErrorCode::None,
            Err(error) => error,
            other => panic!("no heartbeat answer but {other:?}"),
        }
    }

    pub(super) fn leave(&mut self, members: &[(&str, Option<&str>)]) -> Vec<ErrorCode> {
        let members = members
            .iter()
            .map(|(id, name)| MemberIdentity {
                member_id: (*id).into(),
                group_instance_id: name.map(ByteStr::from),
                ..MemberIdentity::default()
            })
            .collect();
        match self.ask(GroupRequest::LeaveGroup(GROUP.into(), members)) {
            Ok(GroupResponse::LeaveGroup(responses)) => {
                let code = |response: &MemberResponse| code(response.error_code);
                responses.iter().map(code).collect()
            }
            Err(error) => vec![error],
            other => panic!("no LeaveGroup answer but {other:?}"),
        }
    }

    /// A dynamic member that joined, as seen after the generation is formed: its id and answer.
    /// Completes the initial delay.
    pub(super) fn first_member(&mut self) -> (String, JoinGroupResponse) {
        let token = self.join(Join::old());
        self.advance_ms(3_000);
        let answer = self.join_answer(token);
        assert_eq!(code(answer.error_code), ErrorCode::None);
        (answer.member_id.to_string(), answer)
    }

    /// A stable group of one dynamic member.
    pub(super) fn stable(&mut self) -> String {
        let (id, answer) = self.first_member();
        let token = self.sync(&id, answer.generation_id, &[(&id, "work")]);
        assert_eq!(self.sync_answer(token).assignment, "work");
        assert_eq!(self.state(), ClassicState::Stable);
        id
    }

    pub(super) fn commit(&mut self, commit: Commit) -> ReplyToken {
        self.send(commit.request())
    }

    /// Commits and gives the error of the only partition, or of the request.
    pub(super) fn commit_error(&mut self, commit: Commit) -> ErrorCode {
        match self.ask(commit.request()) {
            Ok(GroupResponse::OffsetCommit(response)) => {
                code(response.topics[0].partitions[0].error_code)
            }
            Err(error) => error,
            other => panic!("no OffsetCommit answer but {other:?}"),
        }
    }

    /// The offset of partition 0 of topic `t`, or its error.
    pub(super) fn fetch(&mut self, stable: bool) -> Option<Result<i64, ErrorCode>> {
        let topic = OffsetFetchRequestTopics {
            name: "t".into(),
            partition_indexes: vec![0],
            ..OffsetFetchRequestTopics::default()
        };
        let request = OffsetFetchRequestGroup {
            group_id: GROUP.into(),
            topics: Some(vec![topic]),
            ..OffsetFetchRequestGroup::default()
        };
        let token = self.send(GroupRequest::OffsetFetch(Box::new(request), stable));
        match self.take(token)? {
            Ok(GroupResponse::OffsetFetch(response)) => {
                let partition = &response.topics[0].partitions[0];
                Some(match code(partition.error_code) {
                    ErrorCode::None => Ok(partition.committed_offset),
                    error => Err(error),
                })
            }
            other => panic!("no OffsetFetch answer but {other:?}"),
        }
    }
}
