//! `cargo xtask micro`: the criterion benches of the crates, kept under a name and compared with it
//! later, so that a change that makes a part slower is noticed.

use crate::{Flags, Result, cache};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

pub const USAGE: &str = "micro --save NAME | --against NAME [--only FILTER] [--noise 10]";

/// Folders and what `cargo bench` is told there.
const BENCHES: [(&str, &[&str]); 2] = [
    (
        ".",
        &[
            "-p",
            "klamm-records",
            "-p",
            "klamm-log",
            "--bench",
            "records",
            "--bench",
            "log",
        ],
    ),
    ("benches/codec", &["--bench", "codec"]),
];

pub fn run(args: &[String]) -> Result<()> {
    let flags = Flags::parse(args, &["save", "against", "only", "noise"])?;
    let noise: f64 = flags.number("noise", 10.0)?;
    let mode = match (flags.get("save"), flags.get("against")) {
        (Some(name), None) => ["--save-baseline", name],
        (None, Some(name)) => ["--baseline", name],
        _ => return Err("either --save NAME or --against NAME".into()),
    };
    let home = cache::target().join("criterion");
    // What an earlier comparison left would be taken for this one's.
    for change in changes(&home)? {
        fs::remove_file(change)?;
    }
    for (folder, which) in BENCHES {
        let mut bench = Command::new("cargo");
        bench.current_dir(cache::root().join(folder));
        bench.arg("bench").args(which).arg("--").args(mode);
        bench.args(flags.get("only")).env("CRITERION_HOME", &home);
        let status = bench.status()?;
        if !status.success() {
            return Err(format!("{bench:?}: {status}").into());
        }
    }
    if flags.get("save").is_some() {
        return Ok(());
    }
    let mut worse = 0;
    println!(
        "\n| bench | time against {} (95 % interval) | |\n|---|---:|---|",
        mode[1]
    );
    for path in changes(&home)? {
        let (text, verdict) = judged(&fs::read_to_string(&path)?, noise)?;
        worse += usize::from(verdict == "**slower**");
        let name = path.strip_prefix(&home)?.to_string_lossy().into_owned();
        let name = name.trim_end_matches("/change/estimates.json");
        println!("| {name} | {text} | {verdict} |");
    }
    match worse {
        0 => Ok(()),
        n => Err(format!("{n} benches are slower by more than {noise} %").into()),
    }
}

/// Slower or faster only if the whole interval of the median's change is beyond the noise.
fn judged(estimates: &str, noise: f64) -> Result<(String, &'static str)> {
    let estimates: Value = serde_json::from_str(estimates)?;
    let median = &estimates["median"];
    let interval = &median["confidence_interval"];
    let percent = |value: &Value| value.as_f64().map(|part| part * 100.0);
    let (Some(change), Some(low), Some(high)) = (
        percent(&median["point_estimate"]),
        percent(&interval["lower_bound"]),
        percent(&interval["upper_bound"]),
    ) else {
        return Err("criterion's estimates have another form".into());
    };
    let verdict = if low > noise {
        "**slower**"
    } else if high < -noise {
        "faster"
    } else {
        ""
    };
    Ok((format!("{change:+.1} % ({low:+.1}–{high:+.1})"), verdict))
}

/// All `change/estimates.json` below a folder, sorted.
fn changes(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(folder) = open.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
            } else if path.ends_with("change/estimates.json") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_within_the_noise_is_none() {
        let estimates = |low: f64, high: f64| {
            format!(
                r#"{{"mean":{{}},"median":{{"point_estimate":{},"confidence_interval":
                {{"confidence_level":0.95,"lower_bound":{low},"upper_bound":{high}}}}}}}"#,
                f64::midpoint(low, high)
            )
        };
        let verdict = |low, high| judged(&estimates(low, high), 10.0).unwrap().1;
        assert_eq!(verdict(0.11, 0.2), "**slower**");
        assert_eq!(verdict(0.09, 0.2), "");
        assert_eq!(verdict(-0.3, -0.11), "faster");
        assert_eq!(verdict(-0.2, 0.2), "");
        assert!(judged("{}", 10.0).is_err());
    }
}
