//! What a broker and its machine are doing while a test makes no headway.

use std::fmt::Write;
use std::fs;
use std::path::Path;

/// Stack frames shown of a thread.
const FRAMES_MAX: usize = 8;

/// The threads of a process with what they wait for in the kernel, and how busy the machine's
/// disks, memory and processors are. What cannot be read is left out.
pub fn of_process(pid: u32) -> String {
    let mut out = String::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let read = |name: &str| fs::read_to_string(thread.path().join(name)).unwrap_or_default();
        let status = read("status");
        let state = field(&status, "State:");
        let _ = writeln!(
            out,
            "thread {} {}: {state}, in {}",
            thread.file_name().display(),
            read("comm").trim(),
            read("wchan")
        );
        // Readable for root only.
        for frame in read("stack").lines().take(FRAMES_MAX) {
            let _ = writeln!(out, "    {}", frame.trim_start_matches("[<0>] "));
        }
    }
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    for name in ["MemAvailable:", "Dirty:", "Writeback:"] {
        let _ = writeln!(out, "{name} {}", field(&memory, name));
    }
    for resource in ["cpu", "io", "memory"] {
        let pressure = fs::read_to_string(format!("/proc/pressure/{resource}")).unwrap_or_default();
        let first = pressure.lines().next().unwrap_or_default();
        let _ = writeln!(out, "pressure {resource}: {first}");
    }
    out
}

/// The last lines of a file.
pub fn tail(path: &Path, lines: usize) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

fn field<'a>(text: &'a str, name: &str) -> &'a str {
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .map_or("", str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_the_threads_of_this_process() {
        let shown = of_process(std::process::id());
        assert!(shown.contains("thread "), "{shown}");
        assert!(shown.contains("MemAvailable: "), "{shown}");
    }

    #[test]
    fn a_process_that_is_gone_has_no_threads() {
        assert!(!of_process(u32::MAX).contains("thread "));
    }
}
