//! The suite `consumer-groups` on a broker of its own, which it may ask to be killed.

use super::{Run, run_child};
use crate::Result;
use crate::broker::{Broker, Spec};
use crate::report::Outcome;
use crate::runtimes::{self, Java};
use crate::{cache, snapshot};
use std::fs;
use std::process::Command;
use std::thread;
use std::time::Duration;

const SUITE: &str = "consumer-groups";
/// Made by the Java suite when it wants the broker killed; removed when it is up again.
const MARKER: &str = "restart.now";

impl Run {
    pub(super) fn consumer_groups(&mut self) -> Result<()> {
        let folder = self.folder.join(SUITE);
        let work = folder.join("work");
        fs::create_dir_all(&work)?;
        let mut broker = match Broker::start(self.against, Spec::new(folder.join("broker"))?) {
            Ok(broker) => broker,
            Err(e) => {
                let failed = Outcome::Fail(e.to_string());
                self.report.tell(SUITE, failed, None);
                return Ok(());
            }
        };
        // A single test is of one of the two programs.
        let only = self.only_of(SUITE);
        let is_python = only.as_ref().map(|name| name.contains("librdkafka"));
        match Java::prepare() {
            _ if is_python == Some(true) => {}
            Ok(java) => {
                let mut command = java.driver(SUITE, &folder.join("clients.log"));
                command.args(["--bootstrap", &broker.bootstrap()]);
                command.arg("--log-dir").arg(broker.spec.data());
                command.arg("--work-dir").arg(&work);
                let golden = cache::root().join("interop/golden");
                command.arg("--golden").arg(golden);
                if let Some(only) = &only {
                    command.args(["--only", only]);
                }
                if self.record {
                    command.args(["--record", "true"]);
                }
                self.with_restarts(command, "java", &mut broker);
            }
            Err(e) => self.report.missing(SUITE, &e.to_string()),
        }
        match runtimes::python() {
            _ if is_python == Some(false) => {}
            Ok(python) => {
                let script = cache::root().join("interop/python/suite_consumer_groups.py");
                let mut command = Command::new(python);
                command.arg(script).arg(broker.bootstrap()).arg("0");
                command.args(only);
                command.env("PYTHONDONTWRITEBYTECODE", "1");
                self.with_restarts(command, "python", &mut broker);
            }
            Err(e) => self.report.missing(SUITE, &e.to_string()),
        }
        self.report
            .test("consumer-groups.ends-cleanly", || broker.stop().map(drop));
        Ok(())
    }

    /// Runs the program; meanwhile kills and starts the broker each time the marker appears.
    fn with_restarts(&mut self, command: Command, part: &str, broker: &mut Broker) {
        let folder = self.folder.join(SUITE);
        let marker = folder.join("work").join(MARKER);
        let log = folder.join(format!("{part}.log"));
        let broker_log = broker.spec.folder.join("log");
        let look = || {
            let clients = folder.join("clients.log");
            let (broker, clients) = (
                snapshot::tail(&broker_log, 12),
                snapshot::tail(&clients, 12),
            );
            format!("broker log:\n{broker}\nclients' log:\n{clients}")
        };
        let report = &mut self.report;
        let ended = thread::scope(|scope| {
            let log = &log;
            let suite = scope.spawn(move || {
                run_child(command, SUITE, log, None, report, look).map_err(|e| e.to_string())
            });
            let mut restarted = Ok(());
            while !suite.is_finished() {
                thread::sleep(Duration::from_millis(100));
                if marker.exists() {
                    restarted = broker.kill().and_then(|()| broker.start_again().map(drop));
                    // The suite goes on to see what became of it, or fails.
                    let _ = fs::remove_file(&marker);
                }
            }
            let ran = suite.join().unwrap_or_else(|_| Err("panicked".to_owned()));
            restarted.map_err(|e| e.to_string()).and(ran)
        });
        if let Err(e) = ended {
            let failed = Outcome::Fail(format!("{e}; see {}", log.display()));
            self.report.tell(SUITE, failed, None);
        }
    }
}
