//! Preparing the directories of a node before its first start, as Kafka's `kafka-storage` does.
//!
//! A node whose configuration names no other controllers needs none of this: it formats what is
//! empty when it starts. With `controller.quorum.bootstrap.servers` the first voters have to be
//! named somewhere, and that is here (KIP-853).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use klamm_config::BrokerConfig;
use klamm_controller::managers::features;
use klamm_controller::{InitialVoters, VoterEndpoint, write_levels, write_voters};
use klamm_env::{Env, FsExt};
use klamm_log::LogError;
use klamm_log::meta_properties::{META_PROPERTIES_FILE, MetaProperties};
use klamm_metadata::{KRAFT_VERSION, MetadataVersion};
use klamm_records::Uuid;

use crate::controller::has_dynamic_quorum;
use crate::membership::new_id;

/// Who votes first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum FirstVoters {
    /// Not said: those of `controller.quorum.voters`.
    #[default]
    Configured,
    /// `--standalone`: this node alone.
    ThisNode,
    /// `--initial-controllers`: these.
    These(InitialVoters),
    /// `--no-initial-controllers`: others; this node is added to them later, or is a broker.
    Others,
}

/// What to format with.
#[derive(Clone, Debug, Default)]
pub struct Format {
    /// `--cluster-id`
    pub cluster_id: String,
    /// Who votes first.
    pub voters: FirstVoters,
    /// `--release-version`: the release whose levels of features the cluster begins with.
    pub release: Option<String>,
    /// `--feature`: levels other than those.
    pub features: BTreeMap<String, i16>,
    /// `--ignore-formatted`: whether directories that are formatted are passed over.
    pub ignore_formatted: bool,
}

/// Why directories are not formatted. The messages are Kafka's where it has one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// A controller that nothing says the voters of.
    #[error(
        "Because controller.quorum.voters is not set on this controller, you must specify one of the \
         following: --standalone, --initial-controllers, or --no-initial-controllers."
    )]
    NoVoters,
    /// Voters are named in two places.
    #[error(
        "You cannot specify controller.quorum.voters and format the node with --initial-controllers or \
         --standalone. If you want to use dynamic quorum, please remove controller.quorum.voters and \
         specify controller.quorum.bootstrap.servers instead."
    )]
    VotersTwice,
    /// `--standalone` on a node that is no controller.
    #[error("You can only use --standalone on a controller.")]
    NotAController,
    /// A controller that listens nowhere.
    #[error("No controller listeners found.")]
    NoControllerListener,
    /// A list of controllers in another form.
    #[error("--initial-controllers: {0:?} is not of the form id@host:port:directory-id")]
    InitialController(String),
    /// A controller is named twice.
    #[error("--initial-controllers: controller {0} is listed twice")]
    ControllerTwice(i32),
    /// A feature in another form.
    #[error("Can't parse feature=level string {0}: use feature=level, such as kraft.version=1")]
    FeatureForm(String),
    /// A feature that does not exist.
    #[error("Unsupported feature: {name}. Supported features are: {supported}")]
    UnknownFeature {
        /// Its name.
        name: String,
        /// Those that exist.
        supported: String,
    },
    /// A level that a feature does not have.
    #[error("No feature:{name} with feature level {level}")]
    UnknownLevel {
        /// The feature.
        name: String,
        /// The level.
        level: i16,
    },
    /// A release that does not exist.
    #[error("Unknown metadata.version '{0}'. Supported metadata.version are: 3.3-IV3 to 4.3-IV0")]
    UnknownRelease(String),
    /// The release is said in two ways.
    #[error("Use --release-version instead of --feature metadata.version=X to avoid ambiguity.")]
    ReleaseTwice,
    /// Voters in the log, and a version without.
    #[error(
        "Cannot set kraft.version to 0 if controller.quorum.voters is empty and one of the flags \
         --standalone, --initial-controllers, or --no-initial-controllers is used. For dynamic \
         controllers support, try removing the --feature flag for kraft.version."
    )]
    KraftVersionZero,
    /// No voters in the log, and a version with.
    #[error(
        "Cannot set kraft.version to {0} unless controller.quorum.voters is empty and one of the flags \
         --standalone, --initial-controllers, or --no-initial-controllers is used. For dynamic \
         controllers support, try using one of --standalone, --initial-controllers, or \
         --no-initial-controllers and removing controller.quorum.voters."
    )]
    KraftVersion(i16),
    /// A directory that is formatted.
    #[error(
        "Log directory {} is already formatted. Use --ignore-formatted to ignore this directory and \
         format the others.", .0.display()
    )]
    Formatted(PathBuf),
    /// A directory of another cluster or node.
    #[error("Invalid {what} in: {}. Expected {expected}, but read {found}", file.display())]
    Mismatch {
        /// Which value.
        what: &'static str,
        /// In which file.
        file: PathBuf,
        /// As it should be.
        expected: String,
        /// As it is.
        found: String,
    },
    /// A directory's identity cannot be read or written.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The file system failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Reads `id@host:port:directory-id,…`; the directories' ids make up the voters.
