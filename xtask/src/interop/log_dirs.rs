//! Several log directories under Kafka's tools: where replicas are, moving them under load, a disk
//! that fails and takes only its own along, the last one that fails, and all of them back.

use super::Run;
use super::quorum::{expect, tool, tool_until};
use crate::Result;
use crate::broker::{Broker, Spec};
use crate::cluster::load::{self, Load};
use crate::runtimes::Java;
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const LOG_DIRS_TOOL: &str = "org.apache.kafka.tools.LogDirsCommand";
const REASSIGN_TOOL: &str = "org.apache.kafka.tools.reassign.ReassignPartitionsCommand";
const TOPICS_TOOL: &str = "org.apache.kafka.tools.TopicCommand";
const TOPIC: &str = "jbod";
const PARTITIONS: i32 = 4;
/// How long to ask again before something that comes in time is given up.
const PATIENCE: Duration = Duration::from_secs(40);

type Test = fn(&mut Jbod) -> Result<()>;

/// A broker over two directories, with its metadata in a third.
struct Jbod {
    broker: Broker,
    java: Java,
}

impl Run {
    pub(super) fn log_dirs(&mut self) -> Result<()> {
        let java = match Java::prepare() {
            Ok(java) => java,
            Err(e) => {
                self.report.missing("log-dirs", &e.to_string());
                return Ok(());
            }
        };
        let folder = self.folder.join("log-dirs");
        let dir = |n: usize| folder.join(format!("d{n}")).display().to_string();
        let spec = Spec::new(folder.clone())?
            .with("log.dirs", [dir(0), dir(1)].join(","))
            .with("metadata.log.dir", folder.join("data").display())
            // What is written now and then is how an idle broker notices a disk that fails.
            .with("replica.high.watermark.checkpoint.interval.ms", 500)
            .with("klamm.metrics.listeners", "");
        let mut jbod = Jbod {
            broker: Broker::prepare(self.against, spec)?,
            java,
        };
        let only = self.only_of("log-dirs");
        let tests: [(&str, Test); 6] = [
            ("start", Jbod::start),
            ("described", Jbod::described),
            ("moved-under-load", Jbod::moved),
            ("one-fails", Jbod::one_fails),
            ("the-last-fails", Jbod::last_fails),
            ("all-return", Jbod::all_return),
        ];
        for (name, test) in tests {
            let name = &*format!("log-dirs.{name}");
            // All build on the first.
            if name == "log-dirs.start" || only.as_deref().is_none_or(|only| only == name) {
                self.report.test(name, || test(&mut jbod));
            }
        }
        Ok(())
    }
}

impl Jbod {
    fn start(&mut self) -> Result<()> {
        self.broker.start_again()?;
        let partitions = PARTITIONS.to_string();
        let create = ["--create", "--topic", TOPIC, "--partitions", &partitions];
        self.tool(TOPICS_TOOL, &create).map(drop)
    }

    fn path(&self, dir: usize) -> PathBuf {
        self.broker.spec.folder.join(format!("d{dir}"))
    }

