//! Random histories of members that join, sync, commit, fall silent and leave, with writes that
//! wait or fail and coordinators that restart. Properties, checked after every step:
//!
//! - **One leader**: a group with members has exactly one leader, and it is a member.
//! - **Generations grow**: a client never sees a group's generation go back, restarts aside, and
//!   never two sets of members in one generation.
//! - **Work belongs to a generation**: an assignment is only given to a member of the generation
//!   it was made for, and is the one that its leader made.
//! - **Nothing committed is lost**: an offset whose commit was answered is there after a restart,
//!   unless a newer one is.
//! - **The log is the state**: what a restart reads is what was last written of each group.
//! - **Everyone is answered**: whoever is parked is a member of the group, and nobody is parked
//!   for longer than the longest timeout allows.
//!
//! A failure prints its seed; `KLAMM_SEED=n` runs that one alone, `KLAMM_SEEDS=n` runs n of them.

use std::collections::{BTreeMap, BTreeSet};

use klamm_env::{Rng, SplitMix64};
use klamm_protocol::ErrorCode;
use klamm_protocol::group_records::GroupMetadataValue;

use crate::group::classic::ClassicState;
use crate::group::testing::{Bench, Commit, GROUP, Join, Writes, code, sync_request};
use crate::group::{GroupCoordinatorConfig, GroupRecord, GroupResponse};
use crate::runtime::{ReplyToken, WriteOutcome};

const STEPS: usize = 400;
const SEEDS: u64 = 60;

