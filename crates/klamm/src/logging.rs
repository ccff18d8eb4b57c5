//! Logs: to standard error, as text or as JSON lines.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::filter::{LevelFilter, ParseError, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::cli::LogFormat;

/// Sends the log to standard error from here on.
///
/// # Errors
/// If `level` is neither a level nor a list of `part=level`.
pub(crate) fn start(format: LogFormat, level: &str) -> Result<(), ParseError> {
    let mut targets: Targets = level.parse()?;
    if !level.contains("openraft") {
        // What it tells at `info` is for those who work on it.
        targets = targets.with_target("openraft", LevelFilter::WARN);
    }
    let registry = tracing_subscriber::registry().with(targets);
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    match format {
        LogFormat::Text => registry
            .with(lines.with_ansi(io::stderr().is_terminal()))
            .init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).init(),
    }
    Ok(())
}
