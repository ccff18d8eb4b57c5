//! Pairs of group configurations of which one bounds the other.

use crate::broker::BrokerConfig;
use crate::rules::BrokenRule;

#[derive(Clone, Copy)]
enum Bound {
    AtLeast,
    AtMost,
    Below,
    Above,
}
use Bound::{Above, AtLeast, AtMost, Below};

impl Bound {
    fn check(
        self,
        (a_name, a): (&'static str, i32),
        (b_name, b): (&'static str, i32),
    ) -> Result<(), BrokenRule> {
        match self {
            AtLeast if a < b => Err(BrokenRule::AtLeast(a_name, b_name)),
            AtMost if a > b => Err(BrokenRule::AtMost(a_name, b_name)),
            Below if a >= b => Err(BrokenRule::Below(a_name, b_name)),
            Above if a <= b => Err(BrokenRule::Above(a_name, b_name)),
            _ => Ok(()),
        }
    }
}

/// The bounds among broker configurations, in Kafka's order.
#[rustfmt::skip]
const BROKER: &[(&str, Bound, &str)] = &[
    ("group.consumer.max.heartbeat.interval.ms", AtLeast, "group.consumer.min.heartbeat.interval.ms"),
    ("group.consumer.heartbeat.interval.ms", AtLeast, "group.consumer.min.heartbeat.interval.ms"),
    ("group.consumer.heartbeat.interval.ms", AtMost, "group.consumer.max.heartbeat.interval.ms"),
    ("group.consumer.max.session.timeout.ms", AtLeast, "group.consumer.min.session.timeout.ms"),
    ("group.consumer.session.timeout.ms", AtLeast, "group.consumer.min.session.timeout.ms"),
    ("group.consumer.session.timeout.ms", AtMost, "group.consumer.max.session.timeout.ms"),
    ("group.consumer.heartbeat.interval.ms", Below, "group.consumer.session.timeout.ms"),
    ("group.consumer.max.assignment.interval.ms", AtLeast, "group.consumer.min.assignment.interval.ms"),
    ("group.consumer.assignment.interval.ms", AtLeast, "group.consumer.min.assignment.interval.ms"),
    ("group.consumer.assignment.interval.ms", AtMost, "group.consumer.max.assignment.interval.ms"),
    ("group.share.max.heartbeat.interval.ms", AtLeast, "group.share.min.heartbeat.interval.ms"),
    ("group.share.heartbeat.interval.ms", AtLeast, "group.share.min.heartbeat.interval.ms"),
    ("group.share.heartbeat.interval.ms", AtMost, "group.share.max.heartbeat.interval.ms"),
    ("group.share.max.session.timeout.ms", AtLeast, "group.share.min.session.timeout.ms"),
    ("group.share.session.timeout.ms", AtLeast, "group.share.min.session.timeout.ms"),
    ("group.share.session.timeout.ms", AtMost, "group.share.max.session.timeout.ms"),
    ("group.share.heartbeat.interval.ms", Below, "group.share.session.timeout.ms"),
    ("group.share.max.assignment.interval.ms", AtLeast, "group.share.min.assignment.interval.ms"),
    ("group.share.assignment.interval.ms", AtLeast, "group.share.min.assignment.interval.ms"),
    ("group.share.assignment.interval.ms", AtMost, "group.share.max.assignment.interval.ms"),
    ("group.streams.max.heartbeat.interval.ms", AtLeast, "group.streams.min.heartbeat.interval.ms"),
    ("group.streams.heartbeat.interval.ms", AtLeast, "group.streams.min.heartbeat.interval.ms"),
    ("group.streams.heartbeat.interval.ms", AtMost, "group.streams.max.heartbeat.interval.ms"),
    ("group.streams.max.session.timeout.ms", AtLeast, "group.streams.min.session.timeout.ms"),
    ("group.streams.session.timeout.ms", AtLeast, "group.streams.min.session.timeout.ms"),
    ("group.streams.session.timeout.ms", AtMost, "group.streams.max.session.timeout.ms"),
    ("group.streams.heartbeat.interval.ms", Below, "group.streams.session.timeout.ms"),
    ("group.streams.max.assignment.interval.ms", AtLeast, "group.streams.min.assignment.interval.ms"),
    ("group.streams.assignment.interval.ms", AtLeast, "group.streams.min.assignment.interval.ms"),
    ("group.streams.assignment.interval.ms", AtMost, "group.streams.max.assignment.interval.ms"),
    ("group.streams.num.standby.replicas", AtMost, "group.streams.max.standby.replicas"),
    ("group.share.max.delivery.count.limit", AtLeast, "group.share.delivery.count.limit"),
    ("group.share.delivery.count.limit", AtLeast, "group.share.min.delivery.count.limit"),
    ("group.share.max.partition.max.record.locks", AtLeast, "group.share.partition.max.record.locks"),
    ("group.share.partition.max.record.locks", AtLeast, "group.share.min.partition.max.record.locks"),
    ("group.share.record.lock.duration.ms", AtLeast, "group.share.min.record.lock.duration.ms"),
    ("group.share.max.record.lock.duration.ms", AtLeast, "group.share.record.lock.duration.ms"),
    ("group.share.max.share.sessions", AtLeast, "group.share.max.size"),
];

/// The bounds that a broker sets for a group's own configurations.
#[rustfmt::skip]
const GROUP: &[(&str, Bound, &str)] = &[
    ("consumer.heartbeat.interval.ms", AtLeast, "group.consumer.min.heartbeat.interval.ms"),
    ("consumer.heartbeat.interval.ms", AtMost, "group.consumer.max.heartbeat.interval.ms"),
    ("consumer.session.timeout.ms", AtLeast, "group.consumer.min.session.timeout.ms"),
    ("consumer.session.timeout.ms", AtMost, "group.consumer.max.session.timeout.ms"),
    ("consumer.assignment.interval.ms", AtLeast, "group.consumer.min.assignment.interval.ms"),
    ("consumer.assignment.interval.ms", AtMost, "group.consumer.max.assignment.interval.ms"),
    ("share.heartbeat.interval.ms", AtLeast, "group.share.min.heartbeat.interval.ms"),
    ("share.heartbeat.interval.ms", AtMost, "group.share.max.heartbeat.interval.ms"),
    ("share.session.timeout.ms", AtLeast, "group.share.min.session.timeout.ms"),
    ("share.session.timeout.ms", AtMost, "group.share.max.session.timeout.ms"),
    ("share.record.lock.duration.ms", AtLeast, "group.share.min.record.lock.duration.ms"),
    ("share.record.lock.duration.ms", AtMost, "group.share.max.record.lock.duration.ms"),
    ("share.delivery.count.limit", AtLeast, "group.share.min.delivery.count.limit"),
    ("share.delivery.count.limit", AtMost, "group.share.max.delivery.count.limit"),
    ("share.partition.max.record.locks", AtLeast, "group.share.min.partition.max.record.locks"),
    ("share.partition.max.record.locks", AtMost, "group.share.max.partition.max.record.locks"),
    ("share.assignment.interval.ms", AtLeast, "group.share.min.assignment.interval.ms"),
    ("share.assignment.interval.ms", AtMost, "group.share.max.assignment.interval.ms"),
    ("streams.heartbeat.interval.ms", AtLeast, "group.streams.min.heartbeat.interval.ms"),
    ("streams.heartbeat.interval.ms", AtMost, "group.streams.max.heartbeat.interval.ms"),
    ("streams.session.timeout.ms", AtLeast, "group.streams.min.session.timeout.ms"),
    ("streams.session.timeout.ms", AtMost, "group.streams.max.session.timeout.ms"),
    ("streams.num.standby.replicas", AtMost, "group.streams.max.standby.replicas"),
    ("streams.assignment.interval.ms", AtLeast, "group.streams.min.assignment.interval.ms"),
    ("streams.assignment.interval.ms", AtMost, "group.streams.max.assignment.interval.ms"),
];

/// The bounds among a group's own configurations.
const GROUP_INNER: &[(&str, Bound, &str)] = &[
    (
        "consumer.session.timeout.ms",
        Above,
        "consumer.heartbeat.interval.ms",
    ),
    (
        "share.session.timeout.ms",
        Above,
        "share.heartbeat.interval.ms",
    ),
    (
        "streams.session.timeout.ms",
        Above,
        "streams.heartbeat.interval.ms",
    ),
];

pub(crate) fn check_broker(config: &BrokerConfig) -> Result<(), BrokenRule> {
    let assignors = config.list("group.share.assignors").len();
    if assignors != 1 {
        return Err(BrokenRule::OneShareAssignor(assignors));
    }
    BROKER
        .iter()
        .try_for_each(|&(a, bound, b)| bound.check((a, config.int(a)), (b, config.int(b))))
}

/// Checks a group's values; `group` gives a group configuration's value.
pub(crate) fn check_group(
    group: impl Fn(&str) -> i32,
    broker: &BrokerConfig,
) -> Result<(), BrokenRule> {
    GROUP
        .iter()
        .try_for_each(|&(a, bound, b)| bound.check((a, group(a)), (b, broker.int(b))))?;
    GROUP_INNER
        .iter()
        .try_for_each(|&(a, bound, b)| bound.check((a, group(a)), (b, group(b))))
}
