//! A member of a group as a process: its lines are taken in as they come.

use super::history::{Event, Kind};
use crate::runtimes::{self, Java};
use crate::wire::now_ms;
use crate::{Result, cache, snapshot};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a member may take to leave.
const LEAVE_MAX: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    Java,
    Librdkafka,
    FranzGo,
    Sarama,
    Aiokafka,
    Kafkajs,
}

/// Where the members' programs are.
pub struct Programs {
    java: Java,
    python: PathBuf,
    go: PathBuf,
    node: PathBuf,
}

impl Programs {
    pub fn prepare() -> Result<Programs> {
        Ok(Programs {
            java: Java::prepare()?,
            python: runtimes::python()?,
            go: runtimes::go()?,
            node: runtimes::node()?,
        })
    }

    /// The command of a member. `protocol` is `consumer`, or the assignor of a classic group.
    pub fn command(
        &self,
        client: Client,
        protocol: &str,
        [bootstrap, topic, group]: [&str; 3],
        log: &Path,
    ) -> Command {
        let python = |script: &str| {
            let mut command = Command::new(&self.python);
            command.arg(cache::root().join("interop/python").join(script));
            command.env("PYTHONDONTWRITEBYTECODE", "1");
            command
        };
        let go = |client: &str| {
            let mut command = Command::new(self.go.join("member"));
            command.arg(client);
            command
        };
        let mut command = match client {
            Client::Java => {
                let mut java = self.java.driver("group-member", log);
                java.args(["--bootstrap", bootstrap, "--topic", topic]);
                java.args(["--group", group, "--protocol", protocol]);
                // Several of them run for less than a minute each.
                let quick = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC";
                java.env("JAVA_TOOL_OPTIONS", quick);
                return java;
            }
            Client::Librdkafka => python("member_librdkafka.py"),
            Client::Aiokafka => python("member_aiokafka.py"),
            Client::FranzGo => go("franz-go"),
            Client::Sarama => go("sarama"),
            Client::Kafkajs => {
                let mut command = Command::new("node");
                command.arg(self.node.join("member.js"));
                command
            }
        };
        command.args([bootstrap, topic, group, protocol]);
        command
    }
}

/// What a member told up to now.
#[derive(Default)]
struct Told {
    events: Vec<Event>,
    /// The partitions it owns; whether it read some of each since it was last asked.
    owned: BTreeMap<i32, bool>,
    wrong: Option<String>,
}

impl Told {
    fn take(&mut self, line: &str) {
        match Event::parse(line) {
            Ok(event) => self.add(event),
            Err(why) => self.wrong = Some(format!("{line}: {why}")),
        }
    }

    fn add(&mut self, event: Event) {
        match &event.kind {
            Kind::Assigned(partitions) => self.owned.extend(partitions.iter().map(|p| (*p, false))),
            Kind::Revoked(partitions) | Kind::Lost(partitions) => {
                self.owned
                    .retain(|partition, _| !partitions.contains(partition));
            }
            Kind::Read(partition, ..) => {
                if let Some(read) = self.owned.get_mut(partition) {
                    *read = true;
                }
            }
            Kind::Ended | Kind::Killed => self.owned.clear(),
            Kind::Committed(_) | Kind::Refused => {}
        }
        self.events.push(event);
    }
}

/// A running member, or what is left of one. Dropping it ends it.
pub struct Member {
    pub name: String,
    child: Option<Child>,
    reader: Option<JoinHandle<()>>,
    told: Arc<Mutex<Told>>,
    errors: PathBuf,
}

impl Member {
    /// Starts it. What it complains of goes into `folder`.
    pub fn start(name: &str, mut command: Command, folder: &Path) -> Result<Member> {
        let errors = folder.join(format!("{name}.err"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(File::create(&errors)?).spawn()?;
        let stdout = child.stdout.take().ok_or("no standard output")?;
        let told = Arc::new(Mutex::new(Told::default()));
        let taken = Arc::clone(&told);
        let reader = std::thread::spawn(move || {
            let (mut stdout, mut line) = (BufReader::new(stdout), String::new());
            while matches!(stdout.read_line(&mut line), Ok(n) if n > 0) {
                // One that was killed may leave half a line.
                if let Some(whole) = line.strip_suffix('\n') {
                    lock(&taken).take(whole);
                }
                line.clear();
            }
        });
        Ok(Member {
            name: name.into(),
            child: Some(child),
            reader: Some(reader),
            told,
            errors,
        })
    }

    pub fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// Whether it said what it should not, or ended without being told to.
    pub fn check(&mut self) -> Result<()> {
        if let Some(wrong) = &lock(&self.told).wrong {
            return Err(format!("{}: {wrong}", self.name).into());
        }
        if let Some(child) = &mut self.child
            && let Some(status) = child.try_wait()?
        {
            return Err(format!("{} ended: {status}", self.name).into());
        }
        Ok(())
    }

    /// The partitions it owns, and whether it has read some of each since it was last asked.
    pub fn owned(&self) -> BTreeMap<i32, bool> {
        lock(&self.told).owned.clone()
    }

    /// From now on only what is read from now on counts as read.
    pub fn forget_reads(&self) {
        lock(&self.told)
            .owned
            .values_mut()
            .for_each(|read| *read = false);
    }

    pub fn events(&self) -> Vec<Event> {
        lock(&self.told).events.clone()
    }

    /// Ends its input, after which it is to leave the group; [`Member::wait_ended`] waits for it.
    pub fn leave(&mut self) {
        if let Some(child) = &mut self.child {
            drop(child.stdin.take());
        }
    }

    pub fn wait_ended(&mut self) -> Result<()> {
        let Some(child) = &mut self.child else {
            return Ok(());
        };
        let end = Instant::now() + LEAVE_MAX;
        while child.try_wait()?.is_none() {
            if Instant::now() > end {
                return Err(format!("{} does not end", self.name).into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.child = None;
        if let Some(reader) = self.reader.take() {
            reader.join().map_err(|_| "the reader panicked")?;
        }
        let told = lock(&self.told);
        if told
            .events
            .last()
            .is_none_or(|last| last.kind != Kind::Ended)
        {
            return Err(format!("{} did not end in order", self.name).into());
        }
        Ok(())
    }

    /// SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
            let (at, kind) = (now_ms(), Kind::Killed);
            // What it had told is in the pipe still.
            if let Some(reader) = self.reader.take() {
                reader.join().map_err(|_| "the reader panicked")?;
            }
            lock(&self.told).add(Event { at, kind });
        }
        Ok(())
    }

    /// The last of what it told and complained of.
    pub fn tail(&self) -> String {
        let told = lock(&self.told);
        let last: Vec<String> = told
            .events
            .iter()
            .filter(|event| !matches!(event.kind, Kind::Read(..) | Kind::Committed(_)))
            .map(|event| format!("{} {:?}", event.at, event.kind))
            .collect();
        let last = last[last.len().saturating_sub(8)..].join("\n");
        let errors = snapshot::tail(&self.errors, 4);
        format!("{}:\n{last}\n{errors}", self.name)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.kill();
    }
}

fn lock(told: &Mutex<Told>) -> MutexGuard<'_, Told> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}
