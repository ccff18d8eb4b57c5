//! `cargo xtask bench`: Klamm beside a real Kafka in one run, for `docs/benchmarks.md`.
//!
//! ```text
//! rounds ─ each broker in turn, alone: start · idle · warm up · the cases · kill · recover · end
//!            the order changes from round to round
//!        └ the floor: what one thread that does nothing else needs for the same bytes
//! ```
//!
//! - [`cases`]: the loads; [`groups`]: coordinators; [`pressure`]: connections and cold readers; [`startup`]: start,
//!   recovery, memory; [`many`]: ten thousand partitions; [`floor`].
//! - [`session`]: a broker under measurement, the loader (`interop/go/load`).
//! - [`results`], [`table`], [`compare`]: rows of values as JSON, Markdown, and against earlier ones.
//!
//! Client and broker share the machine, so the CPU seconds that a broker spends tell more about it
//! than the throughput does.

mod cases;
mod compare;
mod floor;
mod groups;
mod many;
mod pressure;
mod results;
mod session;
mod startup;
mod table;

use crate::broker::{Against, Broker, Spec, klamm_binary};
use crate::runtimes::{self, Java};
use crate::{Flags, Result, cache};
use cases::{ALL_PACED, Bulk};
pub use floor::serve as serve_floor;
pub use results::{Goal, Metric, Results};
use session::Session;
pub use session::{figures, output};
use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};
pub use table::{markdown as tables, write as write_tables};

pub const USAGE: &str = "bench [--quick] [--full] [--only CASE] [--rounds 3] [--minutes 20] \
[--brokers kafka,klamm,floor]
        [--mib 512] [--seconds 8] [--json FILE] [--write]; bench --compare OLD NEW; bench --list";

/// Cases of durable acks and those with the page cache that they are set beside.
const DURABLE_BESIDE: [(&str, &str); 2] = [
    (cases::DURABLE, cases::LARGE),
    (cases::DURABLE_5000, cases::PACED_5000),
];

/// Cases that are not loads of as many records as go.
const OTHERS: [&str; 8] = [
    "startup",
    many::LARGE_TOPICS.case,
    many::MANY_TOPICS.case,
    groups::CASE,
    "connections",
    "catch-up",
    "perf-tools",
    "recovery",
];

/// What the command line says, and what the run finds out on the way.
pub struct Settings {
    /// MiB of the plain load.
    mib: usize,
    /// Length of what runs at a pace.
    seconds: f64,
    warm_seconds: f64,
    only: Vec<String>,
    bulk: Vec<Bulk>,
    loader: PathBuf,
    java: Option<Java>,
    /// Half of the requests a second that Kafka took at the most.
    half_rate: Option<f64>,
    begun: Instant,
}

impl Settings {
    fn wants(&self, case: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|o| o == case)
    }

    /// Whether a case was asked for by its name.
    fn asks_for(&self, case: &str) -> bool {
        self.only.iter().any(|o| o == case)
    }

    /// Whether anything but starts and ends is measured.
    fn wants_load(&self) -> bool {
        let many = [many::LARGE_TOPICS.case, many::MANY_TOPICS.case];
        let without = ["startup", "recovery", many[0], many[1], groups::CASE];
        self.only.is_empty() || self.only.iter().any(|o| !without.contains(&o.as_str()))
    }

    fn say(&self, line: &str) {
        let seconds = self.begun.elapsed().as_secs();
        eprintln!("[{:02}:{:02}] {line}", seconds / 60, seconds % 60);
    }
}

pub fn run(args: &[String]) -> Result<()> {
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--compare", old, new] => return compare::run(old, new),
        ["--list"] => {
            println!("{}", names(&Bulk::all()).join("\n"));
            return Ok(());
        }
        _ => {}
    }
    let valued = [
        "only", "rounds", "minutes", "brokers", "mib", "seconds", "json",
    ];
    let flags = Flags::with_switches(args, &valued, &["quick", "full", "write"])?;
    let mut settings = settings(&flags)?;
    let rounds: usize = flags.number("rounds", if flags.has("quick") { 1 } else { 3 })?;
    let limit = Duration::from_secs_f64(flags.number("minutes", 20.0)? * 60.0);
    let brokers = flags.get("brokers").unwrap_or("kafka,klamm,floor");
    let json = match flags.get("json") {
        Some(path) => PathBuf::from(path),
        None => cache::target().join("bench/last.json"),
    };
    settings.say("building");
    klamm_binary()?;
    let mut results = Results {
        machine: machine()?,
        command: ["bench".to_string()]
            .iter()
            .chain(args)
            .cloned()
            .collect::<Vec<_>>()
            .join(" "),
        ..Results::default()
    };
    settings.begun = Instant::now();
    settings.say(&results.machine);
    let mut longest = Duration::ZERO;
    for round in 1..=rounds {
        let begun = Instant::now();
        if round > 1 && settings.begun.elapsed() + longest > limit {
            settings.say(&format!("no time for round {round}"));
            break;
        }
        // Who goes first has a cooler machine and an emptier disk.
        let mut turn: Vec<&str> = brokers.split(',').collect();
        if round % 2 == 0 {
            turn.reverse();
        }
        for broker in turn {
            settings.say(&format!("round {round} of {rounds}: {broker}"));
            one_turn(broker, round, &mut settings, &mut results)?;
        }
        results.rounds = round;
        results.save(&json)?;
        longest = longest.max(begun.elapsed());
    }
    finish(&results, &json, flags.has("write"))
}

