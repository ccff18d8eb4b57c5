//! How a broker follows the metadata, and the leaders that the metadata names.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use klamm_env::Rng as _;
use klamm_log::LogConfig;
use klamm_metadata::{ConfigResource, MetadataDelta, MetadataImage};
use klamm_protocol::Records;
use klamm_protocol::messages::{
    FetchRequest, FetchResponse, ListOffsetsRequest, ListOffsetsResponse,
};
use klamm_records::{Uuid, batches};
use klamm_replication::fetcher::{
    ChannelError, FetchLimits, Fetcher, FetcherCommand, LeaderChannel,
};
use klamm_replication::{ReplicaChanges, TopicSettings};
use tokio::sync::mpsc;

use super::super::Violation;
use super::Flaw;
use super::controller::{News, Update};
use super::groups;
use super::node::{self, Broker, log_config_of};
use super::serve;
use super::world::{CONTROLLER, World};

/// Where in a batch its epoch stands.
const PARTITION_LEADER_EPOCH: std::ops::Range<usize> = 12..16;

/// Fetchers by leader, and whom each partition is followed at.
#[derive(Debug, Default)]
pub(super) struct Fetchers(Mutex<Followed>);

#[derive(Debug, Default)]
struct Followed {
    fetchers: BTreeMap<i32, mpsc::UnboundedSender<FetcherCommand>>,
    leaders: BTreeMap<(Uuid, i32), i32>,
}

/// Asks the controller that never fails for news and applies them, until the broker dies.
pub(super) async fn metadata(world: World, broker: Broker) {
    loop {
        let offset = broker.image().offset();
        let there = world.clone();
        let serve = move || {
            let there = there.clone();
            async move {
                let mut committed = there.committed.subscribe();
                let late = there.executor.sleep(Duration::from_millis(500));
                let newer = async {
                    let _ = committed.wait_for(|known| *known > offset).await;
                };
                tokio::select! {
                    biased;
                    () = newer => {}
                    () = late => {}
                }
                there
                    .control(|controller| controller.news_after(offset))
                    .flatten()
            }
        };
        let way = (broker.id, CONTROLLER);
        let timeout = world.plan.timing.request;
        match world.net.call(way, "news", timeout, serve).await {
            Ok(Some(news)) => {
                hear(&world, &broker, news);
                if offset < 0 {
                    // Only one who knows its replicas can serve.
                    world.net.listen(broker.id, broker.process);
                }
            }
            Ok(None) => {}
            Err(_) => world.sleep_ms(50 + broker.rng.below(100)).await,
        }
    }
}

fn hear(world: &World, broker: &Broker, news: News) {
    let known = broker.image();
    match news {
        News::Snapshot(image) if known.offset() < 0 => {
            apply(world, broker, &MetadataDelta::from_nothing(&image), &image);
            if let Err(error) = broker.replicas.set_stray_logs_aside() {
                node::failed(world, broker.id, format!("{}: {error}", broker.id));
            }
        }
        News::Snapshot(image) => {
            let delta = MetadataDelta::between(&known, &image);
            apply(world, broker, &delta, &image);
        }
        News::Updates(updates) => {
            // One by one or several at once, as it happens.
            let at_once = 1 + broker.rng.index(3);
            for some in updates.chunks(at_once) {
                let (delta, image) = replay(world, broker, some);
                apply(world, broker, &delta, &image);
            }
        }
    }
}

fn replay(
    world: &World,
    broker: &Broker,
    updates: &[Arc<Update>],
) -> (MetadataDelta, Arc<MetadataImage>) {
    let mut delta = MetadataDelta::new(broker.image());
    let mut provenance = broker.image().provenance();
    for update in updates {
        for record in &update.records {
            if let Err(error) = delta.replay(record) {
                let detail = format!("{} at {}: {record:?}", error, broker.id);
                world.history().fail(Violation::new("replay", detail));
            }
        }
        provenance = update.provenance;
    }
    let image = delta.finish(provenance);
    (delta, image)
}

