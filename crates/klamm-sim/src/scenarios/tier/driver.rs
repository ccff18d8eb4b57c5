//! Lets a seed decide what happens to a log and its tier.

use std::sync::Arc;
use std::time::Duration;

use klamm_env::{Clock as _, Env, Rng as _};
use klamm_log::tier::RemoteLog;
use klamm_log::{AppendOrigin, Log, LogConfig, LogOpen};
use klamm_records::{BatchBuilder, BatchOptions, PreparedBatch};

use super::super::{Run, Violation};
use super::remote::Remote;
use super::whole::{self, Written};
use crate::{SimFs, SimRng};

const DIR: &str = "/data/log";
const FOLLOWER: &str = "/data/follower";
const STEPS: usize = 90;

pub(super) struct Driver<'a> {
    run: &'a Run,
    rng: SimRng,
    fs: SimFs,
    env: Env,
    config: LogConfig,
    remote: Remote,
    open: Option<(Arc<Log>, RemoteLog)>,
    batches: Vec<Written>,
    /// Below it everything counts as replicated: it is not truncated.
    committed: i64,
    /// The highest start that retention gave the log. A crash may bring a lower one back; what lies
    /// between is given up: segments uploaded meanwhile do not tell of its epochs.
    given_up: i64,
    epoch: i32,
}

