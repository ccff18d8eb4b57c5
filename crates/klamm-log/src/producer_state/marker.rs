use klamm_records::control::EndTransactionMarker;
use klamm_records::{BatchView, Scratch};

/// The marker in a whole control batch. None if the batch has no record, which is what compaction
/// leaves of a transaction, if it is another kind of control record, or if it cannot be read.
pub(crate) fn read(batch: &[u8]) -> Option<EndTransactionMarker> {
    let view = BatchView::parse(batch).ok()?;
    let mut scratch = Scratch::new();
    let record = view.records(&mut scratch).ok()?.next()?.ok()?;
    EndTransactionMarker::from_record(&record).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use klamm_records::{BatchBuilder, BatchOptions};

    #[test]
    fn reads_a_marker() {
        for committed in [true, false] {
            let marker = EndTransactionMarker {
                committed,
                coordinator_epoch: 9,
            };
            assert_eq!(read(&marker.to_batch(1, 2, 3).unwrap()), Some(marker));
        }
    }

    #[test]
    fn other_batches_hold_no_marker() {
        let control = BatchOptions {
            control: true,
            ..BatchOptions::default()
        };
        assert_eq!(read(&BatchBuilder::new(control).build().unwrap()), None);
        let mut leader_change = BatchBuilder::new(control);
        leader_change
            .append(0, Some(&[0, 0, 0, 2]), Some(&[0; 6]), [])
            .unwrap();
        assert_eq!(read(&leader_change.build().unwrap()), None);
        assert_eq!(read(&[]), None);
    }
}
