use std::sync::Arc;
use std::time::Duration;

use klamm_env::{Clock as _, Env, Rng as _};
use klamm_log::{
    AppendOrigin, Log, LogConfig, LogError, LogManager, LogManagerConfig, LogOpen, OpenFiles,
};
use klamm_records::{BatchBuilder, BatchOptions, Compression, PreparedBatch, TopicPartition, Uuid};

use super::super::{Between, Run, Violation};
use super::model::{Model, ModelBatch};
use super::{durability, idempotence, integrity, lookup, observed, prefix};
use crate::{Errno, Faults, SimFs, SimRng};

const DIR: &str = "/data/log";
const MANAGED_DIR: &str = "/data/logs";
const TOPIC_ID: Uuid = Uuid::from_bytes([7; 16]);
const STEPS: usize = 60;
const PRODUCERS: i64 = 3;

/// Where the log lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In a directory of its own, as the Raft log does.
    Alone,
    /// In a log directory of a broker. Truncation is left out: a broker that does it has to
    /// checkpoint the recovery points itself.
    Managed,
}

/// Lets a seed decide what happens to a log, and holds it against its model.
pub(super) struct Driver<'a> {
    pub(super) run: &'a Run,
    pub(super) rng: SimRng,
    fs: SimFs,
    env: Env,
    config: LogConfig,
    place: Place,
    /// How many files the log may keep open.
    files: OpenFiles,
    pub(super) manager: Option<LogManager>,
    pub(super) log: Option<Arc<Log>>,
    pub(super) model: Model,
    epoch: i32,
    next_value: u64,
    /// Whether a truncation failed halfway: the end may be anywhere above it.
    unsure: bool,
}

