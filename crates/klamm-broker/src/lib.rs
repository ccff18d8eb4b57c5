//! The Klamm broker: composition of all parts