///
/// # Errors
/// An entry of another form, or an id that is listed twice.
pub fn parse_controllers(text: &str, listener: &str) -> Result<InitialVoters, FormatError> {
    let mut voters = InitialVoters::new();
    for entry in text.split(',').map(str::trim).filter(|e| !e.is_empty()) {
        let (id, directory, endpoint) = parse_controller(entry, listener)
            .ok_or_else(|| FormatError::InitialController(entry.to_owned()))?;
        if voters.insert(id, (directory, vec![endpoint])).is_some() {
            return Err(FormatError::ControllerTwice(id));
        }
    }
    Ok(voters)
}

fn parse_controller(entry: &str, listener: &str) -> Option<(i32, Uuid, VoterEndpoint)> {
    let (id, address) = entry.split_once('@')?;
    let (address, directory) = address.rsplit_once(':')?;
    let (host, port) = address.rsplit_once(':')?;
    let host = host
        .strip_prefix('[')
        .map_or(Some(host), |host| host.strip_suffix(']'))?;
    let id = id.parse().ok().filter(|id| *id >= 0)?;
    let directory: Uuid = directory.parse().ok()?;
    let endpoint = VoterEndpoint {
        name: listener.to_owned(),
        host: host.to_owned(),
        port: port.parse().ok()?,
    };
    (!host.is_empty() && directory != Uuid::ZERO).then_some((id, directory, endpoint))
}

/// Reads `feature=level`.
///
/// # Errors
/// If it is of another form.
pub fn parse_feature(text: &str) -> Result<(String, i16), FormatError> {
    let form = || FormatError::FeatureForm(text.to_owned());
    let (name, level) = text.split_once('=').ok_or_else(form)?;
    let level = level.trim().parse().map_err(|_| form())?;
    Ok((name.trim().to_owned(), level))
}

/// The name of the listener on which voters reach each other.
fn controller_listener(config: &BrokerConfig) -> String {
    let names = config.controller_listener_names();
    names.first().cloned().unwrap_or_default()
}

/// Directories of the node, in order: those of records, and that of the metadata.
fn directories(config: &BrokerConfig) -> BTreeSet<PathBuf> {
    let mut all: BTreeSet<PathBuf> = config.log_dirs().iter().map(PathBuf::from).collect();
    all.insert(config.metadata_log_dir().into());
    all
}

