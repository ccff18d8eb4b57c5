//! One broker from its start to its end, with what the cases need: topics, the loader, the
//! broker's CPU account, a place for the figures.

use super::Settings;
use super::cases::{Bulk, LARGE};
use super::results::{Goal, Metric, Results};
use crate::Result;
use crate::broker::{Against, Broker};
use crate::wire::{Connection, Writer};
use serde_json::{Map, Value};
use std::io::BufRead;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

pub struct Session<'a> {
    pub broker: Broker,
    pub settings: &'a mut Settings,
    pub results: &'a mut Results,
    /// The table that figures go to.
    pub table: &'static str,
    pub case: String,
    topics: usize,
    /// The highest resident memory that the broker was seen with, in MiB.
    highest_mib: f64,
    /// What was noted since the case began, to be shown.
    noted: Vec<String>,
}

/// What a run of the loader said, and what it cost the broker.
pub struct Told {
    figures: Map<String, Value>,
    /// CPU seconds of the broker.
    pub cpu: f64,
}

impl Told {
    pub fn get(&self, name: &str) -> Result<f64> {
        let value = self.figures.get(name).and_then(Value::as_f64);
        Ok(value.ok_or_else(|| format!("the loader told no {name}"))?)
    }

    pub fn mb_per_s(&self) -> Result<f64> {
        Ok(self.get("bytes")? / self.get("seconds")? / 1e6)
    }

    pub fn cpu_per_gb(&self) -> Result<f64> {
        Ok(self.cpu / (self.get("bytes")? / 1e9))
    }
}

impl<'a> Session<'a> {
    pub fn new(broker: Broker, settings: &'a mut Settings, results: &'a mut Results) -> Self {
        Session {
            broker,
            settings,
            results,
            table: "",
            case: String::new(),
            topics: 0,
            highest_mib: 0.0,
            noted: Vec::new(),
        }
    }

    pub fn is_kafka(&self) -> bool {
        self.broker.against == Against::Kafka
    }

    /// Keeps a figure of the current case.
    pub fn note(&mut self, metric: Metric, goal: Option<Goal>, value: f64) {
        let digits = super::results::digits(value);
        self.noted
            .push(format!("{} {value:.digits$} {}", metric.name, metric.unit));
        let broker = self.broker.against.to_string();
        let place = (self.table, self.case.as_str());
        self.results.add(&broker, place, metric, goal, value);
    }

