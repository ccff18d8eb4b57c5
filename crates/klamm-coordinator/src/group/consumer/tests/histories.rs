//! Random histories of members that join, give up, leave, fall silent and come back, with topics
//! that come and grow, writes that fail, answers that are lost, and coordinators that restart.
//! Properties, checked after every step:
//!
//! - **One owner**: no partition is held by two members.
//! - **Nothing is taken away in use**: what a client works on is held by its member, as long as
//!   the coordinator counts it in.
//! - **The log is the state**: a restart finds the group that was there.
//! - **Quiet heals**: when nothing happens any more but heartbeats, every partition of a topic
//!   that somebody subscribes to gets exactly one owner, and the group is stable.
//!
//! A failure prints its seed; `KLAMM_SEED=n` runs that one alone.

use std::collections::BTreeSet;

use klamm_env::{Rng, SplitMix64};
use klamm_protocol::ErrorCode;

use super::{Beat, Held, given, topic_id};
use crate::group::consumer::ConsumerGroupState;
use crate::group::testing::{Bench, GROUP, Writes, code};
use crate::group::{GroupCoordinatorConfig, GroupRequest, GroupResponse, RequestContext};

const STEPS: usize = 250;
const SEEDS: u64 = 25;
const TOPICS: [&str; 3] = ["ta", "tb", "x"];

#[derive(Clone, Debug)]
struct Client {
    name: Option<String>,
    id: String,
    /// 0 when it is no member, as far as it knows.
    epoch: i32,
    /// What it works on.
    owned: Held,
    /// What it was last told to have; it works towards that.
    told: Option<Held>,
    topics: Vec<&'static str>,
    regex: bool,
}

struct History {
    rng: SplitMix64,
    bench: Bench,
    clients: Vec<Client>,
    made: usize,
    partitions: [usize; 3],
}

