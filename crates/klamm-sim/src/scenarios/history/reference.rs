//! What a log is, without files: a list of batches and two ends. Everything that the log answers
//! follows from it, by the plainest code that can say so.

use super::batch::Batch;
use super::producers::Producers;

/// The reference model.
#[derive(Clone, Debug, Default)]
pub struct Reference {
    /// All batches that were acknowledged and not truncated, in order; also deleted ones, which a
    /// crash may bring back.
    pub batches: Vec<Batch>,
    /// First offset that may be read.
    pub start: i64,
    /// The offset that the next record gets.
    pub end: i64,
    /// Everything below is on the disk for certain: a flush said so.
    pub flushed_to: i64,
    /// An epoch whose leader has written nothing yet, and where it began.
    pub assigned: Option<(i32, i64)>,
    /// The largest offset that records were ever deleted below.
    pub deleted_to: i64,
    /// Appends that failed at this end; a crash may bring back a part of one.
    pub attempted: Vec<Vec<Batch>>,
    /// What the log knows of producers.
    pub producers: Producers,
    /// Leader epochs as they were before compaction, which may take all records of one.
    pub noted_epochs: Vec<(i32, i64)>,
    /// Everything below may have been compacted.
    pub cleaned_below: i64,
    /// Whether the log is compacted, so that it may begin and end in a gap.
    pub compacts: bool,
}

impl Reference {
    /// Batches that may be read.
    pub fn live(&self) -> impl DoubleEndedIterator<Item = &Batch> {
        self.batches
            .iter()
            .filter(|batch| batch.next() > self.start)
    }

    /// Takes over an append that was acknowledged.
    pub fn append(&mut self, batches: &[Batch]) {
        for batch in batches {
            self.producers.note(batch);
            self.end = batch.next();
            if self.assigned.is_some_and(|(epoch, _)| batch.epoch >= epoch) {
                self.assigned = None;
            }
            self.batches.push(batch.clone());
        }
        self.attempted.clear();
    }

    /// Forgets batches that reach `offset`; the log ends at the offset, or before the batch that
    /// holds it.
    pub fn truncate_to(&mut self, offset: i64) {
        let reaching = self.batches.iter().find(|batch| batch.next() > offset);
        self.end = reaching.map_or(offset, |batch| batch.base.min(offset));
        self.batches.retain(|batch| batch.next() <= offset);
        self.start = self.start.min(self.end);
        self.flushed_to = self.flushed_to.min(self.end);
        self.attempted.clear();
        if self.assigned.is_some_and(|(_, at)| at >= self.end) {
            self.assigned = None;
        }
        self.forget_compaction();
    }

    /// What was compacted ends with the log.
    fn forget_compaction(&mut self) {
        let end = self.end;
        self.noted_epochs.retain(|&(_, start)| start < end);
        self.cleaned_below = self.cleaned_below.min(end);
    }

    /// Forgets what a crash took between batches that it left: of a compacted log a recovery, as
    /// Kafka's, takes a segment that is missing for a gap. What was flushed must be there.
    pub fn lose_unflushed(&mut self, found: &[Batch]) {
        self.note_epochs();
        let last = found.last().map_or(i64::MIN, |batch| batch.base);
        let flushed_to = self.flushed_to;
        self.batches.retain(|batch| {
            let is_there = || found.iter().any(|left| left.base == batch.base);
            batch.next() <= flushed_to || batch.base > last || is_there()
        });
    }

    /// Keeps in mind where epochs began, whatever becomes of their batches.
    pub fn note_epochs(&mut self) {
        let assigned = self.assigned;
        self.noted_epochs = self.epochs();
        self.noted_epochs.retain(|&entry| Some(entry) != assigned);
    }

    /// Forgets everything.
    pub fn start_anew(&mut self, offset: i64) {
        *self = Reference {
            start: offset,
            end: offset,
            flushed_to: offset,
            deleted_to: offset,
            compacts: self.compacts,
            ..Reference::default()
        };
    }

    /// Moves the start up.
    pub fn delete_below(&mut self, offset: i64) {
        self.start = self.start.max(offset);
        self.deleted_to = self.deleted_to.max(self.start);
    }

    /// Where leader epochs begin: at their first batch.
    pub fn epochs(&self) -> Vec<(i32, i64)> {
        let mut epochs = self.noted_epochs.clone();
        for batch in &self.batches {
            if epochs
                .last()
                .is_none_or(|&(latest, _)| batch.epoch > latest)
            {
                epochs.push((batch.epoch, batch.base));
            }
        }
        epochs.extend(self.assigned);
        epochs
    }

    /// Holds what a log holds after it was opened again against the model, and takes it over.
    /// `lossy` if the machine may have forgotten what was not flushed, `loose` if an operation
    /// that removes batches failed halfway.
    ///
    /// # Errors
    /// What is wrong.
    pub fn adopt(
        &mut self,
        (start, end): (i64, i64),
        found: &[Batch],
        lossy: bool,
        loose: bool,
    ) -> Result<(), String> {
        if start > self.start && !loose {
            return Err(format!(
                "the log begins at {start}, and nothing from {} on was deleted",
                self.start
            ));
        }
        let first = self
            .batches
            .iter()
            .position(|batch| batch.next() > start)
            .unwrap_or(self.batches.len());
        let mut held: Vec<Batch> = self.batches[..first].to_vec();
        let mut wanted = self.batches[first..].iter();
        for (index, batch) in found.iter().enumerate() {
            match wanted.next() {
                Some(wanted) if wanted == batch => {}
                Some(wanted) => {
                    return Err(format!("found {batch:?} where {wanted:?} was expected"));
                }
                None => {
                    let rest = &found[index..];
                    if !self.attempted.iter().any(|tried| tried.starts_with(rest)) {
                        return Err(format!("found {batch:?}, which was never acknowledged"));
                    }
                    held.extend_from_slice(rest);
                    break;
                }
            }
            held.push(batch.clone());
        }
        let missing = wanted.next();
        if let Some(missing) = missing {
            let vouched = missing.next() <= self.flushed_to && missing.next() > self.start;
            if !loose && (!lossy || vouched) {
                return Err(format!(
                    "{}..{} is not there (flushed to {}, lossy {lossy}); the log holds {start}..{end}",
                    missing.base,
                    missing.next(),
                    self.flushed_to
                ));
            }
        }
        let last = held.last().map_or(start, Batch::next).max(start);
        let gap_at_end = missing.is_none() && end == self.end;
        // Of a compacted log a recovery cannot tell a gap from what was lost, as Kafka's cannot: it
        // goes on at a segment, or at a recovery point, behind it.
        let gap_left = self.compacts && (last..=self.end).contains(&end);
        if end != last && !gap_at_end && !gap_left {
            return Err(format!("the log says to end at {end} and ends at {last}"));
        }
        self.batches = held;
        self.start = start;
        self.end = end;
        self.flushed_to = self.flushed_to.min(end);
        self.attempted.clear();
        self.forget_compaction();
        Ok(())
    }
}
