//! Which batches belong to aborted transactions.

use std::collections::BTreeSet;

use super::acquire::BatchSpan;

/// The header of a batch, as far as transactions go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionSpan {
    /// Its offsets.
    pub base_offset: i64,
    /// Its last offset.
    pub last_offset: i64,
    /// Who wrote it, or -1.
    pub producer_id: i64,
    /// Whether it is part of a transaction.
    pub is_transactional: bool,
    /// Whether it is a marker that aborts one.
    pub aborts: bool,
    /// Whether it is a marker of any kind.
    pub is_control: bool,
}

/// Marks the batches of aborted transactions. `aborted` are producer ids and first offsets, as a
/// fetch of committed records gives them.
pub fn aborted_spans(
    batches: impl IntoIterator<Item = TransactionSpan>,
    aborted: impl IntoIterator<Item = (i64, i64)>,
) -> Vec<BatchSpan> {
    let mut to_come: Vec<(i64, i64)> = aborted
        .into_iter()
        .map(|(producer_id, first_offset)| (first_offset, producer_id))
        .collect();
    to_come.sort_unstable();
    let mut to_come = to_come.into_iter().peekable();
    let mut open = BTreeSet::new();
    let span = |batch: TransactionSpan| {
        while let Some((_, producer_id)) =
            to_come.next_if(|(first_offset, _)| *first_offset <= batch.last_offset)
        {
            open.insert(producer_id);
        }
        if batch.aborts {
            open.remove(&batch.producer_id);
        }
        BatchSpan {
            base_offset: batch.base_offset,
            last_offset: batch.last_offset,
            is_aborted: batch.is_transactional
                && !batch.is_control
                && open.contains(&batch.producer_id),
        }
    };
    batches.into_iter().map(span).collect()
}
