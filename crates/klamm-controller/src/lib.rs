//! The Raft metadata controller
