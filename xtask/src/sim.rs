//! `cargo xtask sim [--scenario NAME] [--seeds N [--from S]] [--seed S]`: runs the simulator, with
//! optimizations.

use std::process::Command;

use crate::Result;

/// Shown where the chores are listed.
pub(crate) const USAGE: &str =
    "sim [--scenario NAME] [--seeds N [--from S]] [--seed S]   crates under faults";

/// Builds and runs `klamm-sim` with the arguments given.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["run", "--quiet", "--release", "-p", "klamm-sim", "--"])
        .args(args)
        .status()?;
    if status.success() {
        Ok(())
    } else {
        Err("a property was violated".into())
    }
}