    fn with_bootstrap<'a>(bootstrap: &'a str, arguments: &[&'a str]) -> Vec<&'a str> {
        [&["--bootstrap-server", bootstrap][..], arguments].concat()
    }

    fn tool(&self, class: &str, arguments: &[&str]) -> Result<String> {
        let bootstrap = self.broker.bootstrap();
        tool(
            &self.java,
            class,
            &Jbod::with_bootstrap(&bootstrap, arguments),
        )
    }

    fn tool_until(
        &self,
        class: &str,
        arguments: &[&str],
        wanted: impl Fn(&str) -> bool,
    ) -> Result<String> {
        let bootstrap = self.broker.bootstrap();
        let arguments = Jbod::with_bootstrap(&bootstrap, arguments);
        tool_until(&self.java, class, &arguments, wanted)
    }

    /// What kafka-log-dirs says of the two directories.
    fn describe(&self) -> Result<[Described; 2]> {
        let text = self.tool(LOG_DIRS_TOOL, &["--describe", "--topic-list", TOPIC])?;
        let lines: Vec<&str> = text.lines().collect();
        let [
            "Querying brokers for log directories information",
            "Received log directory information from brokers 1",
            json,
        ] = lines[..]
        else {
            return Err(format!("not what Kafka's says:\n{text}").into());
        };
        let json: Value = serde_json::from_str(json)?;
        expect(
            &text,
            json["version"] == 1 && json["brokers"][0]["broker"] == 1,
        )?;
        let dirs = json["brokers"][0]["logDirs"].as_array();
        let described = |dir: usize| -> Result<Described> {
            let path = self.path(dir).display().to_string();
            let found = dirs.into_iter().flatten();
            let mut found = found.filter(|found| found["logDir"] == *path);
            let found = found.next().ok_or_else(|| format!("no {path} in {text}"))?;
            let described = Described::of(found);
            Ok(described.ok_or_else(|| format!("not what Kafka's says:\n{text}"))?)
        };
        Ok([described(0)?, described(1)?])
    }

    /// Which partitions lie in a directory, by its files.
    fn partitions_in(&self, dir: usize) -> Result<Vec<i32>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.path(dir))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let partition = name
                .strip_prefix(TOPIC)
                .and_then(|rest| rest.strip_prefix('-'));
            found.extend(partition.and_then(|number| number.parse::<i32>().ok()));
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Each directory has its share, and kafka-log-dirs says where what is.
    fn described(&mut self) -> Result<()> {
        for (dir, described) in self.describe()?.into_iter().enumerate() {
            let there = self.partitions_in(dir)?;
            let wanted: Vec<String> = there.iter().map(|n| format!("{TOPIC}-{n}")).collect();
            expect(
                &format!("{described:?}, the files of {wanted:?}"),
                wanted.len() == 2 && described.error.is_none() && described.partitions == wanted,
            )?;
        }
        Ok(())
    }

    /// All replicas go to the second directory while producers write, and back to where they were.
    fn moved(&mut self) -> Result<()> {
        let log = self.broker.spec.folder.join("load.log");
        let bootstrap = self.broker.bootstrap();
        let client = load::of_java(&self.java, &log);
        let load = Load::start(client, &bootstrap, TOPIC, PARTITIONS)?;
        let moving = self.partitions_in(0)?;
        for (from, to) in [(0, 1), (1, 0)] {
            let file = self.broker.spec.folder.join("reassign.json");
            fs::write(&file, self.plan(&moving, to))?;
            let file = file.display().to_string();
            let with = |what| ["--reassignment-json-file", &*file, what];
            let acked = load.acked();
            self.tool(REASSIGN_TOOL, &with("--execute"))?;
            let done = |text: &str| {
                let replicas = text.matches("completed successfully").count();
                replicas >= moving.len()
            };
            self.tool_until(REASSIGN_TOOL, &with("--verify"), done)?;
            load.wait_for_progress(acked, 500, PATIENCE)?;
            let (left, there) = (self.partitions_in(from)?, self.partitions_in(to)?);
            let all_there = moving.iter().all(|partition| there.contains(partition));
            let none_left = moving.iter().all(|partition| !left.contains(partition));
            expect(&format!("{left:?} {there:?}"), all_there && none_left)?;
        }
        load.finish().map(drop)
    }

    /// A plan that moves partitions to a directory.
    fn plan(&self, partitions: &[i32], dir: usize) -> String {
        let dir = self.path(dir).display().to_string();
        let entry = |partition: &i32| {
            format!(
                "{{\"topic\":\"{TOPIC}\",\"partition\":{partition},\"replicas\":[1],\
                 \"log_dirs\":[\"{dir}\"]}}"
            )
        };
        let entries: Vec<String> = partitions.iter().map(entry).collect();
        format!("{{\"version\":1,\"partitions\":[{}]}}", entries.join(","))
    }

    /// Takes a directory away: what is open stays so, and nothing can be opened or made there.
    fn break_dir(&self, dir: usize) -> Result<()> {
        let path = self.path(dir);
        fs::rename(&path, path.with_extension("away"))?;
        fs::write(path, "a disk that is gone")?;
        Ok(())
    }

