//! Holds docs/compatibility.md to the sources: every API key has a row, what the page calls served
//! is what the broker's tables list, and every test that the page names exists.
#![allow(
    clippy::disallowed_methods,
    reason = "a test looks at files and drives tasks itself"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const PAGE: &str = "docs/compatibility.md";
/// The interop suites that are told apart by the part of a name before its first dot, and where
/// their tests are written down.
const SUITES: &[(&str, &[&str])] = &[
    ("tools", &["interop/java/src"]),
    ("java", &["interop/java/src/klamm/interop/ClientSuite.java"]),
    (
        "transactions",
        &["interop/java/src/klamm/interop/TransactionSuite.java"],
    ),
    (
        "compaction",
        &["interop/java/src/klamm/interop/CompactionSuite.java"],
    ),
    (
        "share-groups",
        &["interop/java/src/klamm/interop/ShareSuite.java"],
    ),
    (
        "share-restarted",
        &["interop/java/src/klamm/interop/ShareSuite.java"],
    ),
    (
        "streams-groups",
        &[
            "interop/java/src/klamm/interop/StreamsSuite.java",
            "xtask/src/exactly_once.rs",
        ],
    ),
    ("dump", &["interop/java/src/klamm/interop/DumpTools.java"]),
    ("librdkafka", &["interop/python/suite_librdkafka.py"]),
    ("aiokafka", &["interop/python/suite_aiokafka.py"]),
    ("franz-go", &["interop/go/suite/main.go"]),
    ("sarama", &["interop/go/sarama/main.go"]),
    ("mixed-groups", &["xtask/src/interop/mixed.rs"]),
    ("kafkajs", &["interop/node/suite.js"]),
    ("bad-input", &["xtask/src/bad_input"]),
    ("hello", &["xtask/src/hello.rs"]),
    ("compose", &["xtask/src/hello.rs"]),
    ("cluster", &["xtask/src/cluster"]),
    ("exactly-once", &["xtask/src/exactly_once.rs"]),
    ("log-dirs", &["xtask/src/interop/log_dirs.rs"]),
    (
        "containers",
        &[
            "xtask/src/interop/containers.rs",
            "xtask/src/interop/containers",
        ],
    ),
    ("franz-go-tests", &["xtask/src/interop/franz_go.rs"]),
    (
        "quorum",
        &[
            "xtask/src/interop/quorum.rs",
            "xtask/src/interop/controllers.rs",
        ],
    ),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A file's text, or that of all files below a folder, one after the other.
fn read_all(path: &str) -> String {
    let mut found = String::new();
    let mut open: Vec<PathBuf> = vec![root().join(path)];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).unwrap();
            open.extend(entries.map(|entry| entry.unwrap().path()));
        } else {
            found.push_str(&fs::read_to_string(&path).unwrap_or_default());
        }
    }
    found
}

/// A table of the page: its head and its rows.
struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

fn tables(page: &str) -> Vec<Table> {
    let mut tables: Vec<Table> = Vec::new();
    let mut inside = false;
    for line in page.lines() {
        let row = line
            .strip_prefix('|')
            .and_then(|l| l.trim_end().strip_suffix('|'));
        let Some(row) = row else {
            inside = false;
            continue;
        };
        let cells: Vec<String> = row.split('|').map(|cell| cell.trim().to_owned()).collect();
        if !inside {
            inside = true;
            tables.push(Table {
                head: cells,
                rows: Vec::new(),
            });
        } else if !cells.iter().all(|cell| cell.chars().all(|c| c == '-')) {
            let table = tables.last_mut().unwrap();
            assert_eq!(cells.len(), table.head.len(), "cells are missing in {line}");
            table.rows.push(cells);
        }
    }
    tables
}

fn table(page: &str, first: &str) -> Table {
    let mut found = tables(page)
        .into_iter()
        .filter(|table| table.head[0] == first);
    let table = found
        .next()
        .unwrap_or_else(|| panic!("{PAGE} has no table that starts with {first}"));
    assert!(found.next().is_none(), "two tables start with {first}");
    table
}

/// What the protocol says about a key.
struct Api {
    name: String,
    /// Kafka's stable versions, `None` if the key was removed.
    versions: Option<(i16, i16)>,
    listeners: String,
}

