//! Where fetched and built things of the suites are kept: `$KLAMM_CACHE`, or
//! `target/interop-cache`; and where their brokers keep data.

use crate::Result;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The repository's top folder.
pub fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// The folder Cargo builds into.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// A folder of the cache, made if need be.
pub fn folder(name: &str) -> Result<PathBuf> {
    let base = std::env::var_os("KLAMM_CACHE")
        .map_or_else(|| root().join("target/interop-cache"), PathBuf::from);
    let folder = base.join(name);
    fs::create_dir_all(&folder)?;
    Ok(folder.canonicalize()?)
}

/// A new empty folder for the data of one run; earlier ones of this name are removed. It lies in
/// `$KLAMM_SUITE_DATA`, or in `target/interop`.
pub fn scratch(name: &str) -> Result<PathBuf> {
    let base = std::env::var_os("KLAMM_SUITE_DATA")
        .map_or_else(|| root().join("target/interop"), PathBuf::from);
    let folder = base.join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    Ok(folder.canonicalize()?)
}

/// The jars of a real Kafka, fetched once.
pub fn kafka_jars() -> Result<PathBuf> {
    let libs = folder("kafka-4.3.1")?;
    let needed = [
        "kafka-tools-4.3.1.jar",
        "kafka-streams-4.3.1.jar",
        "kafka-shell-4.3.1.jar",
    ];
    if needed.iter().all(|jar| libs.join(jar).exists()) {
        return Ok(libs);
    }
    eprintln!("fetching the jars of Kafka 4.3.1");
    let status = Command::new("mvn")
        .args(["-q", "-B", "-f"])
        .arg(root().join("interop/java/pom.xml"))
        .arg("dependency:copy-dependencies")
        .arg(format!("-DoutputDirectory={}", libs.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .map_err(|e| format!("mvn (Maven) cannot be run: {e}"))?;
    if !status.success() {
        return Err(format!("Maven could not fetch the jars: {status}").into());
    }
    Ok(libs)
}

/// Whether a program can be started at all.
pub fn has(program: &str) -> bool {
    let version = if program == "go" {
        "version"
    } else {
        "--version"
    };
    Command::new(program)
        .arg(version)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|s| s.success())
}
