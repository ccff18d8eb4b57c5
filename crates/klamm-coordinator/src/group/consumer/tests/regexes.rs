//! Subscriptions by regular expressions.

use klamm_protocol::ErrorCode;

use super::{Beat, given, held};
use crate::group::consumer::ConsumerGroupState;
use crate::group::testing::{Bench, code};

const NAMES: [&str; 3] = ["ta", "tb", "x"];

fn bench() -> Bench {
    let mut bench = Bench::new();
    bench.make_topic("ta", 2);
    bench.make_topic("x", 1);
    bench
}

/// A member that subscribes by a regular expression alone.
fn join(id: &str, regex: &str) -> Beat {
    let mut beat = Beat::join(id, &[]).matching(regex);
    beat.request.subscribed_topic_names = None;
    beat
}

#[test]
fn topics_that_match_come_with_the_next_heartbeat() {
    let mut bench = bench();
    let joined = bench.beat(&join("a", "t.*"));
    assert_eq!(joined.error_code, 0);
    assert_eq!(given(&joined, &NAMES), Some(held(&[])));
    bench.advance_ms(1_000);
    let resolved = bench.consumers().resolved_regex("t.*").unwrap();
    assert!(resolved.topics.contains("ta") && resolved.topics.len() == 1);
    assert!(bench.consumers().is_subscribed_to("ta"));
    assert_eq!(bench.consumer_state(), ConsumerGroupState::Assigning);
    let got = bench.beat(&Beat::stay("a", joined.member_epoch));
    assert_eq!(given(&got, &NAMES), Some(held(&[("ta", &[0, 1])])));
    // New topics are noticed, but not sooner than ten seconds after the last look.
    bench.make_topic("tb", 1);
    bench.beat(&Beat::stay("a", got.member_epoch));
    bench.advance_ms(0);
    assert!(!bench.consumers().is_subscribed_to("tb"));
    bench.advance_ms(10_000);
    bench.beat(&Beat::stay("a", got.member_epoch));
    bench.advance_ms(0);
    assert!(bench.consumers().is_subscribed_to("tb"));
    let more = bench.beat(&Beat::stay("a", got.member_epoch));
    let all = held(&[("ta", &[0, 1]), ("tb", &[0])]);
    assert_eq!(given(&more, &NAMES), Some(all));
    let after = bench.reload();
    assert_eq!(
        after
            .consumers()
            .resolved_regex("t.*")
            .unwrap()
            .topics
            .len(),
        2
    );
}

#[test]
fn a_coordinator_whose_clock_is_behind_looks_all_the_same() {
    let mut bench = bench();
    let joined = bench.beat(&join("a", "t.*"));
    bench.advance_ms(1_000);
    let got = bench.beat(&Beat::stay("a", joined.member_epoch));
    let mut bench = bench.reload();
    bench.turn_back_ms(60_000);
    bench.make_topic("tb", 1);
    bench.beat(&Beat::stay("a", got.member_epoch));
    bench.advance_ms(0);
    assert!(bench.consumers().is_subscribed_to("tb"));
}

#[test]
fn an_expression_that_cannot_be_read_is_refused() {
    let mut bench = bench();
    let refused = bench.beat(&join("a", "t(.*"));
    assert_eq!(
        code(refused.error_code),
        ErrorCode::InvalidRegularExpression
    );
    assert_eq!(
        refused.error_message.unwrap(),
        "SubscribedTopicRegex `t(.*` is not a valid regular expression: missing closing )."
    );
    assert!(bench.log.is_empty());
}

#[test]
fn names_and_expressions_add_up() {
    let mut bench = bench();
    let joined = bench.beat(&Beat::join("a", &["x"]).matching("t.*"));
    bench.advance_ms(1_000);
    let got = bench.beat(&Beat::stay("a", joined.member_epoch));
    let all = held(&[("ta", &[0, 1]), ("x", &[0])]);
    assert_eq!(given(&got, &NAMES), Some(all));
    // Without the expression its topics go, and so does what it matched.
    bench.advance_ms(1_000);
    let less = bench.beat(&Beat::stay("a", got.member_epoch).matching(""));
    assert_eq!(given(&less, &NAMES), Some(held(&[("x", &[0])])));
    assert!(bench.consumers().resolved_regex("t.*").is_none());
    assert!(!bench.consumers().is_subscribed_to("ta"));
}

#[test]
fn the_last_member_takes_its_expression_along() {
    let mut bench = bench();
    bench.beat(&join("a", "t.*"));
    bench.advance_ms(1_000);
    let second = bench.beat(&join("b", "t.*"));
    assert_eq!(second.error_code, 0);
    bench.beat(&Beat::leave("a"));
    assert!(bench.consumers().resolved_regex("t.*").is_some());
    bench.beat(&Beat::leave("b"));
    assert!(bench.consumers().resolved_regex("t.*").is_none());
    assert!(!bench.consumers().is_subscribed_to("ta"));
    assert_eq!(bench.consumers().metadata_hash(), 0);
}
