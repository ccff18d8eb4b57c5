//! What the cleaner knows of transactions while it walks a log from its start: which batches were
//! aborted, and which markers still end a transaction of which something is left.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use klamm_records::BatchView;
use klamm_records::control::ControlType;

use crate::batch::BatchMeta;
use crate::error::BatchFault;
use crate::index::txn::AbortedTxn;

/// An aborted transaction that began and whose marker was not reached yet.
#[derive(Clone, Copy, Debug)]
struct Ongoing {
    txn: AbortedTxn,
    /// Whether a batch of it was seen, so that its marker has to stay.
    has_batches: bool,
}

/// The state of one walk, carried from segment to segment.
#[derive(Debug, Default)]
pub(super) struct Transactions {
    /// Aborted transactions ahead, the one that begins first on top.
    ahead: BinaryHeap<Reverse<(i64, Aborted)>>,
    /// By producer.
    aborted: BTreeMap<i64, Ongoing>,
    /// Producers with committed transactions of which a batch was seen.
    committed: BTreeSet<i64>,
    /// Aborted transactions of which something is left, for the index of the segment at hand.
    kept: Vec<AbortedTxn>,
}

/// Orders transactions that begin at the same offset, which the heap asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Aborted(AbortedTxn);

impl Ord for Aborted {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let key = |txn: &AbortedTxn| (txn.first_offset, txn.last_offset, txn.producer_id);
        key(&self.0).cmp(&key(&other.0))
    }
}

impl PartialOrd for Aborted {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Transactions {
    /// Adds aborted transactions that reach into what is walked next. One may be added again with
    /// every segment that it reaches into.
    pub(super) fn expect(&mut self, aborted: impl IntoIterator<Item = AbortedTxn>) {
        self.ahead.extend(
            aborted
                .into_iter()
                .map(|txn| Reverse((txn.first_offset, Aborted(txn)))),
        );
    }

    /// Notes a batch. Returns whether nothing keeps its content: it was aborted, or it is the
    /// marker of a transaction of which no batch is left.
    pub(super) fn may_discard(
        &mut self,
        meta: &BatchMeta,
        bytes: &[u8],
    ) -> Result<bool, BatchFault> {
        self.begin_up_to(meta.last_offset);
        if meta.is_control() {
            return self.on_control_batch(meta, bytes);
        }
        if !meta.is_transactional() {
            return Ok(false);
        }
        match self.aborted.get_mut(&meta.producer_id) {
            Some(ongoing) => {
                ongoing.has_batches = true;
                Ok(true)
            }
            None => {
                self.committed.insert(meta.producer_id);
                Ok(false)
            }
        }
    }

    /// The aborted transactions whose markers were met since the last call and still have
    /// batches, in the order of their markers.
    pub(super) fn take_kept(&mut self) -> Vec<AbortedTxn> {
        std::mem::take(&mut self.kept)
    }

    fn on_control_batch(&mut self, meta: &BatchMeta, bytes: &[u8]) -> Result<bool, BatchFault> {
        match control_type(bytes)? {
            // What an earlier clean left of a marker.
            None => Ok(true),
            Some(ControlType::Abort) => match self.aborted.remove(&meta.producer_id) {
                Some(ongoing) if ongoing.has_batches => {
                    self.kept.push(ongoing.txn);
                    Ok(false)
                }
                _ => Ok(true),
            },
            Some(ControlType::Commit) => Ok(!self.committed.remove(&meta.producer_id)),
            Some(_) => Ok(false),
        }
    }

