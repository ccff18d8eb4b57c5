//! Who changes the voters. Requests are repeated when their answer is lost, and several may be under
//! way at once; some are mistakes. It also takes disks away, but never the last copy that a majority
//! needs: at most one of at least three voters has lost its disk, and while one has, no other vote
//! is taken away. To know who votes, no request may be under way then, and something must have been
//! committed since: what is not in the log of the controller that has committed that never will be.

use std::sync::{Arc, Weak};
use std::time::Duration;

use klamm_controller::{ApiError, Controller};
use klamm_env::Rng as _;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::add_raft_voter_request::Listener;
use klamm_protocol::messages::alter_client_quotas_request::{EntityData, EntryData, OpData};
use klamm_protocol::messages::{
    AddRaftVoterRequest, AlterClientQuotasRequest, RemoveRaftVoterRequest,
};
use klamm_records::Uuid;

use super::super::Flaw;
use super::super::driver::describe_voters;
use super::super::node::{directory_id, endpoint};
use super::super::promises::QUOTA;
use super::super::world::{CLUSTER_ID, World};
use super::changes::Answer;
use super::sets::{Key, Step, Voters};
use crate::{Address, SimRng};

/// Where the operator sits.
const ADDRESS: Address = 201;
/// How long all requests may take to be over.
const PATIENCE: Duration = Duration::from_secs(15);
/// Fewer voters do without none of them.
const LEAST_FOR_A_LOSS: usize = 3;

/// Requests that may still change something. Clones share them.
type UnderWay = Vec<Weak<()>>;

pub(super) struct Operator {
    world: World,
    rng: SimRng,
    /// Requests that may have an effect yet.
    under_way: UnderWay,
    /// A voter that has lost its disk, and may still be in the log as one.
    lost: Option<Key>,
    /// Up to where the log was known to reach then.
    lost_at: i64,
    /// Whether a disk was lost where controllers make themselves voters: then one never knows.
    is_done_with_losses: bool,
    /// How many voters there should be.
    wanted: usize,
    /// Whether the last request was not answered.
    unanswered: Option<Step>,
    count: u64,
}

impl Operator {
    pub(super) fn new(world: &World) -> Operator {
        Operator {
            rng: world.rng.fork("operator"),
            world: world.clone(),
            under_way: Vec::new(),
            lost: None,
            lost_at: -1,
            is_done_with_losses: false,
            wanted: 3,
            unanswered: None,
            count: 0,
        }
    }

    /// Changes voters until nothing goes wrong any more.
    pub(super) async fn run(mut self) -> Operator {
        while !self.world.is_calm() {
            let pause = 50 + self.rng.below(1_500);
            self.world.sleep_ms(pause).await;
            if self.rng.one_in(6) {
                self.wanted = 1 + self.rng.index(self.world.plan.controllers.len());
            }
            if self.rng.one_in(12) {
                self.take_a_disk().await;
                continue;
            }
            let Some(step) = self.choose() else {
                continue;
            };
            let asking = self.ask(step, 1_000 + self.rng.below(4_000));
            if self.rng.one_in(3) {
                // The next one does not wait for this one.
                self.world.executor.spawn("operator", async move {
                    asking.await;
                });
            } else {
                self.unanswered = asking.await.is_none().then_some(step);
            }
        }
        self
    }

    fn voters(&self) -> Voters {
        let known = self.world.known();
        known.sets.last().cloned().unwrap_or_default()
    }

    /// The key by which a controller could vote now.
    fn key(&self, id: i32) -> Key {
        let node = self.world.nodes.get(&id);
        (id, node.map_or(Uuid::ZERO, |node| node.directory_id()))
    }

    fn anybody(&self) -> i32 {
        let controllers = &self.world.plan.controllers;
        controllers[self.rng.index(controllers.len())]
    }

