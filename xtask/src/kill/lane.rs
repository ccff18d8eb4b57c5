//! A producer of numbered records to one partition, and the check of what is there.

use crate::Result;
use crate::batch::{self, Producer};
use crate::wire::Connection;
use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

#[derive(Debug, Clone, Copy)]
pub struct Kind {
    pub topic: &'static str,
    pub partition: i32,
    pub acks: i16,
    pub idempotent: bool,
    /// Batches on their way at once: Kafka remembers five of a producer, but only the last one
    /// across a restart when its segment was closed in between.
    pub in_flight: usize,
    pub bytes_per_s: f64,
}

/// A batch that is not acknowledged yet.
struct Pending {
    first: u64,
    count: u64,
    bytes: Vec<u8>,
}

#[derive(Default)]
struct Shared {
    /// Numbers below this were acknowledged, except those in `doubtful`.
    acknowledged: AtomicU64,
    /// Sent once without deduplication and never answered: there or not.
    doubtful: Mutex<BTreeSet<u64>>,
    failure: Mutex<Option<String>>,
}

pub struct Lane {
    pub kind: Kind,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Lane {
    pub fn start(kind: Kind, port: u16, stop: Arc<AtomicBool>) -> Result<Lane> {
        let shared = Arc::new(Shared::default());
        let mut sender = Sender {
            kind,
            port,
            shared: Arc::clone(&shared),
            producer: (-1, -1),
            next: 0,
            pending: VecDeque::new(),
            free_at: Instant::now(),
        };
        if kind.idempotent {
            sender.producer = sender.producer_id()?;
        }
        let thread = std::thread::spawn(move || {
            if let Err(e) = sender.run(&stop) {
                *lock(&sender.shared.failure) = Some(e.to_string());
            }
        });
        Ok(Lane {
            kind,
            shared,
            thread: Some(thread),
        })
    }

    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Acquire)
    }

    /// What ended the lane before its time.
    pub fn failure(&self) -> Result<()> {
        match &*lock(&self.shared.failure) {
            None => Ok(()),
            Some(why) => Err(format!("{:?}: {why}", self.kind).into()),
        }
    }

    /// Waits until everything sent is acknowledged.
    pub fn join(&mut self) -> Result<()> {
        if let Some(thread) = self.thread.take() {
            thread.join().map_err(|_| "a lane panicked")?;
        }
        self.failure()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Sender {
    kind: Kind,
    port: u16,
    shared: Arc<Shared>,
    producer: (i64, i16),
    next: u64,
    pending: VecDeque<Pending>,
    /// When the pace allows the next batch.
    free_at: Instant,
}

impl Sender {
    fn producer_id(&self) -> Result<(i64, i16)> {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            match Connection::open(self.port).and_then(|mut c| c.init_producer_id()) {
                Ok(id) => return Ok(id),
                Err(e) if Instant::now() > end => return Err(e.into()),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    fn run(&mut self, stop: &AtomicBool) -> Result<()> {
        let mut down_since = Instant::now();
        loop {
            let before = self.shared.acknowledged.load(Ordering::Relaxed);
            if let Ok(mut connection) = Connection::open(self.port)
                && self.session(&mut connection, stop)?
            {
                return Ok(());
            }
            if !self.kind.idempotent {
                // Sent once, and not again: nobody knows whether it was written.
                for lost in std::mem::take(&mut self.pending) {
                    lock(&self.shared.doubtful).extend(lost.first..lost.first + lost.count);
                    self.acknowledge(lost.first + lost.count);
                }
            }
            if self.shared.acknowledged.load(Ordering::Relaxed) > before {
                down_since = Instant::now();
            }
            if down_since.elapsed() > Duration::from_secs(90) {
                return Err("nothing was acknowledged for 90 s".into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends on one connection until it breaks or a retriable error comes (false), or until the
    /// load has ended and everything is acknowledged (true).
    fn session(&mut self, connection: &mut Connection, stop: &AtomicBool) -> Result<bool> {
        let Kind {
            topic,
            partition,
            acks,
            ..
        } = self.kind;
        let mut sent = 0;
        loop {
            while self.pending.len() < self.kind.in_flight && !stop.load(Ordering::Relaxed) {
                let batch = self.new_batch();
                self.pace(batch.bytes.len());
                self.pending.push_back(batch);
            }
            if self.pending.is_empty() {
                return Ok(true);
            }
            while sent < self.pending.len() {
                let bytes = &self.pending[sent].bytes;
                if connection
                    .send_produce(topic, partition, acks, bytes)
                    .is_err()
                {
                    return Ok(false);
                }
                sent += 1;
            }
            let Ok(answer) = connection.receive_produce() else {
                return Ok(false);
            };
            match answer.error {
                0 => {
                    if let Some(done) = self.pending.pop_front() {
                        self.acknowledge(done.first + done.count);
                        sent -= 1;
                    }
                }
                // Leadership and storage are not back yet.
                3 | 5 | 6 | 7 | 56 => {
                    std::thread::sleep(Duration::from_millis(20));
                    return Ok(false);
                }
                code => {
                    let first = self.pending.front().map(|p| p.first);
                    return Err(format!("batch from {first:?} answered with error {code}").into());
                }
            }
        }
    }

    /// Keeps to the pace, counted over the lane's life: time lost to a kill is not made up for.
    fn pace(&mut self, bytes: usize) {
        let due = Duration::from_secs_f64(bytes as f64 / self.kind.bytes_per_s);
        self.free_at = self.free_at.max(Instant::now()) + due;
        let ahead = self.free_at.saturating_duration_since(Instant::now());
        // Short naps only, so that the pipeline stays full.
        if ahead > Duration::from_millis(20) {
            std::thread::sleep(ahead);
        }
    }

    fn acknowledge(&self, up_to: u64) {
        self.shared.acknowledged.store(up_to, Ordering::Release);
    }

    fn new_batch(&mut self) -> Pending {
        let first = self.next;
        let count = 1 + first % 17;
        let values: Vec<Vec<u8>> = (first..first + count).map(value).collect();
        self.next += count;
        let (id, epoch) = self.producer;
        // Kafka's sequence wraps after the largest i32; no run gets there.
        let sequence = if self.kind.idempotent {
            first as i32
        } else {
            -1
        };
        // Of now: a producer whose last batch is dated days ago is forgotten.
        let bytes = batch::build(
            Producer {
                id,
                epoch,
                sequence,
            },
            crate::wire::now_ms(),
            &values,
        );
        Pending {
            first,
            count,
            bytes,
        }
    }
}

/// The record of this number: the number, and as much filling as it says.
fn value(number: u64) -> Vec<u8> {
    let mut bytes = number.to_be_bytes().to_vec();
    let length = 20 + (number * 37 % 900) as usize;
    bytes.resize(8 + length, (number % 251) as u8);
    bytes
}

/// Reads a partition on from where it stopped and checks each record.
pub struct Verifier {
    kind: Kind,
    next_offset: i64,
    /// The least number that may come next.
    next: u64,
}

impl Verifier {
    pub fn new(kind: Kind) -> Verifier {
        Verifier {
            kind,
            next_offset: 0,
            next: 0,
        }
    }

    /// Reads until every number below `promised` was seen (or is known to be doubtful).
    pub fn catch_up(
        &mut self,
        connection: &mut Connection,
        promised: u64,
        lane: &Lane,
    ) -> Result<()> {
        let Kind {
            topic, partition, ..
        } = self.kind;
        let end = Instant::now() + Duration::from_secs(60);
        while self.next < promised {
            let (error, high_watermark, bytes) =
                connection.fetch(topic, partition, self.next_offset, 8 << 20)?;
            let records =
                batch::read_all(&bytes).map_err(|e| format!("{topic}-{partition} is torn: {e}"))?;
            for (offset, bytes) in records {
                if offset >= self.next_offset {
                    self.check(offset, &bytes, lane)?;
                }
            }
            if self.next < promised && self.rest_is_doubtful(promised, lane) {
                return Ok(());
            }
            if Instant::now() > end {
                return Err(format!(
                    "{topic}-{partition}: {promised} records acknowledged, found up to {} (offset {}, \
                     high watermark {high_watermark}, error {error})",
                    self.next, self.next_offset
                )
                .into());
            }
        }
        Ok(())
    }

    fn check(&mut self, offset: i64, bytes: &[u8], lane: &Lane) -> Result<()> {
        let Kind {
            topic, partition, ..
        } = self.kind;
        let place = format!("{topic}-{partition} at offset {offset}");
        if offset != self.next_offset {
            return Err(format!("{place}: expected offset {}", self.next_offset).into());
        }
        let number = bytes
            .first_chunk()
            .map(|n| u64::from_be_bytes(*n))
            .unwrap_or(u64::MAX);
        if number == u64::MAX || bytes != value(number) {
            return Err(format!("{place}: not a record of this load").into());
        }
        if number < self.next {
            return Err(format!("{place}: record {number} comes twice or too late").into());
        }
        let doubtful = lock(&lane.shared.doubtful);
        if let Some(missing) = (self.next..number).find(|n| !doubtful.contains(n)) {
            return Err(format!("{place}: record {missing} is missing before {number}").into());
        }
        self.next_offset = offset + 1;
        self.next = number + 1;
        Ok(())
    }

    fn rest_is_doubtful(&self, promised: u64, lane: &Lane) -> bool {
        let doubtful = lock(&lane.shared.doubtful);
        (self.next..promised).all(|n| doubtful.contains(&n))
    }
}
