//! `metadata.version`: which metadata records, and which of their versions, a cluster may use.
//!
//! Levels and what they brought as in Kafka 4.3.

use std::fmt;

use klamm_protocol::metadata::MetadataRecord;

/// A level of the feature `metadata.version`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MetadataVersion(i16);

/// Names of the levels from [`MetadataVersion::MINIMUM`] on, and whether a level brought a change
/// of the metadata records (a cluster cannot go back over one).
const LEVELS: &[(&str, bool)] = &[
    ("3.3-IV3", true),
    ("3.4-IV0", true),
    ("3.5-IV0", false),
    ("3.5-IV1", false),
    ("3.5-IV2", true),
    ("3.6-IV0", false),
    ("3.6-IV1", true),
    ("3.6-IV2", true),
    ("3.7-IV0", true),
    ("3.7-IV1", false),
    ("3.7-IV2", true),
    ("3.7-IV3", false),
    ("3.7-IV4", false),
    ("3.8-IV0", false),
    ("3.9-IV0", false),
    ("4.0-IV0", false),
    ("4.0-IV1", true),
    ("4.0-IV2", false),
    ("4.0-IV3", false),
    ("4.1-IV0", false),
    ("4.1-IV1", false),
    ("4.2-IV0", false),
    ("4.2-IV1", false),
    ("4.3-IV0", true),
];

impl MetadataVersion {
    /// Name of the feature.
    pub const FEATURE_NAME: &'static str = "metadata.version";
    /// 3.3-IV3, the oldest level that Kafka 4 supports.
    pub const MINIMUM: MetadataVersion = MetadataVersion(7);
    /// 4.3-IV0, the newest level and the default of a new cluster.
    pub const LATEST: MetadataVersion = MetadataVersion(30);

    /// The version of a level, if it is supported.
    pub fn from_level(level: i16) -> Option<MetadataVersion> {
        (Self::MINIMUM.0..=Self::LATEST.0)
            .contains(&level)
            .then_some(MetadataVersion(level))
    }

    /// The version that a name stands for: `4.0-IV1`, or `4.0` for the newest of that release.
    pub fn from_name(name: &str) -> Option<MetadataVersion> {
        let release = format!("{name}-");
        let index = LEVELS
            .iter()
            .rposition(|(level, _)| *level == name || level.starts_with(&release))?;
        Self::from_level(Self::MINIMUM.0 + i16::try_from(index).ok()?)
    }

    /// The level as a number.
    pub fn level(self) -> i16 {
        self.0
    }

    /// Whether going from here down to `lower` passes a level that changed the metadata records.
    pub fn loses_metadata_on_downgrade_to(self, lower: MetadataVersion) -> bool {
        (lower.0 + 1..=self.0).any(|level| Self::entry(level).1)
    }

    /// SCRAM credentials in the metadata (KIP-900).
    pub fn supports_scram(self) -> bool {
        self.0 >= 11
    }

    /// Metadata transactions, used around the first records (KIP-868).
    pub fn supports_transactions(self) -> bool {
        self.0 >= 13
    }

    /// Delegation tokens (KIP-900).
    pub fn supports_delegation_tokens(self) -> bool {
        self.0 >= 14
    }

    /// Controllers register (KIP-919).
    pub fn supports_controller_registration(self) -> bool {
        self.0 >= 15
    }

    /// Replicas have directories (KIP-858).
    pub fn supports_directory_assignment(self) -> bool {
        self.0 >= 17
    }

    /// Eligible leader replicas (KIP-966).
    pub fn supports_elr(self) -> bool {
        self.0 >= 23
    }

    /// Log directories may be cordoned (KIP-1066).
    pub fn supports_cordoned_log_dirs(self) -> bool {
        self.0 >= 30
    }

    /// Before 3.6 an ISR that shrinks takes a new leader epoch.
    pub fn bumps_leader_epoch_on_isr_shrink(self) -> bool {
        self.0 < 12
    }

    /// The version in which a record is written.
    pub fn record_version(self, record: &MetadataRecord) -> i16 {
        match record {
            MetadataRecord::RegisterBroker(_) => match self.0 {
                ..8 => 1,
                8..17 => 2,
                17..30 => 3,
                _ => 4,
            },
            MetadataRecord::Partition(_) | MetadataRecord::PartitionChange(_) => match self.0 {
                ..17 => 0,
                17..23 => 1,
                _ => 2,
            },
            // The lowest version that has the fields in use.
            MetadataRecord::BrokerRegistrationChange(change) => {
                if change.cordoned_log_dirs.is_some() {
                    3
                } else if !change.log_dirs.is_empty() {
                    2
                } else {
                    i16::from(change.in_controlled_shutdown != 0)
                }
            }
            _ => 0,
        }
    }

    fn entry(level: i16) -> (&'static str, bool) {
        usize::try_from(level - Self::MINIMUM.0)
            .ok()
            .and_then(|index| LEVELS.get(index).copied())
            .unwrap_or(("unknown", true))
    }
}

impl fmt::Display for MetadataVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::entry(self.0).0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_have_kafkas_names() {
        assert_eq!(LEVELS.len(), 24);
        assert_eq!(MetadataVersion::MINIMUM.to_string(), "3.3-IV3");
        assert_eq!(MetadataVersion::LATEST.to_string(), "4.3-IV0");
        assert_eq!(
            MetadataVersion::from_level(23).unwrap().to_string(),
            "4.0-IV1"
        );
        assert_eq!(MetadataVersion::from_level(6), None);
        assert_eq!(MetadataVersion::from_level(31), None);
    }

    #[test]
    fn names_stand_for_levels() {
        let level = |name| MetadataVersion::from_name(name).map(MetadataVersion::level);
        assert_eq!(level("4.0-IV1"), Some(23));
        assert_eq!(level("4.0"), Some(25));
        assert_eq!(level("3.9"), Some(21));
        assert_eq!(level("4.3-IV0"), Some(30));
        assert_eq!(level("4"), None);
        assert_eq!(level("2.8"), None);
    }

    #[test]
    fn a_downgrade_over_a_change_of_records_loses_metadata() {
        let level = |n| MetadataVersion::from_level(n).unwrap();
        assert!(level(30).loses_metadata_on_downgrade_to(level(29)));
        assert!(!level(29).loses_metadata_on_downgrade_to(level(23)));
        assert!(level(29).loses_metadata_on_downgrade_to(level(22)));
        assert!(!level(20).loses_metadata_on_downgrade_to(level(20)));
    }
}
