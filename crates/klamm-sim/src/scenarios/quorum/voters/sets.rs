//! **One voter at a time.** The log tells one story of who votes: whoever reads it finds the same
//! voters at the same offset; each set of voters is the one before it with one voter more or one less,
//! and the last voter stays. Controllers that are settled vote as the log says.
//!
//! Source: KIP-853; single-server changes of Raft. Known false positives: none. What nobody has read
//! (those who follow may be given a snapshot instead) is not judged.

use std::collections::BTreeMap;

use bytes::Bytes;
use klamm_protocol::control_records::VotersRecord;
use klamm_protocol::{Decoder, Message};
use klamm_records::control::ControlType;
use klamm_records::{BatchView, Scratch, Uuid, batches};

use super::super::super::Violation;

/// Voters by id, with their directories.
pub type Voters = BTreeMap<i32, Uuid>;
/// A voter.
pub type Key = (i32, Uuid);

/// From one set of voters to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// One votes from here on.
    Added(Key),
    /// One does not vote any more.
    Removed(Key),
}

/// All voters that the log ever told of.
#[derive(Debug, Default)]
pub struct Sets {
    /// By the offset of the record, or of the last one that a snapshot contains.
    sets: BTreeMap<i64, Voters>,
    /// What was read, as first offset and the one behind the last. Ranges do not touch.
    read: BTreeMap<i64, i64>,
}

impl Sets {
    /// Somebody was given these batches; the last one may be cut.
    pub fn read(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        for batch in batches(bytes).map_while(Result::ok) {
            let header = batch.header();
            if header.attributes.is_control() {
                for (offset, voters) in told_in(&batch)? {
                    self.tell(offset, voters)?;
                }
            }
            self.note_read(header.base_offset, header.next_offset());
        }
        Ok(())
    }

    /// Somebody was given a snapshot: what it says of voters is so at its end.
    pub fn read_snapshot(&mut self, end: i64, content: &[u8]) -> Result<(), Violation> {
        for batch in batches(content).map_while(Result::ok) {
            if batch.header().attributes.is_control() {
                for (_, voters) in told_in(&batch)? {
                    self.tell(end - 1, voters)?;
                }
            }
        }
        Ok(())
    }

    /// The log has these voters at this offset.
    pub fn tell(&mut self, offset: i64, voters: Voters) -> Result<(), Violation> {
        let wrong = |detail| Err(Violation::new("sets", detail));
        if voters.is_empty() {
            return wrong(format!("nobody votes from {offset} on"));
        }
        let known = self.sets.entry(offset).or_insert_with(|| voters.clone());
        if *known != voters {
            return wrong(format!("{voters:?} vote at {offset}, where {known:?} do"));
        }
        Ok(())
    }

    fn note_read(&mut self, mut from: i64, mut to: i64) {
        while let Some((start, end)) = self.read.range(..=to).next_back() {
            let (start, end) = (*start, *end);
            if end < from {
                break;
            }
            self.read.remove(&start);
            from = from.min(start);
            to = to.max(end);
        }
        self.read.insert(from, to);
    }

    /// Whether all steps behind one offset and up to another are known.
    pub fn knows(&self, from: i64, to: i64) -> bool {
        let before = self.sets.range(..=from).next_back();
        before.is_some_and(|(told, _)| self.is_read(*told, to + 1))
    }

    /// Whether all from one offset up to before another was read.
    fn is_read(&self, from: i64, to: i64) -> bool {
        let range = self.read.range(..=from).next_back();
        range.is_some_and(|(_, end)| *end >= to)
    }

    /// The voters as the newest record that was read has them.
    pub fn last(&self) -> Option<&Voters> {
        self.sets.last_key_value().map(|(_, voters)| voters)
    }

    /// The offset at which the log told of voters last; -1 if it never did.
    pub fn end(&self) -> i64 {
        let last = self.sets.last_key_value();
        last.map_or(-1, |(offset, _)| *offset)
    }

