//! `cargo xtask docs`: writes `docs/configuration.md` from the table of configurations. A test fails
//! when the page is not what this would write.

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use klamm_config::def::{ConfigDef, Default};
use klamm_config::docs;
use klamm_config::honoured::{Scope, is_honoured};

const HEAD: &str = "\
# Configuration

Klamm takes Kafka 4.3's configurations: same names, types, defaults, rules and error messages. This
page is written by `cargo xtask docs` from the table in `klamm-config`; `klamm config explain NAME`
tells more of a single one.

## Sources

Later sources win, value by value:

1. a properties file (`klamm server.properties`), read by the rules of `java.util.Properties`;
2. the environment: `KAFKA_FOO_BAR` as Kafka's own image has it, then `KAFKA_CFG_FOO_BAR`, set
   `foo.bar` (`__` stands for an underscore, `___` for a hyphen). `CLUSTER_ID` (or `KAFKA_CLUSTER_ID`,
   `KAFKA_KRAFT_CLUSTER_ID`) names the cluster. The image's variables that configure its JVM and its
   log4j (`KAFKA_OPTS`, `KAFKA_HEAP_OPTS`, `KAFKA_LOG4J_LOGGERS`, `KAFKA_JMX_PORT`, ...) are ignored;
3. `--override name=value`.

Dynamic changes (`kafka-configs --alter`) come on top: cluster-wide values first, a broker's own last.

An invalid value ends the start with Kafka's message and exit code 2. A name that Kafka does not have,
and one that Klamm does not honour yet but was set, are each warned of once at start.

## What Klamm decides itself

| configuration | Klamm | Kafka |
|---|---|---|
| `log.dirs`, if `log.dir` is not set either | `./data` | `/tmp/kafka-logs` |
| `process.roles` | not set: a cluster of one, broker and controller | must be given |
| then `node.id` | `broker.id`, the sole voter of `controller.quorum.voters`, or 1 | must be given |
| then `controller.listener.names` | `CONTROLLER`; no such listener need exist | must be given |
| then `listeners` | `PLAINTEXT://localhost:9092` | `PLAINTEXT://:9092` |
| then `controller.quorum.voters` | may be left out | must be given (or bootstrap servers) |
| listener ports | 0 to 65535, else refused | any number, fails at the bind |
| formatting | an empty directory is formatted at start | `kafka-storage format` first |

Where `process.roles` is given, all of Kafka's rules hold.

## State

";

/// Runs the subcommand.
pub fn run(args: &[String]) -> Result<(), Box<dyn Error>> {
    if !args.is_empty() {
        return Err("usage: cargo xtask docs".into());
    }
    fs::write(path(), render())?;
    Ok(())
}

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md")
}

/// The whole page.
fn render() -> String {
    let mut out = HEAD.to_owned();
    for scope in Scope::ALL {
        let (honoured, waiting): (Vec<_>, Vec<_>) = scope
            .table()
            .iter()
            .partition(|def| is_honoured(scope, def.name));
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(
            out,
            "### {}\n\n{} of {} honoured.\n",
            heading(scope),
            honoured.len(),
            scope.table().len()
        );
        if !honoured.is_empty() {
            out.push_str("| honoured | type | default | changes | |\n|---|---|---|---|---|\n");
            honoured.iter().for_each(|def| row(&mut out, def));
            out.push('\n');
        }
        if !waiting.is_empty() {
            let _ = writeln!(out, "Known and checked, without effect yet:\n");
            let names: Vec<String> = waiting
                .iter()
                .map(|def| format!("`{}`", def.name))
                .collect();
            wrap(&mut out, &names);
            out.push('\n');
        }
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

fn heading(scope: Scope) -> &'static str {
    match scope {
        Scope::Broker => "Broker",
        Scope::Klamm => "Broker, only in Klamm",
        Scope::DynamicBroker => "Broker, only dynamic",
        Scope::Topic => "Topic",
        Scope::KlammTopic => "Topic, only in Klamm",
        Scope::Group => "Group",
        Scope::ClientMetrics => "Client metrics",
    }
}

fn row(out: &mut String, def: &ConfigDef) {
    let default = match def.default {
        Default::Required => "required".to_owned(),
        Default::Null => "none".to_owned(),
        Default::Text("") => "empty".to_owned(),
        Default::Text(text) => format!("`{text}`"),
    };
    let (kind, mode) = (def.kind.name().to_lowercase(), def.update_mode.name());
    let text = docs::of(def.name).unwrap_or_default();
    let _ = writeln!(
        out,
        "| `{}` | {kind} | {default} | {mode} | {text} |",
        def.name
    );
}

/// Names with commas, in lines of a page's width.
fn wrap(out: &mut String, names: &[String]) {
    let mut width = 0;
    for (at, name) in names.iter().enumerate() {
        let end = if at + 1 == names.len() { ".\n" } else { "," };
        if width > 0 && width + name.len() + 2 > 100 {
            out.push('\n');
            width = 0;
        }
        if width > 0 {
            out.push(' ');
            width += 1;
        }
        out.push_str(name);
        out.push_str(end);
        width += name.len() + end.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_what_the_table_says() {
        let page = fs::read_to_string(path()).unwrap();
        assert!(
            page == render(),
            "docs/configuration.md is stale: run `cargo xtask docs`"
        );
    }
}