    fn choose(&mut self) -> Option<Step> {
        if let Some(step) = self.unanswered.take()
            && self.may(step)
            && self.rng.one_in(2)
        {
            return Some(step);
        }
        let voters = self.voters();
        let is_news = self.world.known().sets.end() > self.lost_at;
        let votes = |(id, dir): Key| voters.get(&id) == Some(&dir);
        if is_news && self.lost.is_some_and(|lost| !votes(lost)) {
            // Nobody adds it again: there is no such disk.
            self.lost = None;
        }
        let step = match self.rng.index(10) {
            // A mistake: a disk that is not there, one that does not vote.
            0 => Step::Added((self.anybody(), directory_id(self.anybody(), 9))),
            1 => Step::Removed((self.anybody(), directory_id(self.anybody(), 9))),
            2 => Step::Added(self.key(self.anybody())),
            3 => Step::Removed(self.key(self.anybody())),
            _ => match self.lost {
                Some(lost) if self.rng.one_in(2) => Step::Removed(lost),
                _ if voters.len() <= self.wanted => Step::Added(self.key(self.anybody())),
                _ => Step::Removed(self.some_voter(&voters)?),
            },
        };
        self.may(step).then_some(step)
    }

    /// One of the voters; rather often the one that decides.
    fn some_voter(&self, voters: &Voters) -> Option<Key> {
        let nodes = self.world.nodes.values();
        let active = nodes.filter_map(|node| node.controller());
        let active = active.filter(Controller::is_active).map(|it| it.node_id());
        let active = active.filter(|_| self.rng.one_in(3)).last();
        let ids: Vec<i32> = voters.keys().copied().collect();
        let id = active.or_else(|| self.rng.pick(&ids).copied())?;
        Some((id, *voters.get(&id)?))
    }

    /// While a disk is lost no other voter goes.
    fn may(&self, step: Step) -> bool {
        match (step, self.lost) {
            (Step::Removed(key), Some(lost)) => key == lost,
            (Step::Removed(_), None) => !self.is_done_with_losses,
            (Step::Added(_), _) => true,
        }
    }

    /// Which controller is asked first: the one that decides, or any.
    fn first(&self) -> usize {
        let controllers = &self.world.plan.controllers;
        let decides = |id: &i32| self.world.controller(*id).is_some_and(|it| it.is_active());
        let active = controllers.iter().position(decides);
        let active = active.filter(|_| !self.rng.one_in(3));
        active.unwrap_or_else(|| self.rng.index(controllers.len()))
    }

