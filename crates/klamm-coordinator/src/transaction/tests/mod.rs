//! The transaction shard by itself.

mod bench;
mod histories;
mod producers;
mod records;
mod transactions;
mod upkeep;
