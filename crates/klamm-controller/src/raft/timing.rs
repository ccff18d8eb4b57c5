//! How patient openraft is.

use std::time::Duration;

use openraft::{Config, SnapshotPolicy};

use super::RaftOptions;

/// How long another node may take to receive and take over a snapshot.
const SNAPSHOT_TIMEOUT_MS: u64 = 60_000;
/// Entries in one call: one holds up to 10,000 records, and the call must fit a request.
const PAYLOAD_ENTRIES_MAX: u64 = 64;

/// Less silence than this is no sign of anything.
const SILENCE_MIN_MS: u64 = 20;

pub(super) fn config(alone: bool, options: &RaftOptions) -> Config {
    let (heartbeat_interval, election_min, election_max) = if alone {
        // A quorum of one sends no heartbeats; the clock that they need ticks as seldom as can be.
        (2_000, 6_000, 9_000)
    } else {
        let silence_ms = ms(options.election_timeout).max(SILENCE_MIN_MS);
        let (min, max) = election_timeouts(silence_ms, ms(options.election_backoff_max));
        (silence_ms / 4, min, max)
    };
    Config {
        cluster_name: "klamm".to_owned(),
        heartbeat_interval,
        enable_heartbeat: !alone,
        // Until it is known that this node votes.
        enable_elect: alone,
        election_timeout_min: election_min,
        election_timeout_max: election_max,
        install_snapshot_timeout: SNAPSHOT_TIMEOUT_MS,
        max_payload_entries: PAYLOAD_ENTRIES_MAX,
        // A leader that has lost its majority falls silent for a while, so that who can still be
        // heard of by a majority is elected.
        quorum_loss_probe_interval: (!alone).then_some(election_max * 3),
        snapshot_policy: SnapshotPolicy::Never,
        // Others may still have to catch up from the log.
        max_in_snapshot_log_to_keep: if alone { 0 } else { options.entries_kept },
        enable_pre_vote: Some(true),
        // Safe where all that is durable here is committed, as the log store says it is.
        enable_leader_restore: Some(alone),
        ..Config::default()
    }
}

/// openraft's limits for a node that is to stand for election when it has not heard of a leader for
/// `silence_ms`, and for up to `backoff_ms` more by chance.
///
/// What openraft calls an election timeout is not that. A follower first keeps faith with its leader
/// for the longest such timeout, and then waits for one between the shortest and the longest. So the
/// shortest and the longest together are the silence, and twice the longest is the most of it.
fn election_timeouts(silence_ms: u64, backoff_ms: u64) -> (u64, u64) {
    // At least a few milliseconds, as who has to ask again at once asks with others at once; and so
    // much less than the silence that heartbeats come several times in the shortest timeout.
    let spread_ms = backoff_ms.clamp(silence_ms / 8, silence_ms / 4).max(2);
    let max = silence_ms.saturating_add(spread_ms) / 2;
    (silence_ms.saturating_sub(max), max)
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_is_waited_for_as_long_as_was_said_and_by_chance_a_quarter_more() {
        for silence_ms in [SILENCE_MIN_MS, 100, 300, 400, 1_000, 2_000, 60_000] {
            for backoff_ms in [0, 1, 50, 1_000, u64::MAX / 16] {
                let (min, max) = election_timeouts(silence_ms, backoff_ms);
                // What a follower waits for: the lease, which is the longest, and a timeout.
                let (least, most) = (max + min, max + max);
                assert_eq!(least, silence_ms, "backoff {backoff_ms}");
                assert!(
                    most > least && most <= silence_ms + silence_ms / 4,
                    "{silence_ms}"
                );
                assert!(
                    min > silence_ms / 4,
                    "heartbeats are too rare: {silence_ms}"
                );
            }
        }
        assert_eq!(election_timeouts(2_000, 1_000), (750, 1_250));
    }
}
