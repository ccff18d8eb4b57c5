//! `klamm config …`: the table of configurations, for people.

use std::io::{self, Write};

use klamm_config::def::{ConfigDef, Default, Number, Scale, UpdateMode, Validator};
use klamm_config::honoured::{self, Scope};
use klamm_config::{Origin, docs};

use crate::cli::{ConfigCommand, ScopeArg, Sources};
use crate::failure::Failure;
use crate::settings;

/// Runs the command.
pub(crate) fn run(command: ConfigCommand) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let written = match command {
        ConfigCommand::List {
            pattern,
            scope,
            honoured,
        } => list(
            &mut out,
            pattern.as_deref().unwrap_or_default(),
            scope,
            honoured,
        ),
        ConfigCommand::Explain { name } => match explain(&mut out, &name) {
            Ok(true) => Ok(()),
            Ok(false) => {
                return Err(Failure::NoSuchConfig {
                    similar: similar(&name),
                    name,
                });
            }
            Err(error) => Err(error),
        },
        ConfigCommand::Show { sources } => return show(&mut out, &sources),
    };
    match written {
        // The reader of a pipe may have had enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(Failure::Output),
    }
}

fn wanted(scope: Scope, arg: Option<ScopeArg>) -> bool {
    match arg {
        None => true,
        Some(ScopeArg::Broker) => matches!(scope, Scope::Broker | Scope::Klamm),
        Some(ScopeArg::Topic) => matches!(scope, Scope::Topic | Scope::KlammTopic),
        Some(ScopeArg::Group) => scope == Scope::Group,
        Some(ScopeArg::ClientMetrics) => scope == Scope::ClientMetrics,
    }
}

fn list(
    out: &mut impl Write,
    pattern: &str,
    arg: Option<ScopeArg>,
    only_honoured: bool,
) -> io::Result<()> {
    for scope in Scope::ALL.into_iter().filter(|scope| wanted(*scope, arg)) {
        for def in scope
            .table()
            .iter()
            .filter(|def| def.name.contains(pattern))
        {
            let honoured = honoured::is_honoured(scope, def.name);
            if honoured || !only_honoured {
                let state = if honoured { "honoured" } else { "not yet" };
                let kind = def.kind.name().to_lowercase();
                writeln!(
                    out,
                    "{:<15} {:<60} {kind:<9} {state:<9} {}",
                    scope.name(),
                    def.name,
                    default(def)
                )?;
            }
        }
    }
    Ok(())
}

fn explain(out: &mut impl Write, name: &str) -> io::Result<bool> {
    let mut found = false;
    for scope in Scope::ALL {
        let Some(def) = klamm_config::def::find(scope.table(), name) else {
            continue;
        };
        if found {
            writeln!(out)?;
        }
        found = true;
        explain_one(out, scope, def)?;
    }
    Ok(found)
}

fn explain_one(out: &mut impl Write, scope: Scope, def: &ConfigDef) -> io::Result<()> {
    writeln!(out, "{} ({} configuration)", def.name, scope.name())?;
    if let Some(text) = docs::of(def.name) {
        writeln!(out, "  {text}")?;
    }
    let mut line = |label: &str, text: &str| writeln!(out, "  {label:<12} {text}");
    line("type", &def.kind.name().to_lowercase())?;
    line("default", &default(def))?;
    if let Some(valid) = valid(def.validator) {
        line("valid", &valid)?;
    }
    line(
        "changes",
        match def.update_mode {
            UpdateMode::ReadOnly => "by a restart",
            UpdateMode::PerBroker => "at run time, for one broker",
            UpdateMode::ClusterWide => "at run time, for one broker or all",
            UpdateMode::Resource => "at run time",
        },
    )?;
    let synonyms: Vec<String> = def
        .synonyms
        .iter()
        .filter(|s| s.name != def.name)
        .map(|s| match s.scale {
            Scale::Same => s.name.to_owned(),
            Scale::Minutes => format!("{} (in minutes)", s.name),
            Scale::Hours => format!("{} (in hours)", s.name),
        })
        .collect();
    if !synonyms.is_empty() {
        line("also set by", &synonyms.join(", "))?;
    }
    if matches!(scope, Scope::Broker | Scope::Klamm) {
        line("environment", &variable(def.name))?;
    }
    let honoured = honoured::is_honoured(scope, def.name);
    line(
        "in Klamm",
        if honoured {
            "honoured"
        } else {
            "known and checked, not honoured yet"
        },
    )
}

