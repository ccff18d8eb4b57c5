use std::fmt;

/// Where a classic group stands in its rebalance.
///
/// Kafka's fifth state, Dead, is what a group that does not exist is called in answers; no group
/// is ever kept in it here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClassicState {
    /// No members. The group may still hold offsets.
    Empty,
    /// Waiting for members to (re-)join.
    PreparingRebalance,
    /// A generation was formed; waiting for its leader's assignment.
    CompletingRebalance,
    /// Every member has its assignment.
    Stable,
}

/// The name that Kafka gives to the state of a group that does not exist.
pub const DEAD: &str = "Dead";

impl ClassicState {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            ClassicState::Empty => "Empty",
            ClassicState::PreparingRebalance => "PreparingRebalance",
            ClassicState::CompletingRebalance => "CompletingRebalance",
            ClassicState::Stable => "Stable",
        }
    }

    /// Whether a group may go from this state to `next`.
    pub fn may_become(self, next: ClassicState) -> bool {
        use ClassicState::*;
        match next {
            Empty => self == PreparingRebalance,
            PreparingRebalance => self != PreparingRebalance,
            CompletingRebalance => self == PreparingRebalance,
            Stable => self == CompletingRebalance,
        }
    }
}

impl fmt::Display for ClassicState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}