fn settings(flags: &Flags) -> Result<Settings> {
    let quick = flags.has("quick");
    let bulk = if flags.has("full") {
        Bulk::matrix()
    } else {
        Bulk::all()
    };
    let only: Vec<String> = flags.all("only").map(String::from).collect();
    let known = names(&bulk);
    if let Some(unknown) = only.iter().find(|o| !known.contains(o)) {
        return Err(format!("no case '{unknown}'; there are: {}", known.join(", ")).into());
    }
    Ok(Settings {
        mib: flags.number("mib", if quick { 32 } else { 512 })?,
        seconds: flags.number("seconds", if quick { 2.0 } else { 8.0 })?,
        warm_seconds: if quick { 1.0 } else { 8.0 },
        only,
        bulk,
        loader: runtimes::go()?.join("load"),
        java: Java::prepare().ok(),
        half_rate: None,
        begun: Instant::now(),
    })
}

fn names(bulk: &[Bulk]) -> Vec<String> {
    let bulk = bulk.iter().map(|b| b.name.clone());
    let paced = ALL_PACED.iter().map(|p| p.name.to_string());
    bulk.chain(paced).chain(OTHERS.map(String::from)).collect()
}

/// One broker, or the floor, through all cases.
fn one_turn(
    name: &str,
    round: usize,
    settings: &mut Settings,
    results: &mut Results,
) -> Result<()> {
    if name == "floor" {
        if settings.wants("1k") {
            floor::measure(settings.mib << 20, results)?;
        }
        return Ok(());
    }
    let against = Against::parse(name)?;
    let folder = cache::scratch(&format!("bench-{against}"))?;
    // What a case deletes is gone before the next one.
    let spec = Spec::new(folder)?.with("log.segment.delete.delay.ms", 1000);
    let mut session = Session::new(Broker::prepare(against, spec)?, settings, results);
    let calibrates = round == 1 && against == Against::Kafka;
    let result = turn(&mut session, calibrates);
    let kept = result.is_err();
    session.broker.kill()?;
    if !kept {
        fs::remove_dir_all(&session.broker.spec.folder)?;
    }
    result
}

fn turn(session: &mut Session, calibrates: bool) -> Result<()> {
    if session.settings.wants("startup") {
        startup::fresh(session)?;
    } else {
        session.broker.start_again()?;
    }
    if session.settings.wants_load() {
        session.settings.say("warming up");
        let most = session.warm_up()?;
        if calibrates {
            session.settings.half_rate = Some((most / 2.0 / 100.0).round() * 100.0);
            session
                .settings
                .say(&format!("at most {most:.0} requests a second"));
        }
        loads(session)?;
        startup::peak(session)?;
    }
    if session.settings.wants("recovery") {
        startup::recovery(session)?;
    }
    if session.settings.asks_for(groups::CASE) {
        groups::coordinators(session)?;
    }
    for shape in [many::LARGE_TOPICS, many::MANY_TOPICS] {
        if session.settings.asks_for(shape.case) {
            many::partitions(session, shape)?;
        }
    }
    Ok(())
}

fn loads(session: &mut Session) -> Result<()> {
    for bulk in session.settings.bulk.clone() {
        if session.settings.wants(&bulk.name) {
            session.case(cases::LOAD, &bulk.title, |s| bulk.run(s))?;
        }
    }
    for paced in ALL_PACED {
        if session.settings.wants(paced.name) {
            paced.case(session)?;
        }
    }
    if session.settings.wants("connections") {
        pressure::connections(session)?;
    }
    if session.settings.wants("catch-up") {
        pressure::catch_up(session)?;
    }
    if session.settings.wants("perf-tools") {
        cases::perf_tools(session)?;
    }
    Ok(())
}

/// Prints the tables, and puts them where they are kept.
fn finish(results: &Results, json: &std::path::Path, write: bool) -> Result<()> {
    let text = table::markdown(results);
    println!("{text}");
    eprintln!("kept in {}", json.display());
    if write {
        table::write(&cache::root().join("docs/benchmarks.md"), &text)?;
    }
    match results.failures.len() {
        0 => Ok(()),
        n => Err(format!("{n} cases failed:\n{}", results.failures.join("\n")).into()),
    }
}

/// What it all runs on.
pub fn machine() -> Result<String> {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus
        .lines()
        .find_map(|l| l.strip_prefix("model name"))
        .unwrap_or(": unknown");
    let cores = cpus.lines().filter(|l| l.starts_with("processor")).count();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib: u64 = memory
        .split_whitespace()
        .nth(1)
        .and_then(|field| field.parse().ok())
        .unwrap_or(0);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let binary = fs::metadata(klamm_binary()?)?.len() as f64;
    Ok(format!(
        "Machine: {cores} cores ({}), {} GiB of memory, Linux {}, a disk that takes {:.0} MB/s \
         written and synced. Klamm's binary: {:.0} MB; Kafka's jars: {:.0} MB.",
        model.trim_start_matches([':', '\t', ' ']),
        kib >> 20,
        kernel.trim(),
        disk_mb_per_s()?,
        binary / 1e6,
        startup::folder_bytes(&cache::kafka_jars()?)? / 1e6,
    ))
}

/// What a sequential write and one sync at its end come to.
fn disk_mb_per_s() -> Result<f64> {
    const MIB: usize = 256;
    let folder = cache::scratch("bench-disk")?;
    let mut file = File::create(folder.join("file"))?;
    let chunk = vec![1; 1 << 20];
    let begun = Instant::now();
    for _ in 0..MIB {
        file.write_all(&chunk)?;
    }
    file.sync_all()?;
    let seconds = begun.elapsed().as_secs_f64();
    fs::remove_dir_all(folder)?;
    Ok((MIB << 20) as f64 / 1e6 / seconds)
}
