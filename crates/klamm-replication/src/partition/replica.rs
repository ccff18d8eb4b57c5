//! What a leader knows of one follower.

/// A broker as the metadata shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BrokerLiveness {
    /// Its epoch, if it is registered.
    pub epoch: Option<i64>,
    /// Whether it is fenced.
    pub fenced: bool,
    /// Whether it is leaving in order.
    pub shutting_down: bool,
}

impl BrokerLiveness {
    /// Whether the broker takes part in the cluster.
    pub fn is_alive(&self) -> bool {
        self.epoch.is_some() && !self.fenced
    }
}

/// How far a follower has come, told by its fetches.
///
/// A follower that fetches at the end of the leader's log is caught up. One that always arrives a
/// little late is judged by where the log ended at its fetch *before*: if it has reached that
/// point, it was caught up as of then. So a follower under steady load counts as in sync as long
/// as it is never more than the allowed lag behind, although it never stands at the very end.
#[derive(Clone, Debug)]
pub struct ReplicaProgress {
    id: i32,
    log_start_offset: i64,
    log_end_offset: i64,
    leader_end_at_last_fetch: i64,
    last_fetch_ms: i64,
    caught_up_ms: i64,
    broker_epoch: Option<i64>,
    liveness: BrokerLiveness,
}

/// A fetch came from an incarnation of the follower that has been replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StaleBrokerEpoch;

impl ReplicaProgress {
    /// A follower of which nothing has been heard yet. An in-sync one gets the benefit of the
    /// doubt for one lag time; another must not hold back the high watermark.
    pub fn new(id: i32, in_sync: bool, now_ms: i64) -> Self {
        ReplicaProgress {
            id,
            log_start_offset: -1,
            log_end_offset: -1,
            leader_end_at_last_fetch: -1,
            last_fetch_ms: 0,
            caught_up_ms: if in_sync { now_ms } else { 0 },
            broker_epoch: None,
            liveness: BrokerLiveness::default(),
        }
    }

    /// Starts a further epoch of the same leader: offsets stay true, times start anew.
    pub fn renew(&mut self, leader_end_offset: i64, in_sync: bool, now_ms: i64) {
        self.leader_end_at_last_fetch = leader_end_offset;
        self.last_fetch_ms = if in_sync { now_ms } else { 0 };
        self.caught_up_ms = if in_sync { now_ms } else { 0 };
    }

    /// Notes a fetch at `offset`, made while the leader's log ended at `leader_end_offset`.
    ///
    /// A `broker_epoch` of -1 comes from a follower that does not tell it.
    pub fn fetched(
        &mut self,
        offset: i64,
        log_start_offset: i64,
        broker_epoch: i64,
        leader_end_offset: i64,
        now_ms: i64,
    ) -> Result<(), StaleBrokerEpoch> {
        let replaced = self
            .liveness
            .epoch
            .is_some_and(|epoch| epoch > broker_epoch);
        if broker_epoch != -1 && replaced {
            return Err(StaleBrokerEpoch);
        }
        if offset >= leader_end_offset {
            self.caught_up_ms = self.caught_up_ms.max(now_ms);
        } else if offset >= self.leader_end_at_last_fetch {
            self.caught_up_ms = self.caught_up_ms.max(self.last_fetch_ms);
        }
        self.log_start_offset = log_start_offset;
        self.log_end_offset = offset;
        self.leader_end_at_last_fetch = self.leader_end_at_last_fetch.max(leader_end_offset);
        self.last_fetch_ms = now_ms;
        self.broker_epoch = Some(broker_epoch);
        Ok(())
    }

    /// Whether the follower stands at the leader's end or did so within `lag_max_ms`.
    pub fn is_caught_up(&self, leader_end_offset: i64, now_ms: i64, lag_max_ms: i64) -> bool {
        self.log_end_offset == leader_end_offset
            || now_ms.saturating_sub(self.caught_up_ms) <= lag_max_ms
    }

    /// Whether the follower may join the ISR as far as its broker goes: not fenced, not leaving,
    /// and the incarnation that fetched is the one that is registered (KIP-903).
    pub fn may_join_isr(&self) -> bool {
        let same_incarnation = match (self.broker_epoch, self.liveness.epoch) {
            (Some(fetched), Some(registered)) => fetched == -1 || fetched == registered,
            _ => false,
        };
        same_incarnation && !self.liveness.fenced && !self.liveness.shutting_down
    }

    /// The follower's broker id.
    pub fn id(&self) -> i32 {
        self.id
    }

    /// The end of the follower's log: the offset it fetched at last. -1 before its first fetch.
    pub fn log_end_offset(&self) -> i64 {
        self.log_end_offset
    }

    /// The start of the follower's log, -1 before its first fetch.
    pub fn log_start_offset(&self) -> i64 {
        self.log_start_offset
    }

    /// When it last was caught up, in milliseconds of the caller's clock; 0 if never.
    pub fn caught_up_ms(&self) -> i64 {
        self.caught_up_ms
    }

    /// When it last fetched, in milliseconds of the caller's clock; 0 if never.
    pub fn last_fetch_ms(&self) -> i64 {
        self.last_fetch_ms
    }

    /// The broker epoch its fetches carry, -1 if they don't or none has come.
    pub fn broker_epoch(&self) -> i64 {
        self.broker_epoch.unwrap_or(-1)
    }

    /// Its broker as last seen in the metadata.
    pub fn liveness(&self) -> BrokerLiveness {
        self.liveness
    }

    /// Takes over what the metadata says of its broker.
    pub fn set_liveness(&mut self, liveness: BrokerLiveness) {
        self.liveness = liveness;
    }
}
