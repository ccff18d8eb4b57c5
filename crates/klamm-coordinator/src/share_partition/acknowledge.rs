//! Taking records back: acknowledged by their member, given up with its session, or overdue.

use klamm_protocol::{ByteStr, ErrorCode};

use super::partition::{ShareLimits, SharePartition, StateWrite};
use super::window::{Delivery, RecordState, Run};

/// What a member says of a record. The numbers are those of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcknowledgeType {
    /// There is no such record.
    Gap,
    /// Done.
    Accept,
    /// Not done; somebody else may try.
    Release,
    /// Cannot be done.
    Reject,
    /// Not done yet; more time is needed (KIP-1222).
    Renew,
}

impl AcknowledgeType {
    /// The type of a number.
    pub fn from_id(id: i8) -> Option<Self> {
        Some(match id {
            0 => AcknowledgeType::Gap,
            1 => AcknowledgeType::Accept,
            2 => AcknowledgeType::Release,
            3 => AcknowledgeType::Reject,
            4 => AcknowledgeType::Renew,
            _ => return None,
        })
    }
}

/// What a member says of some records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledgement {
    /// The first record.
    pub first_offset: i64,
    /// The last.
    pub last_offset: i64,
    /// One type for all, or one for each.
    pub types: Vec<AcknowledgeType>,
}

impl Acknowledgement {
    fn type_of(&self, offset: i64) -> Option<AcknowledgeType> {
        if let [only] = self.types[..] {
            return Some(only);
        }
        let at = usize::try_from(offset - self.first_offset).ok()?;
        self.types.get(at).copied()
    }

    /// Parts of a range that have one type each.
    fn parts(&self, first: i64, last: i64) -> Result<Vec<(i64, i64, AcknowledgeType)>, ErrorCode> {
        let kind = |offset| self.type_of(offset).ok_or(ErrorCode::InvalidRequest);
        if self.types.len() == 1 {
            return Ok(vec![(first, last, kind(first)?)]);
        }
        let mut parts: Vec<(i64, i64, AcknowledgeType)> = Vec::new();
        for offset in first..=last {
            let kind = kind(offset)?;
            match parts.last_mut() {
                Some((_, end, same)) if *same == kind => *end = offset,
                _ => parts.push((offset, offset, kind)),
            }
        }
        Ok(parts)
    }
}

impl SharePartition {
    /// Takes a member's word for records that it has. All of it counts, or nothing.
    ///
    /// Returns what is to be written; none if only locks were renewed or the records are no more.
    ///
    /// # Errors
    /// `INVALID_REQUEST` for records that were never handed out; `INVALID_RECORD_STATE` for records
    /// that the member does not have (any more), that another change is under way for, or whose
    /// locks may not be renewed.
    pub fn acknowledge(
        &mut self,
        member: &ByteStr,
        acknowledgements: &[Acknowledgement],
        limits: &ShareLimits,
        now_ms: u64,
    ) -> Result<Option<StateWrite>, ErrorCode> {
        let ticket = self.ticket();
        let mut changed = Vec::new();
        let mut renewed = Vec::new();
        for acknowledgement in acknowledgements {
            let taken = self.take_word(
                ticket,
                member,
                acknowledgement,
                limits,
                &mut changed,
                &mut renewed,
            );
            if let Err(error) = taken {
                self.written(ticket, false);
                return Err(error);
            }
        }
        let duration_ms = u64::try_from(limits.lock_duration_ms).unwrap_or(0);
        let deadline_ms = now_ms.saturating_add(duration_ms);
        for (first, last) in renewed {
            for (first, run) in self.window.within(first, last) {
                self.window.set(first, run.last, |run: &mut Run| {
                    if let Some(lock) = &mut run.now.lock {
                        lock.deadline_ms = deadline_ms;
                    }
                });
            }
        }
        Ok((!changed.is_empty()).then(|| self.write_of(ticket, &changed)))
    }

    fn take_word(
        &mut self,
        ticket: u64,
        member: &ByteStr,
        acknowledgement: &Acknowledgement,
        limits: &ShareLimits,
        changed: &mut Vec<(i64, i64)>,
        renewed: &mut Vec<(i64, i64)>,
    ) -> Result<(), ErrorCode> {
        if acknowledgement.last_offset < acknowledgement.first_offset
            || acknowledgement.last_offset > self.end_offset
        {
            return Err(ErrorCode::InvalidRequest);
        }
        // What the log lost since is nobody's business any more.
        let first = acknowledgement.first_offset.max(self.start_offset);
        if first > acknowledgement.last_offset {
            return Ok(());
        }
        for (first, last, kind) in acknowledgement.parts(first, acknowledgement.last_offset)? {
            for (first, run) in self.window.within(first, last) {
                if run.transition.is_some() || !run.now.is_held_by(member) {
                    return Err(ErrorCode::InvalidRecordState);
                }
                let state = match kind {
                    AcknowledgeType::Accept => RecordState::Acknowledged,
                    AcknowledgeType::Gap | AcknowledgeType::Reject => RecordState::Archived,
                    AcknowledgeType::Release => given_back(run.now.count, limits),
                    AcknowledgeType::Renew if !limits.may_renew => {
                        return Err(ErrorCode::InvalidRecordState);
                    }
                    AcknowledgeType::Renew => {
                        renewed.push((first, run.last));
                        continue;
                    }
                };
                self.begin(ticket, first, run.last, Delivery::new(state, run.now.count));
                changed.push((first, run.last));
            }
        }
        Ok(())
    }

    /// Takes back everything that a member has, as its session ended. That it was handed out counts,
    /// as in Kafka 4.3. Returns what is to be written.
    pub fn release(&mut self, member: &str, limits: &ShareLimits) -> Option<StateWrite> {
        let held: Vec<(i64, i64, i16)> = self
            .window
            .iter()
            .filter(|(_, run)| run.transition.is_none() && run.now.is_held_by(member))
            .map(|(first, run)| (first, run.last, run.now.count))
            .collect();
        if held.is_empty() {
            return None;
        }
        let ticket = self.ticket();
        let mut changed = Vec::with_capacity(held.len());
        for (first, last, count) in held {
            let state = given_back(count, limits);
            self.begin(ticket, first, last, Delivery::new(state, count));
            changed.push((first, last));
        }
        Some(self.write_of(ticket, &changed))
    }

    /// Takes back what members had for too long. What is to be written may be lost: the same
    /// happens again after a restart.
    pub fn expire(&mut self, limits: &ShareLimits, now_ms: u64) -> Option<StateWrite> {
        let overdue: Vec<(i64, i64, i16)> = self
            .window
            .iter()
            .filter(|(_, run)| run.is_overdue(now_ms))
            .map(|(first, run)| (first, run.last, run.now.count))
            .collect();
        if overdue.is_empty() {
            return None;
        }
        let ticket = self.ticket();
        let mut changed = Vec::with_capacity(overdue.len());
        for (first, last, count) in overdue {
            let state = given_back(count, limits);
            self.window.set(first, last, |run: &mut Run| {
                run.now = Delivery::new(state, count);
            });
            changed.push((first, last));
        }
        let write = self.write_of(ticket, &changed);
        self.advance();
        Some(write)
    }
}

/// What becomes of a record that comes back undone.
fn given_back(count: i16, limits: &ShareLimits) -> RecordState {
    if count >= limits.delivery_count_max {
        RecordState::Archived
    } else {
        RecordState::Available
    }
}
