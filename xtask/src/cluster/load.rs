//! The load: a producer and two readers of each client, in processes of their own, which also check
//! what they get. `interop/java/src/klamm/interop/ClusterLoad.java` says what they do.

use crate::Result;
use crate::cache;
use crate::runtimes::{self, Java};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many records a load's producer sends in about a second, at most.
const JAVA_PACE: u64 = 750;
const OTHERS_PACE: u64 = 200;

/// A client's load, not started.
pub struct Client {
    pub name: &'static str,
    pace: u64,
    command: Command,
}

/// Kafka's own client.
pub fn of_java(java: &Java, log: &Path) -> Client {
    Client {
        name: "java",
        pace: JAVA_PACE,
        command: java.driver("cluster-load", log),
    }
}

/// The clients that can be run here, and why others cannot.
pub fn clients(java: &Java, log: &Path) -> Vec<(&'static str, Result<Client>)> {
    let client = |name, pace, command| Client {
        name,
        pace,
        command,
    };
    let librdkafka = runtimes::python().map(|python| {
        let mut command = Command::new(python);
        command.arg(cache::root().join("interop/python/cluster_load.py"));
        client("librdkafka", OTHERS_PACE, command)
    });
    let franz = runtimes::go().map(|folder| {
        let command = Command::new(folder.join("cluster"));
        client("franz-go", OTHERS_PACE, command)
    });
    vec![
        ("java", Ok(of_java(java, log))),
        ("librdkafka", librdkafka),
        ("franz-go", franz),
    ]
}

pub struct Load {
    name: &'static str,
    pace: u64,
    child: Child,
    acked: Arc<AtomicU64>,
    verdict: Arc<Mutex<Option<String>>>,
    gaps: Mutex<Receiver<Gap>>,
}

/// What a load saw since it was last asked.
#[derive(Debug, Clone, Copy)]
pub struct Gap {
    /// How long a partition had no acknowledgement, at the most.
    pub ms: f64,
    /// Records sent again, from the beginning on.
    pub retries: f64,
}

impl Load {
    /// Starts it and waits for the first acknowledgement.
    pub fn start(client: Client, bootstrap: &str, topic: &str, partitions: i32) -> Result<Load> {
        let (name, pace, mut command) = (client.name, client.pace, client.command);
        let partitions = partitions.to_string();
        if name == "java" {
            command.args(["--bootstrap", bootstrap, "--topic", topic]);
            command.args(["--partitions", &partitions]);
        } else {
            command.args([bootstrap, topic, &partitions]);
        }
        let load = Load::of(name, pace, command)?;
        load.wait_for_progress(0, 1, Duration::from_secs(60))?;
        Ok(load)
    }

    /// Starts any program that tells of its progress and its verdict in the same way. It sends
    /// about `pace` records a second.
    pub fn of(name: &'static str, pace: u64, mut command: Command) -> Result<Load> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(Stdio::null());
        let mut child = command.spawn()?;
        let (acked, verdict) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(None)));
        let stdout = child.stdout.take().ok_or("no standard output")?;
        let (told, said) = (Arc::clone(&acked), Arc::clone(&verdict));
        let (gap, gaps) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout)
                .lines()
                .map_while(std::io::Result::ok)
            {
                let words: Vec<&str> = line.split(' ').collect();
                match words[..] {
                    ["acked", count] => told.store(count.parse().unwrap_or(0), Ordering::Relaxed),
                    ["gap", ms, retries] => {
                        let number = |word: &str| word.parse().unwrap_or(f64::NAN);
                        let (ms, retries) = (number(ms), number(retries));
                        let _ = gap.send(Gap { ms, retries });
                    }
                    _ => *said.lock().unwrap_or_else(PoisonError::into_inner) = Some(line),
                }
            }
        });
        Ok(Load {
            name,
            pace,
            child,
            acked,
            verdict,
            gaps: Mutex::new(gaps),
        })
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    /// As many records as it sends in so many seconds, at most.
    pub fn records_of(&self, seconds: u64) -> u64 {
        self.pace * seconds
    }

    pub fn acked(&self) -> u64 {
        self.acked.load(Ordering::Relaxed)
    }

    /// Waits until `more` records than `from` were acknowledged; tells how long that took.
    pub fn wait_for_progress(&self, from: u64, more: u64, limit: Duration) -> Result<Duration> {
        let begun = Instant::now();
        while self.acked() < from + more {
            if let Some(verdict) = self.verdict() {
                return Err(format!("{}: {verdict}", self.name).into());
            }
            if begun.elapsed() > limit {
                let (name, acked) = (self.name, self.acked());
                return Err(
                    format!("{name}: {acked} acknowledged, not enough more in {limit:?}").into(),
                );
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(begun.elapsed())
    }

    /// Asks the Java load what it saw since this was asked last.
    pub fn gap(&mut self) -> Result<Gap> {
        let input = self.child.stdin.as_mut().ok_or("no standard input")?;
        writeln!(input, "gap")?;
        let gaps = self.gaps.get_mut();
        let gaps = gaps.unwrap_or_else(PoisonError::into_inner);
        Ok(gaps.recv_timeout(Duration::from_secs(10))?)
    }

    fn verdict(&self) -> Option<String> {
        let verdict = self.verdict.lock();
        verdict.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends the load and waits for its verdict on everything acknowledged and read.
    pub fn finish(mut self) -> Result<String> {
        let name = self.name;
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
            Some(verdict) if verdict.starts_with("done ") => Ok(format!("{name}: {verdict}")),
            Some(verdict) => Err(format!("{name}: {verdict}").into()),
            None => Err(format!("{name} ended without a verdict").into()),
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
