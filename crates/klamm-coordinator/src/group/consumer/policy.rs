/// Which way groups may change their protocol while they have members
/// (`group.consumer.migration.policy`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MigrationPolicy {
    /// Not at all.
    Disabled,
    /// From the consumer to the classic protocol.
    Downgrade,
    /// From the classic to the consumer protocol.
    Upgrade,
    /// Either way.
    #[default]
    Bidirectional,
}

impl MigrationPolicy {
    /// The policy of this name, in any case; none if there is none.
    pub fn from_name(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "disabled" => Some(MigrationPolicy::Disabled),
            "downgrade" => Some(MigrationPolicy::Downgrade),
            "upgrade" => Some(MigrationPolicy::Upgrade),
            "bidirectional" => Some(MigrationPolicy::Bidirectional),
            _ => None,
        }
    }

    /// Whether classic groups with members may become consumer groups.
    pub fn may_upgrade(self) -> bool {
        matches!(
            self,
            MigrationPolicy::Upgrade | MigrationPolicy::Bidirectional
        )
    }

    /// Whether consumer groups with members may become classic groups.
    pub fn may_downgrade(self) -> bool {
        matches!(
            self,
            MigrationPolicy::Downgrade | MigrationPolicy::Bidirectional
        )
    }
}
