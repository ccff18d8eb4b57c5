//! Starts, watches and ends the broker under test: a real Kafka or Klamm, with the same settings.

mod usage;

pub use usage::Cpu;

use crate::wire::Connection;
use crate::{Result, cache};
use std::fmt::Display;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// Which broker a suite runs against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Against {
    Kafka,
    Klamm,
}

impl Against {
    pub fn parse(name: &str) -> Result<Against> {
        match name {
            "kafka" => Ok(Against::Kafka),
            "klamm" => Ok(Against::Klamm),
            _ => Err(format!("--against kafka or klamm, not '{name}'").into()),
        }
    }

    /// How long something may take that takes Klamm `limit` at most: a JVM that starts on a busy
    /// machine needs more, and what waits for it as well.
    pub fn patience(self, limit: Duration) -> Duration {
        match self {
            Against::Klamm => limit,
            Against::Kafka => limit * 4,
        }
    }
}

impl Display for Against {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Against::Kafka => "kafka",
            Against::Klamm => "klamm",
        })
    }
}

/// How a broker is set up.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Holds the data, the log and Kafka's configuration.
    pub folder: PathBuf,
    /// Where it listens.
    pub host: String,
    pub port: u16,
    pub controller_port: u16,
    /// Kafka's heap, as `java -Xmx` takes it.
    pub heap: String,
    /// Further configs, over [`Spec::configs`].
    pub set: Vec<(String, String)>,
    /// The cluster it belongs to, where that is not one of its own.
    pub cluster_id: Option<String>,
    /// What its command line begins with, where it does not run as it is.
    pub prefix: Vec<String>,
    /// How its directories are formatted, as `kafka-storage format` takes it. Klamm's are by its own
    /// command then; without it they format themselves.
    pub format: Vec<String>,
}

impl Spec {
    pub fn new(folder: PathBuf) -> Result<Spec> {
        Ok(Spec {
            folder,
            host: "127.0.0.1".into(),
            port: free_port()?,
            controller_port: free_port()?,
            heap: "768m".into(),
            set: Vec::new(),
            cluster_id: None,
            prefix: Vec::new(),
            format: Vec::new(),
        })
    }

    pub fn with(mut self, name: &str, value: impl Display) -> Spec {
        self.set.push((name.into(), value.to_string()));
        self
    }

    pub fn in_cluster(mut self, id: &str) -> Spec {
        self.cluster_id = Some(id.into());
        self
    }

    pub fn formatted(mut self, arguments: &[&str]) -> Spec {
        self.format = arguments.iter().map(|a| (*a).to_string()).collect();
        self
    }

    pub fn properties(&self) -> PathBuf {
        self.folder.join("server.properties")
    }

    fn write_properties(&self) -> Result<()> {
        let mut text = String::new();
        for (name, value) in self.configs() {
            text += &format!("{name}={value}\n");
        }
        Ok(fs::write(self.properties(), text)?)
    }

    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn configs(&self) -> Vec<(String, String)> {
        let (host, port, controller) = (&self.host, self.port, self.controller_port);
        let mut all: Vec<(String, String)> = [
            ("process.roles", "broker,controller".into()),
            ("node.id", "1".into()),
            ("controller.quorum.voters", format!("1@{host}:{controller}")),
            (
                "listeners",
                format!("PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller}"),
            ),
            ("advertised.listeners", format!("PLAINTEXT://{host}:{port}")),
            ("controller.listener.names", "CONTROLLER".into()),
            ("log.dirs", self.data().display().to_string()),
            ("offsets.topic.num.partitions", "5".into()),
            ("offsets.topic.replication.factor", "1".into()),
            ("transaction.state.log.replication.factor", "1".into()),
            ("transaction.state.log.min.isr", "1".into()),
            (
                "share.coordinator.state.topic.replication.factor",
                "1".into(),
            ),
            ("share.coordinator.state.topic.min.isr", "1".into()),
            ("group.initial.rebalance.delay.ms", "0".into()),
        ]
        .into_iter()
        .map(|(name, value): (&str, String)| (name.to_string(), value))
        .collect();
        for (name, value) in &self.set {
            all.retain(|(other, _)| other != name);
            all.push((name.clone(), value.clone()));
        }
        all
    }
}

/// A port nobody listens on, of a range of this repository's own: 300 from `$KLAMM_SUITE_PORTS` or
/// 19700 on.
pub fn free_port() -> Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 19_700;
    const COUNT: u16 = 300;
    let first = match std::env::var("KLAMM_SUITE_PORTS") {
        Ok(told) => told.parse().ok().filter(|first| *first < u16::MAX - COUNT),
        Err(_) => Some(FIRST),
    };
    let first = first.ok_or("KLAMM_SUITE_PORTS is no port that 300 come after")?;
    let start = std::process::id() as u16 % COUNT;
    for _ in 0..COUNT {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = first + (start + n) % COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err(format!("no free port among the {COUNT} from {first} on").into())
}

