//! Consumers: each reads all partitions from their start, and notes what it sees.

use std::collections::BTreeMap;
use std::time::Duration;

use klamm_env::Rng as _;
use klamm_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use klamm_protocol::messages::fetch_response::PartitionData;
use klamm_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use klamm_protocol::messages::{FetchRequest, ListOffsetsRequest};
use klamm_protocol::{ErrorCode, Records};
use klamm_records::TopicPartition;
use klamm_replication::fetch_session::FINAL_EPOCH;

use super::super::Violation;
use super::plan::Keeping;
use super::producer::Known;
use super::serve::{self, Lead};
use super::view;
use super::world::World;
use crate::{Address, SimRng};

/// What ListOffsets is asked for.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;

struct Reader {
    partition: TopicPartition,
    known: Known,
    position: i64,
    last_epoch: i32,
}

struct Consumer {
    world: World,
    rng: SimRng,
    id: i64,
    client: Address,
}

/// Consumes until the run is over.
pub(super) async fn consume(world: World, id: i64) {
    let consumer = Consumer {
        rng: world.rng.fork("consumer"),
        client: 200 + id as Address,
        id,
        world,
    };
    let mut readers = BTreeMap::new();
    loop {
        consumer.world.awake().await;
        let mut partitions = consumer.world.partitions();
        partitions.retain(|partition| !consumer.world.is_unclean(partition));
        readers.retain(|partition, _| partitions.contains(partition));
        for partition in partitions {
            let reader = readers.entry(partition).or_insert_with_key(Reader::new);
            consumer.turn(reader).await;
        }
        let pause = 10 + consumer.rng.below(100);
        consumer.world.sleep_ms(pause).await;
    }
}

impl Reader {
    fn new(partition: &TopicPartition) -> Reader {
        Reader {
            partition: partition.clone(),
            known: Known::default(),
            position: 0,
            last_epoch: -1,
        }
    }
}

impl Consumer {
    async fn turn(&self, reader: &mut Reader) {
        let found = reader
            .known
            .find(&self.world, &self.rng, self.client, &reader.partition)
            .await;
        let Some(lead) = found else {
            return;
        };
        let fine = if self.rng.one_in(5) {
            self.ask_end(reader, lead).await
        } else {
            self.fetch(reader, lead).await
        };
        if fine.is_none() {
            reader.known.forget();
        }
    }

    async fn fetch(&self, reader: &mut Reader, lead: Lead) -> Option<()> {
        let request = FetchRequest {
            max_wait_ms: 50,
            min_bytes: 1,
            max_bytes: 1 << 16,
            session_epoch: FINAL_EPOCH,
            topics: vec![FetchTopic {
                topic_id: lead.topic_id,
                partitions: vec![FetchPartition {
                    partition: reader.partition.partition,
                    current_leader_epoch: lead.epoch,
                    fetch_offset: reader.position,
                    last_fetched_epoch: reader.last_epoch,
                    partition_max_bytes: 1 << 12,
                    ..FetchPartition::default()
                }],
                ..FetchTopic::default()
            }],
            ..FetchRequest::default()
        };
        let there = self.world.clone();
        let serve = move || {
            let (there, request) = (there.clone(), request.clone());
            async move { serve::fetch(&there, lead.leader, request).await }
        };
        let way = (self.client, lead.leader);
        let timeout = Duration::from_secs(1);
        let answer = self.world.net.call(way, "consume", timeout, serve).await;
        let mut response = answer.ok().flatten()?;
        let data = response.responses.pop()?.partitions.pop()?;
        match ErrorCode::from_code(data.error_code) {
            Some(ErrorCode::None) => {
                self.take(reader, lead, &data);
                Some(())
            }
            Some(ErrorCode::OffsetOutOfRange) => self.start_over(reader, lead).await,
            _ => None,
        }
    }

