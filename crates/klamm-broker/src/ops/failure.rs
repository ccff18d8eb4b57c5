//! What a failed start means to whoever started it: the difference between fixing a configuration,
//! freeing a port and looking for another process.

use klamm_log::ManagerError;

use crate::error::BrokerError;

/// The kinds of failure that ask for different actions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// The configuration asks for something that cannot be had.
    Configuration,
    /// An address cannot be listened on.
    Address,
    /// Another process uses a data directory.
    DirectoryInUse,
    /// A data directory belongs to another cluster or node.
    OtherCluster,
    /// Anything else.
    Other,
}

impl BrokerError {
    /// What kind of failure this is.
    pub fn kind(&self) -> FailureKind {
        match self {
            BrokerError::Unsupported { .. } => FailureKind::Configuration,
            BrokerError::Resolve { .. } | BrokerError::Bind(_) | BrokerError::Ops(_) => {
                FailureKind::Address
            }
            BrokerError::ClusterIdMismatch { .. } => FailureKind::OtherCluster,
            BrokerError::Logs(error) => match error {
                ManagerError::NoDirs | ManagerError::SameDirTwice { .. } => {
                    FailureKind::Configuration
                }
                ManagerError::Locked { .. } => FailureKind::DirectoryInUse,
                ManagerError::ClusterIdMismatch { .. } | ManagerError::NodeIdMismatch { .. } => {
                    FailureKind::OtherCluster
                }
                _ => FailureKind::Other,
            },
            _ => FailureKind::Other,
        }
    }
}
