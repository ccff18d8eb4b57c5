//! Runs scenarios over seeds: `klamm-sim [--scenario NAME] [--seeds N] [--seed S]`; with `--lines N` more of the trace.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool"
)]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use klamm_sim::scenarios::{LONG, SCENARIOS, Scenario, run_and_keep};

struct Args {
    scenarios: Vec<&'static Scenario>,
    first: u64,
    count: u64,
    verbose: bool,
    lines: usize,
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Args, String> {
    let mut parsed = Args {
        scenarios: SCENARIOS.iter().collect(),
        first: 0,
        count: 200,
        verbose: false,
        lines: 1_000,
    };
    while let Some(name) = args.next() {
        let value = args.next().ok_or(format!("{name} needs a value"))?;
        let number = || {
            value
                .parse()
                .map_err(|_| format!("{name} {value}: not a number"))
        };
        match name.as_str() {
            "--seeds" => parsed.count = number()?,
            "--from" => parsed.first = number()?,
            "--lines" => parsed.lines = number()? as usize,
            "--seed" => {
                parsed.first = number()?;
                parsed.count = 1;
                parsed.verbose = true;
            }
            "--scenario" => {
                let all = || SCENARIOS.iter().chain(LONG);
                parsed.scenarios = all().filter(|it| it.name == value).collect();
                if parsed.scenarios.is_empty() {
                    let names: Vec<_> = all().map(|scenario| scenario.name).collect();
                    return Err(format!(
                        "no scenario {value}; there are {}",
                        names.join(", ")
                    ));
                }
            }
            _ => return Err(format!("{name} is not an option")),
        }
    }
    Ok(parsed)
}

/// A time in its largest fitting unit.
fn readable(time: Duration) -> String {
    let hours = time.as_secs_f64() / 3_600.0;
    if hours >= 48.0 {
        format!("{:.1} days", hours / 24.0)
    } else if hours >= 1.0 {
        format!("{hours:.1} h")
    } else {
        format!("{:.1} s", time.as_secs_f64())
    }
}

fn main() -> ExitCode {
    let args = match parse(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(error) => {
            eprintln!("{error}");
            eprintln!("usage: sim [--scenario NAME] [--seeds N [--from S]] [--seed S [--lines N]]");
            return ExitCode::FAILURE;
        }
    };
    let mut failures = 0;
    for scenario in args.scenarios {
        #[expect(clippy::disallowed_methods, reason = "how fast the machine is")]
        let begun = Instant::now();
        let (mut simulated, mut steps) = (Duration::ZERO, 0);
        for seed in args.first..args.first + args.count {
            let outcome = run_and_keep(scenario, seed, args.lines);
            simulated += outcome.simulated;
            steps += outcome.trace_len;
            if args.verbose {
                for line in &outcome.tail {
                    println!("  {line}");
                }
                println!("{} lines, {:016x}", outcome.trace_len, outcome.trace_hash);
            }
            if let Err(violation) = outcome.result {
                failures += 1;
                println!("{} seed {seed}: {violation}", scenario.name);
                println!(
                    "  again: cargo xtask sim --scenario {} --seed {seed}",
                    scenario.name
                );
            }
        }
        let seconds = begun.elapsed().as_secs_f64();
        println!(
            "{}: {} seeds, {} simulated, {steps} steps in {seconds:.1} s, {:.0} a second ({})",
            scenario.name,
            args.count,
            readable(simulated),
            steps as f64 / seconds,
            scenario.about
        );
    }
    if failures == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