    fn begin_up_to(&mut self, offset: i64) {
        while let Some(Reverse((first_offset, Aborted(txn)))) = self.ahead.peek().copied()
            && first_offset <= offset
        {
            self.ahead.pop();
            self.aborted.entry(txn.producer_id).or_insert(Ongoing {
                txn,
                has_batches: false,
            });
        }
    }
}

/// The kind of a control batch; none if it has no record any more.
fn control_type(bytes: &[u8]) -> Result<Option<ControlType>, BatchFault> {
    let unreadable = |_| BatchFault::ControlRecord;
    let view = BatchView::parse(bytes).map_err(unreadable)?;
    // A control batch is small and never compressed.
    let mut scratch = klamm_records::Scratch::new();
    let Some(record) = view.records(&mut scratch).map_err(unreadable)?.next() else {
        return Ok(None);
    };
    let key = record
        .map_err(unreadable)?
        .key
        .ok_or(BatchFault::ControlRecord)?;
    let parsed = ControlType::from_key(key).map_err(|_| BatchFault::ControlRecord)?;
    Ok(Some(parsed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use klamm_records::control::EndTransactionMarker;
    use klamm_records::{BatchBuilder, BatchOptions};

    fn data(producer_id: i64, base_offset: i64) -> Vec<u8> {
        let mut builder = BatchBuilder::new(BatchOptions {
            base_offset,
            producer_id,
            producer_epoch: 0,
            base_sequence: 0,
            transactional: true,
            ..BatchOptions::default()
        });
        builder.append(0, Some(b"k"), Some(b"v"), []).unwrap();
        builder.build().unwrap().to_vec()
    }

    fn marker(producer_id: i64, offset: i64, committed: bool) -> Vec<u8> {
        let marker = EndTransactionMarker {
            committed,
            coordinator_epoch: 0,
        };
        let mut bytes = marker.to_batch(producer_id, 0, 0).unwrap().to_vec();
        klamm_records::batch::set_base_offset(&mut bytes, offset);
        bytes
    }

    fn aborted(producer_id: i64, first_offset: i64, last_offset: i64) -> AbortedTxn {
        AbortedTxn {
            producer_id,
            first_offset,
            last_offset,
            last_stable_offset: last_offset + 1,
        }
    }

    fn discards(walk: &mut Transactions, bytes: &[u8]) -> bool {
        let meta = BatchMeta::parse(bytes).unwrap();
        walk.may_discard(&meta, bytes).unwrap()
    }

    #[test]
    fn aborted_batches_go_and_their_marker_stays() {
        let mut walk = Transactions::default();
        walk.expect([aborted(1, 0, 2)]);
        assert!(discards(&mut walk, &data(1, 0)));
        assert!(!discards(&mut walk, &data(2, 1)), "another producer's");
        assert!(!discards(&mut walk, &marker(1, 2, false)));
        assert_eq!(walk.take_kept(), [aborted(1, 0, 2)]);
        assert!(!discards(&mut walk, &data(1, 3)), "the next transaction");
        assert!(!discards(&mut walk, &marker(2, 4, true)));
    }

    #[test]
    fn markers_of_which_no_batch_is_left_may_go() {
        let mut walk = Transactions::default();
        walk.expect([aborted(1, 0, 2)]);
        assert!(discards(&mut walk, &marker(1, 2, false)));
        assert!(discards(&mut walk, &marker(2, 3, true)));
        assert!(walk.take_kept().is_empty());
    }

    #[test]
    fn a_transaction_that_is_told_twice_counts_once() {
        let mut walk = Transactions::default();
        walk.expect([aborted(1, 0, 5)]);
        assert!(discards(&mut walk, &data(1, 0)));
        walk.expect([aborted(1, 0, 5)]);
        assert!(discards(&mut walk, &data(1, 3)));
        assert!(!discards(&mut walk, &marker(1, 5, false)));
        assert!(!discards(&mut walk, &data(1, 6)));
    }

    #[test]
    fn other_control_records_stay_and_empty_ones_go() {
        let control = BatchOptions {
            control: true,
            ..BatchOptions::default()
        };
        let mut builder = BatchBuilder::new(control);
        builder
            .append(0, Some(&[0, 0, 0, 2]), Some(&[0; 6]), [])
            .unwrap();
        let mut walk = Transactions::default();
        assert!(!discards(&mut walk, &builder.build().unwrap()));
        assert!(discards(
            &mut walk,
            &BatchBuilder::new(control).build().unwrap()
        ));
    }

    #[test]
    fn refuses_a_control_record_that_cannot_be_read() {
        let mut builder = BatchBuilder::new(BatchOptions {
            control: true,
            ..BatchOptions::default()
        });
        builder.append(0, Some(&[0]), None, []).unwrap();
        let bytes = builder.build().unwrap();
        let meta = BatchMeta::parse(&bytes).unwrap();
        let refused = Transactions::default().may_discard(&meta, &bytes);
        assert_eq!(refused, Err(BatchFault::ControlRecord));
    }
}
