use std::collections::BTreeMap;

use klamm_coordinator::group::{GroupRequest, GroupResponse};
use klamm_coordinator::runtime::ReplyToken;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::OffsetCommitRequest;
use klamm_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use klamm_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};

use super::super::{Run, Violation};
use super::agreement::Assignments;
use super::host::{Fate, Host};
use super::member::{GROUP, Member, PARTITIONS, Phase};
use super::offsets::Commits;
use super::{Flaw, answers, fencing, healing};
use crate::SimRng;

const STEPS: usize = 700;

struct Commit {
    partition: u8,
    offset: i64,
    generation: i32,
    /// The newest generation told when it was sent.
    newest: i32,
}

struct Driver {
    rng: SimRng,
    host: Host,
    members: Vec<Member>,
    assignments: Assignments,
    commits: Commits,
    committing: BTreeMap<ReplyToken, Commit>,
    fetching: BTreeMap<ReplyToken, u8>,
    next_offset: i64,
    flaw: Flaw,
}

/// Lets a seed decide what happens, then lets it heal.
pub(super) fn drive(run: &Run, flaw: Flaw) -> Result<(), Violation> {
    let rng = run.rng.fork("group");
    let count = 1 + rng.index(4);
    let mut driver = Driver {
        host: Host::new(run.rng.fork("host"), run.trace.clone()),
        members: (0..count)
            .map(|index| Member::new(index, rng.one_in(3)))
            .collect(),
        rng,
        assignments: Assignments::default(),
        commits: Commits::default(),
        committing: BTreeMap::new(),
        fetching: BTreeMap::new(),
        next_offset: 0,
        flaw,
    };
    for _ in 0..STEPS {
        driver.step()?;
    }
    driver.heal()
}

impl Driver {
    fn step(&mut self) -> Result<(), Violation> {
        let index = self.rng.index(self.members.len());
        match self.rng.index(1000) {
            0..700 => self.member_step(index)?,
            700..760 => {
                let ms = self.rng.index(if self.rng.one_in(6) { 9_000 } else { 900 });
                self.host.note(format_args!("{ms} ms pass"));
                self.host.advance_ms(ms as u64);
            }
            760..860 => self.commit(index),
            860..900 => self.fetch(),
            900..930 => self.members[index].asleep ^= true,
            930..940 => self.members[index].start_over(),
            940..950 => {
                let Driver { members, host, .. } = self;
                members[index].leave(host);
            }
            950..965 => {
                self.host.fate = if self.rng.one_in(2) {
                    Fate::Hold
                } else {
                    Fate::Fail
                }
            }
            965..995 => {
                self.host.fate = Fate::Commit;
                self.host.commit_held();
            }
            _ => {
                let forget = if self.flaw == Flaw::LogForgets { 3 } else { 0 };
                self.host.fail_over(forget);
            }
        }
        if self.flaw == Flaw::AnswersLost && self.rng.one_in(20) {
            // Somebody else takes the answer.
            self.host
                .open
                .insert(ReplyToken(u64::MAX), "a parked request".to_owned());
        }
        self.collect()?;
        self.host.broken.clone().map_or(Ok(()), Err)
    }

    fn member_step(&mut self, index: usize) -> Result<(), Violation> {
        let Driver { members, host, .. } = self;
        match members[index].step(host, self.flaw) {
            Some(told) => {
                self.host.note(format_args!("{told:?}"));
                self.assignments.check(&told)
            }
            None => Ok(()),
        }
    }

    fn commit(&mut self, index: usize) {
        let member = &self.members[index];
        // Also while asleep: that is a zombie whose last commit was under way for long.
        let Some(&partition) = self.rng.pick(&member.partitions) else {
            return;
        };
        if !matches!(member.phase, Phase::Stable | Phase::Beating(_)) {
            return;
        }
        self.next_offset += 1;
        let newest = self.assignments.newest();
        let (mut generation, mut member_id) = (member.generation, member.member_id.clone());
        if self.flaw == Flaw::ZombiesPass && generation < newest {
            // As if the coordinator did not look.
            generation = newest;
            let current = self
                .members
                .iter()
                .find(|member| member.generation == newest);
            member_id = current.map_or(member_id, |member| member.member_id.clone());
        }
        let request = OffsetCommitRequest {
            group_id: GROUP.into(),
            generation_id_or_member_epoch: generation,
            member_id: member_id.as_str().into(),
            topics: vec![OffsetCommitRequestTopic {
                name: "t".into(),
                partitions: vec![OffsetCommitRequestPartition {
                    partition_index: i32::from(partition),
                    committed_offset: self.next_offset,
                    ..OffsetCommitRequestPartition::default()
                }],
                ..OffsetCommitRequestTopic::default()
            }],
            ..OffsetCommitRequest::default()
        };
        let what = format!(
            "{index} commits {} in {}",
            self.next_offset, member.generation
        );
        let commit = Commit {
            partition,
            offset: self.next_offset,
            generation: member.generation,
            newest,
        };
        self.commits.sent(partition, self.next_offset);
        let request = GroupRequest::OffsetCommit(member.context(), Box::new(request));
        let token = self.host.send(what, request);
        self.committing.insert(token, commit);
    }

    fn fetch(&mut self) {
        let partition = self.rng.index(PARTITIONS) as u8;
        let request = OffsetFetchRequestGroup {
            group_id: GROUP.into(),
            topics: Some(vec![OffsetFetchRequestTopics {
                name: "t".into(),
                partition_indexes: vec![i32::from(partition)],
                ..OffsetFetchRequestTopics::default()
            }]),
            ..OffsetFetchRequestGroup::default()
        };
        let what = format!("fetch of {partition}");
        let token = self
            .host
            .send(what, GroupRequest::OffsetFetch(Box::new(request), false));
        self.fetching.insert(token, partition);
    }

    /// Looks at the answers to commits and fetches.
    fn collect(&mut self) -> Result<(), Violation> {
        let ready: Vec<ReplyToken> = self.host.answers.keys().copied().collect();
        for token in ready {
            if let Some(commit) = self.committing.remove(&token) {
                if let Some(Ok(GroupResponse::OffsetCommit(response))) =
                    self.host.answers.remove(&token)
                    && response
                        .topics
                        .iter()
                        .flat_map(|topic| &topic.partitions)
                        .all(|partition| partition.error_code == i16::from(ErrorCode::None))
                {
                    fencing::check(commit.generation, commit.newest)?;
                    self.commits.acknowledged(commit.partition, commit.offset);
                }
            } else if let Some(partition) = self.fetching.remove(&token)
                && let Some(Ok(GroupResponse::OffsetFetch(response))) =
                    self.host.answers.remove(&token)
            {
                for fetched in response.topics.iter().flat_map(|topic| &topic.partitions) {
                    if fetched.error_code == i16::from(ErrorCode::None) {
                        self.commits.check(partition, fetched.committed_offset)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn heal(&mut self) -> Result<(), Violation> {
        self.host.fate = Fate::Commit;
        self.host.commit_held();
        for member in &mut self.members {
            member.asleep = false;
        }
        for _ in 0..400 {
            for index in 0..self.members.len() {
                self.member_step(index)?;
            }
            self.collect()?;
            self.host.advance_ms(100);
        }
        for _ in 0..PARTITIONS * 3 {
            self.fetch();
        }
        self.collect()?;
        answers::check(&self.host.open)?;
        healing::check(self.host.shard(), &self.members)
    }
}
