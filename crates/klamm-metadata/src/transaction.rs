use klamm_protocol::metadata::MetadataRecord;

use crate::error::ReplayError;

/// Holds back the records of a metadata transaction (KIP-868) until it ends, and drops those of an
/// aborted one. For whoever replays a metadata log.
#[derive(Clone, Debug, Default)]
pub struct TransactionFilter {
    open: Option<Vec<MetadataRecord>>,
}

impl TransactionFilter {
    /// Takes the next record of the log and hands on those that are decided.
    pub fn push(
        &mut self,
        record: MetadataRecord,
        apply: &mut dyn FnMut(&MetadataRecord) -> Result<(), ReplayError>,
    ) -> Result<(), ReplayError> {
        let misplaced = |record| Err(ReplayError::Transaction { record });
        match (&record, &mut self.open) {
            (MetadataRecord::BeginTransaction(_), None) => self.open = Some(Vec::new()),
            (MetadataRecord::BeginTransaction(_), Some(_)) => return misplaced("BeginTransaction"),
            (MetadataRecord::AbortTransaction(_), None) => return misplaced("AbortTransaction"),
            (MetadataRecord::EndTransaction(_), None) => return misplaced("EndTransaction"),
            (MetadataRecord::AbortTransaction(_), Some(_)) => self.open = None,
            (MetadataRecord::EndTransaction(_), Some(held)) => {
                let held = std::mem::take(held);
                self.open = None;
                held.iter().try_for_each(apply)?;
            }
            (_, Some(held)) => held.push(record),
            (_, None) => apply(&record)?,
        }
        Ok(())
    }

    /// Whether a transaction is open.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }
}