    fn take(&self, reader: &mut Reader, lead: Lead, data: &PartitionData) {
        if data.diverging_epoch.epoch >= 0 || data.diverging_epoch.end_offset >= 0 {
            let (position, parted) = (reader.position, &data.diverging_epoch);
            self.fail(
                reader,
                format!("{lead:?} parts from {position} at {parted:?}"),
            );
            return;
        }
        let mut history = self.world.history();
        history.watermark(self.id, &reader.partition, lead.epoch, data.high_watermark);
        let bytes = data.records.as_ref().and_then(Records::as_bytes);
        let mut entries = Vec::new();
        let parsed = view::parse(bytes.map_or(&[], |bytes| bytes), &mut |entry| {
            entries.push(entry);
        });
        let end = parsed.unwrap_or_else(|error| {
            history.fail(Violation::new("integrity", error));
            None
        });
        let has_gaps = self.has_gaps(&reader.partition);
        entries.retain(|entry| entry.offset >= reader.position);
        for entry in entries {
            let is_next = entry.offset == reader.position || has_gaps;
            if !is_next || entry.offset >= data.high_watermark {
                let (at, end) = (reader.position, data.high_watermark);
                let detail = format!("{lead:?} gives {entry:?} at {at}, {end} is committed");
                history.fail(Violation::new("reads", detail));
            }
            history.read(self.id, &reader.partition, &entry);
            reader.position = entry.offset + 1;
            reader.last_epoch = entry.epoch;
        }
        if has_gaps {
            // The last records of a batch may be gone.
            reader.position = reader.position.max(end.unwrap_or(0));
        }
        let key = (self.id, reader.partition.clone());
        history.positions.insert(key, reader.position);
    }

    fn has_gaps(&self, partition: &TopicPartition) -> bool {
        let topic = self.world.topic(&partition.topic);
        topic.is_some_and(|it| it.keeping == Keeping::Compacted)
    }

    /// The leader does not have the position: it has to be before the start of its log.
    async fn start_over(&self, reader: &mut Reader, lead: Lead) -> Option<()> {
        let start = self.list_offset(reader, lead, EARLIEST).await?;
        if start <= reader.position {
            let detail = format!(
                "{lead:?} does not have {} any more, and begins at {start}",
                reader.position
            );
            self.fail(reader, detail);
            return None;
        }
        reader.position = start;
        reader.last_epoch = -1;
        Some(())
    }

    async fn ask_end(&self, reader: &Reader, lead: Lead) -> Option<()> {
        let end = self.list_offset(reader, lead, LATEST).await?;
        let mut history = self.world.history();
        history.end(self.id, &reader.partition, end);
        if end < reader.position {
            let detail = format!(
                "{lead:?} says that {} ends at {end}, {} was read",
                reader.partition, reader.position
            );
            history.fail(Violation::new("reads", detail));
        }
        Some(())
    }

    async fn list_offset(&self, reader: &Reader, lead: Lead, timestamp: i64) -> Option<i64> {
        let request = ListOffsetsRequest {
            replica_id: -1,
            topics: vec![ListOffsetsTopic {
                name: (&*reader.partition.topic).into(),
                partitions: vec![ListOffsetsPartition {
                    partition_index: reader.partition.partition,
                    current_leader_epoch: lead.epoch,
                    timestamp,
                    ..ListOffsetsPartition::default()
                }],
                ..ListOffsetsTopic::default()
            }],
            ..ListOffsetsRequest::default()
        };
        let there = self.world.clone();
        let serve = move || {
            let (there, request) = (there.clone(), request.clone());
            async move { serve::list_offsets(&there, lead.leader, &request) }
        };
        let way = (self.client, lead.leader);
        let timeout = Duration::from_secs(1);
        let answer = self.world.net.call(way, "end", timeout, serve).await;
        let mut response = answer.ok()?;
        let found = response.topics.pop()?.partitions.pop()?;
        (found.error_code == ErrorCode::None.code()).then_some(found.offset)
    }

    fn fail(&self, reader: &Reader, detail: String) {
        let detail = format!("{}: {detail}", reader.partition);
        self.world.history().fail(Violation::new("reads", detail));
    }
}
