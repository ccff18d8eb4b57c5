//! Replicas that move between the log directories of this broker (KIP-113, KIP-858).
//!
//! ```text
//! move_replica -> step_move, again and again: copy .. caught up: tell the controller
//!                                             .. controller agrees: swap
//! ```
//!
//! The controller hears of the new directory before the logs are swapped, so that the loss of
//! either disk finds the metadata true: before, the replica is still in the old one. Whether it
//! has agreed is read off the metadata. The bytes are moved by [`Log::copy_from`]; who calls
//! [`ReplicaManager::step_move`] decides how fast.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use klamm_log::{Log, LogError, ManagerError, MoveError, MoveSide, names};
use klamm_protocol::ErrorCode;
use klamm_records::{TopicPartition, Uuid};

use super::map::Hosted;
use super::{ReplicaManager, lock};

/// Longest name of a file.
const NAME_BYTES_MAX: usize = 255;

/// Says that the replica of a partition on this broker is in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryAssignment {
    /// The topic's id.
    pub topic_id: Uuid,
    /// The partition's index.
    pub partition: i32,
    /// The directory's id.
    pub directory: Uuid,
}

/// Takes the directories of replicas to the controller; a later one of the same replica counts.
pub trait DirectorySink: std::fmt::Debug + Send + Sync {
    /// Sends an assignment on its way, as often as it takes; must not block.
    fn assign(&self, assignment: DirectoryAssignment);
}

/// What [`ReplicaManager::step_move`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MoveStep {
    /// So many bytes were copied; there is more to do.
    Copied(u64),
    /// The copy is complete and waits for the controller.
    Waiting,
    /// The move is over, done or not.
    Ended,
}

/// The moves under way.
#[derive(Debug, Default)]
pub(super) struct Moves {
    queue: Mutex<Queue>,
    sink: OnceLock<Arc<dyn DirectorySink>>,
}

#[derive(Debug, Default)]
struct Queue {
    moves: BTreeMap<TopicPartition, Move>,
    last_id: u64,
    /// Those that nobody is working on, the one that has waited longest first.
    free: VecDeque<TopicPartition>,
}

#[derive(Debug)]
struct Move {
    id: u64,
    /// Whether the controller was told.
    asked: bool,
    /// Asked for again while somebody worked on it: that it ended does not count then.
    again: bool,
}

/// A move that its holder works on alone.
#[derive(Debug)]
pub struct MoveTicket {
    partition: TopicPartition,
    id: u64,
}

impl Moves {
    fn begin(&self, name: &TopicPartition) {
        let mut queue = lock(&self.queue);
        if let Some(known) = queue.moves.get_mut(name) {
            known.asked = false;
            known.again = true;
            return;
        }
        queue.last_id += 1;
        let begun = Move {
            id: queue.last_id,
            asked: false,
            again: false,
        };
        queue.moves.insert(name.clone(), begun);
        queue.free.push_back(name.clone());
    }

    fn end(&self, name: &TopicPartition) {
        let mut queue = lock(&self.queue);
        if queue.moves.remove(name).is_some() {
            queue.free.retain(|free| free != name);
        }
    }

    /// Notes that the controller is told; returns whether it was before.
    fn set_asked(&self, name: &TopicPartition) -> bool {
        match lock(&self.queue).moves.get_mut(name) {
            Some(found) => std::mem::replace(&mut found.asked, true),
            None => true,
        }
    }

    fn take(&self) -> Option<MoveTicket> {
        let mut queue = lock(&self.queue);
        let partition = queue.free.pop_front()?;
        let taken = queue.moves.get_mut(&partition)?;
        taken.again = false;
        let id = taken.id;
        Some(MoveTicket { partition, id })
    }

    /// Gives back a move after a step.
    fn give_back(&self, ticket: MoveTicket, ended: bool) {
        let MoveTicket { partition, id } = ticket;
        let mut queue = lock(&self.queue);
        match queue.moves.get(&partition) {
            Some(found) if found.id == id && ended && !found.again => {
                queue.moves.remove(&partition);
            }
            Some(found) if found.id == id => queue.free.push_back(partition),
            // Cancelled meanwhile, and perhaps begun to somewhere else.
            _ => {}
        }
    }

