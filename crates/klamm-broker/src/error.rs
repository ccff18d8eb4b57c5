use std::io;
use std::path::PathBuf;

use klamm_controller::{ApiError, ControllerError};
use klamm_log::{LogError, ManagerError};
use klamm_net::BindError;

use crate::ops::OpsBindError;

/// Why a broker does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// The configuration asks for something that does not exist here yet.
    #[error("{setting} = {value}: {reason}")]
    Unsupported {
        /// The configuration.
        setting: &'static str,
        /// Its value.
        value: String,
        /// What is missing.
        reason: &'static str,
    },
    /// A listener's host has no address.
    #[error("listener {listener}: no address for host {host:?}: {source}")]
    Resolve {
        /// The listener's name.
        listener: String,
        /// The host in `listeners`.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// A listener cannot be opened.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The port for metrics and health cannot be opened.
    #[error(transparent)]
    Ops(#[from] OpsBindError),
    /// A log directory's identity cannot be read.
    #[error("{}: {source}", dir.display())]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// What is wrong with it.
        source: LogError,
    },
    /// The log directories cannot be used.
    #[error(transparent)]
    Logs(#[from] ManagerError),
    /// The log directories belong to a cluster other than the one configured.
    #[error("{} belongs to cluster {found}, but the configuration says {configured}", dir.display())]
    ClusterIdMismatch {
        /// A directory.
        dir: PathBuf,
        /// Cluster in its `meta.properties`.
        found: String,
        /// Cluster in the configuration.
        configured: String,
    },
    /// Several controllers, and no cluster id that all of them know.
    #[error(
        "no cluster id: with several controllers each node has to be given the same one, by the \
         environment variable CLUSTER_ID or by `klamm storage format`, which writes it into the \
         meta.properties of its log directories"
    )]
    NoClusterId,
    /// The directory of the metadata cannot be made.
    #[error("the directory of the metadata cannot be made: {0}")]
    Format(#[source] io::Error),
    /// A thread cannot be started.
    #[error("a thread cannot be started: {0}")]
    Thread(#[source] io::Error),
    /// The controller does not start.
    #[error(transparent)]
    Controller(#[from] ControllerError),
    /// The controller refuses this broker.
    #[error("the controller refuses this broker: {0}")]
    Registration(#[from] ApiError),
}