fn default(def: &ConfigDef) -> String {
    match (def.name, def.default) {
        ("log.dirs", _) => "./data (Kafka: log.dir)".to_owned(),
        ("listeners", _) => "PLAINTEXT://localhost:9092 (Kafka: PLAINTEXT://:9092)".to_owned(),
        ("node.id", _) => "1 if process.roles is not set".to_owned(),
        ("process.roles", _) => "broker,controller (Kafka: must be given)".to_owned(),
        ("controller.listener.names", _) => "CONTROLLER (Kafka: must be given)".to_owned(),
        (_, Default::Required) => "(must be given)".to_owned(),
        (_, Default::Null) => "(none)".to_owned(),
        (_, Default::Text("")) => "(empty)".to_owned(),
        (_, Default::Text(text)) => text.to_owned(),
    }
}

fn valid(validator: Validator) -> Option<String> {
    let bound = |n: Option<Number>| n.map(|n| n.to_string());
    Some(match validator {
        Validator::Any | Validator::NonNull => return None,
        Validator::Range(min, max) => match (bound(min), bound(max)) {
            (Some(min), Some(max)) => format!("{min} to {max}"),
            (Some(min), None) => format!("{min} or more"),
            (None, Some(max)) => format!("{max} or less"),
            (None, None) => return None,
        },
        Validator::OneOf(valid) => valid.join(", "),
        Validator::OneOfAnyCase(valid) => valid.join(", ").to_lowercase(),
        Validator::ListOf { valid, empty, .. } => match (valid, empty) {
            ([], true) => return None,
            ([], false) => "at least one entry".to_owned(),
            (valid, _) => format!("any of {}", valid.join(", ")),
        },
        Validator::GzipLevel => "1 to 9, or -1".to_owned(),
        Validator::NonEmpty => "not empty".to_owned(),
        Validator::QuorumVoters => "id@host:port, ...".to_owned(),
        Validator::BootstrapServers => "host:port, ...".to_owned(),
        Validator::ThrottledReplicas => "* or partition:broker, ...".to_owned(),
        Validator::ShareOffsetReset => "earliest, latest, or by_duration:PnDTnHnMn.nS".to_owned(),
    })
}

/// The environment variable that sets a broker configuration.
fn variable(name: &str) -> String {
    format!(
        "KAFKA_CFG_{}",
        name.replace('_', "__")
            .replace('-', "___")
            .replace('.', "_")
            .to_uppercase()
    )
}

fn show(out: &mut impl Write, sources: &Sources) -> Result<(), Failure> {
    let loaded = settings::load(sources, None)?;
    for (name, given) in loaded.config.given() {
        let secret = klamm_config::def::broker_config(name).is_none_or(ConfigDef::is_sensitive)
            && !name.starts_with("klamm.")
            && given.origin != Origin::Implied;
        let value = if secret { "(hidden)" } else { &given.value };
        writeln!(out, "{name}={value}  # {}", given.origin).map_err(Failure::Output)?;
    }
    for warning in &loaded.warnings {
        writeln!(out, "# {warning}").map_err(Failure::Output)?;
    }
    Ok(())
}

/// Names that a mistyped one may have meant, nearest first.
fn similar(name: &str) -> Vec<&'static str> {
    let names = Scope::ALL
        .into_iter()
        .flat_map(|scope| scope.table())
        .map(|def| def.name);
    let rate = |known: &'static str| match known.contains(name) || name.contains(known) {
        true => (1, known),
        false => (edits(name, known), known),
    };
    let mut near: Vec<(usize, &'static str)> = names
        .map(rate)
        .filter(|(distance, _)| *distance <= 1 + name.len() / 5)
        .collect();
    near.sort_unstable();
    near.dedup();
    near.into_iter().take(5).map(|(_, known)| known).collect()
}

/// How many letters must be changed, added or dropped to make one of the other.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let changed = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistyped_names_find_their_like() {
        assert_eq!(
            similar("log.retention.msec").first(),
            Some(&"log.retention.ms")
        );
        assert_eq!(similar("num.partition").first(), Some(&"num.partitions"));
        assert_eq!(similar("xyzzy.quux"), Vec::<&str>::new());
        assert_eq!(edits("kitten", "sitting"), 3);
    }

    #[test]
    fn variables_read_back_as_their_configuration() {
        for scope in [Scope::Broker, Scope::Klamm] {
            for def in scope.table() {
                let mut layers = klamm_config::Layers::new();
                layers.environment([(variable(def.name), "x")]);
                let debug = format!("{layers:?}");
                assert!(debug.contains(&format!("{:?}", def.name)), "{}", def.name);
            }
        }
    }

    #[test]
    fn every_configuration_can_be_explained() {
        for scope in Scope::ALL {
            for def in scope.table() {
                let mut out = Vec::new();
                assert!(explain(&mut out, def.name).unwrap());
                assert!(
                    String::from_utf8(out).unwrap().contains("in Klamm"),
                    "{}",
                    def.name
                );
            }
        }
        assert!(!explain(&mut Vec::new(), "no.such").unwrap());
    }
}
