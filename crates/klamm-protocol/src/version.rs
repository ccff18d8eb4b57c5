//! Version numbers of messages.

use std::fmt;

/// Versions of a message, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VersionRange {
    /// The lowest version.
    pub min: i16,
    /// The highest version; below `min` when there is none at all.
    pub max: i16,
}

impl VersionRange {
    /// No version at all.
    pub const NONE: VersionRange = VersionRange { min: 0, max: -1 };

    /// Versions `min` to `max`.
    pub const fn new(min: i16, max: i16) -> VersionRange {
        VersionRange { min, max }
    }

    /// Version `min` and all that follow.
    pub const fn from(min: i16) -> VersionRange {
        VersionRange { min, max: i16::MAX }
    }

    /// Whether `version` is one of them.
    pub const fn contains(self, version: i16) -> bool {
        self.min <= version && version <= self.max
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.min > self.max
    }

    /// The versions that are in both.
    pub const fn intersect(self, other: VersionRange) -> VersionRange {
        let min = if self.min > other.min {
            self.min
        } else {
            other.min
        };
        let max = if self.max < other.max {
            self.max
        } else {
            other.max
        };
        if min > max {
            VersionRange::NONE
        } else {
            VersionRange { min, max }
        }
    }
}

impl IntoIterator for VersionRange {
    type Item = i16;
    type IntoIter = std::ops::RangeInclusive<i16>;

    fn into_iter(self) -> Self::IntoIter {
        self.min..=self.max
    }
}

impl fmt::Display for VersionRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            range if range.is_empty() => f.write_str("none"),
            VersionRange { min, max: i16::MAX } => write!(f, "{min}+"),
            VersionRange { min, max } if min == max => write!(f, "{min}"),
            VersionRange { min, max } => write!(f, "{min}-{max}"),
        }
    }
}