pub(super) fn apply(
    world: &World,
    broker: &Broker,
    delta: &MetadataDelta,
    image: &Arc<MetadataImage>,
) {
    let settings = |topic: &str| {
        let configs = image.config(&ConfigResource::topic(topic));
        let min_isr = configs.get("min.insync.replicas");
        TopicSettings {
            log: spoilt(log_config_of(&world.plan, configs), world.flaw),
            min_insync_replicas: min_isr.and_then(|value| value.parse().ok()).unwrap_or(1),
            ..TopicSettings::default()
        }
    };
    let changes = broker.replicas.apply_metadata(delta, image, &settings);
    if let Some(groups) = &broker.groups {
        groups::follow(groups, &changes);
    }
    broker.set_image(Arc::clone(image));
    world.note(format_args!("{} is at {}", broker.id, image.offset()));
    if let Some((partition, error)) = changes.failed.first() {
        let detail = format!("{partition} at {}: {error}", broker.id);
        node::failed(world, broker.id, detail);
    }
    follow(world, broker, &changes);
}

/// Tells the fetchers what is followed where.
fn follow(world: &World, broker: &Broker, changes: &ReplicaChanges) {
    let fetchers = &broker.fetchers.0;
    let mut followed = fetchers.lock().unwrap_or_else(PoisonError::into_inner);
    let elected = changes.elected.iter();
    let elected = elected.map(|it| (it.topic_id, it.partition.partition));
    let removed = changes.removed.iter().map(|(it, id)| (*id, it.partition));
    for (topic_id, partition) in elected.chain(removed) {
        followed.stop(topic_id, partition);
    }
    for following in &changes.following {
        let (topic_id, index) = (following.topic_id, following.partition.partition);
        followed.stop(topic_id, index);
        let Some(leader) = following.leader else {
            continue;
        };
        followed.leaders.insert((topic_id, index), leader);
        let fetcher = followed
            .fetchers
            .entry(leader)
            .or_insert_with(|| start_fetcher(world, broker, leader));
        let command = FetcherCommand::Follow(following.partition.clone(), topic_id);
        // It ends with the broker.
        let _ = fetcher.send(command);
    }
}

impl Followed {
    fn stop(&mut self, topic_id: Uuid, partition: i32) {
        if let Some(leader) = self.leaders.remove(&(topic_id, partition))
            && let Some(fetcher) = self.fetchers.get(&leader)
        {
            let _ = fetcher.send(FetcherCommand::Unfollow(topic_id, partition));
        }
    }
}

fn start_fetcher(
    world: &World,
    broker: &Broker,
    leader: i32,
) -> mpsc::UnboundedSender<FetcherCommand> {
    let (sender, commands) = mpsc::unbounded_channel();
    let limits = FetchLimits {
        wait_max_ms: world.plan.timing.fetch_wait_ms,
        response_bytes_max: 1 << 15,
        partition_bytes_max: 1 << 13,
        backoff_ms: 100 * i64::from(world.plan.timing.stretch),
        ..FetchLimits::default()
    };
    let channel = Channel {
        world: world.clone(),
        broker: broker.clone(),
        leader,
        asked: BTreeMap::new(),
    };
    let replicas = broker.replicas.clone();
    let fetcher = Fetcher::new(replicas, leader, broker.shared_epoch(), channel, limits);
    let name = format!("fetcher {}<-{leader}", broker.id);
    let run = fetcher.run(commands);
    world.executor.spawn_in(broker.process, name, run);
    sender
}

/// The way from a follower to a leader.
struct Channel {
    world: World,
    broker: Broker,
    leader: i32,
    /// The epochs in which partitions were asked for last, if the flaw keeps them from the leader.
    asked: BTreeMap<(Uuid, i32), i32>,
}

impl LeaderChannel for Channel {
    async fn fetch(&mut self, mut request: FetchRequest) -> Result<FetchResponse, ChannelError> {
        let boasts = self.spoil_request(&mut request);
        let (there, leader) = (self.world.clone(), self.leader);
        let serve = move || {
            let (there, request) = (there.clone(), request.clone());
            async move { serve::fetch(&there, leader, request).await }
        };
        let way = (self.broker.id, self.leader);
        let timeout = self.world.plan.timing.request;
        let response = self.world.net.call(way, "fetch", timeout, serve).await;
        let mut response = response
            .map_err(|error| ChannelError::Answer(format!("{error:?}")))?
            .ok_or_else(|| ChannelError::Answer("it cannot read".to_owned()))?;
        self.spoil_response(&mut response, boasts);
        self.note(&response);
        Ok(response)
    }