/// Formats the directories of a node, and says line by line what was done.
///
/// # Errors
/// What does not fit together, or files that cannot be written. Directories that were written
/// before that stay so.
pub fn format(
    config: &BrokerConfig,
    format: &Format,
    env: &Env,
) -> Result<Vec<String>, FormatError> {
    let voters = first_voters(config, format, env)?;
    let levels = levels(config, format)?;
    let release = MetadataVersion::from_level(levels[MetadataVersion::FEATURE_NAME])
        .unwrap_or(MetadataVersion::LATEST);
    let mut empty = Vec::new();
    for dir in directories(config) {
        match MetaProperties::read(&*env.fs, &dir)? {
            Some(found) => check(config, format, &dir, &found)?,
            None => empty.push(dir),
        }
    }
    if empty.is_empty() {
        return Ok(vec![
            "All of the log directories are already formatted.".to_owned(),
        ]);
    }
    let mut lines = Vec::new();
    let now_ms = env.clock.wall_ms();
    for dir in empty {
        let own = voters.get(&config.node_id());
        let is_metadata = dir == Path::new(&config.metadata_log_dir());
        let (kind, id) = match own {
            _ if !is_metadata => ("data directory", new_id(env)),
            Some((id, _)) => ("dynamic metadata voter directory", *id),
            None if voters.is_empty() => ("metadata directory", new_id(env)),
            None => ("dynamic metadata directory", new_id(env)),
        };
        lines.push(format!(
            "Formatting {kind} {} with metadata.version {release}.",
            dir.display()
        ));
        env.fs.create_dir_all(&dir)?;
        write_levels(env, &dir, &levels, now_ms)?;
        if is_metadata && !voters.is_empty() {
            write_voters(env, &dir, &voters, now_ms)?;
        }
        // Last, as it is what makes the directory a formatted one.
        let properties = MetaProperties {
            cluster_id: Some(format.cluster_id.clone()),
            node_id: Some(config.node_id()),
            directory_id: Some(id),
            ..MetaProperties::default()
        };
        properties.write(&*env.fs, &dir)?;
    }
    Ok(lines)
}

/// Whether a directory that is formatted may be passed over.
fn check(
    config: &BrokerConfig,
    format: &Format,
    dir: &Path,
    found: &MetaProperties,
) -> Result<(), FormatError> {
    let mismatch = |what, expected: String, found: String| FormatError::Mismatch {
        what,
        file: dir.join(META_PROPERTIES_FILE),
        expected,
        found,
    };
    if let Some(id) = found
        .cluster_id
        .as_ref()
        .filter(|id| **id != format.cluster_id)
    {
        return Err(mismatch(
            "cluster.id",
            format.cluster_id.clone(),
            id.clone(),
        ));
    }
    if let Some(id) = found.node_id.filter(|id| *id != config.node_id()) {
        return Err(mismatch(
            "node.id",
            config.node_id().to_string(),
            id.to_string(),
        ));
    }
    if format.ignore_formatted {
        Ok(())
    } else {
        Err(FormatError::Formatted(dir.to_owned()))
    }
}

fn first_voters(
    config: &BrokerConfig,
    format: &Format,
    env: &Env,
) -> Result<InitialVoters, FormatError> {
    let configured = !config.quorum_voters().is_empty();
    match &format.voters {
        FirstVoters::ThisNode | FirstVoters::These(_) if configured => {
            Err(FormatError::VotersTwice)
        }
        FirstVoters::Configured if has_dynamic_quorum(config) && config.is_controller() => {
            Err(FormatError::NoVoters)
        }
        FirstVoters::Configured | FirstVoters::Others => Ok(InitialVoters::new()),
        FirstVoters::These(voters) => Ok(voters.clone()),
        FirstVoters::ThisNode if !config.is_controller() => Err(FormatError::NotAController),
        FirstVoters::ThisNode => {
            let listeners = config.advertised_controller_listeners();
            let listener = listeners.first().ok_or(FormatError::NoControllerListener)?;
            let host = Some(listener.host.as_str()).filter(|host| !host.is_empty());
            let endpoint = VoterEndpoint {
                name: controller_listener(config),
                host: host.unwrap_or("localhost").to_owned(),
                port: listener.port,
            };
            let own = (new_id(env), vec![endpoint]);
            Ok(InitialVoters::from([(config.node_id(), own)]))
        }
    }
}