    /// Asks for a change, one controller after the other, until one of them answers that decides, or
    /// none does in time. What is asked for is counted as under way until nothing can come of it.
    fn ask(
        &mut self,
        step: Step,
        timeout_ms: u64,
    ) -> impl Future<Output = Option<Result<(), ErrorCode>>> + Send + 'static {
        let token = Arc::new(());
        self.under_way.push(Arc::downgrade(&token));
        let (world, first) = (self.world.clone(), self.first());
        let from = {
            let mut known = world.known();
            let from = known.images.last().offset();
            known.changes.asked(step, from);
            from
        };
        let limit = Duration::from_millis(timeout_ms + self.rng.below(3_000));
        async move {
            let controllers = &world.plan.controllers;
            for turn in 0..controllers.len() {
                let node = controllers[(first + turn) % controllers.len()];
                let (there, token) = (world.clone(), Arc::clone(&token));
                let serve = move || {
                    let (controller, token) = (there.controller(node), Arc::clone(&token));
                    let there = there.clone();
                    async move {
                        let _until_served = token;
                        serve(&there, controller?, step, from, timeout_ms).await
                    }
                };
                let answer = world.net.call((ADDRESS, node), "voter", limit, serve);
                let answer = answer.await;
                world.note(format_args!("{step:?}: {node} says {answer:?}"));
                match answer {
                    Ok(Some(Err(ErrorCode::NotController)) | None) => {}
                    Ok(answer) => return answer,
                    Err(crate::NoAnswer::Refused) => {}
                    // Whether that is done nobody knows.
                    Err(crate::NoAnswer::TimedOut) => return None,
                }
            }
            None
        }
    }

    /// Waits until no request can have an effect any more; whether that came about.
    async fn all_is_over(&mut self) -> bool {
        let end = self.world.now() + PATIENCE;
        loop {
            self.under_way.retain(|it| it.strong_count() > 0);
            if self.under_way.is_empty() {
                return true;
            }
            if self.world.now() > end {
                return false;
            }
            self.world.sleep_ms(100).await;
        }
    }

    /// Has something committed, and says who votes in the log in which it is.
    async fn settled(&mut self) -> Option<(Voters, i64)> {
        self.count += 1;
        let name = format!("operator-{}", self.count);
        for node in self.world.plan.controllers.clone() {
            let (there, request) = (self.world.clone(), quota(&name));
            let serve = move || {
                let (controller, request) = (there.controller(node), request.clone());
                async move {
                    let controller = controller?;
                    controller.alter_client_quotas(request).await.ok()?;
                    Some((describe_voters(&controller), controller.image().offset()))
                }
            };
            let limit = Duration::from_secs(2);
            let answer = self.world.net.call((ADDRESS, node), "settle", limit, serve);
            match answer.await {
                Ok(Some(settled)) => {
                    self.world.known().promises.quota(&name, 1.0);
                    return Some(settled);
                }
                // It may be done yet, which does no harm, but must not be done twice.
                Err(crate::NoAnswer::TimedOut) => return None,
                Ok(None) | Err(crate::NoAnswer::Refused) => {}
            }
        }
        None
    }

    /// Takes the disk of a controller, if the quorum can do without.
    async fn take_a_disk(&mut self) {
        let id = self.anybody();
        if self.lost.is_some() || self.is_done_with_losses || !self.all_is_over().await {
            return;
        }
        let Some((voters, end)) = self.settled().await else {
            return;
        };
        let key = self.key(id);
        let by_themselves = self.world.makes_voters();
        let votes = voters.get(&id) == Some(&key.1);
        if (votes || by_themselves) && voters.len() < LEAST_FOR_A_LOSS {
            return;
        }
        self.lost = (votes || by_themselves).then_some(key);
        self.lost_at = end;
        self.is_done_with_losses = by_themselves;
        let Some(node) = self.world.nodes.get(&id) else {
            return;
        };
        node.lose_disk(&self.world);
        if self.rng.one_in(2) {
            node.start(&self.world);
        }
    }

    /// Asks until there is an answer that says something, and holds it against what it must be.
    async fn must(&mut self, step: Step, allowed: &[ErrorCode]) -> Result<(), String> {
        let end = self.world.now() + self.world.plan.heal;
        loop {
            match self.ask(step, 5_000).await {
                Some(result) if result != Err(ErrorCode::RequestTimedOut) => {
                    let code = result.err().unwrap_or(ErrorCode::None);
                    if allowed.contains(&code) {
                        return Ok(());
                    }
                    return Err(format!("{step:?} is answered by {code:?} in peace"));
                }
                _ if self.world.now() > end => {
                    return Err(format!("{step:?} is not done in peace"));
                }
                _ => self.world.sleep_ms(200).await,
            }
        }
    }

    /// In peace every change is made, and every refusal is as it should be.
    pub(super) async fn settle(mut self) -> Result<(), String> {
        if !self.all_is_over().await {
            return Err("a request does not come to an end".to_owned());
        }
        let end = self.world.now() + self.world.plan.heal;
        let voters = loop {
            if let Some((voters, _)) = self.settled().await {
                break voters;
            }
            if self.world.now() > end {
                return Err("nothing is committed in peace".to_owned());
            }
            self.world.sleep_ms(200).await;
        };
        let lost = self.lost.filter(|(id, dir)| voters.get(id) == Some(dir));
        let by_themselves = self.world.makes_voters();
        if let Some(lost) = lost.filter(|_| !by_themselves) {
            self.must(
                Step::Removed(lost),
                &[ErrorCode::None, ErrorCode::VoterNotFound],
            )
            .await?;
        }
        let votes = |id: &i32| voters.contains_key(id) && lost.is_none_or(|lost| lost.0 != *id);
        let controllers = self.world.plan.controllers.clone();
        let (inside, outside): (Vec<i32>, Vec<i32>) = controllers.iter().partition(|id| votes(id));
        let nobody = (inside[0], directory_id(inside[0], 9));
        self.must(Step::Added(nobody), &[ErrorCode::DuplicateVoter])
            .await?;
        self.must(Step::Removed(nobody), &[ErrorCode::VoterNotFound])
            .await?;
        if by_themselves {
            return Ok(());
        }
        if let Some(id) = self.rng.pick(&outside).copied() {
            // What was not answered in time may be done.
            let twice = [ErrorCode::None, ErrorCode::DuplicateVoter];
            self.must(Step::Added(self.key(id)), &twice).await?;
        }
        let first = self.key(inside[0]);
        if inside.len() + outside.len().min(1) == 1 {
            let last = [ErrorCode::VoterNotFound];
            return self.must(Step::Removed(first), &last).await;
        }
        let twice = [ErrorCode::None, ErrorCode::VoterNotFound];
        self.must(Step::Removed(first), &twice).await
    }
}