/// A broker process. Dropping it ends it.
pub struct Broker {
    pub against: Against,
    pub spec: Spec,
    command: Vec<String>,
    environment: Vec<(String, String)>,
    child: Option<Child>,
}

impl Broker {
    /// Prepares (and, for Kafka, formats) but does not start.
    pub fn prepare(against: Against, spec: Spec) -> Result<Broker> {
        fs::create_dir_all(&spec.folder)?;
        let command = match against {
            Against::Kafka => kafka_command(&spec)?,
            Against::Klamm => klamm_command(&spec)?,
        };
        let cluster_id = spec.cluster_id.iter();
        let environment = cluster_id.map(|id| ("CLUSTER_ID".into(), id.clone()));
        Ok(Broker {
            against,
            environment: environment.collect(),
            spec,
            command,
            child: None,
        })
    }

    /// Prepares, starts and waits until it answers.
    pub fn start(against: Against, spec: Spec) -> Result<Broker> {
        let mut broker = Broker::prepare(against, spec)?;
        broker.start_again()?;
        Ok(broker)
    }

    /// Klamm with nothing but these arguments and variables, in the given working folder.
    pub fn klamm_bare(
        spec: Spec,
        arguments: &[String],
        vars: &[(String, String)],
    ) -> Result<Broker> {
        fs::create_dir_all(&spec.folder)?;
        let mut command = vec![klamm_binary()?.display().to_string()];
        command.extend(arguments.iter().cloned());
        let environment = vars.to_vec();
        Ok(Broker {
            against: Against::Klamm,
            spec,
            command,
            environment,
            child: None,
        })
    }

    /// Starts the process and waits until it answers; tells how long that took.
    pub fn start_again(&mut self) -> Result<Duration> {
        let begun = Instant::now();
        self.spawn()?;
        self.wait_ready()?;
        Ok(begun.elapsed())
    }