impl History {
    fn new(seed: u64) -> History {
        let mut bench = Bench::seeded(GroupCoordinatorConfig::default(), seed);
        bench.make_topic("ta", 3);
        History {
            rng: SplitMix64::new(seed),
            bench,
            clients: Vec::new(),
            made: 0,
            partitions: [3, 0, 0],
        }
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.rng.below(bound as u64)).unwrap()
    }

    fn step(&mut self) {
        let count = self.clients.len();
        match self.below(100) {
            0..10 if count < 6 => self.come(),
            10..70 if count > 0 => {
                let who = self.below(count);
                self.beat(who);
            }
            70..74 if count > 0 => {
                let who = self.below(count);
                self.leave(who);
            }
            // Vanishes; its session ends some time.
            74..76 if count > 0 => {
                let who = self.below(count);
                self.clients.remove(who);
            }
            76..88 => {
                let ms = self.rng.below(4_000);
                self.bench.advance_ms(ms);
            }
            88..90 => self.bench.advance_ms(20_000),
            90..93 => {
                let topic = self.below(3);
                self.partitions[topic] += 1 + self.below(2);
                self.bench.make_topic(TOPICS[topic], self.partitions[topic]);
            }
            93..96 => self.bench.writes = Writes::Fail(ErrorCode::NotEnoughReplicas),
            96..98 => self.restart(),
            _ => self.bench.writes = Writes::Commit,
        }
    }

    fn restart(&mut self) {
        let after = self.bench.reload();
        let seen = |bench: &Bench| {
            let group = bench.shard.consumer_group(GROUP).cloned();
            group.map(|mut group| {
                group.refresh = None;
                group
            })
        };
        assert_eq!(seen(&after), seen(&self.bench));
        self.bench = after;
    }

    fn come(&mut self) {
        self.made += 1;
        let name = self
            .made
            .is_multiple_of(3)
            .then(|| format!("n{}", self.made % 2));
        let topics = match self.below(3) {
            0 => vec!["ta"],
            1 => vec!["ta", "tb"],
            _ => vec!["x"],
        };
        let client = Client {
            name,
            id: format!("m{}", self.made),
            epoch: 0,
            owned: Held::new(),
            told: None,
            topics,
            regex: self.below(4) == 0,
        };
        self.clients.push(client);
    }

    fn send(&mut self, client: &Client, mut beat: Beat) -> Option<Result<Answer, ErrorCode>> {
        if let Some(name) = &client.name {
            beat = beat.named(name);
        }
        let context = RequestContext::default();
        let request = GroupRequest::ConsumerHeartbeat(context, Box::new(beat.request));
        let answer = match self.bench.ask(request) {
            Ok(GroupResponse::ConsumerHeartbeat(answer)) => answer,
            // The write failed: the client tries again.
            Err(_) => return None,
            other => panic!("{other:?}"),
        };
        if self.below(10) == 0 {
            return None;
        }
        if answer.error_code != 0 {
            return Some(Err(code(answer.error_code)));
        }
        Some(Ok((answer.member_epoch, given(&answer, &TOPICS))))
    }

    fn beat(&mut self, who: usize) {
        let mut client = self.clients[who].clone();
        if let Some(told) = &client.told {
            // First what is to go goes; what is new comes after that.
            for (topic, partitions) in &mut client.owned {
                let keep = told.get(topic).cloned().unwrap_or_default();
                partitions.retain(|partition| keep.contains(partition));
            }
            client.owned.retain(|_, partitions| !partitions.is_empty());
            if self.below(2) == 0 {
                client.owned = told.clone();
            }
        }
        let mut beat = Beat::stay(&client.id, client.epoch).subscribed(&client.topics);
        beat.request.rebalance_timeout_ms = 10_000;
        if client.epoch == 0 || client.regex {
            beat = beat.matching(if client.regex { "t.*" } else { "" });
        }
        // It says what it has only if it has all it was told of: KIP-848's acknowledgement.
        beat = beat.owning(&client.owned);
        match self.send(&client, beat) {
            None => {}
            Some(Ok((epoch, told))) => {
                client.epoch = epoch;
                client.told = told.or(client.told);
            }
            Some(Err(ErrorCode::UnreleasedInstanceId)) => {}
            Some(Err(ErrorCode::FencedInstanceId)) => {
                self.clients.remove(who);
                return;
            }
            Some(Err(_)) => {
                client.epoch = 0;
                client.owned.clear();
                client.told = None;
            }
        }
        self.clients[who] = client;
    }

    fn leave(&mut self, who: usize) {
        let client = self.clients.remove(who);
        if client.epoch == 0 {
            return;
        }
        let epoch = match &client.name {
            Some(_) if self.below(2) == 0 => -2,
            _ => -1,
        };
        self.send(&client, Beat::stay(&client.id, epoch));
    }

    fn check(&self) {
        let Some(group) = self.bench.shard.consumer_group(GROUP) else {
            return;
        };
        let mut all = BTreeSet::new();
        for member in group.members() {
            for partition in member.held() {
                assert!(
                    all.insert(partition),
                    "{partition:?} has two owners: {group:?}"
                );
            }
        }
        for client in &self.clients {
            let Some(member) = group.member(&client.id) else {
                continue;
            };
            // One that was fenced and came back under its id has nothing until it is told.
            if client.epoch <= 0 || member.epoch < client.epoch || member.epoch <= 0 {
                continue;
            }
            let held: BTreeSet<_> = member.held().collect();
            for (topic, partitions) in &client.owned {
                for partition in partitions {
                    let place = (topic_id(topic), *partition);
                    assert!(
                        held.contains(&place),
                        "{place:?} of {client:?} in {group:?}"
                    );
                }
            }
        }
    }

    fn heal(&mut self) {
        self.bench.writes = Writes::Commit;
        for _ in 0..80 {
            self.bench.advance_ms(2_000);
            for who in (0..self.clients.len()).rev() {
                self.beat(who);
                self.check();
            }
        }
        let wanted: BTreeSet<(&str, i32)> = self
            .clients
            .iter()
            .flat_map(|client| {
                let by_regex = client.regex.then_some(["ta", "tb"]);
                client
                    .topics
                    .iter()
                    .copied()
                    .chain(by_regex.into_iter().flatten())
            })
            .flat_map(|topic| {
                let at = TOPICS.iter().position(|name| *name == topic).unwrap();
                (0..self.partitions[at]).map(move |p| (topic, i32::try_from(p).unwrap()))
            })
            .collect();
        let Some(group) = self.bench.shard.consumer_group(GROUP) else {
            assert!(self.clients.is_empty());
            return;
        };
        let state = group.state();
        if self.clients.is_empty() {
            assert_eq!(state, ConsumerGroupState::Empty);
            return;
        }
        assert_eq!(state, ConsumerGroupState::Stable, "{group:?}");
        let mut owned = BTreeSet::new();
        for client in &self.clients {
            let told = client.told.iter().flatten();
            for (topic, partitions) in told {
                let topic = TOPICS.iter().find(|name| *name == topic).unwrap();
                for partition in partitions {
                    assert!(owned.insert((*topic, *partition)), "{topic}-{partition}");
                }
            }
        }
        assert_eq!(owned, wanted);
    }
}

/// Epoch and assignment.
type Answer = (i32, Option<Held>);

#[test]
fn no_partition_ever_has_two_owners() {
    let seeds = match std::env::var("KLAMM_SEED") {
        Ok(seed) => vec![seed.parse().expect("a number")],
        Err(_) => (0..SEEDS).collect(),
    };
    for seed in seeds {
        println!("KLAMM_SEED={seed}");
        let mut history = History::new(seed);
        for _ in 0..STEPS {
            history.step();
            history.check();
        }
        history.heal();
    }
}