    /// Writes to a partition, which has to be noted on its disk.
    fn write_to(&self, partition: i32) -> Result<i16> {
        let now_ms = crate::wire::now_ms();
        let batch = crate::batch::build(crate::batch::Producer::NONE, now_ms, &[b"one".to_vec()]);
        let mut connection = crate::wire::Connection::open(self.broker.spec.port)?;
        Ok(connection.produce(TOPIC, partition, 1, &batch)?.error)
    }

    fn one_fails(&mut self) -> Result<()> {
        let (healthy, failing) = (self.partitions_in(0)?, self.partitions_in(1)?);
        self.break_dir(1)?;
        for &partition in &failing {
            // Refused or not: the file is still open.
            let _ = self.write_to(partition);
        }
        let describe = ["--describe", "--topic", TOPIC];
        let lost = |text: &str| text.matches("Leader: none").count() == failing.len();
        let text = self.tool_until(TOPICS_TOOL, &describe, lost)?;
        for &partition in &healthy {
            let row = format!("Partition: {partition}\tLeader: 1");
            expect(&text, text.contains(&row))?;
            let error = self.write_to(partition)?;
            expect(&format!("writing to {partition}: {error}"), error == 0)?;
        }
        for &partition in &failing {
            let error = self.write_to(partition)?;
            expect(&format!("writing to {partition}: {error}"), error != 0)?;
        }
        let [left, lost] = self.describe()?;
        let told = lost.error.unwrap_or_default();
        expect(&told, told.contains("KafkaStorageException"))?;
        expect(&format!("{left:?}"), left.error.is_none())
    }

    /// Kafka ends its process, with a status that tells of it.
    fn last_fails(&mut self) -> Result<()> {
        let left = self.partitions_in(0)?;
        self.break_dir(0)?;
        let end = Instant::now() + PATIENCE;
        let status = loop {
            for &partition in &left {
                // It may be gone already.
                let _ = self.write_to(partition);
            }
            match self.broker.exited()? {
                Some(status) => break status,
                None if Instant::now() > end => {
                    return Err(format!("still there:\n{}", self.broker.log_tail()).into());
                }
                None => std::thread::sleep(Duration::from_millis(50)),
            }
        };
        expect(&status.to_string(), status.code() == Some(1))?;
        self.broker.kill()
    }

    fn all_return(&mut self) -> Result<()> {
        for dir in 0..2 {
            let path = self.path(dir);
            let away = path.with_extension("away");
            if away.exists() {
                fs::remove_file(&path)?;
                fs::rename(&away, &path)?;
            }
        }
        self.broker.start_again()?;
        let describe = ["--describe", "--topic", TOPIC];
        let all = |text: &str| text.matches("Leader: 1").count() == PARTITIONS as usize;
        self.tool_until(TOPICS_TOOL, &describe, all)?;
        for partition in 0..PARTITIONS {
            let error = self.write_to(partition)?;
            expect(&format!("writing to {partition}: {error}"), error == 0)?;
        }
        self.broker.stop().map(drop)
    }
}

/// What is said of a directory.
#[derive(Debug)]
struct Described {
    error: Option<String>,
    /// Sorted.
    partitions: Vec<String>,
}

impl Described {
    /// None if it does not have the form of Kafka's, or not all of its replicas are current ones that
    /// do not lag.
    fn of(json: &Value) -> Option<Described> {
        let mut partitions = Vec::new();
        for partition in json["partitions"].as_array()? {
            let mut keys: Vec<&String> = partition.as_object()?.keys().collect();
            keys.sort_unstable();
            let all = keys == ["isFuture", "offsetLag", "partition", "size"];
            let idle = partition["offsetLag"] == 0 && partition["isFuture"] == false;
            if !all || !idle || !partition["size"].is_u64() {
                return None;
            }
            partitions.push(partition["partition"].as_str()?.to_owned());
        }
        partitions.sort_unstable();
        Some(Described {
            error: json["error"].as_str().map(str::to_owned),
            partitions,
        })
    }
}
