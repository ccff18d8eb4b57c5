//! The container image and the compose files, on this machine's Docker engine: the image made from
//! the Dockerfile's last stage, by itself and as compose.yaml and compose.three.yaml run it.
//!
//! - here: what runs when; [`engine`]: Docker's commands, and what is removed afterwards;
//! - [`image`]: the binary and the image; [`alone`]: a container by itself; [`composed`]: the files.

mod alone;
mod composed;
mod engine;
mod image;

use super::Run;
use crate::Result;
use crate::batch::{self, Producer};
use crate::broker::Against;
use crate::report::Outcome;
use crate::wire::{Connection, now_ms};
use engine::Engine;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Where the image and compose.yaml serve clients and metrics.
const PORT: u16 = 9092;
const METRICS_PORT: u16 = 9644;
/// Where compose.three.yaml serves clients, by node.
const THREE_PORTS: [u16; 3] = [19092, 29092, 39092];
/// How long a container may take to be ready, or to have what it should have.
const PATIENCE: Duration = Duration::from_secs(60);

type Test = fn(&Containers) -> Result<()>;

/// What all tests have.
struct Containers {
    engine: Engine,
    folder: PathBuf,
}

impl Run {
    pub(super) fn containers(&mut self) -> Result<()> {
        let skip = |run: &mut Run, why: String| {
            run.report.tell("containers", Outcome::Skip(why), None);
            Ok(())
        };
        if self.against == Against::Kafka {
            return skip(self, "the image is Klamm's".into());
        }
        let folder = self.folder.join("containers");
        std::fs::create_dir_all(&folder)?;
        // In CI as well: nobody installs an engine for this.
        let engine = match Engine::find().and_then(|engine| image::buildable().map(|()| engine)) {
            Ok(engine) => engine,
            Err(why) => return skip(self, why.to_string()),
        };
        let containers = Containers { engine, folder };
        let mut made = None;
        self.report.test("containers.image", || {
            made = Some(image::make(&containers.folder)?);
            Ok(())
        });
        if made.is_none() {
            return Ok(());
        }
        let tests: [(&str, Test); 8] = [
            ("containers.no-settings", Containers::no_settings),
            ("containers.one-variable", Containers::one_variable),
            ("containers.locked-down", Containers::locked_down),
            ("containers.properties-file", Containers::properties_file),
            ("containers.wrong-setting", Containers::wrong_setting),
            ("containers.folder-of-root", Containers::folder_of_root),
            ("containers.compose", Containers::compose),
            ("containers.compose-three", Containers::compose_three),
        ];
        let only = self.only_of("containers");
        for (name, test) in tests {
            if only.as_deref().is_none_or(|only| only == name) {
                self.report.test(name, || test(&containers));
            }
        }
        // The image goes behind the last container.
        drop(made);
        Ok(())
    }
}

/// A connection to a broker in a container that shows so many brokers; tells when there is one.
fn reach(port: u16, brokers: i32) -> Result<Connection> {
    let end = Instant::now() + PATIENCE;
    loop {
        // The engine takes connections to a published port before anybody listens behind it.
        let opened = Connection::open(port).and_then(|mut c| Ok((c.brokers()?, c)));
        match opened {
            Ok((shown, connection)) if shown >= brokers => return Ok(connection),
            other if Instant::now() > end => {
                let shown = other.map(|(shown, _)| shown);
                return Err(format!("port {port} shows {shown:?} brokers after a while").into());
            }
            _ => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

/// Makes a topic of one partition, unless it is there, and writes some records.
fn write(connection: &mut Connection, topic: &str, values: &[Vec<u8>]) -> Result<()> {
    let code = connection.create_topic(topic, 1, &[])?;
    // TOPIC_ALREADY_EXISTS
    if code != 0 && code != 36 {
        return Err(format!("making {topic} was answered with {code}").into());
    }
    let end = Instant::now() + PATIENCE;
    while connection.led_partitions(topic)? != 1 {
        if Instant::now() > end {
            return Err(format!("nobody leads {topic}").into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let batch = batch::build(Producer::NONE, now_ms(), values);
    let produced = connection.produce(topic, 0, -1, &batch)?;
    match produced.error {
        0 => Ok(()),
        code => Err(format!("producing to {topic} was answered with {code}").into()),
    }
}

/// Refuses anything but these records, in their order.
fn expect_records(connection: &mut Connection, topic: &str, wanted: &[Vec<u8>]) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        let (code, _, data) = connection.fetch(topic, 0, 0, 1 << 20)?;
        let found: Vec<Vec<u8>> = batch::read_all(&data)?.into_iter().map(|r| r.1).collect();
        if code == 0 && found == wanted {
            return Ok(());
        }
        if Instant::now() > end {
            let (found, wanted) = (found.len(), wanted.len());
            return Err(format!("{found} records of {topic}, code {code}, not {wanted}").into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn values(from: usize, to: usize) -> Vec<Vec<u8>> {
    (from..to)
        .map(|i| format!("record {i}").into_bytes())
        .collect()
}

/// What is served over HTTP on the port of the metrics.
fn metrics() -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", METRICS_PORT))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    if !page.starts_with("HTTP/1.1 200 ") || !page.contains("\nklamm_ready 1\n") {
        return Err(format!("these are no metrics of a broker that is ready:\n{page}").into());
    }
    Ok(page)
}