    fn assign(&self, assignment: DirectoryAssignment) {
        if let Some(sink) = self.sink.get() {
            sink.assign(assignment);
        }
    }
}

impl ReplicaManager {
    /// Sets who takes the directories of replicas to the controller. To be called once, before
    /// there are replicas.
    pub fn set_directory_sink(&self, sink: Arc<dyn DirectorySink>) {
        // A second one would be a mistake of the program, and the first is as good.
        let _ = self.0.moves.sink.set(sink);
    }

    /// Begins to move a replica to the log directory `path`, as the configuration names it, none if
    /// it names no such one; ends a move to another one. AlterReplicaLogDirs, with Kafka's verdicts. Blocks on the file
    /// system.
    ///
    /// # Errors
    /// `LOG_DIR_NOT_FOUND`, `KAFKA_STORAGE_ERROR` for one that is offline, or if another one is;
    /// `INVALID_REPLICA_ASSIGNMENT` for one that is cordoned; `INVALID_TOPIC_EXCEPTION` if the
    /// topic's name is too long for the directory of a copy; those of a replica that is not here.
    pub fn move_replica(
        &self,
        name: &TopicPartition,
        path: Option<&Path>,
    ) -> Result<(), ErrorCode> {
        let inner = &*self.0;
        let _one_at_a_time = lock(&inner.changes);
        if names::future_dir_name(name, Uuid::ZERO).len() > NAME_BYTES_MAX {
            return Err(ErrorCode::InvalidTopicException);
        }
        let directories = inner.logs.directories();
        let target = directories
            .iter()
            .find(|directory| Some(&*directory.path) == path)
            .ok_or(ErrorCode::LogDirNotFound)?;
        if !target.online {
            return Err(ErrorCode::KafkaStorageError);
        }
        if target.cordoned {
            return Err(ErrorCode::InvalidReplicaAssignment);
        }
        let partition = match self.find(&name.topic, name.partition) {
            Ok(partition) => partition,
            Err(ErrorCode::NotLeaderOrFollower) => {
                // It may come, and is to be made there then.
                inner.logs.set_preferred_directory(name, target.id);
                return Err(ErrorCode::ReplicaNotAvailable);
            }
            Err(error) => return Err(error),
        };
        let under_way = inner.logs.future_directory_of(name);
        if under_way.is_some_and(|directory| directory != target.id) {
            self.cancel_move(name);
        }
        if partition.log().is_offline() {
            return Err(ErrorCode::KafkaStorageError);
        }
        if inner.logs.directory_of(name) == Some(target.id) {
            return Ok(());
        }
        if under_way != Some(target.id) && directories.iter().any(|directory| !directory.online) {
            // There may be a copy in the one that is offline.
            return Err(ErrorCode::KafkaStorageError);
        }
        let config = (*partition.log().config()).clone();
        match inner.logs.create_future(name, config, target.id) {
            Ok(_) => {
                inner.moves.begin(name);
                Ok(())
            }
            Err(error) => {
                tracing::warn!(partition = %name, %error, "cannot begin to move a replica");
                Err(ErrorCode::KafkaStorageError)
            }
        }
    }

    /// Ends a move, deletes the copy, and takes back what the controller was told.
    fn cancel_move(&self, name: &TopicPartition) {
        self.0.moves.end(name);
        if let Err(error) = self.0.logs.delete_future(name) {
            tracing::warn!(partition = %name, %error, "cannot delete the copy of a replica");
        }
        self.report_directory(name);
    }

    /// Goes on with the move of a replica that was under way when the broker stopped.
    pub(super) fn resume_move(&self, name: &TopicPartition, topic_id: Uuid) {
        let Some(future) = self.0.logs.future(name) else {
            return;
        };
        if future.topic_id() == Some(topic_id) {
            self.0.moves.begin(name);
        } else {
            self.cancel_move(name);
        }
    }

    /// Forgets the move of a replica that is gone.
    pub(super) fn forget_move(&self, name: &TopicPartition) {
        self.0.moves.end(name);
    }

    /// How many replicas are moving.
    pub fn move_count(&self) -> usize {
        lock(&self.0.moves.queue).moves.len()
    }

    /// A move that nobody works on, for [`ReplicaManager::step_move`].
    pub fn next_move(&self) -> Option<MoveTicket> {
        self.0.moves.take()
    }

