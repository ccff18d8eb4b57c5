//! Data folders that a broker must not take, and a disk that is full.

use crate::Result;
use crate::batch::{self, Producer};
use crate::broker::{Against, Broker, Spec};
use crate::report::{Outcome, Report};
use crate::small_disk::SmallDisk;
use crate::wire::Connection;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

pub fn run(
    against: Against,
    folder: &Path,
    report: &mut Report,
    wanted: &dyn Fn(&str) -> bool,
) -> Result<()> {
    if wanted("data.in-use") {
        report.test("bad-input.data.in-use", || {
            in_use(against, &folder.join("in-use"))
        });
    }
    if wanted("data.other-cluster") {
        report.test("bad-input.data.other-cluster", || {
            other_cluster(
                against,
                &folder.join("cluster-a"),
                &folder.join("cluster-b"),
            )
        });
    }
    if wanted("data.other-node") {
        report.test("bad-input.data.other-node", || {
            other_node(against, &folder.join("node"))
        });
    }
    if wanted("data.full-disk") {
        let name = "bad-input.data.full-disk";
        match SmallDisk::mount(&folder.join("small-disk"), 24) {
            Ok(disk) => report.test(name, || full_disk(against, &folder.join("full"), &disk)),
            Err(e) => report.tell(name, Outcome::Skip(e.to_string()), None),
        }
    }
    Ok(())
}

/// Waits for a start that must fail; its last words.
fn refused(mut broker: Broker) -> Result<String> {
    broker.spawn()?;
    let end = Instant::now() + Duration::from_secs(30);
    while Instant::now() < end {
        if let Some(status) = broker.exited()? {
            let words = broker.log_text();
            return if status.success() {
                Err(format!("ended without an error code:\n{}", broker.log_tail()).into())
            } else {
                Ok(words)
            };
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err(format!("still running after 30 s:\n{}", broker.log_tail()).into())
}

fn says(words: &str, any: &[&str]) -> Result<()> {
    let lower = words.to_lowercase();
    if any.iter().any(|w| lower.contains(&w.to_lowercase())) {
        return Ok(());
    }
    let lines: Vec<&str> = words.lines().collect();
    let tail = lines[lines.len().saturating_sub(25)..].join("\n");
    Err(format!("nothing about {any:?} in:\n{tail}").into())
}

fn in_use(against: Against, folder: &Path) -> Result<()> {
    let first = Broker::start(against, Spec::new(folder.join("first"))?)?;
    let mut spec = Spec::new(folder.join("second"))?;
    spec = spec.with("log.dirs", first.spec.data().display());
    fs::create_dir_all(&spec.folder)?;
    // Kafka would look for the format at the usual place.
    std::os::unix::fs::symlink(first.spec.data(), spec.data())?;
    let words = refused(Broker::prepare(against, spec)?)?;
    says(&words, &["lock", "in use"])?;
    Connection::open(first.spec.port)?.brokers()?;
    Ok(())
}

/// Two folders of two clusters in one `log.dirs`.
fn other_cluster(against: Against, one: &Path, other: &Path) -> Result<()> {
    for folder in [one, other] {
        Broker::start(against, Spec::new(folder.to_path_buf())?)?.stop()?;
    }
    let spec = Spec::new(one.to_path_buf())?;
    let both = format!(
        "{},{}",
        one.join("data").display(),
        other.join("data").display()
    );
    let words = refused(Broker::prepare(against, spec.with("log.dirs", both))?)?;
    says(&words, &["cluster.id", "cluster id", "belongs to cluster"])
}

fn other_node(against: Against, folder: &Path) -> Result<()> {
    Broker::start(against, Spec::new(folder.to_path_buf())?)?.stop()?;
    let spec = Spec::new(folder.to_path_buf())?;
    let voters = format!("2@127.0.0.1:{}", spec.controller_port);
    let spec = spec
        .with("node.id", 2)
        .with("controller.quorum.voters", voters);
    let words = refused(Broker::prepare(against, spec)?)?;
    says(&words, &["node.id", "node id", "belongs to node"])
}

/// Of two data folders one is full: its partitions answer with a storage error, those of the other
/// go on, and what was acknowledged can be read.
fn full_disk(against: Against, folder: &Path, disk: &SmallDisk) -> Result<()> {
    const STORAGE_ERROR: i16 = 56;
    let spec = Spec::new(folder.to_path_buf())?;
    let small = disk.path().join("data");
    let dirs = format!("{},{}", spec.data().display(), small.display());
    let mut broker = Broker::start(against, spec.with("log.dirs", dirs))?;
    let mut connection = Connection::open(broker.spec.port)?;
    let topic = "fills";
    // Deleting is the other way to make room; these stay.
    let code = connection.create_topic(topic, 4, &[("retention.ms", "-1")])?;
    if code != 0 {
        return Err(format!("create: {code}").into());
    }
    let end = Instant::now() + Duration::from_secs(20);
    for p in 0..4 {
        // Just after its creation a partition may have no leader yet.
        while connection.fetch(topic, p, 0, 1024)?.0 != 0 && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    let on_small = |p: i32| small.join(format!("{topic}-{p}")).exists();
    let batch = batch::build(
        Producer::NONE,
        1_700_000_000_000,
        &vec![vec![b'x'; 1000]; 900],
    );
    let mut failed = Vec::new();
    'filling: for _ in 0..60 {
        for p in 0..4 {
            if failed.contains(&p) {
                continue;
            }
            let answer = connection.produce(topic, p, -1, &batch);
            match answer {
                Ok(a) if a.error == 0 => {}
                Ok(a) if on_small(p) && [STORAGE_ERROR, 6, 3, 5].contains(&a.error) => {
                    failed.push(p)
                }
                Ok(a) => return Err(format!("partition {p} answered {}", a.error).into()),
                Err(e) => return Err(format!("partition {p}: {e}").into()),
            }
            if (0..4).filter(|p| on_small(*p)).all(|p| failed.contains(&p)) {
                break 'filling;
            }
        }
    }
    if failed.is_empty() {
        return Err("no partition lies on the small disk, or it never filled".into());
    }
    for p in (0..4).filter(|p| !failed.contains(p)) {
        let answer = connection.produce(topic, p, -1, &batch)?;
        if answer.error != 0 {
            return Err(
                format!("partition {p} of the other disk answered {}", answer.error).into(),
            );
        }
        let (error, _, bytes) = connection.fetch(topic, p, answer.base_offset, 2 << 20)?;
        if error != 0 || batch::read_all(&bytes)?.len() != 900 {
            return Err(format!("partition {p} reads with error {error}").into());
        }
    }
    if let Some(status) = broker.exited()? {
        return Err(format!("the broker ended: {status}\n{}", broker.log_tail()).into());
    }
    broker.kill()
}
