//! Results of suites: one line a test as it ends, and a closing line.

use std::time::{Duration, Instant};

/// How a test ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Pass,
    Fail(String),
    Skip(String),
    /// It made no headway and is run once more; what comes of that is told by itself.
    Stall(String),
}

/// Counts what was told, and prints it.
#[derive(Default)]
pub struct Report {
    passed: usize,
    skipped: usize,
    stalled: usize,
    failed: Vec<String>,
    /// Whether a missing runtime is a failure (on CI, where everything can be installed).
    strict: bool,
}

impl Report {
    pub fn new() -> Report {
        Report {
            strict: std::env::var_os("CI").is_some_and(|v| v == "true"),
            ..Report::default()
        }
    }

    pub fn tell(&mut self, name: &str, outcome: Outcome, took: Option<Duration>) {
        let time = took
            .map(|t| format!(" ({} ms)", t.as_millis()))
            .unwrap_or_default();
        match outcome {
            Outcome::Pass => {
                println!("pass  {name}{time}");
                self.passed += 1;
            }
            Outcome::Fail(why) => {
                println!(
                    "FAIL  {name}{time}\n      {}",
                    why.replace('\n', "\n      ")
                );
                self.failed.push(name.into());
            }
            Outcome::Stall(why) => {
                println!(
                    "STALL {name}, once more\n      {}",
                    why.replace('\n', "\n      ")
                );
                self.stalled += 1;
            }
            Outcome::Skip(why) => {
                println!("skip  {name}: {why}");
                self.skipped += 1;
            }
        }
    }

    /// Runs a test and tells how it went.
    pub fn test(&mut self, name: &str, body: impl FnOnce() -> crate::Result<()>) {
        let begun = Instant::now();
        let outcome = match body() {
            Ok(()) => Outcome::Pass,
            Err(e) => Outcome::Fail(e.to_string()),
        };
        self.tell(name, outcome, Some(begun.elapsed()));
    }

    /// A suite that cannot run here.
    pub fn missing(&mut self, name: &str, why: &str) {
        let outcome = if self.strict {
            Outcome::Fail(why.into())
        } else {
            Outcome::Skip(why.into())
        };
        self.tell(name, outcome, None);
    }

    /// Prints the closing line; an error if anything failed.
    pub fn close(self) -> crate::Result<()> {
        if !self.failed.is_empty() {
            println!("\nfailed:\n  {}", self.failed.join("\n  "));
        }
        let (passed, failed, skipped) = (self.passed, self.failed.len(), self.skipped);
        println!("\n{passed} passed, {failed} failed, {skipped} skipped");
        if self.stalled > 0 {
            println!("{} stalled and ran once more", self.stalled);
        }
        if failed > 0 {
            Err(format!("{failed} failed").into())
        } else {
            Ok(())
        }
    }
}
