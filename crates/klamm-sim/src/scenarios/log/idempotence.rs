//! **Idempotence.** A producer's state follows from the log: the newest batch of each producer in
//! the log is known as such, and a retry of it is answered with its place and not written again.
//!
//! Source: Kafka's producer state manager, which rebuilds from snapshots and the log. Known false
//! positives: none while the producer has not expired and its batch was not deleted.

use std::collections::BTreeMap;

use super::super::Violation;
use super::model::ModelBatch;

/// What a log says about its producers: last sequence number by id.
pub type Producers = BTreeMap<i64, i32>;

/// Checks the property: `batches` are what the log holds.
pub fn check(batches: &[ModelBatch], start: i64, producers: &Producers) -> Result<(), Violation> {
    let mut expected = Producers::new();
    for batch in batches {
        if let Some((producer, base_sequence)) = batch.sequence {
            expected.insert(producer, base_sequence + batch.values.len() as i32 - 1);
        }
    }
    let deleted = |producer: &i64| {
        let newest = batches
            .iter()
            .rev()
            .find(|batch| batch.sequence.is_some_and(|(id, _)| id == *producer));
        newest.is_none_or(|batch| batch.next_offset() <= start)
    };
    for (producer, sequence) in &expected {
        if !deleted(producer) && producers.get(producer) != Some(sequence) {
            return Err(Violation::new(
                "idempotence",
                format!(
                    "producer {producer} ended with sequence {sequence}, the log knows {:?}",
                    producers.get(producer)
                ),
            ));
        }
    }
    for (producer, sequence) in producers {
        if expected.get(producer) != Some(sequence) && !deleted(producer) {
            return Err(Violation::new(
                "idempotence",
                format!("the log knows producer {producer} at {sequence}, which it does not hold"),
            ));
        }
    }
    Ok(())
}