    /// Does a part of a move that was given by [`ReplicaManager::next_move`]: copies about
    /// `bytes_max` bytes, tells the controller, or swaps the logs. `buffer` is scratch space.
    /// Blocks on the file system.
    pub fn step_move(
        &self,
        ticket: MoveTicket,
        bytes_max: usize,
        buffer: &mut Vec<u8>,
    ) -> MoveStep {
        let step = self.advance(&ticket.partition, bytes_max, buffer);
        self.0.moves.give_back(ticket, step == MoveStep::Ended);
        step
    }

    fn advance(&self, name: &TopicPartition, bytes_max: usize, buffer: &mut Vec<u8>) -> MoveStep {
        let logs = &self.0.logs;
        let (Ok(partition), Some(future), Some(target)) = (
            self.find(&name.topic, name.partition),
            logs.future(name),
            logs.future_directory_of(name),
        ) else {
            // Cancelled, or a disk failed.
            self.report_directory(name);
            return MoveStep::Ended;
        };
        let log = Arc::clone(partition.log());
        let now_ms = self.0.env.clock.wall_ms();
        match future.copy_from(&log, bytes_max, buffer, now_ms) {
            Ok(step) if step.lag > 0 => return MoveStep::Copied(step.bytes),
            Ok(_) => {}
            Err(failed) => return self.move_failed(name, &log, &future, failed),
        }
        if !self.controller_agrees(name, target) {
            if !self.0.moves.set_asked(name) {
                self.0.moves.assign(DirectoryAssignment {
                    topic_id: partition.topic_id(),
                    partition: name.partition,
                    directory: target,
                });
            }
            return MoveStep::Waiting;
        }
        match logs.replace_with_future(name) {
            Ok(true) => {
                let dir = log.dir();
                tracing::info!(partition = %name, dir = %dir.display(), "a replica has moved");
                self.report_directory(name);
                MoveStep::Ended
            }
            Ok(false) => MoveStep::Copied(0),
            Err(ManagerError::Move(failed)) => self.move_failed(name, &log, &future, failed),
            Err(error) => {
                tracing::warn!(partition = %name, %error, "cannot end the move of a replica");
                MoveStep::Ended
            }
        }
    }

    /// Whether the metadata says that a replica is in the directory it moves to. Metadata of
    /// before KIP-858 says nothing of directories.
    fn controller_agrees(&self, name: &TopicPartition, target: Uuid) -> bool {
        let image = self.0.image.load();
        let assigned = image
            .partition(&name.topic, name.partition)
            .map(|partition| partition.directory(self.0.config.node_id));
        assigned == Some(target) || !image.metadata_version().supports_directory_assignment()
    }

    fn move_failed(
        &self,
        name: &TopicPartition,
        log: &Log,
        future: &Log,
        failed: MoveError,
    ) -> MoveStep {
        let MoveError { side, error } = &failed;
        if matches!(error, LogError::Closed { .. }) {
            // Cancelled, or the topic was deleted.
            return MoveStep::Ended;
        }
        tracing::error!(partition = %name, %error, "the move of a replica failed");
        if error.is_disk_failure() {
            match side {
                MoveSide::Source => log.set_offline(),
                MoveSide::Target => future.set_offline(),
            }
        }
        MoveStep::Ended
    }

    /// Tells the controller in which directory a replica is, if the metadata says otherwise and
    /// is not ahead of a move.
    pub(super) fn report_directory(&self, name: &TopicPartition) {
        let inner = &*self.0;
        let image = inner.image.load();
        let Some(Hosted::Online(replica)) = inner.partitions.by_name(&name.topic, name.partition)
        else {
            return;
        };
        let (Some(metadata), Some(actual)) = (
            image.partition(&name.topic, name.partition),
            inner.logs.directory_of(name),
        ) else {
            return;
        };
        let assigned = metadata.directory(inner.config.node_id);
        let ahead = inner.logs.future_directory_of(name) == Some(assigned);
        if assigned != actual && !ahead && image.metadata_version().supports_directory_assignment()
        {
            inner.moves.assign(DirectoryAssignment {
                topic_id: replica.topic_id(),
                partition: name.partition,
                directory: actual,
            });
        }
    }
}
