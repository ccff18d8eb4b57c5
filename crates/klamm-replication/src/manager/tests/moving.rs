//! Replicas that move between directories: verdicts, what the controller is told and when, what a
//! restart finds.

use klamm_protocol::metadata::{FeatureLevelRecord, PartitionChangeRecord};

use super::*;

const DIRS: &[&str] = &["a", "b", "c"];

/// What the controller would be told.
#[derive(Debug, Default)]
struct Told(Mutex<Vec<DirectoryAssignment>>);

impl DirectorySink for Told {
    fn assign(&self, assignment: DirectoryAssignment) {
        lock(&self.0).push(assignment);
    }
}

struct Jbod {
    broker: Broker,
    told: Arc<Told>,
    ids: Vec<Uuid>,
}

impl Jbod {
    /// Three directories, topic `t` in the first, under a metadata version with directories.
    fn new() -> Jbod {
        let mut broker = Broker::over(NODE, DIRS);
        let version = FeatureLevelRecord {
            name: "metadata.version".into(),
            feature_level: 25,
            ..FeatureLevelRecord::default()
        };
        broker.apply(vec![version.into()]);
        let directories = broker.manager.logs().directories();
        let ids: Vec<Uuid> = directories.iter().map(|d| d.id).collect();
        let told = Arc::new(Told::default());
        broker
            .manager
            .set_directory_sink(Arc::clone(&told) as Arc<dyn DirectorySink>);
        let record = PartitionRecord {
            directories: vec![ids[0]],
            ..partition(0, &[NODE])
        };
        broker.create("t", &[record]);
        Jbod { broker, told, ids }
    }

    fn restart(self) -> Jbod {
        self.broker.manager.logs().shutdown(5).unwrap();
        self.start_again()
    }

    fn start_again(self) -> Jbod {
        let manager = start(
            NODE,
            self.broker.paths(),
            &self.broker.clock,
            &self.broker.sink,
        );
        manager.set_directory_sink(Arc::clone(&self.told) as Arc<dyn DirectorySink>);
        let delta = MetadataDelta::from_nothing(&self.broker.image);
        let settings = self.broker.settings.clone();
        manager.apply_metadata(&delta, &self.broker.image, &|_| settings.clone());
        manager.set_stray_logs_aside().unwrap();
        let broker = Broker {
            manager,
            ..self.broker
        };
        Jbod { broker, ..self }
    }

    fn manager(&self) -> &ReplicaManager {
        &self.broker.manager
    }

    fn name() -> TopicPartition {
        TopicPartition::new("t", 0)
    }

    fn move_to(&self, dir: &str) -> Result<(), ErrorCode> {
        let path = self.broker.dir.path().join(dir);
        self.manager().move_replica(&Jbod::name(), Some(&path))
    }

    fn place(&self) -> Option<usize> {
        let id = self.manager().logs().directory_of(&Jbod::name())?;
        self.ids.iter().position(|known| *known == id)
    }

    /// One step of the one move there is.
    fn step(&self) -> MoveStep {
        let ticket = self.manager().next_move().unwrap();
        self.manager().step_move(ticket, 1 << 20, &mut Vec::new())
    }

    /// The directories that the controller was told since the last question.
    fn told(&self) -> Vec<usize> {
        let told = std::mem::take(&mut *lock(&self.told.0));
        let index = |told: DirectoryAssignment| {
            assert_eq!((told.topic_id, told.partition), (id("t"), 0));
            self.ids.iter().position(|known| *known == told.directory)
        };
        told.into_iter().map(|told| index(told).unwrap()).collect()
    }

    /// The controller agrees.
    fn agree(&mut self, dir: usize) {
        let record = PartitionChangeRecord {
            topic_id: id("t"),
            partition_id: 0,
            directories: Some(vec![self.ids[dir]]),
            ..PartitionChangeRecord::default()
        };
        self.broker.apply(vec![record.into()]);
    }

    fn values(&self) -> Vec<String> {
        let params = FetchParams {
            max_wait_ms: 0,
            ..CONSUMER
        };
        let answer = ready(self.manager().fetch(&params, &[(t(), wish(0))])).remove(0);
        assert_eq!(answer.error, ErrorCode::None);
        values(&answer, 0)
    }
}

