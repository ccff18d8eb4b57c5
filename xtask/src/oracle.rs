//! `cargo xtask oracle`: a real Apache Kafka 4.3.1 on loopback, to ask how it behaves.

use crate::broker::{Against, Broker, Spec, signal};
use crate::{Flags, Result, cache};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub const USAGE: &str = "oracle up [--dir DIR] [--port PORT] [--heap 768m] [--set NAME=VALUE]… | down [--dir DIR] | fetch";

pub fn run(args: &[String]) -> Result<()> {
    let (verb, rest) = args.split_first().ok_or(USAGE)?;
    let flags = Flags::parse(rest, &["dir", "port", "heap", "set"])?;
    let folder = match flags.get("dir") {
        Some(dir) => PathBuf::from(dir),
        None => cache::root().join("target/oracle"),
    };
    match verb.as_str() {
        "up" => up(&flags, &folder),
        "down" => down(&folder),
        "fetch" => {
            println!("{}", cache::kafka_jars()?.display());
            Ok(())
        }
        _ => Err(USAGE.into()),
    }
}

fn up(flags: &Flags, folder: &Path) -> Result<()> {
    if running(folder).is_some() {
        return Err(format!("already running in {}", folder.display()).into());
    }
    fs::create_dir_all(folder)?;
    let mut spec = Spec::new(folder.canonicalize()?)?;
    if let Some(port) = flags.get("port") {
        spec.port = port.parse()?;
    }
    if let Some(heap) = flags.get("heap") {
        spec.heap = heap.into();
    }
    for pair in flags.all("set") {
        let (name, value) = pair.split_once('=').ok_or("--set NAME=VALUE")?;
        spec = spec.with(name, value);
    }
    let broker = Broker::start(Against::Kafka, spec)?;
    println!("{}", broker.bootstrap());
    broker.release();
    Ok(())
}

fn down(folder: &Path) -> Result<()> {
    let Some(pid) = running(folder) else {
        println!("not running in {}", folder.display());
        return Ok(());
    };
    signal(pid, "TERM");
    let end = Instant::now() + Duration::from_secs(60);
    while running(folder).is_some() {
        if Instant::now() > end {
            signal(pid, "KILL");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// The recorded process, if it still is the broker of this folder.
fn running(folder: &Path) -> Option<u32> {
    let folder = folder.canonicalize().ok()?;
    let pid: u32 = fs::read_to_string(folder.join("pid"))
        .ok()?
        .trim()
        .parse()
        .ok()?;
    let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
    command
        .contains(&folder.join("server.properties").display().to_string())
        .then_some(pid)
}
