//! Transaction coordination (KIP-98, 360, 447, 664, 890): who may write in the name of a
//! transactional id, what its open transaction covers, and how the transaction ends.
//!
//! ```text
//!  broker --request--> TransactionCoordinator --> runtime --> TransactionShard
//!         <-response--       (facade)                 |           state per transactional id
//!                               ^                     v actions
//!                               '--- results --- MarkerWriter: markers into the partitions
//! ```
//!
//! - [`TransactionCoordinator`] finds the partition, fetches producer ids where they are needed,
//!   has markers written, and gives every version of a request its form.
//! - [`TransactionShard`] is the state over one partition of `__transaction_state`: pure. A
//!   transition is written first and counts once it is committed; until then the id is busy.
//! - [`Transaction`] is one id's state with its transitions, [`TransactionRecord`] its bytes.
//!
//! A transaction ends in three steps, each of which survives a crash: the record `Prepare*`
//! decides, markers carry the decision into every partition, the record `Complete*` closes. Who
//! loads a shard and finds `Prepare*` writes the markers again; they may be there twice.

mod config;
mod coordinator;
mod markers;
mod record;
mod shard;
mod state;

#[cfg(test)]
mod tests;

pub use config::TransactionCoordinatorConfig;
pub use coordinator::{ProducerIdSource, TransactionCoordinator};
pub use markers::{MarkerWriter, TransactionMarkers};
pub use record::TransactionRecord;
pub use shard::{
    InitProducerId, ListFilter, TransactionAction, TransactionCompletion, TransactionEffects,
    TransactionRequest, TransactionResponse, TransactionShard, TransactionTimer, TransactionUndo,
};
pub use state::{EndRequest, Transaction, TransactionState};

use klamm_protocol::ByteStr;

/// A partition that takes part in a transaction: topic and number.
pub type TransactionPartition = (ByteStr, i32);

/// No producer id.
pub const NO_PRODUCER_ID: i64 = -1;
/// No producer epoch.
pub const NO_PRODUCER_EPOCH: i16 = -1;
/// From this `transaction.version` on, each transaction ends with an epoch of its own (KIP-890).
pub const EPOCH_BUMP_VERSION: i16 = 2;