#[test]
fn a_replica_moves_when_the_controller_agrees() {
    let mut jbod = Jbod::new();
    jbod.broker.produce(&["1", "2"]);
    assert_eq!(jbod.move_to("b"), Ok(()));
    assert_eq!(jbod.manager().move_count(), 1);
    assert_eq!(jbod.step(), MoveStep::Waiting);
    assert_eq!(jbod.told(), [1]);
    // It goes on following, and does not ask twice.
    jbod.broker.produce(&["3"]);
    assert_eq!(jbod.step(), MoveStep::Waiting);
    assert!(jbod.told().is_empty());
    assert_eq!(jbod.place(), Some(0));
    jbod.agree(1);
    assert!(jbod.told().is_empty(), "the metadata is ahead, not wrong");
    jbod.broker.produce(&["4"]);
    assert_eq!(jbod.step(), MoveStep::Ended);
    assert_eq!(jbod.place(), Some(1));
    assert_eq!(jbod.manager().move_count(), 0);
    jbod.broker.produce(&["5"]);
    assert_eq!(jbod.values(), ["1", "2", "3", "4", "5"]);
    assert!(jbod.told().is_empty());
    let jbod = jbod.restart();
    assert_eq!(jbod.place(), Some(1));
    assert_eq!(jbod.values(), ["1", "2", "3", "4", "5"]);
    assert!(jbod.told().is_empty());
}

/// Recorded from Kafka.
#[test]
fn verdicts_are_kafkas() {
    let mut jbod = Jbod::new();
    let path = |dir: &str| jbod.broker.dir.path().join(dir);
    let (b, c, nowhere) = (path("b"), path("c"), path("nowhere"));
    assert_eq!(jbod.move_to("nowhere"), Err(ErrorCode::LogDirNotFound));
    assert_eq!(jbod.move_to("a"), Ok(()), "it is there");
    assert_eq!(jbod.manager().move_count(), 0);
    let alter = |topic: &str, index, path: &std::path::Path| {
        let name = TopicPartition::new(topic, index);
        jbod.manager().move_replica(&name, Some(path))
    };
    assert_eq!(alter("t", 9, &b), Err(ErrorCode::UnknownTopicOrPartition));
    assert_eq!(alter("u", 0, &b), Err(ErrorCode::UnknownTopicOrPartition));
    assert_eq!(alter("u", 0, &nowhere), Err(ErrorCode::LogDirNotFound));
    let long = "l".repeat(230);
    assert_eq!(alter(&long, 0, &b), Err(ErrorCode::InvalidTopicException));
    jbod.manager().logs().set_cordoned(|dir| dir == b);
    assert_eq!(alter("u", 0, &b), Err(ErrorCode::InvalidReplicaAssignment));
    jbod.manager().logs().set_cordoned(|_| false);

    jbod.broker.create(
        "elsewhere",
        &[PartitionRecord {
            leader: OTHER,
            ..partition(0, &[OTHER])
        }],
    );
    let name = TopicPartition::new("elsewhere", 0);
    let refused = jbod.manager().move_replica(&name, Some(&c));
    assert_eq!(refused, Err(ErrorCode::ReplicaNotAvailable));
    // But it is remembered where it is wanted.
    jbod.broker.change("elsewhere", partition(0, &[NODE]));
    let place = jbod.manager().logs().directory_of(&name);
    assert_eq!(place, Some(jbod.ids[2]));

    jbod.manager().logs().set_directory_offline(jbod.ids[1]);
    assert_eq!(jbod.move_to("b"), Err(ErrorCode::KafkaStorageError));
    // There could be a copy in the one that is offline.
    assert_eq!(jbod.move_to("c"), Err(ErrorCode::KafkaStorageError));
}

#[test]
fn a_move_to_elsewhere_or_back_takes_the_place_of_the_first() {
    let mut jbod = Jbod::new();
    jbod.broker.produce(&["1"]);
    jbod.move_to("b").unwrap();
    assert_eq!(jbod.step(), MoveStep::Waiting);
    assert_eq!(jbod.told(), [1]);
    jbod.agree(1);
    // Too late for the first: the controller has to be told that it was cancelled.
    jbod.move_to("c").unwrap();
    assert_eq!(jbod.told(), [0]);
    assert_eq!(jbod.step(), MoveStep::Waiting);
    assert_eq!(jbod.told(), [2]);
    jbod.agree(0);
    jbod.agree(2);
    jbod.move_to("a").unwrap();
    assert_eq!(jbod.told(), [0]);
    assert_eq!(jbod.manager().move_count(), 0);
    assert!(jbod.manager().logs().future_logs().is_empty());
    assert_eq!(
        (jbod.place(), jbod.values()),
        (Some(0), vec!["1".to_owned()])
    );
}

#[test]
fn a_cancelled_step_ends_no_later_move() {
    let jbod = Jbod::new();
    jbod.broker.produce(&["1"]);
    jbod.move_to("b").unwrap();
    let stale = jbod.manager().next_move().unwrap();
    jbod.move_to("a").unwrap();
    jbod.move_to("c").unwrap();
    let fresh = jbod.manager().next_move().unwrap();
    jbod.manager().step_move(stale, 1 << 20, &mut Vec::new());
    assert_eq!(jbod.manager().move_count(), 1);
    assert!(jbod.manager().next_move().is_none(), "one has it");
    jbod.manager().step_move(fresh, 1 << 20, &mut Vec::new());
    assert_eq!(jbod.manager().move_count(), 1);
}

