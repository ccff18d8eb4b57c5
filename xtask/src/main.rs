//! Klamm's chores: `cargo xtask <name>`. Each is a module of its own; a new one adds its line to `main`.

mod codegen;
mod config_facts;
mod golden;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (name, rest) = match args.split_first() {
        Some((name, rest)) => (name.as_str(), rest),
        None => ("help", &[][..]),
    };
    let done = match name {
        "codegen" => codegen::run(rest),
        "config-facts" => config_facts::run(rest),
        "golden" => golden::run(rest),
        _ => Err("usage: cargo xtask codegen|config-facts|golden …".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask {name}: {error}");
            ExitCode::FAILURE
        }
    }
}
