//! **Nobody is fenced for nothing.** A producer hears that it is fenced, or that nobody knows it,
//! after somebody else has asked for its transactional id, or after its transaction was open for
//! too long; never by what it did itself.
//!
//! Source: KIP-98, KIP-890, KAFKA-18464. Known and allowed: clocks that are off end transactions
//! that are young; who had an answer while another one's request for the id was still under way; a
//! coordinator that was deposed and does not know takes a newer epoch for a wrong one, as in Kafka.

use std::collections::BTreeMap;

use klamm_protocol::ErrorCode;

use super::super::super::Violation;
use super::super::world::World;
use super::requests::TIMEOUT_MS;

/// How long before its time a transaction may be ended for being old.
const EARLY_MS: i64 = 1_000;

/// The requests for an id that brokers got.
#[derive(Debug, Default)]
struct Asked {
    /// All.
    begun: u64,
    /// Those that are not answered.
    open: u64,
}

/// Who asked for which id.
#[derive(Debug, Default)]
pub(in super::super) struct Fences(BTreeMap<String, Asked>);

/// A request for an id while a broker serves it.
pub(super) struct Serving {
    world: World,
    id: String,
}

impl Serving {
    pub(super) fn new(world: &World, id: &str) -> Serving {
        let mut history = world.transactions();
        let asked = history.asked_for.0.entry(id.to_owned()).or_default();
        asked.begun += 1;
        asked.open += 1;
        drop(history);
        Serving {
            world: world.clone(),
            id: id.to_owned(),
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let mut history = self.world.transactions();
        if let Some(asked) = history.asked_for.0.get_mut(&self.id) {
            asked.open -= 1;
        }
    }
}

impl Fences {
    /// What a broker that is about to answer a request notes: whoever asks later, or is not answered
    /// either, comes after this mark.
    pub(super) fn mark(&self, id: &str) -> u64 {
        let asked = self.0.get(id);
        asked.map_or(0, |asked| asked.begun.saturating_sub(asked.open - 1))
    }

    fn is_asked_since(&self, id: &str, mark: u64) -> bool {
        self.0.get(id).is_some_and(|asked| asked.begun > mark)
    }
}

/// Whether an error says that somebody else is the producer.
fn is_fence(refused: ErrorCode) -> bool {
    matches!(
        refused,
        ErrorCode::ProducerFenced
            | ErrorCode::InvalidProducerEpoch
            | ErrorCode::InvalidProducerIdMapping
    )
}

/// A coordinator that is none any more has refused a producer.
pub(in super::super) fn deposed(world: &World, id: &str, refused: ErrorCode) {
    if is_fence(refused) {
        let mut history = world.transactions();
        let asked = history.asked_for.0.entry(id.to_owned()).or_default();
        asked.begun += 1;
    }
}

/// A producer that was taken in at `mark` was refused in a transaction that it began then.
pub(super) fn check(
    world: &World,
    id: &str,
    (mark, begun_ms): (u64, i64),
    refused: ErrorCode,
) -> Result<(), Violation> {
    let is_old = world.now_ms() >= begun_ms + i64::from(TIMEOUT_MS) - EARLY_MS;
    let may_be = is_old || world.plan.trouble.clocks > 0;
    if !is_fence(refused) || may_be || world.transactions().asked_for.is_asked_since(id, mark) {
        return Ok(());
    }
    let detail = format!("{id} is refused with {refused:?}, and nobody else wanted to be it");
    Err(Violation::new("fences", detail))
}
