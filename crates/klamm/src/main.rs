//! The `klamm` program: reads the command line and the configuration, starts a broker, waits for a
//! signal. All that a broker is lives in `klamm-broker`; here is only what a process adds to it.

mod cli;
mod config_command;
mod failure;
mod health;
mod logging;
mod serve;
mod settings;
mod storage;

use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::{Cli, Command};

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let started = serve::Start::now();
    let cli = Cli::parse();
    let done = match cli.command {
        Some(Command::Config { command }) => config_command::run(command),
        Some(Command::Storage { command }) => storage::run(command),
        Some(Command::Health { address }) => health::ask(&address),
        None => serve::run(&cli.serve, started),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