#[test]
fn a_move_goes_on_after_a_restart() {
    let jbod = Jbod::new();
    jbod.broker.produce(&["1", "2"]);
    jbod.move_to("b").unwrap();
    let mut jbod = jbod.restart();
    assert_eq!((jbod.manager().move_count(), jbod.place()), (1, Some(0)));
    assert_eq!(jbod.step(), MoveStep::Waiting);
    assert_eq!(jbod.told(), [1]);
    jbod.agree(1);
    // The broker stops between the controller's consent and the swap: what is written then is
    // only in the old directory, and must not be lost with it.
    jbod.broker.produce(&["3"]);
    let jbod = jbod.restart();
    assert_eq!(jbod.place(), Some(0));
    assert!(jbod.told().is_empty());
    assert_eq!(jbod.step(), MoveStep::Ended);
    assert_eq!(jbod.place(), Some(1));
    assert_eq!(jbod.values(), ["1", "2", "3"]);
}

#[test]
fn the_copy_serves_if_the_source_is_lost_after_the_controller_agreed() {
    let mut jbod = Jbod::new();
    jbod.broker.produce(&["1", "2"]);
    jbod.move_to("b").unwrap();
    assert_eq!(jbod.step(), MoveStep::Waiting);
    jbod.agree(1);
    jbod.manager().logs().shutdown(5).unwrap();
    // A file where the directory was: it cannot be opened.
    let a = jbod.broker.dir.path().join("a");
    let fs = OsFs;
    klamm_env::Fs::rename(&fs, &a, &a.with_file_name("lost")).unwrap();
    klamm_env::Fs::open(&fs, &a, klamm_env::OpenMode::CreateNew).unwrap();
    let jbod = jbod.start_again();
    assert_eq!(jbod.place(), Some(1));
    assert_eq!(jbod.values(), ["1", "2"]);
}

#[test]
fn a_deleted_topic_takes_its_move_along() {
    let mut jbod = Jbod::new();
    jbod.broker.produce(&["1"]);
    jbod.move_to("b").unwrap();
    jbod.broker.delete("t");
    assert_eq!(jbod.manager().move_count(), 0);
    assert!(jbod.manager().logs().future_logs().is_empty());
    assert!(jbod.told().is_empty());

    // Deleted while the broker was down.
    let jbod = Jbod::new();
    jbod.broker.produce(&["1"]);
    jbod.move_to("b").unwrap();
    let empty = Arc::new(MetadataImage::default());
    let broker = Broker {
        image: empty,
        ..jbod.broker
    };
    let jbod = Jbod { broker, ..jbod }.restart();
    assert!(jbod.manager().logs().future_logs().is_empty());
    assert!(jbod.manager().logs().logs().is_empty());
}

#[test]
fn a_disk_that_fails_ends_the_move_to_it_alone() {
    let mut jbod = Jbod::new();
    jbod.broker.produce(&["1"]);
    jbod.move_to("b").unwrap();
    assert_eq!(jbod.step(), MoveStep::Waiting);
    jbod.agree(1);
    assert_eq!(jbod.told(), [1]);
    jbod.manager().logs().set_directory_offline(jbod.ids[1]);
    assert_eq!(jbod.step(), MoveStep::Ended);
    // The controller takes it for lost otherwise.
    assert_eq!(jbod.told(), [0]);
    assert_eq!(jbod.broker.produce(&["2"]).error, ErrorCode::None);
    assert_eq!(jbod.values(), ["1", "2"]);
}

#[test]
fn a_disk_that_fails_takes_its_own_replicas_offline() {
    let mut jbod = Jbod::new();
    let second = PartitionRecord {
        directories: vec![jbod.ids[1]],
        ..partition(0, &[NODE])
    };
    jbod.broker.create("u", &[second]);
    jbod.manager().logs().set_directory_offline(jbod.ids[1]);
    // The log of any of them may notice first.
    assert_eq!(jbod.broker.produce(&["1"]).error, ErrorCode::None);
    let batch = batch(&["x"], &BatchOptions::default());
    let prepared = jbod
        .manager()
        .prepare(TopicRef::Name("u"), 0, batch, CONTEXT);
    let refused = ready(jbod.manager().append_now(vec![prepared], 1, 1000).wait());
    assert_eq!(refused[0].error, ErrorCode::KafkaStorageError);
}

/// The metadata is told where new replicas are, if it left that to the broker.
#[test]
fn new_replicas_report_their_directory() {
    let mut jbod = Jbod::new();
    assert!(jbod.told().is_empty(), "it was named");
    let record = PartitionRecord {
        directories: vec![Uuid::UNASSIGNED_DIR],
        ..partition(0, &[NODE])
    };
    jbod.broker.create("t2", &[record]);
    let told = std::mem::take(&mut *lock(&jbod.told.0));
    assert_eq!(
        told,
        [DirectoryAssignment {
            topic_id: id("t2"),
            partition: 0,
            directory: jbod.ids[1],
        }]
    );
}