    /// All steps between sets of which nobody missed what is between, with their offsets.
    pub fn steps(&self) -> Result<Vec<(i64, Step)>, Violation> {
        let mut steps = Vec::new();
        for ((from, before), (to, after)) in self.sets.iter().zip(self.sets.iter().skip(1)) {
            if !self.is_read(*from, *to) {
                continue;
            }
            let gone = before.iter().filter(|(id, dir)| after.get(id) != Some(dir));
            let new = after.iter().filter(|(id, dir)| before.get(id) != Some(dir));
            let removed = gone.map(|(id, dir)| Step::Removed((*id, *dir)));
            let added = new.map(|(id, dir)| Step::Added((*id, *dir)));
            let found: Vec<Step> = removed.chain(added).collect();
            // Where somebody listens may change as well.
            match found[..] {
                [] => {}
                [step] => steps.push((*to, step)),
                _ => {
                    let detail = format!("{before:?} become {after:?} at once, at {to}");
                    return Err(Violation::new("sets", detail));
                }
            }
        }
        Ok(steps)
    }
}

/// The voters of whom a batch tells, with the offset at which it does.
fn told_in(batch: &BatchView<'_>) -> Result<Vec<(i64, Voters)>, Violation> {
    let unreadable = |detail: String| Violation::new("sets", detail);
    let (mut scratch, mut found) = (Scratch::new(), Vec::new());
    let records = batch.records(&mut scratch);
    for record in records.map_err(|error| unreadable(error.to_string()))? {
        let record = record.map_err(|error| unreadable(error.to_string()))?;
        let kind = ControlType::from_key(record.key.unwrap_or_default());
        if !matches!(kind, Ok(ControlType::KraftVoters)) {
            continue;
        }
        let value = Bytes::copy_from_slice(record.value.unwrap_or_default());
        let told = VotersRecord::decode(&mut Decoder::new(value), 0)
            .map_err(|error| unreadable(error.to_string()))?;
        let voters = told.voters.iter();
        let voters = voters.map(|it| (it.voter_id, it.voter_directory_id));
        found.push((record.offset, voters.collect()));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voters(ids: &[i32]) -> Voters {
        ids.iter()
            .map(|id| (*id, Uuid::from_bytes([*id as u8; 16])))
            .collect()
    }

    fn told(sets: &[(i64, &[i32])]) -> Sets {
        let mut told = Sets::default();
        for (offset, ids) in sets {
            told.tell(*offset, voters(ids)).unwrap();
        }
        told
    }

    #[test]
    fn voters_come_and_go_one_at_a_time() {
        let mut sets = told(&[(1, &[1]), (5, &[1, 2]), (9, &[2])]);
        sets.note_read(0, 20);
        let key = |id| *voters(&[id]).first_key_value().unwrap().1;
        let steps = [
            (5, Step::Added((2, key(2)))),
            (9, Step::Removed((1, key(1)))),
        ];
        assert_eq!(sets.steps().unwrap(), steps);
    }

    #[test]
    fn two_steps_in_one_are_found() {
        let mut sets = told(&[(1, &[1]), (5, &[1, 2, 3])]);
        assert_eq!(sets.steps().unwrap(), [], "what is between was not read");
        sets.note_read(0, 6);
        sets.steps().unwrap_err();
        // One takes the place of another.
        let mut sets = told(&[(1, &[1]), (5, &[2])]);
        sets.note_read(0, 6);
        sets.steps().unwrap_err();
    }

    #[test]
    fn nobody_and_others_at_the_same_offset_are_found() {
        let mut sets = told(&[(1, &[1])]);
        sets.tell(1, voters(&[1])).unwrap();
        sets.tell(1, voters(&[2])).unwrap_err();
        sets.tell(2, voters(&[])).unwrap_err();
    }

    #[test]
    fn what_was_read_is_put_together() {
        let mut sets = Sets::default();
        for (from, to) in [(0, 3), (8, 9), (3, 5), (6, 8)] {
            sets.note_read(from, to);
        }
        assert_eq!(sets.read, BTreeMap::from([(0, 5), (6, 9)]));
        assert!(sets.is_read(1, 5) && !sets.is_read(1, 6) && !sets.is_read(5, 6));
        sets.note_read(5, 6);
        assert_eq!(sets.read, BTreeMap::from([(0, 9)]));
    }
}
