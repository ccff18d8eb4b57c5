//! What can go wrong with the program as a whole, with the exit code each has (`klamm --help` lists them).

use std::io;
use std::process::ExitCode;

use klamm_broker::BrokerError;
use klamm_broker::format::FormatError;
use klamm_broker::ops::FailureKind;

use crate::settings::SettingsError;

/// Why the program ends otherwise than it was asked to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error("--log-level: {0}")]
    LogLevel(#[from] tracing_subscriber::filter::ParseError),
    #[error("no configuration is called {name}{}", suggestion(.similar))]
    NoSuchConfig {
        name: String,
        similar: Vec<&'static str>,
    },
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error(transparent)]
    Format(#[from] FormatError),
    /// What is wrong was printed.
    #[error("there are problems with the directories")]
    Problems,
    #[error("no log directory is left; ending without closing the logs")]
    NoDirectories,
    #[error("the controller cannot go on; ending without closing the logs: {0}")]
    Controller(String),
    #[error("no answer from {address}: {source}")]
    NoHealth { address: String, source: io::Error },
    #[error("{address} is not ready: {answer}")]
    NotReady { address: String, answer: String },
    #[error("cannot start the runtime: {0}")]
    Runtime(io::Error),
    #[error("cannot write: {0}")]
    Output(io::Error),
}

fn suggestion(similar: &[&str]) -> String {
    if similar.is_empty() {
        String::new()
    } else {
        format!("; did you mean {}?", similar.join(", "))
    }
}

/// Exit codes beside 0.
mod code {
    pub(super) const FAILED: u8 = 1;
    pub(super) const CONFIGURATION: u8 = 2;
    pub(super) const ADDRESS_IN_USE: u8 = 3;
    pub(super) const DIRECTORY_IN_USE: u8 = 4;
    pub(super) const OTHER_CLUSTER: u8 = 5;
}

impl Failure {
    fn code(&self) -> u8 {
        match self {
            Self::Settings(_) | Self::LogLevel(_) | Self::NoSuchConfig { .. } => {
                code::CONFIGURATION
            }
            Self::Broker(error) => broker_code(error),
            _ => code::FAILED,
        }
    }

    /// Tells the user and gives the exit code.
    #[allow(clippy::print_stderr, reason = "the program's last words")]
    pub(crate) fn report(&self) -> ExitCode {
        let mut told = self.to_string();
        eprintln!("klamm: {told}");
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            // Some errors name their cause themselves.
            let cause = error.to_string();
            if !told.contains(&cause) {
                eprintln!("  because {cause}");
                told = cause;
            }
            source = error.source();
        }
        ExitCode::from(self.code())
    }
}

fn broker_code(error: &BrokerError) -> u8 {
    match error.kind() {
        FailureKind::Configuration => code::CONFIGURATION,
        FailureKind::Address => code::ADDRESS_IN_USE,
        FailureKind::DirectoryInUse => code::DIRECTORY_IN_USE,
        FailureKind::OtherCluster => code::OTHER_CLUSTER,
        FailureKind::Other => code::FAILED,
    }
}
