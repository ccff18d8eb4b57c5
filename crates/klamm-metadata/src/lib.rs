#![doc = include_str!("../README.md")]
//! # What lives here
//!
//! - [`MetadataImage`] and its parts (`image/`): read views that never change.
//! - [`MetadataDelta`]: replays records onto an image, tells what changed, makes the next image.
//! - `diff`: what differs between two images.
//! - [`CowMap`]: the ordered copy-on-write map under the large parts.
//! - [`MetadataVersion`]: which records a cluster may use, in which version.
//! - `records`: an image as records, for snapshots.
//! - [`TransactionFilter`]: what a reader of a metadata log puts in front of a delta.
//!
//! Nothing here does I/O, knows the time or iterates in an order that could differ between runs.

#![forbid(unsafe_code)]

mod cow_map;
mod delta;
mod diff;
mod error;
mod image;
mod records;
#[cfg(test)]
mod tests;
mod transaction;
mod version;

pub use self::cow_map::CowMap;
pub use self::delta::{MetadataDelta, TopicDelta};
pub use self::error::ReplayError;
pub use self::image::{
    Acl, AclsImage, BrokerImage, ClusterImage, ConfigResource, ConfigsImage, ControllerImage,
    DelegationToken, Endpoint, FeaturesImage, KRAFT_VERSION, LeaderRecoveryState, MetadataImage,
    NO_LEADER, PartitionImage, Provenance, QuotaEntity, QuotasImage, ResourceType, ScramCredential,
    ScramImage, TopicImage, TopicsImage,
};
pub use self::transaction::TransactionFilter;
pub use self::version::MetadataVersion;