    /// Runs a case by name and says what came out. A failure is kept, and the others go on, unless
    /// the broker has ended.
    pub fn case(
        &mut self,
        table: &'static str,
        name: &str,
        body: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<()> {
        self.table = table;
        self.case = name.into();
        self.noted.clear();
        let done = body(self);
        let who = self.broker.against.to_string();
        match done {
            Ok(()) => {
                let noted = self.noted.join(", ");
                self.settings.say(&format!("{who} {name}: {noted}"));
            }
            Err(error) => {
                self.settings.say(&format!("{who} {name}: FAILED: {error}"));
                self.results.failures.push(format!("{who} {name}: {error}"));
                if let Some(status) = self.broker.exited()? {
                    let log = self.broker.log_tail();
                    return Err(format!("{who} ended with {status}:\n{log}").into());
                }
            }
        }
        Ok(())
    }

    /// The highest resident memory since this was asked last, in MiB. Until a load ends, what the
    /// one before it needed may still be held: that is part of the answer.
    pub fn highest_memory(&mut self) -> Result<f64> {
        let highest = self.broker.memory_mib()?.1;
        self.highest_mib = self.highest_mib.max(highest);
        self.broker.forget_highest_memory()?;
        Ok(highest)
    }

    /// The highest resident memory since the broker's start, in MiB.
    pub fn highest_memory_of_all(&mut self) -> Result<f64> {
        self.highest_memory()?;
        Ok(self.highest_mib)
    }

    /// A new topic; its name.
    pub fn topic(&mut self, partitions: i32, configs: &[(&str, &str)]) -> Result<String> {
        self.topics += 1;
        let name = format!("load-{}", self.topics);
        let mut connection = Connection::open(self.broker.spec.port)?;
        let code = connection.create_topic(&name, partitions, configs)?;
        if code != 0 {
            return Err(format!("no topic with {configs:?}: error {code}").into());
        }
        let end = Instant::now() + Duration::from_secs(10);
        while connection.led_partitions(&name)? < partitions {
            if Instant::now() > end {
                return Err(format!("{name} has no leaders after 10 s").into());
            }
            sleep(Duration::from_millis(5));
        }
        Ok(name)
    }

    /// Deletes a topic (DeleteTopics v1), and with it the dirty pages that the next case would
    /// otherwise find in its way.
    pub fn drop_topic(&mut self, name: &str) -> Result<()> {
        let mut body = Writer::default();
        body.i32(1).string(name).i32(30_000);
        Connection::open(self.broker.spec.port)?.call(20, 1, &body)?;
        Ok(())
    }

    /// A run of the loader, not started.
    pub fn load(&self, verb: &str, topic: &str, flags: &[(&str, String)]) -> Command {
        let mut load = Command::new(&self.settings.loader);
        load.args([
            verb,
            "-bootstrap",
            &self.broker.bootstrap(),
            "-topic",
            topic,
        ]);
        for (name, value) in flags {
            load.arg(format!("-{name}={value}"));
        }
        load.stdin(Stdio::null());
        load
    }

    /// Runs the loader to its end.
    pub fn told(&self, mut load: Command) -> Result<Told> {
        let before = self.broker.cpu()?;
        let out = output(&mut load)?;
        let cpu = self.broker.cpu()?.since(before);
        Ok(Told {
            figures: figures(&out)?,
            cpu,
        })
    }

    /// Gets the broker into its stride: what a JVM has not compiled yet, no broker is judged by.
    /// Tells how many single-record requests a second it takes at the most.
    pub fn warm_up(&mut self) -> Result<f64> {
        let bulk = Bulk::plain(LARGE);
        let begun = Instant::now();
        let bulk_seconds = Duration::from_secs_f64(self.settings.warm_seconds);
        let mib = self.settings.mib.min(256);
        while begun.elapsed() < bulk_seconds {
            let topic = self.topic(bulk.partitions, &[])?;
            let records = (mib << 20) / bulk.size;
            self.told(bulk.produce(self, &topic, records))?;
            self.told(bulk.consume(self, &topic, records))?;
            self.drop_topic(&topic)?;
        }
        let topic = self.topic(4, &[])?;
        let seconds = (self.settings.warm_seconds / 2.0).max(1.0);
        let flags = [
            ("clients", "4".into()),
            ("seconds", seconds.to_string()),
            ("end-to-end", "true".into()),
        ];
        let told = self.told(self.load("paced", &topic, &flags))?;
        self.drop_topic(&topic)?;
        Ok(told.get("records")? / told.get("seconds")?)
    }
}

/// A command's standard output; its error output, too, if it fails.
pub fn output(command: &mut Command) -> Result<String> {
    let out = command.stdin(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    if out.status.success() {
        return Ok(text);
    }
    let error = String::from_utf8_lossy(&out.stderr);
    let program = command.get_program().to_string_lossy().into_owned();
    Err(format!("{program}: {}: {}{text}", out.status, error.trim()).into())
}

/// The loader's closing line.
pub fn figures(text: &str) -> Result<Map<String, Value>> {
    let line = text.lines().last().unwrap_or_default();
    serde_json::from_str(line).map_err(|e| format!("the loader said '{line}': {e}").into())
}

/// A loader in the background.
pub struct Running(std::process::Child);

impl Running {
    pub fn start(mut load: Command) -> Result<Running> {
        Ok(Running(load.stdout(Stdio::piped()).spawn()?))
    }

    /// The next line that it says.
    pub fn line(&mut self) -> Result<String> {
        let out = self.0.stdout.as_mut().ok_or("no output")?;
        let mut line = String::new();
        // Byte by byte would do as well: there are two lines.
        std::io::BufReader::with_capacity(1, out).read_line(&mut line)?;
        Ok(line.trim().into())
    }

    pub fn figures(mut self) -> Result<Map<String, Value>> {
        let line = self.line()?;
        let status = self.0.wait()?;
        if !status.success() {
            return Err(format!("the loader ended with {status}").into());
        }
        figures(&line)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended by itself unless something failed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