/// What a controller does with a request; what it answers is held against what it knows.
async fn serve(
    world: &World,
    controller: Controller,
    step: Step,
    from: i64,
    timeout_ms: u64,
) -> Option<Result<(), ErrorCode>> {
    let result = match step {
        Step::Added(key) => {
            let request = addition(key, timeout_ms);
            controller.add_raft_voter(&request).await.map(drop)
        }
        Step::Removed(key) => {
            let request = removal(key);
            controller.remove_raft_voter(&request).await.map(drop)
        }
    };
    let id = controller.node_id();
    if let Err(error) = &result {
        world.note(format_args!("{step:?} at {id}: {error}"));
    }
    let mut result = result.map_err(|error: ApiError| error.code);
    if world.flaw == Flaw::ChangesSucceed && result != Err(ErrorCode::NotController) {
        result = Ok(());
    }
    let answer = Answer {
        result,
        voters: describe_voters(&controller),
        offset: controller.image().offset(),
    };
    world.note(format_args!("{step:?} at {id}: {answer:?}"));
    let mut known = world.known();
    let checked = known.changes.answered(step, from, &answer);
    known.check(checked);
    Some(result)
}

pub(super) fn addition((id, directory_id): Key, timeout_ms: u64) -> AddRaftVoterRequest {
    let endpoint = endpoint(id);
    AddRaftVoterRequest {
        cluster_id: Some(CLUSTER_ID.into()),
        timeout_ms: timeout_ms as i32,
        voter_id: id,
        voter_directory_id: directory_id,
        listeners: vec![Listener {
            name: endpoint.name.into(),
            host: endpoint.host.into(),
            port: endpoint.port,
            ..Listener::default()
        }],
        ..AddRaftVoterRequest::default()
    }
}

pub(super) fn removal((id, directory_id): Key) -> RemoveRaftVoterRequest {
    RemoveRaftVoterRequest {
        cluster_id: Some(CLUSTER_ID.into()),
        voter_id: id,
        voter_directory_id: directory_id,
        ..RemoveRaftVoterRequest::default()
    }
}

pub(in super::super) fn quota(user: &str) -> AlterClientQuotasRequest {
    AlterClientQuotasRequest {
        entries: vec![EntryData {
            entity: vec![EntityData {
                entity_type: "user".into(),
                entity_name: Some(user.into()),
                ..EntityData::default()
            }],
            ops: vec![OpData {
                key: QUOTA.into(),
                value: 1.0,
                ..OpData::default()
            }],
            ..EntryData::default()
        }],
        ..AlterClientQuotasRequest::default()
    }
}
