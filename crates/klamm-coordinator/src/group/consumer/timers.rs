use klamm_protocol::ByteStr;

/// The timers of a consumer group, beside its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConsumerTimer {
    /// The session of a member.
    Session(ByteStr),
    /// How long a member may take to give partitions up.
    Rebalance(ByteStr),
    /// How long a member of the classic protocol may take to join again once it was told to.
    Join(ByteStr),
    /// How long a member of the classic protocol may take to sync once it has joined.
    Sync(ByteStr),
    /// A look at the topics that the group's regular expressions match; due at once.
    Regexes,
}
