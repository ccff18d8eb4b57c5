/// Where an append comes from, which decides how strictly producers are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendOrigin {
    /// A client: sequences and epochs are checked, duplicates recognised.
    Client,
    /// A client whose transaction was verified: see [`Log::begin_verification`].
    ///
    /// [`Log::begin_verification`]: crate::Log::begin_verification
    VerifiedClient {
        /// What the verification gave.
        guard: u64,
    },
    /// The group coordinator: epochs are checked.
    Coordinator,
    /// The group coordinator, for a transaction that was verified.
    VerifiedCoordinator {
        /// What the verification gave.
        guard: u64,
    },
    /// The transaction coordinator, writing markers under this `transaction.version`: epochs are
    /// checked; from version 2 on a marker's epoch must be above the one seen.
    TxnMarkers {
        /// The feature level that the transaction ran under.
        transaction_version: i16,
    },
    /// The leader, whose checks count: nothing is checked again.
    Replication,
}

impl AppendOrigin {
    pub(crate) fn is_client(self) -> bool {
        matches!(
            self,
            AppendOrigin::Client | AppendOrigin::VerifiedClient { .. }
        )
    }

    /// Whether records come from outside of the log and must belong to an open transaction if
    /// they say that they belong to one.
    pub(crate) fn is_verified(self) -> bool {
        self.is_client()
            || matches!(
                self,
                AppendOrigin::Coordinator | AppendOrigin::VerifiedCoordinator { .. }
            )
    }

    pub(crate) fn guard(self) -> Option<u64> {
        match self {
            AppendOrigin::VerifiedClient { guard }
            | AppendOrigin::VerifiedCoordinator { guard } => Some(guard),
            _ => None,
        }
    }
}
