//! `klamm storage …`: data directories before the first start.

use std::io::{self, Write};
use std::path::PathBuf;

use klamm_broker::format::{self, FirstVoters, Format, Info};
use klamm_config::BrokerConfig;
use klamm_env::Env;

use crate::cli::{FormatArgs, Sources, StorageCommand};
use crate::failure::Failure;
use crate::settings;

/// Runs the command.
pub(crate) fn run(command: StorageCommand) -> Result<(), Failure> {
    let env = Env::os();
    match command {
        StorageCommand::Format(args) => {
            let config = load(args.config.clone())?;
            let lines = format::format(&config, &wanted(&args, &config)?, &env)?;
            print(&lines)
        }
        StorageCommand::Info { config } => {
            let info = format::info(&load(config)?, &env)?;
            print(&describe(&info))?;
            if info.problems.is_empty() {
                Ok(())
            } else {
                Err(Failure::Problems)
            }
        }
        StorageCommand::RandomUuid => print(&[format::random_uuid(&env).to_string()]),
    }
}

fn load(file: PathBuf) -> Result<BrokerConfig, Failure> {
    let sources = Sources {
        file: Some(file),
        config: None,
        default_config: None,
        overrides: Vec::new(),
    };
    Ok(settings::load(&sources, None)?.config)
}

fn wanted(args: &FormatArgs, config: &BrokerConfig) -> Result<Format, Failure> {
    let voters = match &args.initial_controllers {
        Some(list) => {
            let listener = config.controller_listener_names().first();
            let listener = listener.map_or("", String::as_str);
            FirstVoters::These(format::parse_controllers(list, listener)?)
        }
        None if args.standalone => FirstVoters::ThisNode,
        None if args.no_initial_controllers => FirstVoters::Others,
        None => FirstVoters::Configured,
    };
    let features = args.feature.iter();
    let features = features.map(|text| format::parse_feature(text));
    Ok(Format {
        cluster_id: args.cluster_id.clone(),
        voters,
        release: args.release_version.clone(),
        features: features.collect::<Result<_, _>>()?,
        ignore_formatted: args.ignore_formatted,
    })
}

/// What there is, in the words of kafka-storage.
fn describe(info: &Info) -> Vec<String> {
    let directories = info.directories.iter();
    let directories: Vec<String> = directories.map(|dir| dir.display().to_string()).collect();
    let mut lines = list(
        ["Found log directory:", "Found log directories:"],
        &directories,
    );
    if !info.metadata.is_empty() {
        let values = info.metadata.iter();
        let values: Vec<String> = values
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        lines.push(format!("Found metadata: {{{}}}", values.join(", ")));
        lines.push(String::new());
    }
    lines.extend(list(["Found problem:", "Found problems:"], &info.problems));
    lines
}

/// Items below a title in singular or plural.
fn list([one, many]: [&str; 2], items: &[String]) -> Vec<String> {
    let title = match items.len() {
        0 => return Vec::new(),
        1 => one,
        _ => many,
    };
    let items = items.iter().map(|item| format!("  {item}"));
    let end = String::new();
    [title.to_owned()]
        .into_iter()
        .chain(items)
        .chain([end])
        .collect()
}

fn print(lines: &[String]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    for line in lines {
        writeln!(out, "{line}").map_err(Failure::Output)?;
    }
    Ok(())
}
