//! **What is answered of a change is so.** A controller that was added, or removed, is that in the
//! log between the request and its answer, and each answer has a change of its own; nobody votes, or
//! ceases to, whom nobody asked for. `DUPLICATE_VOTER` is told only where the id votes,
//! `VOTER_NOT_FOUND` only of who does not vote or is the last one who does; besides there is nothing
//! but `NOT_CONTROLLER` and `REQUEST_TIMED_OUT`.
//!
//! Source: KIP-853; what Kafka's handlers answer. Known false positives: none. A refusal is held
//! against what the controller that refuses knows, as it need not ask the others before it does.

use std::collections::BTreeMap;

use klamm_protocol::ErrorCode;

use super::super::super::Violation;
use super::sets::{Sets, Step, Voters};

/// What a controller said, and what it knew.
#[derive(Clone, Debug)]
pub struct Answer {
    /// What it said.
    pub result: Result<(), ErrorCode>,
    /// The voters as it has them.
    pub voters: Voters,
    /// The last offset of its image.
    pub offset: i64,
}

/// A change that is done: in the log behind one offset, up to another.
#[derive(Clone, Copy, Debug)]
struct Done {
    step: Step,
    from: i64,
    to: i64,
}

/// What operators asked for, and were told.
#[derive(Debug, Default)]
pub struct Changes {
    /// The offset that was known when it was first asked for.
    asked: BTreeMap<Step, i64>,
    done: Vec<Done>,
    /// Answers of each kind.
    pub answers: BTreeMap<i16, u64>,
}

impl Changes {
    /// A change is about to be asked for; the log is known to reach this offset.
    pub fn asked(&mut self, step: Step, offset: i64) {
        self.asked.entry(step).or_insert(offset);
    }

    /// A controller has answered; the log was known to reach `from` when it was asked.
    pub fn answered(&mut self, step: Step, from: i64, answer: &Answer) -> Result<(), Violation> {
        let voters = &answer.voters;
        let code = answer.result.map_or_else(|code| code, |()| ErrorCode::None);
        *self.answers.entry(code.code()).or_default() += 1;
        let is_due = match (code, step) {
            (ErrorCode::None, _) => {
                let to = answer.offset;
                self.done.push(Done { step, from, to });
                true
            }
            (ErrorCode::NotController | ErrorCode::RequestTimedOut, _) => true,
            (ErrorCode::DuplicateVoter, Step::Added((id, _))) => voters.contains_key(&id),
            (ErrorCode::VoterNotFound, Step::Removed((id, directory))) => {
                voters.get(&id) != Some(&directory) || voters.len() == 1
            }
            _ => false,
        };
        if is_due {
            return Ok(());
        }
        let detail = format!("{step:?} is answered by {code:?} where {voters:?} vote");
        Err(Violation::new("changes", detail))
    }

    /// Holds all answers against the log. With `by_themselves`, controllers may make themselves voters.
    pub fn check(&self, sets: &Sets, by_themselves: bool) -> Result<(), Violation> {
        let steps = sets.steps()?;
        for (offset, step) in steps.iter().filter(|_| !by_themselves) {
            if self.asked.get(step).is_none_or(|asked| asked > offset) {
                let detail = format!("{step:?} at {offset} was not asked for");
                return Err(Violation::new("changes", detail));
            }
        }
        let mut taken = vec![false; steps.len()];
        let mut done = self.done.clone();
        // Whose time is up first gets the first that is left.
        done.sort_by_key(|it| it.to);
        for it in done.iter().filter(|it| sets.knows(it.from, it.to)) {
            let fits = |&index: &usize| {
                let (offset, step) = steps[index];
                step == it.step && it.from < offset && offset <= it.to && !taken[index]
            };
            let Some(found) = (0..steps.len()).find(fits) else {
                let detail = format!("{it:?} was answered, and the log has {steps:?}");
                return Err(Violation::new("changes", detail));
            };
            taken[found] = true;
        }
        Ok(())
    }
}
