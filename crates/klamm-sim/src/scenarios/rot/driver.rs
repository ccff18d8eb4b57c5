//! Lets a seed decide what is written and which bits flip.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use klamm_env::{Clock as _, Env, Fs, FsExt as _, Rng as _};
use klamm_log::checkpoints;
use klamm_log::names::{FileKind, parse_file_name};
use klamm_log::{AppendOrigin, Log, LogConfig, LogError, LogOpen};
use klamm_records::control::EndTransactionMarker;
use klamm_records::{BatchBuilder, BatchOptions, Compression, PreparedBatch};

use super::super::{Run, Violation};
use super::model::{Model, Written};
use super::served;
use crate::{SimFs, SimRng};

const DIR: &str = "/data/log";
const STEPS: usize = 60;
/// The one that writes transactions.
const PRODUCER: i64 = 7;

pub(super) struct Driver<'a> {
    run: &'a Run,
    rng: SimRng,
    fs: SimFs,
    env: Env,
    config: LogConfig,
    log: Option<Log>,
    model: Model,
    sequence: i32,
    /// First offset of the open transaction.
    open_txn: Option<i64>,
    /// Whether an index of aborted transactions or a snapshot was hit: neither can be told from a
    /// sound one in every case.
    transactions_hit: bool,
}

impl<'a> Driver<'a> {
    pub(super) fn new(run: &'a Run) -> Result<Driver<'a>, Violation> {
        let fs = run.disk("fs", "/data")?;
        let rng = run.rng.fork("rot");
        let config = LogConfig {
            segment_bytes: [1 << 11, 1 << 13][rng.index(2)],
            index_interval_bytes: [1, 300, 4096][rng.index(3)],
            retention_ms: -1,
            ..LogConfig::default()
        };
        let mut driver = Driver {
            run,
            env: run.env(Arc::new(fs.clone())),
            rng,
            fs,
            config,
            log: None,
            model: Model::default(),
            sequence: 0,
            open_txn: None,
            transactions_hit: false,
        };
        driver.reopen()?;
        Ok(driver)
    }

    pub(super) fn go(mut self) -> Result<(), Violation> {
        for _ in 0..STEPS {
            self.run
                .clock
                .advance(Duration::from_millis(self.rng.below(600)));
            match self.rng.index(20) {
                0..9 => self.append()?,
                9 => self.with_log("roll", |log| log.roll())?,
                10 => self.with_log("flush", |log| log.flush(i64::MAX))?,
                11 | 12 => self.tick()?,
                13..16 => self.rot()?,
                16 => self.close()?,
                17 => self.restart(false)?,
                18 => self.restart(true)?,
                _ => self.verify()?,
            }
        }
        self.close()?;
        self.verify()
    }

    fn with_log(
        &self,
        what: &str,
        call: impl FnOnce(&Log) -> Result<(), LogError>,
    ) -> Result<(), Violation> {
        let Some(log) = &self.log else { return Ok(()) };
        self.run.trace.note(what);
        call(log).map_err(|error| Violation::new("goes on", format!("{what}: {error}")))
    }

    /// Rot is no reason to stop: everything that changes a log goes on.
    fn append(&mut self) -> Result<(), Violation> {
        let rng = self.rng.clone();
        match rng.index(6) {
            0 => self.append_in_transaction(),
            1 => self.end_transaction(),
            _ => {
                let records = 1 + rng.below(4);
                self.append_data(BatchOptions::default(), records).map(drop)
            }
        }
    }

    fn append_data(&mut self, options: BatchOptions, records: u64) -> Result<i64, Violation> {
        let rng = &self.rng;
        let codec = if rng.one_in(5) {
            Compression::Lz4
        } else {
            Compression::None
        };
        let mut builder = BatchBuilder::new(BatchOptions {
            codec: codec.into(),
            ..options
        });
        let mut timestamps = Vec::new();
        for _ in 0..records {
            let timestamp = self.run.clock.wall_ms() - rng.range(0, 700);
            let value = rng.bytes(rng.index(400));
            timestamps.push(timestamp);
            let built = builder.append(timestamp, None, Some(&value), []);
            built.map_err(|error| Violation::new("setup", error.to_string()))?;
        }
        let bytes = builder
            .build()
            .map_err(|error| Violation::new("setup", error.to_string()))?;
        self.append_batch(bytes, &timestamps, AppendOrigin::Client)
    }

    fn append_batch(
        &mut self,
        bytes: bytes::Bytes,
        timestamps: &[i64],
        origin: AppendOrigin,
    ) -> Result<i64, Violation> {
        let Some(log) = &self.log else { return Ok(0) };
        let failed = |what: String| Violation::new("goes on", what);
        let batch = PreparedBatch::trusted(bytes).map_err(|error| failed(error.to_string()))?;
        let now_ms = self.run.clock.wall_ms();
        let mut prepared = [batch];
        let info = log
            .append_as_leader(&mut prepared, 3, now_ms, origin)
            .map_err(|error| failed(format!("append: {error}")))?;
        let base = info.first_offset;
        self.run.trace.note(format_args!("append at {base}"));
        if base != self.model.end {
            let end = self.model.end;
            return Err(failed(format!(
                "an append at {base} of a log that ends at {end}"
            )));
        }
        self.model.end = info.last_offset + 1;
        self.model.batches.push(Written {
            base,
            next: info.last_offset + 1,
            bytes: prepared[0].to_bytes().to_vec(),
            records: (base..).zip(timestamps.iter().copied()).collect(),
            transactional: prepared[0].header().attributes.is_transactional(),
        });
        Ok(base)
    }

    fn append_in_transaction(&mut self) -> Result<(), Violation> {
        if self.transactions_hit {
            return Ok(());
        }
        let options = BatchOptions {
            producer_id: PRODUCER,
            producer_epoch: 0,
            base_sequence: self.sequence,
            transactional: true,
            ..BatchOptions::default()
        };
        let base = self.append_data(options, 2)?;
        self.sequence += 2;
        self.open_txn.get_or_insert(base);
        Ok(())
    }

    fn end_transaction(&mut self) -> Result<(), Violation> {
        let Some(first) = self.open_txn.take() else {
            return Ok(());
        };
        let marker = EndTransactionMarker {
            committed: self.rng.one_in(3),
            coordinator_epoch: 0,
        };
        let now_ms = self.run.clock.wall_ms();
        let bytes = marker
            .to_batch(PRODUCER, 0, now_ms)
            .map_err(|error| Violation::new("setup", error.to_string()))?;
        let origin = AppendOrigin::TxnMarkers {
            transaction_version: 0,
        };
        let at = self.append_batch(bytes, &[now_ms], origin)?;
        if !marker.committed {
            self.model.aborted.push((PRODUCER, first, at));
        }
        Ok(())
    }

    fn tick(&mut self) -> Result<(), Violation> {
        let now_ms = self.run.clock.wall_ms();
        self.with_log("tick", |log| {
            log.set_high_watermark(i64::MAX);
            log.flush(i64::MAX)?;
            log.tick(now_ms)?;
            log.apply_retention(now_ms, i64::MAX).map(drop)
        })?;
        self.note_vouched();
        Ok(())
    }

    /// Takes over the recovery point that is noted on the disk.
    fn note_vouched(&mut self) {
        let path = Path::new(DIR).join(checkpoints::RECOVERY_POINT);
        let noted = checkpoints::read_offsets(&self.fs, &path).unwrap_or_default();
        let noted = noted.values().copied().max().unwrap_or(0);
        self.model.vouched_to = noted.min(self.model.end);
    }

    /// Flips a bit of a file of the log, if what it is in had been vouched for.
    fn rot(&mut self) -> Result<(), Violation> {
        let names = self.fs.read_dir(Path::new(DIR)).unwrap_or_default();
        let files: Vec<(PathBuf, i64, FileKind)> = names
            .iter()
            .filter_map(|entry| match parse_file_name(&entry.name) {
                Some((offset, kind, "")) => Some((Path::new(DIR).join(&entry.name), offset, kind)),
                _ => None,
            })
            .collect();
        let Some((path, segment, kind)) = self.rng.pick(&files) else {
            return Ok(());
        };
        let len = self.fs.read(path).map_or(0, |bytes| bytes.len());
        if len == 0 {
            return Ok(());
        }
        let position = self.rng.index(len);
        match kind {
            FileKind::Log => {
                let Some(batch) = self.batch_at(*segment, position) else {
                    return Ok(());
                };
                // The recovery point can be noted anew one below the end of what was synced.
                let vouched_to = self.model.vouched_to;
                if batch.next > vouched_to || batch.base + 1 >= vouched_to {
                    return Ok(());
                }
                let (base, transactional) = (batch.base, batch.transactional);
                // What it said nobody else knows, once indexes and snapshots are made again.
                self.transactions_hit |= transactional;
                self.model.hit.insert(base);
                self.run.trace.note(format_args!("hit {base}"));
            }
            FileKind::TxnIndex | FileKind::Snapshot => self.transactions_hit = true,
            FileKind::Index | FileKind::TimeIndex => {}
        }
        let mask = 1 << self.rng.index(8);
        self.fs
            .rot(path, position as u64, mask)
            .map_err(|error| Violation::new("setup", error.to_string()))
    }

    /// The batch that a byte of a segment's file belongs to.
    fn batch_at(&self, segment: i64, position: usize) -> Option<&Written> {
        let mut end = 0;
        let mut within = self.model.batches.iter().filter(|b| b.base >= segment);
        within.find(|batch| {
            end += batch.bytes.len();
            end > position
        })
    }

    fn close(&mut self) -> Result<(), Violation> {
        self.with_log("close", |log| log.close())?;
        self.note_vouched();
        self.fs.kill();
        self.log = None;
        self.reopen()?;
        self.verify()
    }

    /// Ends the process, or the machine.
    fn restart(&mut self, machine: bool) -> Result<(), Violation> {
        self.log = None;
        if machine {
            self.fs.crash();
        } else {
            self.fs.kill();
        }
        self.reopen()?;
        if !machine {
            return self.verify();
        }
        let Some(log) = &self.log else { return Ok(()) };
        let end = log.log_end_offset();
        if end < self.model.vouched_to {
            let vouched = self.model.vouched_to;
            let detail = format!("the log ends at {end} and had vouched for {vouched}");
            return Err(Violation::new("served", detail));
        }
        let damage = &log.recovery_report().damage;
        let holes: Vec<_> = damage
            .iter()
            .map(|damage| damage.first_offset..damage.next_offset)
            .collect();
        self.model.lose(end, &holes);
        // Where the open transaction and its producer stand may be lost with the rest.
        if self.open_txn.is_some_and(|first| first >= end) {
            self.open_txn = None;
        }
        self.transactions_hit = true;
        self.verify()
    }

    fn reopen(&mut self) -> Result<(), Violation> {
        let open = LogOpen::standalone(DIR, self.config.clone(), self.env.clone());
        let log = Log::open(open)
            .map_err(|error| Violation::new("goes on", format!("it does not open: {error}")))?;
        for damage in &log.recovery_report().damage {
            self.run.trace.note(format_args!("told of {damage:?}"));
            let told = damage.first_offset..damage.next_offset;
            if !self.model.hit.iter().any(|base| told.contains(base)) {
                let detail = format!("{damage:?}, where nothing was hit");
                return Err(Violation::new("told", detail));
            }
        }
        self.run.trace.note(format_args!(
            "opened {}..{}",
            log.log_start_offset(),
            log.log_end_offset()
        ));
        self.log = Some(log);
        Ok(())
    }

    fn verify(&mut self) -> Result<(), Violation> {
        let Some(log) = &self.log else { return Ok(()) };
        let end = log.log_end_offset();
        if let Err(wanted) = self.model.adopt_end(end) {
            let detail = format!("the log ends at {end}, not at {wanted}");
            return Err(Violation::new("served", detail));
        }
        served::batches(log, &self.model)?;
        served::timestamps(log, &self.model, &self.rng)?;
        if !self.transactions_hit {
            served::aborted(log, &self.model)?;
        }
        self.run.trace.note("verified");
        Ok(())
    }
}