    /// Starts the process only. It belongs to this one's group, so that what ends the chore ends it.
    pub fn spawn(&mut self) -> Result<()> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.spec.folder.join("log"))?;
        let words: Vec<&String> = self.spec.prefix.iter().chain(&self.command).collect();
        let child = Command::new(words[0])
            .args(&words[1..])
            .envs(self.environment.iter().cloned())
            .current_dir(&self.spec.folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(|e| format!("{}: {e}", words[0]))?;
        fs::write(self.spec.folder.join("pid"), child.id().to_string())?;
        self.child = Some(child);
        Ok(())
    }

    /// Ready means: the broker is in the metadata it serves.
    pub fn wait_ready(&mut self) -> Result<()> {
        let limit = self.against.patience(Duration::from_secs(60));
        let end = Instant::now() + limit;
        loop {
            let shown = self.connect().and_then(|mut c| c.brokers());
            if matches!(shown, Ok(n) if n >= 1) {
                return Ok(());
            }
            if let Some(status) = self.exited()? {
                return Err(format!("the broker ended ({status}):\n{}", self.log_tail()).into());
            }
            if Instant::now() > end {
                return Err(format!("not ready after {limit:?}:\n{}", self.log_tail()).into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The exit status, once the process has ended.
    pub fn exited(&mut self) -> Result<Option<std::process::ExitStatus>> {
        Ok(match &mut self.child {
            Some(child) => child.try_wait()?,
            None => None,
        })
    }

    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    pub fn bootstrap(&self) -> String {
        format!("{}:{}", self.spec.host, self.spec.port)
    }

    pub fn connect(&self) -> std::io::Result<Connection> {
        Connection::open_at(&self.spec.host, self.spec.port)
    }

    /// SIGTERM, and waits; tells how long it took. An unclean end is an error.
    pub fn stop(&mut self) -> Result<Duration> {
        if let Some(child) = &self.child {
            signal(child.id(), "TERM");
        }
        self.wait_ended()
    }

    /// Waits for a process that was told to end; tells how long it took.
    pub fn wait_ended(&mut self) -> Result<Duration> {
        let begun = Instant::now();
        let Some(child) = &mut self.child else {
            return Ok(Duration::ZERO);
        };
        let end = Instant::now() + Duration::from_secs(60);
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if Instant::now() > end {
                return Err(format!("did not end on SIGTERM:\n{}", self.log_tail()).into());
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        self.child = None;
        // A JVM that was told to end says 143.
        if status.success() || (self.against == Against::Kafka && status.code() == Some(143)) {
            Ok(begun.elapsed())
        } else {
            Err(format!("ended with {status}:\n{}", self.log_tail()).into())
        }
    }

    /// SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Leaves the process running beyond this one's life.
    pub fn release(mut self) {
        self.child = None;
    }

    pub fn log_text(&self) -> String {
        fs::read_to_string(self.spec.folder.join("log")).unwrap_or_default()
    }

    pub fn log_tail(&self) -> String {
        let text = self.log_text();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // The process may have ended by itself.
        let _ = self.kill();
    }
}

pub fn signal(pid: u32, name: &str) {
    let _ = Command::new("kill")
        .arg(format!("-{name}"))
        .arg(pid.to_string())
        .status();
}

/// The release binary, built unless `$KLAMM_BIN` names one.
pub fn klamm_binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("KLAMM_BIN") {
        return Ok(PathBuf::from(path).canonicalize()?);
    }
    static BUILT: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    let built = *BUILT.get_or_init(|| {
        Command::new("cargo")
            .args(["build", "--quiet", "--release", "--package", "klamm"])
            .current_dir(cache::root())
            .stdin(Stdio::null())
            .status()
            .is_ok_and(|s| s.success())
    });
    if !built {
        return Err("cargo build --release failed".into());
    }
    Ok(cache::target().join("release/klamm").canonicalize()?)
}

fn klamm_command(spec: &Spec) -> Result<Vec<String>> {
    let klamm = klamm_binary()?.display().to_string();
    spec.write_properties()?;
    if !spec.format.is_empty() {
        if !spec.data().join("meta.properties").exists() {
            format_klamm(&klamm, spec)?;
        }
        return Ok(vec![klamm, spec.properties().display().to_string()]);
    }
    let mut command = vec![klamm];
    for (name, value) in spec.configs() {
        command.push("--override".into());
        command.push(format!("{name}={value}"));
    }
    Ok(command)
}

fn format_klamm(klamm: &str, spec: &Spec) -> Result<()> {
    let id = spec.cluster_id.as_deref().unwrap_or_default();
    let out = Command::new(klamm)
        .args(["storage", "format", "--cluster-id", id, "--config"])
        .arg(spec.properties())
        .args(&spec.format)
        .stdin(Stdio::null())
        .output()?;
    if !out.status.success() {
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        return Err(format!("formatting {} failed: {text}", spec.folder.display()).into());
    }
    Ok(())
}

fn kafka_command(spec: &Spec) -> Result<Vec<String>> {
    let jars = cache::kafka_jars()?;
    let classpath = format!("{}/*", jars.display());
    let properties = spec.properties();
    spec.write_properties()?;
    let log4j = spec.folder.join("log4j2.properties");
    fs::write(&log4j, log4j_properties("INFO"))?;
    if !spec.data().join("meta.properties").exists() {
        format_kafka(&classpath, &properties, spec)?;
    }
    Ok(vec![
        "java".into(),
        format!("-Xmx{}", spec.heap),
        format!("-Xms{}", spec.heap),
        "-XX:+UseG1GC".into(),
        "-Djava.awt.headless=true".into(),
        format!("-Dlog4j2.configurationFile={}", log4j.display()),
        "-cp".into(),
        classpath,
        "kafka.Kafka".into(),
        properties.display().to_string(),
    ])
}

/// Log4j writing to standard output.
pub fn log4j_properties(level: &str) -> String {
    format!(
        "rootLogger.level={level}\nrootLogger.appenderRef.c.ref=C\nappender.c.type=Console\n\
         appender.c.name=C\nappender.c.layout.type=PatternLayout\n\
         appender.c.layout.pattern=[%d] %p %m (%c)%n\n"
    )
}

fn format_kafka(classpath: &str, properties: &Path, spec: &Spec) -> Result<()> {
    let java = |arguments: &[&str]| {
        Command::new("java")
            .args([
                "-Xmx256m",
                "-XX:TieredStopAtLevel=1",
                "-Dlog4j2.level=OFF",
                "-cp",
                classpath,
            ])
            .arg("kafka.tools.StorageTool")
            .args(arguments)
            .stdin(Stdio::null())
            .output()
    };
    let id = match &spec.cluster_id {
        Some(id) => id.clone(),
        None => String::from_utf8(java(&["random-uuid"])?.stdout)?,
    };
    let properties = properties.display().to_string();
    let mut arguments = vec!["format", "-t", id.trim(), "-c", &properties];
    arguments.extend(spec.format.iter().map(String::as_str));
    let out = java(&arguments)?;
    if !out.status.success() {
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        return Err(format!("formatting {} failed: {text}", spec.folder.display()).into());
    }
    Ok(())
}

/// The cluster id that a data folder belongs to.
pub fn cluster_id(data: &Path) -> Result<String> {
    let text = fs::read_to_string(data.join("meta.properties"))?;
    let id = text
        .lines()
        .find_map(|line| line.strip_prefix("cluster.id="));
    Ok(id.ok_or("no cluster.id in meta.properties")?.to_string())
}
