//! The program as a process: it starts on nothing, says so in one line, stops on a signal, comes
//! back to its data, and refuses what it must with the right exit code.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

/// A running `klamm`; killed if a test fails.
struct Klamm {
    process: Child,
    /// The line it printed when it was ready.
    ready: String,
}

fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_klamm"));
    command.current_dir(folder).env_clear();
    command.args(["--override", "listeners=PLAINTEXT://localhost:0"]);
    command.args(["--log-level", "warn"]).args(args);
    command
}

impl Klamm {
    fn start(folder: &Path, args: &[&str]) -> Self {
        Self::spawn(command(folder, args))
    }

    fn spawn(mut command: Command) -> Self {
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut ready = String::new();
        let stdout = process.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut ready).unwrap();
        let ready = ready.trim_end().to_owned();
        Self { process, ready }
    }

    /// `host:port` out of the ready line.
    fn address(&self) -> &str {
        let (_, rest) = self.ready.split_once("connect to ").expect(&self.ready);
        rest.split(',').next().unwrap()
    }

    /// Asks for its end and waits for it.
    fn stop(mut self, signal: &str) -> ExitStatus {
        let id = self.process.id().to_string();
        let sent = Command::new("kill").args(["-s", signal, &id]).status();
        assert!(sent.unwrap().success());
        self.process.wait().unwrap()
    }
}

impl Drop for Klamm {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Gives exit code and standard error of a start that must fail.
fn refused(mut command: Command) -> (Option<i32>, String) {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut klamm = Klamm {
        process: command.spawn().unwrap(),
        ready: String::new(),
    };
    let stdout = klamm.process.stdout.take().unwrap();
    BufReader::new(stdout).read_line(&mut klamm.ready).unwrap();
    assert_eq!(klamm.ready, "", "it started");
    let mut message = String::new();
    klamm
        .process
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut message)
        .unwrap();
    (klamm.process.wait().unwrap().code(), message)
}

const QUIET: [&str; 2] = ["--metrics-listen", "off"];

#[test]
fn starts_on_nothing_stops_on_a_signal_and_starts_again() {
    let folder = tempfile::tempdir().unwrap();
    for signal in ["TERM", "INT"] {
        let klamm = Klamm::start(folder.path(), &QUIET);
        assert!(klamm.ready.starts_with("klamm 0."), "{}", klamm.ready);
        assert!(klamm.ready.ends_with(", data in ./data"), "{}", klamm.ready);
        TcpStream::connect(klamm.address()).unwrap();
        assert_eq!(klamm.stop(signal).code(), Some(0));
        for file in ["meta.properties", ".kafka_cleanshutdown"] {
            assert!(folder.path().join("data").join(file).exists(), "{file}");
        }
    }
}

#[test]
fn serves_metrics_and_health_where_told() {
    let folder = tempfile::tempdir().unwrap();
    // The system names a port that is free a moment later.
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let klamm = Klamm::start(folder.path(), &["--metrics-listen", &address]);
    let mut stream = TcpStream::connect(&address).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    assert!(page.contains("\nklamm_ready 1\n"), "{page}");
    let controllers = "\nkafka_controller_kafkacontroller_activecontrollercount 1\n";
    assert!(page.contains(controllers), "{page}");
    let groups = "\nkafka_server_groupcoordinatormetrics_group_count{protocol=\"share\"} 0\n";
    assert!(page.contains(groups), "{page}");
    let mut health = Command::new(env!("CARGO_BIN_EXE_klamm"));
    assert!(
        health
            .args(["health", &address])
            .status()
            .unwrap()
            .success()
    );

    let other = tempfile::tempdir().unwrap();
    let (code, message) = refused(command(other.path(), &["--metrics-listen", &address]));
    assert_eq!(code, Some(3), "{message}");
    assert!(message.contains(&address), "{message}");
    drop(klamm);
}

#[test]
fn refuses_a_port_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut command = command(folder.path(), &QUIET);
    command.args(["--override", &format!("listeners=PLAINTEXT://{address}")]);
    let (code, message) = refused(command);
    assert_eq!(code, Some(3), "{message}");
    assert!(message.contains(&address), "{message}");
}

#[test]
fn refuses_a_directory_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let klamm = Klamm::start(folder.path(), &QUIET);
    let (code, message) = refused(command(folder.path(), &QUIET));
    assert_eq!(code, Some(4), "{message}");
    assert!(message.contains("data"), "{message}");
    drop(klamm);
}

const OTHER_CLUSTER: &str = "4L6g3nShT-eMCtK--X86sw";

#[test]
fn refuses_a_directory_of_another_cluster_or_node() {
    let folder = tempfile::tempdir().unwrap();
    Klamm::start(folder.path(), &QUIET).stop("TERM");
    let mut other = command(folder.path(), &QUIET);
    other.env("CLUSTER_ID", OTHER_CLUSTER);
    let (code, message) = refused(other);
    assert_eq!(code, Some(5), "{message}");
    assert!(message.contains(OTHER_CLUSTER), "{message}");
    let mut other = command(folder.path(), &QUIET);
    other.args(["--override", "node.id=9"]);
    let (code, message) = refused(other);
    assert_eq!(code, Some(5), "{message}");
}

#[test]
fn a_cluster_id_from_the_environment_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let mut named = command(folder.path(), &QUIET);
    named.env("CLUSTER_ID", OTHER_CLUSTER);
    drop(Klamm::spawn(named));
    let meta = folder.path().join("data/meta.properties");
    #[expect(clippy::disallowed_methods, reason = "looks at what the program wrote")]
    let meta = std::fs::read_to_string(meta).unwrap();
    assert!(
        meta.contains(&format!("cluster.id={OTHER_CLUSTER}")),
        "{meta}"
    );
}

#[test]
fn a_default_file_holds_unless_another_says_where_to_listen() {
    let folder = tempfile::tempdir().unwrap();
    let default = "listeners=PLAINTEXT://localhost:0\nadvertised.listeners=PLAINTEXT://image:7\nklamm.metrics.listeners=\n";
    #[expect(clippy::disallowed_methods, reason = "what the program is to read")]
    std::fs::write(folder.path().join("image.properties"), default).unwrap();
    let start = |variables: &[(&str, &str)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_klamm"));
        command.current_dir(folder.path()).env_clear();
        command.args(["--default-config", "image.properties"]);
        Klamm::spawn(with(command, variables))
    };
    let with_image = [
        &[][..],
        &[("KAFKA_NUM_PARTITIONS", "3")],
        // What orchestrators set for a service of this name.
        &[("KAFKA_SERVICE_HOST", "10.0.0.1")],
    ];
    for variables in with_image {
        let klamm = start(variables);
        assert_eq!(klamm.address(), "image:7", "{variables:?}");
        klamm.stop("TERM");
    }
    let listeners = ("KAFKA_CFG_LISTENERS", "PLAINTEXT://localhost:0");
    let klamm = start(&[listeners, ("KAFKA_CFG_KLAMM_METRICS_LISTENERS", "")]);
    assert!(klamm.address().starts_with("localhost:"), "{}", klamm.ready);
}

fn with(mut command: Command, variables: &[(&str, &str)]) -> Command {
    command.envs(variables.iter().copied());
    command
}