    async fn list_offsets(
        &mut self,
        request: ListOffsetsRequest,
    ) -> Result<ListOffsetsResponse, ChannelError> {
        let (there, leader) = (self.world.clone(), self.leader);
        let serve = move || {
            let (there, request) = (there.clone(), request.clone());
            async move { serve::list_offsets(&there, leader, &request) }
        };
        let way = (self.broker.id, self.leader);
        let timeout = self.world.plan.timing.request;
        let response = self.world.net.call(way, "offsets", timeout, serve).await;
        response.map_err(|error| ChannelError::Answer(format!("{error:?}")))
    }
}

impl Channel {
    /// Builds the flaw into a request; whether it claims more than there is.
    fn spoil_request(&mut self, request: &mut FetchRequest) -> bool {
        let flaw = self.world.flaw;
        let boasts = flaw == Flaw::FollowersBoast && self.broker.rng.one_in(4);
        for topic in &mut request.topics {
            for wish in &mut topic.partitions {
                if flaw == Flaw::NeverTruncate {
                    wish.last_fetched_epoch = -1;
                }
                if boasts {
                    wish.fetch_offset += 1;
                }
                if flaw == Flaw::AppendAcrossEpochs {
                    let key = (topic.topic_id, wish.partition);
                    self.asked.insert(key, wish.current_leader_epoch);
                    wish.current_leader_epoch = -1;
                }
            }
        }
        boasts
    }

    fn note(&self, response: &FetchResponse) {
        let (id, leader) = (self.broker.id, self.leader);
        let (error, session) = (response.error_code, response.session_id);
        let topics = response.responses.iter();
        for data in topics.flat_map(|topic| &topic.partitions) {
            self.world.note(format_args!(
                "{id} gets {} of {leader}: error {}, {} bytes, high watermark {}, parts at {}/{}",
                data.partition_index,
                data.error_code,
                data.records.as_ref().map_or(0, Records::len),
                data.high_watermark,
                data.diverging_epoch.epoch,
                data.diverging_epoch.end_offset,
            ));
        }
        if error != 0 {
            self.world.note(format_args!(
                "{id} is refused by {leader}: error {error} of {session}"
            ));
        }
    }

    fn spoil_response(&self, response: &mut FetchResponse, boasts: bool) {
        for topic in &mut response.responses {
            for data in &mut topic.partitions {
                if self.world.flaw == Flaw::WatermarkAtEnd {
                    data.high_watermark = i64::MAX;
                }
                if boasts {
                    data.records = None;
                }
                let key = (topic.topic_id, data.partition_index);
                if let Some(epoch) = self.asked.get(&key) {
                    data.records = data.records.take().map(|it| stamped(it, *epoch));
                }
            }
        }
    }
}

/// Builds the flaw into what a log is configured with.
fn spoilt(config: LogConfig, flaw: Flaw) -> LogConfig {
    match flaw {
        Flaw::RetentionTooSoon => LogConfig {
            retention_ms: config.retention_ms / 2,
            retention_bytes: config.retention_bytes / 2,
            ..config
        },
        Flaw::NothingExpires => LogConfig {
            delete: false,
            compact: false,
            ..config
        },
        _ => config,
    }
}

/// The records as if they had been appended in an epoch.
fn stamped(records: Records, epoch: i32) -> Records {
    let Some(bytes) = records.as_bytes() else {
        return records;
    };
    let mut stamped = BytesMut::from(&bytes[..]);
    let mut start = 0;
    for batch in batches(bytes).map_while(Result::ok) {
        stamped[start..][PARTITION_LEADER_EPOCH].copy_from_slice(&epoch.to_be_bytes());
        start += batch.bytes().len();
    }
    Records::Bytes(stamped.freeze())
}
