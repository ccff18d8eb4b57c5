//! `cargo xtask bench`: Klamm beside a real Kafka in one run, as Markdown for `docs/benchmarks.md`.
//!
//! The two take turns, load by load, so that a slow minute of the machine meets both; each figure
//! is the median of several turns. Client and broker share the machine, so the CPU seconds a broker
//! spends on a gigabyte tell more about it than the throughput does.

mod load;
mod startup;

use crate::broker::Against;
use crate::{Flags, Result};
use std::fs;

pub const USAGE: &str = "bench [--only startup|load] [--turns 3] [--mib 512]";

const BOTH: [Against; 2] = [Against::Klamm, Against::Kafka];

pub fn run(args: &[String]) -> Result<()> {
    let flags = Flags::parse(args, &["only", "turns", "mib"])?;
    let turns: usize = flags.number("turns", 3)?;
    let mib: usize = flags.number("mib", 512)?;
    println!("{}\n", machine());
    println!("Command: `cargo xtask bench {}`\n", args.join(" "));
    if flags.get("only").is_none_or(|o| o == "startup") {
        startup::run(turns.max(3))?;
    }
    if flags.get("only").is_none_or(|o| o == "load") {
        load::run(turns, mib)?;
    }
    Ok(())
}

fn machine() -> String {
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
    format!(
        "Machine: {cores} cores ({}), {} GiB of memory, Linux {}.",
        model.trim_start_matches([':', '\t', ' ']),
        kib >> 20,
        kernel.trim()
    )
}

/// The middle of the values; NaN of none.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    if values.is_empty() {
        f64::NAN
    } else {
        values[values.len() / 2]
    }
}

/// A table row: what it is, Klamm's and Kafka's value and how Klamm's relates to Kafka's.
fn row(what: &str, unit: &str, klamm: f64, kafka: f64) {
    let digits = if klamm.max(kafka) < 10.0 { 2 } else { 0 };
    let ratio = if kafka == 0.0 {
        "–".into()
    } else {
        format!("{:.2}", klamm / kafka)
    };
    println!("| {what} | {klamm:.digits$} {unit} | {kafka:.digits$} {unit} | {ratio} |");
}

fn header(title: &str) {
    println!("| {title} | Klamm | Kafka | Klamm / Kafka |\n|---|---:|---:|---:|");
}
