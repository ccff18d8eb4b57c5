//! Brokers as the controller sees them, the image, and the log of records.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use klamm_config::BrokerConfig;
use klamm_controller::KafkaConfigs;
use klamm_controller::managers::{Context, Sessions, Settings};
use klamm_env::Clock as _;
use klamm_metadata::{MetadataDelta, MetadataImage, Provenance};
use klamm_protocol::metadata::MetadataRecord;
use klamm_records::Uuid;

use super::super::{Run, Violation};
use super::{Flaw, elections, ids, partitions};
use crate::{SimClock, SimRng, Trace};

/// Ids of the brokers that may take part.
pub const BROKERS: std::ops::Range<i32> = 1..6;
/// The cluster's id.
pub const CLUSTER_ID: &str = "AAAAAAAAAAAAAAAAAAAAZZ";

/// A broker process.
#[derive(Clone, Debug)]
pub struct Process {
    /// Its epoch, if it is registered.
    pub epoch: i64,
    /// Made anew with each start.
    pub incarnation: Uuid,
    /// Its log directory.
    pub dir: Uuid,
    /// Whether it runs.
    pub up: bool,
    /// Whether it asks to be let go.
    pub wants_shut_down: bool,
    /// The epoch that it had when it shut down in order, -1 otherwise.
    pub clean_epoch: i64,
}

/// The cluster.
pub struct Cluster {
    pub(super) rng: SimRng,
    pub(super) clock: SimClock,
    trace: Trace,
    flaw: Flaw,
    settings: Settings,
    schema: KafkaConfigs,
    /// All that is decided.
    pub image: Arc<MetadataImage>,
    /// The records behind it, as they lie in the log.
    pub log: Vec<Bytes>,
    /// Who was heard of when.
    pub sessions: Sessions,
    /// The processes by broker id.
    pub processes: BTreeMap<i32, Process>,
    /// Ids given out.
    pub ids: ids::Ids,
    pub(super) next_topic: u32,
}

impl Cluster {
    pub(super) fn new(run: &Run, flaw: Flaw) -> Result<Cluster, Violation> {
        let setup = |error: &dyn fmt::Display| Violation::new("setup", error.to_string());
        let config = BrokerConfig::from_pairs([
            ("node.id", "1"),
            ("process.roles", "broker,controller"),
            ("controller.quorum.voters", "1@localhost:9093"),
            ("listeners", "PLAINTEXT://:9092,CONTROLLER://:9093"),
            ("controller.listener.names", "CONTROLLER"),
        ])
        .map_err(|error| setup(&error))?;
        let rng = run.rng.fork("controller");
        let process = |id: i32| {
            let process = Process {
                epoch: -1,
                incarnation: Uuid::ZERO,
                dir: Uuid::from_bytes([id as u8 + 100; 16]),
                up: false,
                wants_shut_down: false,
                clean_epoch: -1,
            };
            (id, process)
        };
        Ok(Cluster {
            rng,
            clock: run.clock.clone(),
            trace: run.trace.clone(),
            flaw,
            settings: Settings::default(),
            schema: KafkaConfigs::new(config),
            image: Arc::default(),
            log: Vec::new(),
            sessions: Sessions::new(Duration::from_secs(9)),
            processes: BROKERS.map(process).collect(),
            ids: ids::Ids::default(),
            next_topic: 0,
        })
    }

    pub(super) fn note(&self, line: impl fmt::Display) {
        self.trace.note(line);
    }

    pub(super) fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    /// Lets a manager decide.
    pub(super) fn decide<T>(&mut self, decide: impl FnOnce(&Context<'_>, &mut Sessions) -> T) -> T {
        let image = self.image.clone();
        let constant = klamm_env::SplitMix64::new(1);
        let context = Context {
            image: &image,
            node_id: 1,
            cluster_id: CLUSTER_ID,
            settings: &self.settings,
            schema: &self.schema,
            rng: if self.flaw == Flaw::IdsRepeat {
                &constant
            } else {
                &self.rng
            },
            next_offset: image.offset() + 1,
        };
        decide(&context, &mut self.sessions)
    }

    /// Commits records and checks what became of the image. `vouched` are replicas that a leader
    /// has just found to be in sync; `unclean` says that an election may lose records.
    pub(super) fn commit(
        &mut self,
        mut records: Vec<MetadataRecord>,
        vouched: &[i32],
        unclean: bool,
    ) -> Result<(), Violation> {
        if records.is_empty() {
            return Ok(());
        }
        for record in &mut records {
            self.spoil(record);
        }
        let mut delta = MetadataDelta::new(self.image.clone());
        for record in &records {
            self.trace.note(format_args!("{record:?}"));
            if let Err(error) = delta.replay(record) {
                let detail = format!("{error} in {record:?}");
                return Err(Violation::new("replay", detail));
            }
            let version = self.image.metadata_version().record_version(record);
            match record.encode_value(version) {
                Ok(value) if self.flaw == Flaw::RecordLost && self.rng.one_in(60) => drop(value),
                Ok(value) => self.log.push(value),
                Err(error) => return Err(Violation::new("replay", error.to_string())),
            }
        }
        let offset = self.image.offset() + records.len() as i64;
        let image = delta.finish(Provenance {
            offset,
            epoch: 1,
            timestamp_ms: self.clock.wall_ms(),
        });
        partitions::check(&self.image, &image)?;
        elections::check(&self.image, &image, vouched, &|_| unclean)?;
        self.ids.check(&image)?;
        self.image = image;
        Ok(())
    }

    /// Builds the flaw into a record.
    fn spoil(&self, record: &mut MetadataRecord) {
        let MetadataRecord::PartitionChange(change) = record else {
            return;
        };
        let topic = self.image.topic_by_id(change.topic_id);
        let Some(partition) = topic.and_then(|topic| topic.partition(change.partition_id)) else {
            return;
        };
        match self.flaw {
            Flaw::AnyoneLeads if change.leader >= 0 => {
                let outside =
                    |id: &&i32| !partition.isr.contains(id) && !partition.elr.contains(id);
                if let Some(&id) = partition.replicas.iter().find(outside) {
                    change.leader = id;
                    change.isr = Some(vec![id]);
                }
            }
            Flaw::StrangerInSync if self.rng.one_in(5) => {
                change.isr = Some(vec![99]);
            }
            _ => {}
        }
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("processes", &self.processes)
            .finish_non_exhaustive()
    }
}
