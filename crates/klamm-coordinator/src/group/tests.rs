//! Records, the facade's shapes of answers, and random histories.

mod histories;
mod records;
mod requests;
