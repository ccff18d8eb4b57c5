//! What a broker's process takes: processor time, memory, reads of the disk.

use super::Broker;
use crate::Result;
use std::fs;

/// CPU seconds of a process up to some moment.
#[derive(Debug, Clone, Copy)]
pub struct Cpu {
    /// Of the whole process, in steps of 10 ms.
    ticks: f64,
    /// Of the threads that live, to the nanosecond.
    threads: f64,
}

impl Cpu {
    /// The seconds from `earlier` to here: the threads' account, unless some have ended and taken
    /// theirs along.
    pub fn since(self, earlier: Cpu) -> f64 {
        let (ticks, threads) = (self.ticks - earlier.ticks, self.threads - earlier.threads);
        if threads < ticks - 0.03 {
            ticks
        } else {
            threads
        }
    }
}

impl Broker {
    /// What the process has used of the CPU so far.
    pub fn cpu(&self) -> Result<Cpu> {
        let pid = self.pid().ok_or("not running")?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let after = stat.rsplit(") ").next().unwrap_or_default();
        let fields: Vec<&str> = after.split(' ').collect();
        let ticks = |i: usize| {
            fields
                .get(i)
                .and_then(|f| f.parse::<f64>().ok())
                .unwrap_or(0.0)
        };
        let mut threads = 0.0;
        for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
            // A thread may end while the list is read.
            let stat = fs::read_to_string(entry?.path().join("schedstat")).unwrap_or_default();
            let nanos = stat.split(' ').next().and_then(|f| f.parse::<f64>().ok());
            threads += nanos.unwrap_or(0.0) / 1e9;
        }
        // utime and stime, in hundredths: Linux fixes USER_HZ at 100.
        let ticks = (ticks(11) + ticks(12)) / 100.0;
        Ok(Cpu { ticks, threads })
    }

    /// Bytes that the process had the disk read so far.
    pub fn disk_read_bytes(&self) -> Result<f64> {
        let pid = self.pid().ok_or("not running")?;
        let io = fs::read_to_string(format!("/proc/{pid}/io"))?;
        let line = io.lines().find_map(|l| l.strip_prefix("read_bytes: "));
        Ok(line.ok_or("no read_bytes")?.parse()?)
    }

    /// Forgets the highest resident memory so far (`clear_refs`, proc(5)), so that the next load's
    /// own can be read.
    pub fn forget_highest_memory(&self) -> Result<()> {
        let pid = self.pid().ok_or("not running")?;
        fs::write(format!("/proc/{pid}/clear_refs"), "5")?;
        Ok(())
    }

    /// Resident memory in MiB: now and at its highest.
    pub fn memory_mib(&self) -> Result<(f64, f64)> {
        let pid = self.pid().ok_or("not running")?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let field = |name: &str| {
            let line = status
                .lines()
                .find(|l| l.starts_with(name))
                .unwrap_or_default();
            let kib = line
                .split_whitespace()
                .nth(1)
                .and_then(|v| v.parse::<f64>().ok());
            kib.unwrap_or(0.0) / 1024.0
        };
        Ok((field("VmRSS:"), field("VmHWM:")))
    }
}
