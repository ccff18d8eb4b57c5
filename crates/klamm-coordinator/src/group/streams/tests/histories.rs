//! Random histories of processes, members and topics: no active task ever runs twice, no process
//! has a task in two roles, what is written is what is there, and in the end everything runs.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::group::testing::Writes;
use klamm_protocol::ErrorCode;

#[derive(Clone, Copy, Debug)]
enum Step {
    Join(usize),
    Leave(usize),
    Vanish(usize),
    Beat(usize),
    /// A heartbeat whose answer is lost.
    Lost(usize),
    /// A heartbeat that is not written.
    Fail(usize),
    Standbys(i32),
    Topic(bool),
    Restart,
    Wait(u64),
}

/// A client as it sees itself.
#[derive(Clone, Default)]
struct Client {
    epoch: i32,
    active: BTreeSet<(String, i32)>,
    standby: BTreeSet<(String, i32)>,
}

struct World {
    bench: Bench,
    clients: BTreeMap<String, Client>,
}

fn member(at: usize) -> String {
    // Two members a process.
    format!("p{}.{}", at / 2, at % 2)
}

impl World {
    fn new() -> Self {
        World {
            bench: bench(),
            clients: BTreeMap::new(),
        }
    }

    fn join(&mut self, id: &str) {
        self.clients.insert(id.into(), Client::default());
        let response = beat(&mut self.bench, joining(id));
        self.take(id, &response);
    }

    fn request(&self, id: &str) -> Option<StreamsGroupHeartbeatRequest> {
        let client = self.clients.get(id)?;
        let active: Vec<_> = client.active.iter().cloned().collect();
        let standby: Vec<_> = client.standby.iter().cloned().collect();
        Some(owning(id, client.epoch, &active, &standby))
    }

    fn beat(&mut self, id: &str) {
        let Some(request) = self.request(id) else {
            return;
        };
        let response = beat(&mut self.bench, request);
        self.take(id, &response);
    }

    /// Does as the coordinator says; who is fenced or not known joins again.
    fn take(&mut self, id: &str, response: &StreamsGroupHeartbeatResponse) {
        if response.error_code != 0 {
            self.clients.remove(id);
            return;
        }
        let client = self.clients.get_mut(id).unwrap();
        client.epoch = response.member_epoch;
        if let Some(active) = active(response) {
            client.active = active.into_iter().collect();
        }
        if let Some(standby) = standby(response) {
            client.standby = standby.into_iter().collect();
        }
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Join(at) => self.join(&member(at)),
            Step::Leave(at) => {
                if self.clients.remove(&member(at)).is_some() {
                    beat(&mut self.bench, staying(&member(at), -1));
                }
            }
            // The client is gone before its session is.
            Step::Vanish(at) => {
                self.clients.remove(&member(at));
            }
            Step::Beat(at) => self.beat(&member(at)),
            Step::Lost(at) => {
                if let Some(request) = self.request(&member(at)) {
                    beat(&mut self.bench, request);
                }
            }
            Step::Fail(at) => {
                if let Some(request) = self.request(&member(at)) {
                    self.bench.writes = Writes::Fail(ErrorCode::NotEnoughReplicas);
                    let context = RequestContext::default();
                    let request = GroupRequest::StreamsHeartbeat(context, Box::new(request));
                    let _ = self.bench.ask(request);
                    self.bench.writes = Writes::Commit;
                }
            }
            Step::Standbys(count) => configure(&self.bench, |settings| {
                settings.num_standby_replicas = count;
            }),
            Step::Topic(true) => set_topic(&self.bench, "words", 2),
            Step::Topic(false) => remove_topic(&self.bench, "words"),
            Step::Restart => {
                assert_reloads(&self.bench);
                self.bench = self.bench.reload();
            }
            Step::Wait(ms) => self.bench.advance_ms(ms),
        }
        self.check();
    }

    fn check(&self) {
        let Some(group) = self.bench.shard.streams_group(GROUP) else {
            return;
        };
        let mut running = BTreeSet::new();
        let mut roles = BTreeSet::new();
        for member in group.members() {
            for owned in [&member.assigned, &member.pending_revocation] {
                for (part, tasks) in &owned.active {
                    for task in tasks.keys() {
                        assert!(running.insert((part, *task)), "{part}-{task} runs twice");
                        assert!(roles.insert((&member.process_id, part, *task)));
                    }
                }
                for (part, tasks) in &owned.standby {
                    for task in tasks {
                        assert!(
                            roles.insert((&member.process_id, part, *task)),
                            "{part}-{task} is twice in {}",
                            member.process_id
                        );
                    }
                }
            }
        }
        // Nobody runs what the coordinator does not know of, but who it took for gone.
        for (id, client) in &self.clients {
            if let Some(member) = group.member(id).filter(|m| m.epoch == client.epoch) {
                for (part, task) in &client.active {
                    let held = member.assigned.active_since(part, *task);
                    let held = held.or(member.pending_revocation.active_since(part, *task));
                    assert!(held.is_some(), "{id} runs {part}-{task} unknown");
                }
            }
        }
    }

    fn settle(&mut self) {
        set_topic(&self.bench, "words", 2);
        let ids: Vec<String> = self.clients.keys().cloned().collect();
        for _ in 0..12 {
            self.bench.advance_ms(20_000);
            for id in &ids {
                if self.clients.contains_key(id) {
                    self.beat(id);
                } else {
                    self.join(id);
                }
                self.check();
            }
        }
        assert_reloads(&self.bench);
        if ids.is_empty() {
            return;
        }
        assert_eq!(state(&self.bench), "Stable");
        let running: Vec<_> = self.clients.values().flat_map(|c| &c.active).collect();
        let distinct: BTreeSet<_> = running.iter().collect();
        assert_eq!((running.len(), distinct.len()), (4, 4));
    }
}

fn step() -> impl Strategy<Value = Step> {
    let who = 0_usize..5;
    prop_oneof![
        3 => who.clone().prop_map(Step::Join),
        1 => who.clone().prop_map(Step::Leave),
        1 => who.clone().prop_map(Step::Vanish),
        8 => who.clone().prop_map(Step::Beat),
        1 => who.clone().prop_map(Step::Lost),
        1 => who.prop_map(Step::Fail),
        1 => (0..3).prop_map(Step::Standbys),
        1 => any::<bool>().prop_map(Step::Topic),
        1 => Just(Step::Restart),
        2 => (0_u64..30_000).prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn tasks_run_once_and_all_of_them(steps in proptest::collection::vec(step(), 1..50)) {
        let mut world = World::new();
        for step in steps {
            world.run(step);
        }
        world.settle();
    }
}
