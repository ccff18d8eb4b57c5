//! From files, environment and command line to a checked configuration.

use std::io;
use std::path::{Path, PathBuf};

use klamm_config::{
    BrokerConfig, ConfigError, Layers, Loaded, Origin, OverrideError, Properties, PropertiesError,
};

use crate::cli::Sources;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    #[error("cannot read {}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{}: {source}", path.display())]
    Properties {
        path: PathBuf,
        source: PropertiesError,
    },
    #[error(transparent)]
    Override(#[from] OverrideError),
    #[error("{error}{}", .origin.as_ref().map(|o| format!(" ({o})")).unwrap_or_default())]
    Config {
        error: Box<ConfigError>,
        origin: Option<Origin>,
    },
}

/// Whoever sets one of these says where the node listens, and what else an image would say of it
/// would not fit. All others leave a container as reachable as it is without them.
const PLACED_BY: [&str; 2] = ["listeners", "process.roles"];

/// Gathers and checks.
pub(crate) fn load(
    sources: &Sources,
    metrics_listen: Option<&str>,
) -> Result<Loaded, SettingsError> {
    let mut layers = Layers::new();
    // Variables that are no Unicode cannot be ours: the names of configurations are ASCII.
    let variables = std::env::vars_os().filter_map(|(name, value)| {
        Some((
            name.into_string().ok()?,
            value.to_string_lossy().into_owned(),
        ))
    });
    let variables: Vec<_> = variables.collect();
    let file = sources.file.as_deref().or(sources.config.as_deref());
    let default = sources.default_config.as_deref();
    let mut given = Layers::new();
    given.environment(variables.iter().cloned());
    let default = default.filter(|_| PLACED_BY.iter().all(|name| given.origin(name).is_none()));
    if let Some(path) = file.or(default) {
        layers.file(&path.display().to_string(), &read(path)?);
    }
    layers.environment(variables);
    for pair in &sources.overrides {
        layers.set_override(pair)?;
    }
    if let Some(address) = metrics_listen {
        let address = if address == "off" { "" } else { address };
        layers.set_override(&format!("klamm.metrics.listeners={address}"))?;
    }
    BrokerConfig::load(layers.clone()).map_err(|error| {
        let origin = error
            .config_name()
            .and_then(|name| layers.origin(name))
            .cloned();
        SettingsError::Config {
            error: Box::new(error),
            origin,
        }
    })
}

#[expect(
    clippy::disallowed_methods,
    reason = "the program's own file, before there is an Env"
)]
fn read(path: &Path) -> Result<Properties, SettingsError> {
    let file = |source| SettingsError::File {
        path: path.to_owned(),
        source,
    };
    let bytes = std::fs::read(path).map_err(file)?;
    Properties::parse_bytes(&bytes).map_err(|source| SettingsError::Properties {
        path: path.to_owned(),
        source,
    })
}