/// The rows of the generated table, by number.
fn protocol() -> Vec<Api> {
    let source: String = read("crates/klamm-protocol/src/api_key/table.rs")
        .split_whitespace()
        .collect();
    let rows = source.split("api(ApiKey::").skip(1).map(|row| {
        let (name, rest) = row.split_once(',').unwrap();
        let (_, rest) = rest.split_once("VersionRange::").unwrap();
        let versions = rest.strip_prefix("new(").map(|range| {
            let (min, max) = range.split_once(')').unwrap().0.split_once(',').unwrap();
            (min.parse().unwrap(), max.parse::<i16>().unwrap())
        });
        let unstable = rest.contains(",true,");
        let listeners = ["BROKER", "CONTROLLER", "BOTH", "NEITHER"]
            .into_iter()
            .find(|kind| rest.contains(&format!(",{kind})")))
            .unwrap();
        Api {
            name: name.to_owned(),
            versions: versions.map(|(min, max)| (min, max - i16::from(unstable))),
            listeners: listeners.to_owned(),
        }
    });
    rows.collect()
}

/// The requests in one of the lists of `apis/mod.rs`.
fn served(list: &str) -> BTreeSet<String> {
    let source = read("crates/klamm-broker/src/apis/mod.rs");
    let (_, list) = source
        .split_once(&format!("const {list}: &[Entry] = &["))
        .unwrap();
    let (list, _) = list.split_once("];").unwrap();
    let names = list
        .split(',')
        .map(str::trim)
        .filter(|line| !line.is_empty());
    names
        .map(|line| match line {
            "produce::ENTRY" => "Produce".to_owned(),
            "fetch::ENTRY" => "Fetch".to_owned(),
            _ => {
                let name = line
                    .strip_prefix("entry::<")
                    .and_then(|l| l.strip_suffix("Request>()"));
                name.unwrap_or_else(|| panic!("cannot read {line}"))
                    .to_owned()
            }
        })
        .collect()
}

/// What the page should say about a key on a listener: Kafka's versions, in brackets if they are
/// not served, and a dash where Kafka has none.
fn expected(api: &Api, kind: &str, served: &BTreeSet<String>) -> String {
    let offered = api.listeners == "BOTH" || api.listeners == kind;
    let Some((min, max)) = api.versions.filter(|_| offered) else {
        assert!(
            !served.contains(&api.name),
            "{} is served, but not by Kafka",
            api.name
        );
        return "-".to_owned();
    };
    // Listed from 0, taken from 3 (KAFKA-18659).
    let min = if api.name == "Produce" { 0 } else { min };
    let range = if min == max {
        min.to_string()
    } else {
        format!("{min}-{max}")
    };
    if served.contains(&api.name) {
        range
    } else {
        format!("({range})")
    }
}

#[test]
fn every_api_has_a_row_that_says_what_is_served() {
    let page = read(PAGE);
    let table = table(&page, "key");
    assert_eq!(
        table.head[..5],
        ["key", "API", "broker", "controller", "status"]
    );
    let (broker, controller) = (served("BROKER_APIS"), served("CONTROLLER_APIS"));
    assert!(
        broker.len() > 45 && controller.len() > 20,
        "the lists were not read"
    );
    let apis = protocol();
    assert_eq!(apis.len(), 93, "the protocol's table was not read");
    assert_eq!(table.rows.len(), apis.len(), "a row for each key");
    for (key, (api, row)) in apis.iter().zip(&table.rows).enumerate() {
        let on_broker = expected(api, "BROKER", &broker);
        let on_controller = expected(api, "CONTROLLER", &controller);
        let says = [&row[0], &row[1], &row[2], &row[3]];
        let is = [&key.to_string(), &api.name, &on_broker, &on_controller];
        assert_eq!(
            says, is,
            "the row of {} in {PAGE}, and what is so",
            api.name
        );
        let anywhere = broker.contains(&api.name) || controller.contains(&api.name);
        let allowed: &[&str] = match (api.versions, anywhere) {
            (None, _) => &["removed"],
            (_, true) => &["done", "partial"],
            (_, false) => &["missing"],
        };
        assert!(
            allowed.contains(&&*row[4]),
            "{}: {} is not one of {allowed:?}",
            api.name,
            row[4]
        );
        if row[4] == "done" {
            assert!(
                !row[6].is_empty(),
                "{} is done, and nothing proves it",
                api.name
            );
            assert!(
                !row[2].contains('(') && !row[3].contains('('),
                "{}",
                api.name
            );
        } else if row[4] != "removed" {
            assert!(!row[5].is_empty(), "{}: what is missing?", api.name);
        }
    }
}