/// A client and what it believes.
#[derive(Clone, Debug, Default)]
struct Client {
    name: Option<String>,
    id: String,
    generation: i32,
    leads: bool,
    members: Vec<String>,
    /// The generation whose work it has.
    works_in: i32,
    waiting: Option<(ReplyToken, Waiting, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Waiting {
    Join,
    Sync(i32),
}

struct History {
    seed: u64,
    rng: SplitMix64,
    bench: Bench,
    clients: Vec<Client>,
    /// Who formed a generation, by generation, since the last restart.
    formed: BTreeMap<i32, BTreeSet<String>>,
    /// What the leader of a generation gave to whom.
    given: BTreeMap<i32, BTreeMap<String, String>>,
    newest_generation: i32,
    /// Each commit has a higher offset than those before; these wait for their answers.
    next_offset: i64,
    sent: Vec<(ReplyToken, i64)>,
    acknowledged: i64,
    trace: Vec<String>,
}

impl History {
    fn new(seed: u64) -> History {
        let rng = SplitMix64::new(seed);
        let config = GroupCoordinatorConfig {
            max_size: 5,
            ..GroupCoordinatorConfig::default()
        };
        let clients = (0..6)
            .map(|index| Client {
                name: (index % 3 == 0).then(|| format!("static-{index}")),
                ..Client::default()
            })
            .collect();
        History {
            seed,
            rng,
            bench: Bench::seeded(config, seed),
            clients,
            formed: BTreeMap::new(),
            given: BTreeMap::new(),
            newest_generation: 0,
            next_offset: 0,
            sent: Vec::new(),
            acknowledged: -1,
            trace: Vec::new(),
        }
    }

    fn run(mut self) -> Vec<String> {
        for step in 0..STEPS {
            self.step();
            self.collect();
            self.check();
            self.note(step);
        }
        self.heal();
        self.trace
    }

    fn step(&mut self) {
        let who = usize::try_from(self.rng.below(self.clients.len() as u64)).unwrap();
        match self.rng.below(100) {
            0..30 => self.join(who),
            30..50 => self.sync(who),
            50..62 => self.commit(who),
            62..72 => self.heartbeat(who),
            72..76 => self.leave(who),
            76..90 => {
                let ms = self.rng.below(4_000);
                self.bench.advance_ms(ms);
            }
            90..92 => self.bench.advance_ms(12_000),
            92..94 => self.bench.writes = Writes::Hold,
            94..95 => self.bench.writes = Writes::Fail(ErrorCode::NotEnoughReplicas),
            95..98 => {
                self.bench.writes = Writes::Commit;
                self.settle_all();
            }
            98..99 => {
                if self.bench.held() > 0 {
                    self.bench.settle(WriteOutcome::TimedOut);
                }
            }
            _ => self.restart(),
        }
        if self.bench.held() > 0 && self.rng.below(3) == 0 {
            self.bench.settle(WriteOutcome::Committed);
        }
    }

    fn settle_all(&mut self) {
        while self.bench.held() > 0 {
            self.bench.settle(WriteOutcome::Committed);
        }
    }

    fn join(&mut self, who: usize) {
        let client = &self.clients[who];
        if client.waiting.is_some() {
            return;
        }
        let version = [3, 5, 8, 9][usize::try_from(self.rng.below(4)).unwrap()];
        let topics: &[&str] = if self.rng.below(4) == 0 {
            &["t", "u"]
        } else {
            &["t"]
        };
        let mut join = Join::old().version(version).subscribed(topics);
        join.instance_id.clone_from(&client.name);
        // A static member forgets its id now and then, as after a restart.
        if client.name.is_none() || self.rng.below(3) > 0 {
            join = join.id(&client.id);
        }
        let token = self.bench.join(join);
        self.wait(who, token, Waiting::Join);
    }

    /// What a client does that follows the protocol.
    fn behave(&mut self, who: usize) {
        let client = self.clients[who].clone();
        if client.waiting.is_some() {
            return;
        }
        if client.generation == 0 {
            let mut join = Join::new().id(&client.id);
            join.instance_id = client.name;
            let token = self.bench.join(join);
            self.wait(who, token, Waiting::Join);
        } else if client.works_in != client.generation {
            self.sync(who);
        } else {
            self.heartbeat(who);
        }
    }

    fn wait(&mut self, who: usize, token: ReplyToken, what: Waiting) {
        let now_ms = self.bench.now.monotonic_ms;
        self.clients[who].waiting = Some((token, what, now_ms));
    }

    fn sync(&mut self, who: usize) {
        let client = self.clients[who].clone();
        if client.waiting.is_some() || client.generation == 0 {
            return;
        }
        let generation = client.generation;
        let work: Vec<(String, String)> = client
            .members
            .iter()
            .filter(|_| client.leads)
            .map(|id| (id.clone(), format!("{generation}/{id}")))
            .collect();
        let given: Vec<(&str, &str)> = work.iter().map(|(id, what)| (&**id, &**what)).collect();
        let request = sync_request(&client.id, client.name.as_deref(), generation, &given);
        if client.leads {
            self.given.insert(generation, work.into_iter().collect());
        }
        let token = self.bench.send(request);
        self.wait(who, token, Waiting::Sync(generation));
    }

    fn commit(&mut self, who: usize) {
        let client = &self.clients[who];
        let offset = self.next_offset;
        self.next_offset += 1;
        let mut commit = Commit::by(&client.id, client.generation, offset);
        if self.rng.below(4) == 0 {
            commit = Commit::simple(offset);
        }
        let token = self.bench.commit(commit);
        self.sent.push((token, offset));
    }

    fn heartbeat(&mut self, who: usize) {
        let client = self.clients[who].clone();
        if self.bench.held() > 0 || client.generation == 0 {
            return;
        }
        let name = client.name.as_deref();
        let verdict = self.bench.heartbeat_as(&client.id, name, client.generation);
        match verdict {
            ErrorCode::UnknownMemberId | ErrorCode::FencedInstanceId => self.forget(who),
            ErrorCode::RebalanceInProgress | ErrorCode::IllegalGeneration => {
                self.clients[who].generation = 0;
            }
            _ => {}
        }
    }

    fn forget(&mut self, who: usize) {
        let name = self.clients[who].name.clone();
        self.clients[who] = Client {
            name,
            ..Client::default()
        };
    }

    fn leave(&mut self, who: usize) {
        let client = self.clients[who].clone();
        let answers_wait = self.bench.held() > 0 || self.bench.writes == Writes::Hold;
        if answers_wait || client.id.is_empty() {
            return;
        }
        self.bench.leave(&[(&client.id, client.name.as_deref())]);
        if client.waiting.is_none() {
            self.forget(who);
        }
    }

    /// The coordinator is gone, and another one reads the log, of which everything that was
    /// appended survived. Clients get no answers and ask again.
    fn restart(&mut self) {
        self.collect();
        let log_says = last_written(&self.bench.log);
        self.bench = self.bench.reload();
        let read = self.bench.shard.classic_group(GROUP);
        match (&log_says, read) {
            (Some(value), Some(group)) => {
                assert_eq!(group.generation(), value.generation, "seed {}", self.seed);
                let ids: Vec<_> = group.members().map(|member| member.id.clone()).collect();
                let written: Vec<_> = value.members.iter().map(|m| m.member_id.clone()).collect();
                assert_eq!(ids, written, "seed {}", self.seed);
            }
            (None, None) => {}
            // A commit from outside makes a group that has no record of its own.
            (None, Some(group)) => assert!(group.is_empty(), "seed {}", self.seed),
            (Some(_), None) => panic!("seed {}: a group was lost", self.seed),
        }
        self.newest_generation = read.map_or(0, |group| group.generation());
        self.formed
            .retain(|generation, _| *generation <= self.newest_generation);
        self.sent.clear();
        for client in &mut self.clients {
            client.waiting = None;
        }
        let offset = self.bench.fetch(false).unwrap().unwrap();
        assert!(
            offset >= self.acknowledged,
            "seed {}: offset {} was acknowledged, {offset} is left",
            self.seed,
            self.acknowledged
        );
    }

    /// Reads the answers that came.
    fn collect(&mut self) {
        for who in 0..self.clients.len() {
            let Some((token, what, _)) = self.clients[who].waiting else {
                continue;
            };
            let Some(answer) = self.bench.take(token) else {
                continue;
            };
            self.clients[who].waiting = None;
            match (answer, what) {
                (Ok(GroupResponse::JoinGroup(answer)), Waiting::Join) => {
                    self.joined(who, *answer);
                }
                (Ok(GroupResponse::SyncGroup(answer)), Waiting::Sync(generation)) => {
                    let error = code(answer.error_code);
                    match error {
                        ErrorCode::None => self.worked(who, generation, &answer.assignment),
                        ErrorCode::UnknownMemberId | ErrorCode::FencedInstanceId => {
                            self.forget(who);
                        }
                        _ => self.clients[who].generation = 0,
                    }
                }
                (Err(ErrorCode::UnknownMemberId), _) => self.forget(who),
                other => panic!("seed {}: {other:?}", self.seed),
            }
        }
        let sent = std::mem::take(&mut self.sent);
        for (token, offset) in sent {
            match self.bench.take(token) {
                None => self.sent.push((token, offset)),
                Some(Ok(GroupResponse::OffsetCommit(answer))) => {
                    assert_eq!(
                        code(answer.topics[0].partitions[0].error_code),
                        ErrorCode::None
                    );
                    self.acknowledged = self.acknowledged.max(offset);
                    let read = self.bench.fetch(false).unwrap().unwrap();
                    assert!(read >= offset, "seed {}: {offset} was answered", self.seed);
                }
                Some(Err(_)) => {}
                Some(other) => panic!("seed {}: {other:?}", self.seed),
            }
        }
    }

    fn joined(&mut self, who: usize, answer: klamm_protocol::messages::JoinGroupResponse) {
        match code(answer.error_code) {
            ErrorCode::None => {}
            ErrorCode::MemberIdRequired => {
                self.clients[who].id = answer.member_id.to_string();
                self.clients[who].generation = 0;
                return;
            }
            ErrorCode::UnknownMemberId | ErrorCode::FencedInstanceId => return self.forget(who),
            _ => return,
        }
        let generation = answer.generation_id;
        assert!(
            generation <= self.bench.group().generation(),
            "seed {}: a generation of the future",
            self.seed
        );
        let client = &mut self.clients[who];
        client.id = answer.member_id.to_string();
        client.generation = generation;
        client.leads = answer.leader == answer.member_id && !answer.skip_assignment;
        client.members = answer
            .members
            .iter()
            .map(|m| m.member_id.to_string())
            .collect();
        if !client.leads || answer.members.is_empty() {
            client.leads = false;
            return;
        }
        let members: BTreeSet<String> = client.members.iter().cloned().collect();
        let before = self.formed.insert(generation, members.clone());
        if let Some(before) = before {
            assert_eq!(
                before, members,
                "seed {}: two sets in {generation}",
                self.seed
            );
        }
    }

    fn worked(&mut self, who: usize, generation: i32, work: &[u8]) {
        self.clients[who].works_in = generation;
        let client = &self.clients[who];
        if work.is_empty() {
            return;
        }
        let work = std::str::from_utf8(work).unwrap();
        let (made_in, made_for) = work.split_once('/').unwrap();
        assert_eq!(made_in, generation.to_string(), "seed {}", self.seed);
        // A static member inherits the work of its former id.
        if client.name.is_none() {
            assert_eq!(made_for, client.id, "seed {}", self.seed);
        }
        let given = self
            .given
            .get(&generation)
            .and_then(|given| given.get(made_for));
        assert_eq!(given.map(String::as_str), Some(work), "seed {}", self.seed);
    }

    fn check(&mut self) {
        let Some(group) = self.bench.shard.classic_group(GROUP) else {
            self.newest_generation = 0;
            self.formed.clear();
            return;
        };
        let seed = self.seed;
        if group.member_count() == 0 {
            assert!(group.leader().is_none(), "seed {seed}: a leader of nobody");
        } else {
            let leader = group
                .leader()
                .unwrap_or_else(|| panic!("seed {seed}: no leader"));
            assert!(
                group.member(leader).is_some(),
                "seed {seed}: a leader from outside"
            );
        }
        // Static members that are away do not count while the others rejoin, as in Kafka.
        assert!(group.join_waiters() <= 5, "seed {seed}: too many joined");
        assert!(
            group.generation() >= self.newest_generation,
            "seed {seed}: back in time"
        );
        self.newest_generation = group.generation();
        let parked = group
            .members()
            .filter(|member| member.is_awaiting_join())
            .count();
        assert_eq!(parked, group.join_waiters(), "seed {seed}: miscounted");
        if group.state() == ClassicState::Empty {
            assert_eq!(
                group.member_count(),
                0,
                "seed {seed}: members of an empty group"
            );
        }
        for client in &self.clients {
            if let Some((_, what, since_ms)) = client.waiting {
                let waited_ms = self.bench.now.monotonic_ms - since_ms;
                assert!(waited_ms <= 400_000, "seed {seed}: {what:?} waits forever");
            }
        }
    }

    /// Faults end, and everybody comes back: the group must become stable with all of them.
    fn heal(&mut self) {
        self.bench.writes = Writes::Commit;
        self.settle_all();
        for _ in 0..200 {
            self.collect();
            // One of the six stays away, for the limit is five.
            for who in 0..5 {
                self.behave(who);
                self.collect();
            }
            self.bench.advance_ms(1_000);
            self.check();
            let works = |client: &Client| client.works_in == self.bench.group().generation();
            let stable = self.bench.group().state() == ClassicState::Stable;
            if stable
                && self.bench.group().member_count() == 5
                && self.clients[..5].iter().all(works)
            {
                return;
            }
        }
        panic!(
            "seed {}: the group never healed: {:#?} {:#?}",
            self.seed,
            self.bench.group(),
            self.clients
        );
    }

    fn note(&mut self, step: usize) {
        let group = self.bench.shard.classic_group(GROUP);
        let seen = group.map(|group| {
            (
                group.state().name(),
                group.generation(),
                group.member_count(),
            )
        });
        let written = self.bench.log.len();
        let now_ms = self.bench.now.monotonic_ms;
        self.trace
            .push(format!("{step} {now_ms} {seen:?} {written}"));
    }
}

fn last_written(log: &[GroupRecord]) -> Option<GroupMetadataValue> {
    let mut records = log.iter().rev();
    records.find_map(|record| match record {
        GroupRecord::GroupMetadata { value, .. } => Some(value.clone()),
        _ => None,
    })?
}

fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    match number("KLAMM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("KLAMM_SEEDS").unwrap_or(SEEDS),
    }
}

#[test]
fn the_same_seed_gives_the_same_history() {
    for seed in seeds().take(5) {
        assert_eq!(History::new(seed).run(), History::new(seed).run());
    }
}

#[test]
fn random_histories_keep_every_promise() {
    for seed in seeds() {
        History::new(seed).run();
    }
}