impl<'a> Driver<'a> {
    pub(super) fn new(run: &'a Run) -> Result<Driver<'a>, Violation> {
        let fs = run.disk("fs", "/data")?;
        let rng = run.rng.fork("tier");
        let config = LogConfig {
            segment_bytes: [1 << 10, 1 << 12][rng.index(2)],
            index_interval_bytes: [1, 300, 4096][rng.index(3)],
            remote_storage: true,
            retention_ms: [-1, 20_000][rng.index(2)],
            retention_bytes: [-1, 15_000][rng.index(2)],
            local_retention_ms: [-2, 0, 3_000][rng.index(3)],
            local_retention_bytes: [-2, 0, 5_000][rng.index(3)],
            file_delete_delay_ms: 1_000,
            ..LogConfig::default()
        };
        let mut driver = Driver {
            run,
            env: run.env(Arc::new(fs.clone())),
            rng,
            fs,
            config,
            remote: Remote::new(run)?,
            open: None,
            batches: Vec::new(),
            committed: 0,
            given_up: 0,
            epoch: 0,
        };
        driver.reopen()?;
        Ok(driver)
    }

    pub(super) fn go(mut self) -> Result<(), Violation> {
        for _ in 0..STEPS {
            let pause = Duration::from_millis(self.rng.below(900));
            self.run.clock.advance(pause);
            self.step()?;
        }
        // In the end nothing fails any more: nothing half done may be left.
        self.remote.heal();
        self.restart(true)?;
        let (_, remote) = self.opened()?;
        let tidied = remote.tidy().map_err(|error| failed("tidy", &error))?;
        self.run.trace.note(format_args!("tidied {tidied}"));
        let (known, stored) = self.remote.content()?;
        if known != stored || !remote.state().unfinished().is_empty() {
            let detail = format!("{known} segments are known, and there is data of {stored}");
            return Err(Violation::new("nothing left", detail));
        }
        self.verify()?;
        self.rebuild()
    }

    /// A follower that has nothing goes on behind the tier and is then what the leader is.
    fn rebuild(&self) -> Result<(), Violation> {
        let (log, _) = self.opened()?;
        let local_start = log.local_log_start_offset();
        let start = log.log_start_offset();
        if local_start == start || start < self.given_up {
            return Ok(());
        }
        let open = LogOpen::standalone(FOLLOWER, self.config.clone(), self.env.clone());
        let follower = Arc::new(Log::open(open).map_err(|error| failed("open", &error))?);
        let remote = self.remote.open(follower.clone())?;
        let epoch = log.epoch_for_offset(local_start).unwrap_or(0);
        let rebuilt = remote.rebuild(local_start, epoch, start);
        let rebuilt = rebuilt.map_err(|error| failed("rebuild", &error))?;
        let violation = |detail| Err(Violation::new("rebuilt", detail));
        if rebuilt.is_none_or(|end| end < local_start) {
            return violation(format!(
                "the tier leads to {rebuilt:?} and not to {local_start}"
            ));
        }
        for batch in &self.batches {
            if batch.base >= follower.log_end_offset() {
                let appended = follower.append_as_follower(&batch.bytes, i32::MAX, 0);
                appended.map_err(|error| failed("follow", &error))?;
            }
        }
        let history = |log: &Log| {
            let mut epochs = log.epochs();
            epochs.retain(|&(_, start)| start < log.log_end_offset());
            epochs
        };
        if history(&follower) != history(log) {
            let (ours, theirs) = (history(&follower), history(log));
            return violation(format!("its epochs are {ours:?} and not {theirs:?}"));
        }
        follower.set_high_watermark(i64::MAX);
        whole::check(&follower, &remote, &self.batches, self.given_up)
    }

    fn opened(&self) -> Result<&(Arc<Log>, RemoteLog), Violation> {
        let gone = || Violation::new("setup", "the log is not open");
        self.open.as_ref().ok_or_else(gone)
    }

    fn step(&mut self) -> Result<(), Violation> {
        let (log, remote) = self.opened()?;
        let now_ms = self.run.clock.wall_ms();
        let stable = self.committed.min(log.durable_offset());
        let told =
            |what: &str, result: String| self.run.trace.note(format_args!("{what}: {result}"));
        match self.rng.index(20) {
            0..7 => self.append()?,
            7 => told("roll", format!("{:?}", log.roll())),
            8 => told("flush", format!("{:?}", log.flush(i64::MAX))),
            9 => {
                let committed = self.rng.range(self.committed, log.log_end_offset() + 1);
                log.set_high_watermark(committed);
                self.committed = committed;
            }
            10..13 => {
                if self.rng.one_in(3) {
                    self.remote.fail_soon(&self.rng);
                }
                let uploaded = remote.upload_next(stable);
                let uploaded =
                    uploaded.map(|segment| segment.map(|s| (s.start_offset, s.end_offset)));
                told("upload", format!("{uploaded:?}"));
            }
            13 => told("tidy", format!("{:?}", remote.tidy())),
            14 => {
                let removed = log.apply_retention(now_ms, self.committed);
                let starts = (log.log_start_offset(), log.local_log_start_offset());
                told("retain locally", format!("{removed:?}, starts {starts:?}"));
            }
            15 => {
                if self.rng.one_in(3) {
                    self.remote.fail_soon(&self.rng);
                }
                let removed = remote.apply_retention(now_ms, stable);
                told(
                    "retain",
                    format!("{removed:?}, start {}", log.log_start_offset()),
                );
                self.given_up = self.given_up.max(log.log_start_offset());
            }
            16 => self.truncate()?,
            17 => {
                let result = log.tick(now_ms);
                told("tick", format!("{result:?}"));
                self.restart(false)?;
            }
            18 => self.restart(true)?,
            _ => self.verify()?,
        }
        if self.remote.is_off() {
            self.restart(true)?;
        }
        Ok(())
    }

    fn append(&mut self) -> Result<(), Violation> {
        let setup = |error: String| Violation::new("setup", error);
        let mut builder = BatchBuilder::new(BatchOptions::default());
        let mut timestamps = Vec::new();
        for _ in 0..1 + self.rng.below(4) {
            let value = self.rng.bytes(self.rng.index(200));
            let timestamp = self.run.clock.wall_ms() - self.rng.range(0, 900);
            let built = builder.append(timestamp, None, Some(&value), []);
            built.map_err(|error| setup(error.to_string()))?;
            timestamps.push(timestamp);
        }
        let bytes = builder.build().map_err(|error| setup(error.to_string()))?;
        let batch = PreparedBatch::trusted(bytes).map_err(|error| setup(error.to_string()))?;
        let mut batch = [batch];
        self.epoch += i32::from(self.rng.one_in(10));
        let (log, _) = self.opened()?;
        let now_ms = self.run.clock.wall_ms();
        let info = log
            .append_as_leader(&mut batch, self.epoch, now_ms, AppendOrigin::Client)
            .map_err(|error| failed("append", &error))?;
        self.run.trace.note(format_args!(
            "append {} in epoch {}",
            info.first_offset, self.epoch
        ));
        self.batches.push(Written {
            base: info.first_offset,
            next: info.last_offset + 1,
            bytes: batch[0].to_bytes().to_vec(),
            timestamps,
        });
        Ok(())
    }

    fn truncate(&mut self) -> Result<(), Violation> {
        let ends = self.batches.iter().map(|batch| batch.next);
        let cuts: Vec<i64> = ends.filter(|&end| end >= self.committed).collect();
        let Some(&offset) = self.rng.pick(&cuts) else {
            return Ok(());
        };
        let (log, _) = self.opened()?;
        log.truncate_to(offset)
            .map_err(|error| failed("truncate", &error))?;
        self.run.trace.note(format_args!("truncate to {offset}"));
        self.batches.retain(|batch| batch.next <= offset);
        self.epoch += 1;
        Ok(())
    }

    fn restart(&mut self, machine: bool) -> Result<(), Violation> {
        self.open = None;
        if machine {
            self.fs.crash();
            self.remote.crash();
        } else {
            self.fs.kill();
        }
        self.reopen()?;
        let (log, _) = self.opened()?;
        let (start, end) = (log.log_start_offset(), log.log_end_offset());
        self.run.trace.note(format_args!("opened {start}..{end}"));
        self.batches.retain(|batch| batch.next <= end);
        self.committed = self.committed.min(end);
        self.epoch += 1;
        self.verify()
    }

    fn reopen(&mut self) -> Result<(), Violation> {
        let open = LogOpen::standalone(DIR, self.config.clone(), self.env.clone());
        let log = Arc::new(Log::open(open).map_err(|error| failed("open", &error))?);
        let remote = self.remote.open(log.clone())?;
        self.open = Some((log, remote));
        Ok(())
    }

    fn verify(&self) -> Result<(), Violation> {
        // What is asked here is to be answered.
        self.remote.heal();
        let (log, remote) = self.opened()?;
        whole::check(log, remote, &self.batches, self.given_up)?;
        if log.log_start_offset() < self.given_up {
            return Ok(());
        }
        whole::check_times(log, remote, &self.batches, &self.rng)
    }
}

pub(super) fn failed(what: &str, error: &dyn std::error::Error) -> Violation {
    Violation::new("goes on", format!("{what}: {error}"))
}