/// The pieces of a cell between backticks.
fn code(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// Whether `source` has a test function of this name.
fn has_test(source: &str, name: &str) -> bool {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    lines.iter().enumerate().any(|(at, line)| {
        let line = line.strip_prefix("async ").unwrap_or(line);
        let is_it = line.strip_prefix("fn ").is_some_and(|rest| {
            rest.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with('('))
        });
        let before = lines[..at].iter().rev().take_while(|l| l.starts_with('#'));
        is_it && before.into_iter().any(|l| l.contains("test"))
    })
}

/// Why the page may not name this test, if so.
fn missing(name: &str, files: &BTreeMap<String, String>) -> Option<String> {
    if let Some((file, test)) = name.split_once("::") {
        let Some(path) = files.get(file) else {
            return Some(format!("{file} is not in the page's list of files"));
        };
        let source = read_all(path);
        let found = if test == "*" {
            source.contains("#[test]") || source.contains("#[tokio::test")
        } else {
            has_test(&source, test)
        };
        return (!found).then(|| format!("no such test in {path}"));
    }
    if let Some(command) = name.strip_prefix("cargo xtask ") {
        let module = read("xtask/src/main.rs");
        return (!module.contains(&format!("\"{command}\""))).then(|| "no such chore".to_owned());
    }
    if let Some(scenario) = name.strip_prefix("sim.") {
        let sources = read_all("crates/klamm-sim/src/scenarios");
        let is_there = sources.contains(&format!("name: \"{scenario}\""));
        return (!is_there).then(|| "no such scenario".to_owned());
    }
    let (suite, test) = name.split_once('.').unwrap_or((name, ""));
    let Some((_, paths)) = SUITES.iter().find(|(known, _)| *known == suite) else {
        return Some("neither file::test nor suite.test".to_owned());
    };
    let source: String = paths.iter().map(|path| read_all(path)).collect();
    // `suite.family.*` stands for all tests whose names begin so.
    let (start, whole) = match test.strip_suffix('*') {
        Some(start) => (start, false),
        None => (test, true),
    };
    let found = source.match_indices(start).any(|(at, _)| {
        let quoted = |c: Option<char>| matches!(c, Some('"' | '\'' | '`'));
        let begins = quoted(source[..at].chars().next_back());
        begins && (!whole || quoted(source[at + start.len()..].chars().next()))
    });
    let generated = ["hello", "compose", "containers", "cluster", "exactly-once"].contains(&suite);
    let found = found || generated && source.contains(&format!("\"{name}\""));
    (!found).then(|| format!("no such test in {paths:?}"))
}

#[test]
fn every_test_that_is_named_exists() {
    let page = read(PAGE);
    let files: BTreeMap<String, String> = table(&page, "prefix")
        .rows
        .iter()
        .flat_map(|row| {
            let prefix = code(&row[0]).next().unwrap().to_owned();
            code(&row[1]).next().map(|path| (prefix, path.to_owned()))
        })
        .collect();
    let mut names = BTreeSet::new();
    for table in tables(&page) {
        if table.head.last().is_some_and(|title| title == "proof") {
            let cells = table.rows.iter().filter_map(|row| row.last().cloned());
            for cell in cells {
                names.extend(code(&cell).map(str::to_owned));
            }
        }
    }
    let used: BTreeSet<&str> = names
        .iter()
        .filter_map(|name| name.split_once("::"))
        .map(|n| n.0)
        .collect();
    let listed: BTreeSet<&str> = files.keys().map(String::as_str).collect();
    assert_eq!(
        used, listed,
        "files of tests that are used, and those that are listed"
    );
    assert!(names.len() > 100, "only {} tests are named", names.len());
    let missing: Vec<String> = names
        .iter()
        .filter_map(|name| missing(name, &files).map(|why| format!("{name}: {why}")))
        .collect();
    assert!(
        missing.is_empty(),
        "{PAGE} names\n  {}",
        missing.join("\n  ")
    );
}
