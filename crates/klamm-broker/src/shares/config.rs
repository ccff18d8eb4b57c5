//! What share groups are set to: their own configuration over the broker's.

use std::collections::BTreeMap;

use klamm_config::{BrokerConfig, GroupConfig};
use klamm_coordinator::group::ShareGroupSettings;
use klamm_coordinator::share_partition::ShareLimits;
use tracing::warn;

/// Where a group begins in a partition that it has not read yet (`share.auto.offset.reset`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OffsetReset {
    Earliest,
    Latest,
    /// At the first record that is not older than this.
    ByDuration {
        ms: i64,
    },
}

/// The settings of one share group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ShareConfig {
    pub(crate) membership: ShareGroupSettings,
    pub(crate) limits: ShareLimits,
    pub(crate) reset: OffsetReset,
    /// `share.isolation.level` is `read_committed`.
    pub(crate) read_committed: bool,
}

impl ShareConfig {
    /// The settings of a group with these overrides. A value that this broker's bounds do not
    /// allow counts as the nearest that they do, as in Kafka.
    pub(crate) fn resolve(
        group_id: &str,
        overrides: &BTreeMap<String, String>,
        config: &BrokerConfig,
    ) -> Self {
        let of_group = match GroupConfig::resolve(overrides, config) {
            Ok(values) => Some(values),
            // The controller takes no such value, unless another version did.
            Err(refused) => {
                warn!(group = group_id, error = %refused, "a group's configuration cannot be read");
                None
            }
        };
        let value = |name: &str| {
            let own = of_group.as_ref().filter(|_| overrides.contains_key(name));
            own.map_or_else(|| config.int(&format!("group.{name}")), |of| of.int(name))
        };
        let bounded = |kind: &str| {
            let min = config.int(&format!("group.share.min.{kind}"));
            let max = config.int(&format!("group.share.max.{kind}"));
            value(&format!("share.{kind}")).max(min).min(max)
        };
        let own_text = |name: &str| of_group.as_ref().map_or("", |values| values.text(name));
        ShareConfig {
            membership: ShareGroupSettings {
                session_timeout_ms: bounded("session.timeout.ms"),
                heartbeat_interval_ms: bounded("heartbeat.interval.ms"),
                assignment_interval_ms: bounded("assignment.interval.ms"),
            },
            limits: ShareLimits {
                delivery_count_max: i16::try_from(bounded("delivery.count.limit"))
                    .unwrap_or(i16::MAX),
                in_flight_max: bounded("partition.max.record.locks"),
                lock_duration_ms: bounded("record.lock.duration.ms"),
                may_renew: of_group
                    .as_ref()
                    .is_none_or(|values| values.boolean("share.renew.acknowledge.enable")),
            },
            reset: OffsetReset::parse(own_text("share.auto.offset.reset")),
            read_committed: own_text("share.isolation.level") == "read_committed",
        }
    }
}

impl OffsetReset {
    /// Reads a value that was checked when it was set.
    fn parse(text: &str) -> Self {
        match text {
            "earliest" => OffsetReset::Earliest,
            text => match text.strip_prefix("by_duration:").and_then(duration_ms) {
                Some(ms) => OffsetReset::ByDuration { ms },
                None => OffsetReset::Latest,
            },
        }
    }
}

/// The milliseconds of an ISO 8601 duration of days and less: `P1DT2H3M4.5S`.
fn duration_ms(text: &str) -> Option<i64> {
    let rest = text.strip_prefix('P')?;
    let (days, time) = rest.split_once('T').unwrap_or((rest, ""));
    let mut ms = 0.0_f64;
    for (part, units) in [(days, &[('D', 86_400_000.0)][..]), (time, &TIME_UNITS[..])] {
        let mut number = String::new();
        for c in part.chars() {
            match units.iter().find(|(unit, _)| c.eq_ignore_ascii_case(unit)) {
                Some((_, each)) => {
                    ms += number.parse::<f64>().ok()? * each;
                    number.clear();
                }
                None => number.push(c),
            }
        }
        if !number.is_empty() {
            return None;
        }
    }
    Some(ms as i64)
}

const TIME_UNITS: [(char, f64); 3] = [('H', 3_600_000.0), ('M', 60_000.0), ('S', 1_000.0)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_durations() {
        assert_eq!(duration_ms("P1DT2H3M4.5S"), Some(93_784_500));
        assert_eq!(duration_ms("PT1H"), Some(3_600_000));
        assert_eq!(duration_ms("P7D"), Some(604_800_000));
        assert_eq!(duration_ms("1H"), None);
        assert_eq!(duration_ms("PT1"), None);
        assert_eq!(OffsetReset::parse("latest"), OffsetReset::Latest);
        assert_eq!(
            OffsetReset::parse("by_duration:PT1S"),
            OffsetReset::ByDuration { ms: 1_000 }
        );
    }

    #[test]
    fn settings_of_a_group_go_over_the_brokers_within_bounds() {
        let config = BrokerConfig::from_pairs([("node.id", "1")]).unwrap();
        let plain = ShareConfig::resolve("g", &BTreeMap::new(), &config);
        assert_eq!(plain.limits, ShareLimits::default());
        assert_eq!(plain.membership, ShareGroupSettings::default());
        assert_eq!(plain.reset, OffsetReset::Latest);
        assert!(!plain.read_committed);
        let overrides = [
            ("share.auto.offset.reset", "earliest"),
            ("share.isolation.level", "read_committed"),
            ("share.record.lock.duration.ms", "15000"),
            ("share.delivery.count.limit", "3"),
            ("share.renew.acknowledge.enable", "false"),
            ("share.session.timeout.ms", "1"),
        ];
        let overrides = overrides.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let own = ShareConfig::resolve("g", &overrides.into_iter().collect(), &config);
        assert_eq!(own.reset, OffsetReset::Earliest);
        assert!(own.read_committed);
        assert_eq!(own.limits.lock_duration_ms, 15_000);
        assert_eq!(own.limits.delivery_count_max, 3);
        assert!(!own.limits.may_renew);
        assert_eq!(own.membership.session_timeout_ms, 45_000);
    }
}
