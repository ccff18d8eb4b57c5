//! Klamm's chores: `cargo xtask <name>`. Each is a module of its own; a new one adds its line to `main`.

#![expect(
    clippy::disallowed_methods,
    reason = "chores of the repository, none of it ships"
)]

mod bad_input;
mod batch;
mod bench;
mod broker;
mod cache;
mod cluster;
mod codegen;
mod config_facts;
mod docs;
mod exactly_once;
mod flags;
mod golden;
mod hello;
mod interop;
mod kill;
mod micro;
mod oracle;
mod report;
mod runtimes;
mod sim;
mod small_disk;
mod snapshot;
mod wire;

use flags::Flags;
use std::process::ExitCode;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const USAGE: &str = "usage: cargo xtask CHORE
  codegen          the protocol's Rust from Kafka's schemas
  config-facts     the config tables from Kafka's jars
  docs             docs/configuration.md from the config tables
  golden           golden bytes from Kafka's own codec
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (name, rest) = match args.split_first() {
        Some((name, rest)) => (name.as_str(), rest),
        None => ("help", &[][..]),
    };
    let done = match name {
        "codegen" => codegen::run(rest),
        "config-facts" => config_facts::run(rest),
        "docs" => docs::run(rest),
        "golden" => golden::run(rest),
        "oracle" => oracle::run(rest),
        "interop" => interop::run(rest),
        "kill" => kill::run(rest),
        "cluster" => cluster::run(rest),
        "exactly-once" => exactly_once::run(rest),
        "cluster-bench" => cluster::bench(rest),
        "bench" => bench::run(rest),
        "micro" => micro::run(rest),
        // A process that `bench` starts.
        "bench-floor" => bench::serve_floor(rest),
        "sim" => sim::run(rest),
        _ => {
            let usages = [
                oracle::USAGE,
                interop::USAGE,
                kill::USAGE,
                cluster::USAGE,
                exactly_once::USAGE,
                cluster::BENCH_USAGE,
                bench::USAGE,
                micro::USAGE,
                sim::USAGE,
            ];
            Err(format!("{USAGE}  {}", usages.join("\n  ")).into())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask {name}: {error}");
            ExitCode::FAILURE
        }
    }
}
