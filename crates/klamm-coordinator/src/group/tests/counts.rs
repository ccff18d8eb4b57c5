//! How many groups there are of which kind, as metrics tell it.

use klamm_protocol::messages::ShareGroupHeartbeatRequest;

use crate::group::testing::{Bench, Commit, GROUP};
use crate::group::{GroupRequest, RequestContext};
use crate::metrics::GroupProtocol::{Classic, Share};

/// How long it takes until groups are counted again.
const COUNTED_MS: u64 = 10_000;

fn share_heartbeat(member_epoch: i32) -> GroupRequest {
    let request = ShareGroupHeartbeatRequest {
        group_id: "shared".into(),
        member_id: "a".into(),
        member_epoch,
        subscribed_topic_names: Some(vec!["t".into()]),
        ..ShareGroupHeartbeatRequest::default()
    };
    GroupRequest::ShareHeartbeat(RequestContext::default(), Box::new(request))
}

#[test]
fn groups_are_counted_by_protocol_and_state() {
    let mut bench = Bench::new();
    let metrics = bench.metrics.clone();
    assert_eq!(metrics.groups().groups.len(), 0);
    let id = bench.stable();
    let token = bench.commit(Commit::by(&id, 1, 7));
    bench.take(token).unwrap().unwrap();
    bench.ask(share_heartbeat(0)).unwrap();
    assert_eq!(metrics.share_rebalances.get(), 1);
    bench.advance_ms(COUNTED_MS - 1);
    bench.heartbeat(&id, 1);
    let counts = metrics.groups();
    let count = |kind| counts.groups.get(&kind).copied();
    assert_eq!(count((Classic, "Stable")), Some(1));
    assert_eq!(count((Share, "Stable")), Some(1));
    assert_eq!((counts.groups.len(), counts.offsets), (2, 1));
    bench.leave(&[(&id, None)]);
    bench.ask(share_heartbeat(-1)).unwrap();
    bench.advance_ms(COUNTED_MS);
    let counts = metrics.groups();
    assert_eq!(counts.groups.get(&(Classic, "Empty")).copied(), Some(1));
    assert_eq!(counts.groups.get(&(Share, "Empty")).copied(), Some(1));
    bench
        .ask(GroupRequest::DeleteGroups(vec![GROUP.into()]))
        .unwrap();
    bench.advance_ms(COUNTED_MS);
    assert_eq!(
        (metrics.groups().groups.len(), metrics.groups().offsets),
        (1, 0)
    );
    // A partition that is led elsewhere counts no more.
    drop(bench);
    assert_eq!(metrics.groups().groups.len(), 0);
}