/// The levels of features that the cluster begins with.
fn levels(config: &BrokerConfig, format: &Format) -> Result<BTreeMap<String, i16>, FormatError> {
    let mut wanted = format.features.clone();
    let release = match (
        wanted.remove(MetadataVersion::FEATURE_NAME),
        &format.release,
    ) {
        (Some(_), Some(_)) => return Err(FormatError::ReleaseTwice),
        (Some(level), None) => MetadataVersion::from_level(level)
            .ok_or_else(|| FormatError::UnknownRelease(level.to_string()))?,
        (None, Some(name)) => MetadataVersion::from_name(name)
            .ok_or_else(|| FormatError::UnknownRelease(name.clone()))?,
        (None, None) => MetadataVersion::LATEST,
    };
    let in_log = has_dynamic_quorum(config) && format.voters != FirstVoters::Configured;
    match wanted.remove(KRAFT_VERSION) {
        Some(0) if in_log => return Err(FormatError::KraftVersionZero),
        Some(level) if level > 0 && !in_log => return Err(FormatError::KraftVersion(level)),
        Some(level) => check_level(KRAFT_VERSION, level)?,
        None => {}
    }
    let mut levels = features::levels_of_release(release);
    for (name, level) in wanted {
        check_level(&name, level)?;
        levels.insert(name, level);
    }
    Ok(levels)
}

fn check_level(name: &str, level: i16) -> Result<(), FormatError> {
    let mut all = features::SUPPORTED.iter();
    let Some(feature) = all.find(|feature| feature.name == name) else {
        let supported = features::SUPPORTED.iter().map(|feature| feature.name);
        let supported = supported.filter(|name| *name != MetadataVersion::FEATURE_NAME);
        return Err(FormatError::UnknownFeature {
            name: name.to_owned(),
            supported: supported.collect::<Vec<_>>().join(", "),
        });
    };
    if (feature.min..=feature.max).contains(&level) {
        Ok(())
    } else {
        Err(FormatError::UnknownLevel {
            name: name.to_owned(),
            level,
        })
    }
}

/// What there is in the directories of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// Those that exist.
    pub directories: Vec<PathBuf>,
    /// What the first formatted one says of itself, by key.
    pub metadata: BTreeMap<String, String>,
    /// What is not as it should be.
    pub problems: Vec<String>,
}

/// Looks into the directories of a node.
///
/// # Errors
/// If the file system fails.
pub fn info(config: &BrokerConfig, env: &Env) -> Result<Info, FormatError> {
    let mut info = Info::default();
    let mut first: Option<MetaProperties> = None;
    for dir in directories(config) {
        let shown = dir.display();
        if !env.fs.exists(&dir)? {
            info.problems.push(format!("{shown} does not exist"));
            continue;
        }
        if env.fs.read_dir(&dir).is_err() {
            info.problems.push(format!("{shown} is not a directory"));
            continue;
        }
        info.directories.push(dir.clone());
        match MetaProperties::read(&*env.fs, &dir) {
            Ok(None) => info.problems.push(format!("{shown} is not formatted.")),
            Err(error) => {
                let file = dir.join(META_PROPERTIES_FILE);
                let problem = format!("Error loading {}: {error}", file.display());
                info.problems.push(problem);
            }
            Ok(Some(found)) => {
                let first = first.get_or_insert_with(|| found.clone());
                if first.cluster_id != found.cluster_id {
                    let problem = "Mismatched cluster IDs between storage directories.";
                    info.problems.push(problem.to_owned());
                } else if first.node_id != found.node_id {
                    let problem = "Mismatched node IDs between storage directories.";
                    info.problems.push(problem.to_owned());
                }
            }
        }
    }
    info.metadata = first.map(|first| first.values()).unwrap_or_default();
    Ok(info)
}

/// A new id for a cluster or a directory.
pub fn random_uuid(env: &Env) -> Uuid {
    new_id(env)
}
