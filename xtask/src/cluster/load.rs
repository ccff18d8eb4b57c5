//! The load: a JVM with Kafka's own clients, which also checks what they get.

use crate::Result;
use crate::runtimes::Java;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub struct Load {
    child: Child,
    acked: Arc<AtomicU64>,
    verdict: Arc<Mutex<Option<String>>>,
}

impl Load {
    /// Starts it and waits for the first acknowledgement.
    pub fn start(
        java: &Java,
        bootstrap: &str,
        topic: &str,
        partitions: i32,
        log: &Path,
    ) -> Result<Load> {
        let mut command = java.driver("cluster-load", log);
        command.args(["--bootstrap", bootstrap, "--topic", topic]);
        command.args(["--partitions", &partitions.to_string()]);
        Load::of(command)
    }

    /// Starts any program that tells of its progress and its verdict in the same way.
    pub fn of(mut command: Command) -> Result<Load> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(Stdio::null());
        let mut child = command.spawn()?;
        let (acked, verdict) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(None)));
        let stdout = child.stdout.take().ok_or("no standard output")?;
        let (told, said) = (Arc::clone(&acked), Arc::clone(&verdict));
        std::thread::spawn(move || {
            for line in BufReader::new(stdout)
                .lines()
                .map_while(std::io::Result::ok)
            {
                match line.strip_prefix("acked ").map(str::parse) {
                    Some(Ok(count)) => told.store(count, Ordering::Relaxed),
                    _ => *said.lock().unwrap_or_else(PoisonError::into_inner) = Some(line),
                }
            }
        });
        let load = Load {
            child,
            acked,
            verdict,
        };
        load.wait_for_progress(0, 1, Duration::from_secs(60))?;
        Ok(load)
    }

    pub fn acked(&self) -> u64 {
        self.acked.load(Ordering::Relaxed)
    }

    /// Waits until `more` records than `from` were acknowledged; tells how long that took.
    pub fn wait_for_progress(&self, from: u64, more: u64, limit: Duration) -> Result<Duration> {
        let begun = Instant::now();
        while self.acked() < from + more {
            if let Some(verdict) = self.verdict() {
                return Err(verdict.into());
            }
            if begun.elapsed() > limit {
                let acked = self.acked();
                return Err(format!("{acked} acknowledged, no more for {limit:?}").into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(begun.elapsed())
    }

    fn verdict(&self) -> Option<String> {
        let verdict = self.verdict.lock();
        verdict.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends the load and waits for its verdict on everything acknowledged and read.
    pub fn finish(mut self) -> Result<String> {
        drop(self.child.stdin.take());
        let end = Instant::now() + Duration::from_secs(300);
        while self.verdict().is_none() && self.child.try_wait()?.is_none() {
            if Instant::now() > end {
                return Err("the load does not end".into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        // Its last line may still be on its way.
        std::thread::sleep(Duration::from_millis(100));
        match self.verdict() {
            Some(verdict) if verdict.starts_with("done ") => Ok(verdict),
            Some(verdict) => Err(verdict.into()),
            None => Err("the load ended without a verdict".into()),
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
