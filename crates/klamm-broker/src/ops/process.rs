//! The process as the system sees it, from `/proc/self`.

use std::fmt;

/// Numbers of this process, by the names Prometheus' client libraries use.
#[derive(Debug, PartialEq)]
pub(super) struct Process {
    cpu_seconds: f64,
    resident_bytes: u64,
    virtual_bytes: u64,
    threads: u64,
    open_fds: Option<usize>,
}

/// The numbers now; none where there is no `/proc`.
#[expect(
    clippy::disallowed_methods,
    reason = "about the process itself, not about its data"
)]
pub(super) fn read() -> Option<Process> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let open_fds = std::fs::read_dir("/proc/self/fd").ok().map(Iterator::count);
    parse(
        &stat,
        rustix::param::page_size(),
        rustix::param::clock_ticks_per_second(),
        open_fds,
    )
}

/// Reads the one line of `/proc/self/stat`. The second field, the program's name in parentheses,
/// may hold anything, so fields are counted from its end.
fn parse(stat: &str, page: usize, ticks: u64, open_fds: Option<usize>) -> Option<Process> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    #[allow(clippy::cast_precision_loss, reason = "ticks of a process fit")]
    let cpu_seconds = (number(11)? + number(12)?) as f64 / ticks.max(1) as f64;
    Some(Process {
        cpu_seconds,
        threads: number(17)?,
        virtual_bytes: number(20)?,
        resident_bytes: number(21)?.saturating_mul(u64::try_from(page).ok()?),
        open_fds,
    })
}

impl Process {
    /// Hands each number to `line` with its name, kind and help.
    pub(super) fn write(
        &self,
        mut line: impl FnMut(&str, &str, &str, &dyn fmt::Display) -> fmt::Result,
    ) -> fmt::Result {
        line(
            "process_cpu_seconds_total",
            "counter",
            "CPU time used.",
            &self.cpu_seconds,
        )?;
        line(
            "process_resident_memory_bytes",
            "gauge",
            "Memory in RAM.",
            &self.resident_bytes,
        )?;
        line(
            "process_virtual_memory_bytes",
            "gauge",
            "Address space.",
            &self.virtual_bytes,
        )?;
        line("process_threads", "gauge", "Threads.", &self.threads)?;
        match &self.open_fds {
            Some(count) => line("process_open_fds", "gauge", "Open file descriptors.", count),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_stat_line_with_a_wild_name() {
        let line = "4242 (a) b (c) S 1 2 3 0 -1 4 5 6 7 8 150 50 0 0 20 0 9 0 100 1048576 300 18 0";
        let process = parse(line, 4096, 100, Some(7)).unwrap();
        let expected = Process {
            cpu_seconds: 2.0,
            resident_bytes: 300 * 4096,
            virtual_bytes: 1 << 20,
            threads: 9,
            open_fds: Some(7),
        };
        assert_eq!(process, expected);
        assert_eq!(parse("nonsense", 4096, 100, None), None);
        assert_eq!(parse("1 (x) S 1", 4096, 100, None), None);
    }

    #[test]
    fn reads_this_process() {
        if cfg!(target_os = "linux") {
            let process = read().unwrap();
            assert!(process.resident_bytes > 0 && process.threads > 0);
        }
    }
}
