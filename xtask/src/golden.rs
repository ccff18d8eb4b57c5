//! `cargo xtask golden --jars DIR`: writes the golden files of `klamm-protocol` with Kafka's own
//! codec. Needs a JDK (17 or later) and the jars of a Kafka distribution.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Where the generator and what it writes lie.
const DIRECTORY: &str = "crates/klamm-protocol/tests/golden";

/// Runs the subcommand.
pub(crate) fn run(args: &[String]) -> Result<(), Box<dyn std::error::Error>> {
    let [flag, jars] = args else {
        return Err("usage: cargo xtask golden --jars DIR".into());
    };
    if flag != "--jars" {
        return Err("usage: cargo xtask golden --jars DIR".into());
    }
    generate(Path::new(jars)).map_err(|error| format!("{error:#}").into())
}

#[expect(
    clippy::disallowed_methods,
    reason = "a tool of the repository, run by hand"
)]
fn generate(jars: &Path) -> Result<()> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(DIRECTORY);
    let classes = std::env::temp_dir().join(format!("klamm-golden-{}", std::process::id()));
    std::fs::create_dir_all(&classes)?;
    let class_path = format!("{}/*:{}", jars.display(), classes.display());
    java(
        "javac",
        &["-nowarn".as_ref(), "-d".as_ref(), classes.as_ref()],
        &class_path,
        &[directory.join("Golden.java")],
    )?;
    java(
        "java",
        &[],
        &class_path,
        &["Golden".into(), jars.to_owned(), directory],
    )?;
    std::fs::remove_dir_all(&classes)?;
    Ok(())
}

fn java(program: &str, flags: &[&Path], class_path: &str, args: &[PathBuf]) -> Result<()> {
    let status = Command::new(program)
        .args(flags)
        .args(["-cp", class_path])
        .args(args)
        .status()
        .with_context(|| program.to_owned())?;
    ensure!(status.success(), "{program} failed");
    Ok(())
}
