//! Records, groups of other protocols, the facade, and random histories.

mod counts;
mod foreign;
mod histories;
mod records;
mod requests;
