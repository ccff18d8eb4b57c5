//! Partitions: leader and follower state machines, high watermark, fetch sessions
