//! What directories were formatted with, as Kafka's `kafka-storage format` writes it.
//!
//! - `00000000000000000000-0000000000.checkpoint` among the snapshots: one from before the first
//!   record, with the voters that the quorum begins with (KIP-853);
//! - `bootstrap.checkpoint` in the metadata directory: the levels of features that the cluster
//!   begins with.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use klamm_env::{Env, Fs, FsExt};
use klamm_metadata::{MetadataDelta, Provenance};
use klamm_protocol::control_records::{VotersRecord, voters_record};
use klamm_protocol::metadata::FeatureLevelRecord;
use klamm_records::Uuid;

use super::batches::KRAFT_VERSION_LEVEL;
use super::checkpoint::{self, CheckpointId};
use super::types::{Membership, VoterEndpoint};
use super::{membership_of, projection};

/// The snapshot from before the first record.
const BOOTSTRAP: CheckpointId = CheckpointId {
    end_offset: 0,
    epoch: 0,
};

/// Name of the file with the levels of features.
const LEVELS_FILE: &str = "bootstrap.checkpoint";

/// Voters by id, with their directories and where they listen.
pub type InitialVoters = BTreeMap<i32, (Uuid, Vec<VoterEndpoint>)>;

/// The levels of features that the directory was formatted with, by name; `None` if it was not.
pub(crate) fn levels(env: &Env, metadata_dir: &Path) -> io::Result<Option<BTreeMap<String, i16>>> {
    let path = metadata_dir.join(LEVELS_FILE);
    if !env.fs.exists(&path)? {
        return Ok(None);
    }
    let image = checkpoint::read(&*env.fs, &path, BOOTSTRAP)?;
    Ok(Some(image.features().finalized()))
}

/// The voters that the directory was formatted with; empty if none are named there.
pub(super) fn voters(fs: &dyn Fs, log_dir: &Path) -> io::Result<InitialVoters> {
    if !checkpoint::exists(fs, log_dir, BOOTSTRAP)? {
        return Ok(InitialVoters::new());
    }
    let path = checkpoint::path(log_dir, BOOTSTRAP);
    let (_, voters) = checkpoint::read_with_voters(fs, &path, BOOTSTRAP)?;
    Ok(voters.as_ref().map(initial_voters).unwrap_or_default())
}

pub(super) fn initial_voters(record: &VotersRecord) -> InitialVoters {
    let endpoint = |endpoint: &voters_record::Endpoint| VoterEndpoint {
        name: endpoint.name.to_string(),
        host: endpoint.host.to_string(),
        port: endpoint.port,
    };
    let voter = |voter: &voters_record::Voter| {
        let endpoints = voter.endpoints.iter().map(endpoint).collect();
        (voter.voter_id, (voter.voter_directory_id, endpoints))
    };
    record.voters.iter().map(voter).collect()
}

/// Notes in a directory the levels of features (other than `kraft.version`) that a new cluster
/// begins with. `timestamp_ms` is the time of day.
///
/// # Errors
/// If the file cannot be written, or a level is none.
pub fn write_levels(
    env: &Env,
    dir: &Path,
    levels: &BTreeMap<String, i16>,
    timestamp_ms: i64,
) -> io::Result<()> {
    let mut delta = MetadataDelta::new(Arc::default());
    for (name, level) in levels.iter().filter(|(_, level)| **level > 0) {
        let record = FeatureLevelRecord {
            name: name.as_str().into(),
            feature_level: *level,
            ..FeatureLevelRecord::default()
        };
        delta.replay(&record.into()).map_err(io::Error::other)?;
    }
    let image = delta.finish(before_the_first(timestamp_ms));
    let path = dir.join(LEVELS_FILE);
    checkpoint::write_as(&*env.fs, &path, BOOTSTRAP, &image, &Membership::default())?;
    env.fs.sync_dir(dir)
}

/// Notes in a metadata directory the voters that the quorum is to begin with.
///
/// # Errors
/// If the files cannot be written.
pub fn write_voters(
    env: &Env,
    metadata_dir: &Path,
    voters: &InitialVoters,
    timestamp_ms: i64,
) -> io::Result<()> {
    let log_dir = metadata_dir.join(projection::DIR_NAME);
    env.fs.create_dir_all(&log_dir)?;
    let mut delta = MetadataDelta::new(Arc::default());
    delta.set_kraft_version(KRAFT_VERSION_LEVEL);
    let image = delta.finish(before_the_first(timestamp_ms));
    let members = membership_of(Some(voters.clone()))?;
    checkpoint::write(&*env.fs, &log_dir, BOOTSTRAP, &image, &members)?;
    env.fs.sync_dir(metadata_dir)
}

fn before_the_first(timestamp_ms: i64) -> Provenance {
    Provenance {
        offset: -1,
        epoch: 0,
        timestamp_ms,
    }
}