impl<'a> Driver<'a> {
    pub(super) fn new(
        run: &'a Run,
        place: Place,
        between: Between,
    ) -> Result<Driver<'a>, Violation> {
        let fs = run.disk("fs", "/data")?;
        let rng = run.rng.fork("log");
        let config = LogConfig {
            segment_bytes: [1 << 14, 1 << 16, 1 << 20][rng.index(3)],
            index_interval_bytes: [1, 512, 4096][rng.index(3)],
            segment_ms: if rng.one_in(3) { 5_000 } else { i64::MAX },
            flush_messages: if rng.one_in(4) {
                1 + rng.below(40) as i64
            } else {
                i64::MAX
            },
            group_sync: rng.one_in(2),
            retention_ms: -1,
            file_delete_delay_ms: 1_000,
            ..LogConfig::default()
        };
        let mut driver = Driver {
            run,
            env: run.env(between(fs.clone())),
            rng,
            fs,
            config,
            place,
            files: OpenFiles::new([1, 2, usize::MAX][run.rng.fork("open files").index(3)]),
            manager: None,
            log: None,
            model: Model::default(),
            epoch: 0,
            next_value: 0,
            unsure: false,
        };
        driver.reopen()?;
        Ok(driver)
    }

    pub(super) fn go(mut self) -> Result<(), Violation> {
        for _ in 0..STEPS {
            self.step()?;
        }
        // At the end nothing goes wrong any more, and the log must heal.
        self.crash()?;
        self.append();
        self.verify(false)
    }

    fn step(&mut self) -> Result<(), Violation> {
        let pause = Duration::from_millis(self.rng.below(800));
        self.run.clock.advance(pause);
        match self.rng.index(100) {
            0..50 => self.append(),
            50..62 => self.flush(),
            62..66 => self.note("roll", |log| log.roll()),
            66..70 => self.tick(),
            70..74 => self.truncate(),
            74..77 => self.delete(),
            77..80 => self.set_faults(),
            80..82 => {
                let errno = [Errno::Io, Errno::NoSpace][self.rng.index(2)];
                self.fs.fail_after(self.rng.below(30), errno);
            }
            82..86 => self.fs.power_off_after(self.rng.below(40)),
            86..90 => self.crash()?,
            90..93 => self.kill()?,
            93..96 => self.close()?,
            _ => self.verify(false)?,
        }
        let log = self.log.as_deref();
        if self.fs.is_off() {
            self.crash()?;
        } else if log.is_none_or(Log::is_offline) {
            // The broker would stop serving the directory; an operator restarts it.
            self.kill()?;
        }
        Ok(())
    }

    fn note(&mut self, what: &str, call: impl FnOnce(&Log) -> Result<(), LogError>) {
        if let Some(log) = &self.log {
            let result = call(log);
            self.run
                .trace
                .note(format_args!("{what}: {}", told(&result)));
        }
    }

    fn batch(&mut self) -> (ModelBatch, Option<PreparedBatch>) {
        let rng = self.rng.clone();
        let producer = rng.one_in(2).then(|| rng.range(0, PRODUCERS));
        let sequence = producer.map(|id| {
            let of_producer = self.model.batches.iter().rev().filter_map(|batch| {
                batch
                    .sequence
                    .filter(|(owner, _)| *owner == id)
                    .map(|(_, first)| first + batch.values.len() as i32)
            });
            (id, of_producer.into_iter().next().unwrap_or(0))
        });
        let (producer_id, base_sequence) = sequence.unwrap_or((-1, -1));
        let codec = if rng.one_in(5) {
            Compression::Lz4
        } else {
            Compression::None
        };
        let mut builder = BatchBuilder::new(BatchOptions {
            codec: codec.into(),
            producer_id,
            producer_epoch: if producer.is_some() { 0 } else { -1 },
            base_sequence,
            ..BatchOptions::default()
        });
        let mut values = Vec::new();
        for _ in 0..1 + rng.below(6) {
            self.next_value += 1;
            let mut value = self.next_value.to_be_bytes().to_vec();
            let padding = rng.index(if rng.one_in(4) { 3000 } else { 200 });
            value.extend(rng.bytes(padding));
            let timestamp = self.run.clock.wall_ms() - rng.range(0, 1000);
            // A batch of a few kilobytes always fits.
            let _ = builder.append(timestamp, None, Some(&value), []);
            values.push(value);
        }
        let prepared = builder
            .build()
            .ok()
            .and_then(|bytes| PreparedBatch::trusted(bytes).ok());
        let batch = ModelBatch {
            base_offset: self.model.end(),
            values,
            sequence,
        };
        (batch, prepared)
    }

    fn append(&mut self) {
        let (batch, prepared) = self.batch();
        let (Some(log), Some(prepared)) = (&self.log, prepared) else {
            return;
        };
        let now = self.run.clock.wall_ms();
        let appended = log.append_as_leader(&mut [prepared], self.epoch, now, AppendOrigin::Client);
        self.run.trace.note(format_args!(
            "append {}..{}: {}",
            batch.base_offset,
            batch.next_offset(),
            told(&appended)
        ));
        // The bytes may be in the log though the call failed: the flush after the write may.
        let written = log.log_end_offset() == batch.next_offset();
        if appended.is_ok() || written {
            if self.config.flush_messages < i64::MAX && appended.is_ok() {
                self.model.flushed_to = self.model.flushed_to.max(log.recovery_point());
            }
            self.model.batches.push(batch);
        } else {
            let tried = self.model.attempted.entry(batch.base_offset).or_default();
            tried.push(batch);
        }
        self.sync_in_the_background();
    }

    fn flush(&mut self) {
        let Some(log) = &self.log else { return };
        let offset = self.rng.range(self.model.start, self.model.end() + 1);
        let result = log.flush(offset);
        self.run
            .trace
            .note(format_args!("flush {offset}: {}", told(&result)));
        if result.is_ok() {
            self.model.flushed_to = self.model.flushed_to.max(offset);
        }
    }

    fn tick(&mut self) {
        let now = self.run.clock.wall_ms();
        match &self.manager {
            Some(manager) => {
                if let Some(log) = &self.log {
                    log.set_high_watermark(self.model.end());
                }
                let failed = manager.tick(now);
                self.run.trace.note(format_args!("tick: {failed:?}"));
                if let Some(log) = &self.log {
                    self.model.start = log.log_start_offset();
                }
            }
            None => self.note("tick", |log| log.tick(now)),
        }
    }

    fn truncate(&mut self) {
        if !self.rng.one_in(2) || self.place == Place::Managed {
            return;
        }
        let Some(log) = &self.log else { return };
        // Replication cuts between batches. Within one, the log would end in a gap, as Kafka's.
        let ends = self.model.batches.iter().map(ModelBatch::next_offset);
        let cuts: Vec<i64> = ends.filter(|&end| end >= self.model.start).collect();
        let Some(&offset) = self.rng.pick(&cuts) else {
            return;
        };
        let result = log.truncate_to(offset);
        self.run
            .trace
            .note(format_args!("truncate {offset}: {}", told(&result)));
        self.epoch += 1;
        if result.is_ok() {
            self.model.truncate_to(offset);
        } else {
            // Cut or not, or in part: recovery will tell. What lies below is not in doubt.
            self.model.flushed_to = self.model.flushed_to.min(offset);
            self.unsure = true;
        }
    }

    fn delete(&mut self) {
        let Some(log) = &self.log else { return };
        let offset = self.rng.range(self.model.start, self.model.end() + 1);
        log.set_high_watermark(self.model.end());
        let result = log.delete_records_before(offset);
        self.run
            .trace
            .note(format_args!("delete {offset}: {}", told(&result)));
        let now = self.run.clock.wall_ms();
        let removed = log.apply_retention(now, self.model.end());
        self.run
            .trace
            .note(format_args!("retain: {}", told(&removed)));
        self.model.start = log.log_start_offset();
    }

    fn set_faults(&mut self) {
        let rare = [0, 0, 2_000, 30_000][self.rng.index(4)];
        let often = [0, 100_000, 400_000][self.rng.index(3)];
        self.fs.set_faults(Faults {
            read_errors: if self.rng.one_in(4) { rare } else { 0 },
            write_errors: rare,
            sync_errors: rare,
            short_reads: often,
            short_writes: often,
            name_errors: if self.rng.one_in(2) { rare } else { 0 },
            space_errors: if self.rng.one_in(4) { rare } else { 0 },
            space_bytes: self.rng.one_in(5).then(|| 20_000 + self.rng.below(200_000)),
        });
    }

    fn crash(&mut self) -> Result<(), Violation> {
        self.fs.crash();
        self.manager = None;
        self.log = None;
        self.fail_to_open();
        self.reopen()?;
        self.verify(true)
    }

    /// Now and then recovery itself meets a power cut or a failing disk, and has to be begun again.
    fn fail_to_open(&mut self) {
        while self.rng.one_in(3) {
            self.fs.set_faults(Faults::default());
            match self.rng.index(3) {
                0 => self.fs.power_off_after(self.rng.below(20)),
                1 => self.fs.fail_after(self.rng.below(60), Errno::Io),
                _ => self.fs.fail_after(self.rng.below(60), Errno::NoSpace),
            }
            let opened = match self.place {
                Place::Alone => {
                    let open = LogOpen::standalone(DIR, self.config.clone(), self.env.clone());
                    Log::open_among(open, &self.files)
                        .map(drop)
                        .map_err(|error| error.to_string())
                }
                Place::Managed => self.open_managed().map(drop),
            };
            self.run
                .trace
                .note(format_args!("a troubled opening: {opened:?}"));
            self.manager = None;
            self.fs.crash();
        }
    }

    fn kill(&mut self) -> Result<(), Violation> {
        if self.fs.has_lost_writes() {
            // The page cache shows what the disk never got: only a restart of the machine helps.
            return self.crash();
        }
        self.fs.kill();
        self.manager = None;
        self.log = None;
        self.reopen()?;
        self.verify(false)
    }

    fn close(&mut self) -> Result<(), Violation> {
        match self.manager.take() {
            Some(manager) => {
                let closed = manager.shutdown(5).map_err(|error| error.to_string());
                self.run.trace.note(format_args!("shutdown: {closed:?}"));
            }
            None => self.note("close", |log| log.close()),
        }
        self.log = None;
        if self.fs.is_off() {
            return self.crash();
        }
        self.kill()
    }

    fn reopen(&mut self) -> Result<(), Violation> {
        self.fs.set_faults(Faults::default());
        let opened = match self.place {
            Place::Alone => {
                let open = LogOpen::standalone(DIR, self.config.clone(), self.env.clone());
                Log::open_among(open, &self.files)
                    .map(Arc::new)
                    .map_err(|error| error.to_string())
            }
            Place::Managed => self.open_managed(),
        };
        match opened {
            Ok(log) => {
                self.run.trace.note(format_args!(
                    "opened {}..{}",
                    log.log_start_offset(),
                    log.log_end_offset()
                ));
                self.log = Some(log);
                Ok(())
            }
            Err(error) => {
                let detail = format!("the log does not open: {error}");
                Err(Violation::new("recovery", detail))
            }
        }
    }

    fn open_managed(&mut self) -> Result<Arc<Log>, String> {
        let config = LogManagerConfig {
            open_threads: 1,
            retention_interval_ms: 2_000,
            checkpoint_interval_ms: 3_000,
            high_watermark_interval_ms: 1_000,
            // The scenario says when background work is done.
            sync_threads: 0,
            open_files_max: self.files.max(),
            ..LogManagerConfig::new(vec![MANAGED_DIR.into()], "cluster", 1)
        };
        let of_topic = self.config.clone();
        let manager = LogManager::open(config, self.env.clone(), |_| of_topic.clone())
            .map_err(|error| error.to_string())?;
        let partition = TopicPartition::new("t", 0);
        let log = match manager.get(&partition) {
            Some(log) => log,
            None => manager
                .create(&partition, Some(TOPIC_ID), self.config.clone(), None)
                .map_err(|error| error.to_string())?,
        };
        self.manager = Some(manager);
        Ok(log)
    }

    /// Holds the log against its model; `lossy` if the machine crashed since the last time.
    fn verify(&mut self, lossy: bool) -> Result<(), Violation> {
        let Some(log) = &self.log else { return Ok(()) };
        self.fs.set_faults(Faults::default());
        if self.fs.is_off() || log.is_offline() {
            return Ok(());
        }
        let seen = match observed::observe(log) {
            Ok(seen) => seen,
            Err(_) if self.fs.is_off() => return Ok(()),
            Err(error) => return Err(Violation::new("lookup", format!("no read: {error}"))),
        };
        integrity::check(&seen)?;
        durability::check(&self.model, &seen)?;
        let held = prefix::check(&self.model, &seen)?;
        if !lossy && !self.unsure && seen.end < self.model.end() {
            return Err(Violation::new(
                "durability",
                format!(
                    "{} of {} is there though no machine crashed",
                    seen.end,
                    self.model.end()
                ),
            ));
        }
        lookup::check(log, &seen, &self.rng)?;
        let producers = log
            .active_producers()
            .iter()
            .map(|producer| (producer.producer_id, producer.last_sequence))
            .collect();
        idempotence::check(&held, seen.start, &producers)?;
        self.run
            .trace
            .note(format_args!("verified {}..{}", seen.start, seen.end));
        self.unsure = false;
        self.model.adopt(held, seen.start);
        self.epoch += 1;
        Ok(())
    }
}

fn told<T>(result: &Result<T, LogError>) -> String {
    match result {
        Ok(_) => "ok".to_owned(),
        Err(error) => error.to_string(),
    }
}
