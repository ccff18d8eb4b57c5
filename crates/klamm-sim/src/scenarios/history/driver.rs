//! Lets a seed decide what happens to a log, and holds it against its model.

use std::fmt;
use std::time::Duration;

use klamm_env::{Clock as _, Env, Rng as _};
use klamm_log::{Cleaner, CleanerConfig, Log, LogConfig, LogError, LogOpen, OpenFiles};

use super::super::{Between, Run, Violation};
use super::answers;
use super::compaction::Clean;
use super::reference::Reference;
use super::subject::{Bug, Subject};
use crate::{Errno, Faults, SimFs, SimRng};

const DIR: &str = "/data/log";
const STEPS: usize = 70;

pub(super) struct Driver<'a> {
    pub(super) run: &'a Run,
    pub(super) rng: SimRng,
    fs: SimFs,
    env: Env,
    bug: Bug,
    /// How many files the log may keep open.
    files: OpenFiles,
    pub(super) config: LogConfig,
    pub(super) subject: Option<Subject>,
    pub(super) model: Reference,
    pub(super) epoch: i32,
    pub(super) coordinator_epoch: i32,
    pub(super) next_value: u64,
    /// Whether an operation that removes batches failed halfway.
    pub(super) loose: bool,
    /// Whether the log read its producers' state anew.
    pub(super) reloaded: bool,
    /// Whether the log is compacted.
    pub(super) compacts: bool,
}

impl<'a> Driver<'a> {
    pub(super) fn new(run: &'a Run, between: Between, bug: Bug) -> Result<Driver<'a>, Violation> {
        let fs = run.disk("fs", "/data")?;
        let mut driver = Driver {
            run,
            env: run.env(between(fs.clone())),
            rng: run.rng.fork("history"),
            fs,
            bug,
            files: OpenFiles::new([1, 2, usize::MAX][run.rng.fork("open files").index(3)]),
            config: LogConfig::default(),
            subject: None,
            model: Reference::default(),
            epoch: 0,
            coordinator_epoch: 0,
            next_value: 0,
            loose: false,
            reloaded: false,
            compacts: run.rng.fork("compaction").one_in(3),
        };
        driver.model.compacts = driver.compacts;
        driver.config = driver.random_config();
        driver.reopen()?;
        Ok(driver)
    }

    pub(super) fn go(mut self) -> Result<(), Violation> {
        for _ in 0..STEPS {
            self.step()?;
        }
        // At the end nothing goes wrong any more, and the log must heal.
        self.crash()?;
        self.append()?;
        self.verify()
    }

    pub(super) fn note(&self, line: impl fmt::Display) {
        self.run.trace.note(line);
    }

    fn step(&mut self) -> Result<(), Violation> {
        let pause = Duration::from_millis(self.rng.below(600));
        self.run.clock.advance(pause);
        match self.rng.index(100) {
            _ if self.compacts && self.rng.one_in(8) => self.clean()?,
            0..44 => self.append()?,
            44..52 => self.follow()?,
            52..57 => self.flush(),
            57..60 => self.roll(),
            60..64 => self.tick()?,
            64..67 => {
                self.truncate();
                self.reconcile()?;
            }
            67..69 => self.delete(),
            69..71 => self.retain()?,
            71..73 => self.reconfigure(),
            73..76 => self.elect(),
            76..79 => self.set_faults(),
            79..81 => {
                let errno = [Errno::Io, Errno::NoSpace][self.rng.index(2)];
                self.fs.fail_after(self.rng.below(30), errno);
            }
            81..84 => self.fs.power_off_after(self.rng.below(40)),
            84..87 => self.crash()?,
            87..90 => self.kill()?,
            90..93 => self.close()?,
            _ => self.verify()?,
        }
        if self.fs.is_off() {
            self.crash()?;
        } else if self.subject.as_ref().is_none_or(|s| s.log.is_offline()) {
            // The broker would stop serving the directory; an operator restarts it.
            self.kill()?;
        }
        Ok(())
    }

    fn flush(&mut self) {
        let Some(subject) = &self.subject else { return };
        let offset = self.rng.range(self.model.start, self.model.end + 1);
        let result = subject.flush(offset);
        self.note(format_args!("flush {offset}: {}", told(&result)));
        if result.is_ok() {
            self.model.flushed_to = self.model.flushed_to.max(offset);
        }
    }

    /// Compacts the log.
    fn clean(&mut self) -> Result<(), Violation> {
        let Some(subject) = &self.subject else {
            return Ok(());
        };
        let now_ms = self.run.clock.wall_ms();
        subject.log.set_high_watermark(self.model.end);
        let target = match subject.log.cleanable(now_ms) {
            Ok(target) => target,
            Err(error) => {
                self.note(format_args!("nothing to clean: {error}"));
                return Ok(());
            }
        };
        let config = CleanerConfig {
            map_bytes: 1 << 16,
            io_buffer_bytes: 4 << 10,
            ..CleanerConfig::default()
        };
        let result = subject.clean(
            &mut Cleaner::new(config, self.rng.next_u64()),
            &target,
            now_ms,
        );
        self.note(format_args!("clean {target:?}: {result:?}"));
        let clean = Clean {
            dirty_from: target.first_dirty_offset,
            end: result.as_ref().copied().unwrap_or(target.end_offset),
            done: result.is_ok(),
            now_ms,
            delete_retention_ms: Some(self.config.delete_retention_ms),
        };
        self.fs.set_faults(Faults::default());
        // A start looks at it otherwise.
        self.model.cleaned_below = self.model.cleaned_below.max(clean.end);
        if self.fs.is_off() || subject.log.is_offline() {
            return Ok(());
        }
        let violation = |detail| Violation::new("compaction", detail);
        let found = match subject.everything() {
            Err(_) if self.fs.is_off() => return Ok(()),
            found => found.map_err(violation)?,
        };
        self.model.compact(&found, clean).map_err(violation)?;
        if clean.done {
            self.model.flushed_to = self.model.flushed_to.max(clean.end);
        }
        Ok(())
    }

    fn roll(&mut self) {
        if let Some(subject) = &self.subject {
            self.note(format_args!("roll: {}", told(&subject.log.roll())));
        }
    }

    fn tick(&mut self) -> Result<(), Violation> {
        self.reconcile()?;
        let Some(subject) = &self.subject else {
            return Ok(());
        };
        let now_ms = self.run.clock.wall_ms();
        let result = subject.tick(now_ms);
        self.note(format_args!("tick: {}", told(&result)));
        let idle_ms = self.config.producer_id_expiration_ms;
        self.model.producers.expire(now_ms, idle_ms, self.model.end);
        if result.is_ok() {
            let vouched = subject.log.recovery_point();
            self.model.flushed_to = self.model.flushed_to.max(vouched);
        }
        Ok(())
    }

    fn set_faults(&mut self) {
        let rng = &self.rng;
        let rare = [0, 2_000, 30_000][rng.index(3)];
        let often = [0, 100_000, 400_000][rng.index(3)];
        let some = |of| if rng.one_in(of) { rare } else { 0 };
        self.fs.set_faults(Faults {
            read_errors: some(4),
            write_errors: some(2),
            sync_errors: some(2),
            name_errors: some(2),
            space_errors: some(3),
            short_reads: often,
            short_writes: often,
            space_bytes: rng.one_in(6).then(|| 20_000 + rng.below(200_000)),
        });
    }

    fn crash(&mut self) -> Result<(), Violation> {
        self.subject = None;
        self.fs.crash();
        while self.rng.one_in(4) {
            // Recovery itself meets a power cut or a failing disk, and has to be begun again.
            self.fs.set_faults(Faults::default());
            match self.rng.index(3) {
                0 => self.fs.power_off_after(self.rng.below(20)),
                1 => self.fs.fail_after(self.rng.below(60), Errno::Io),
                _ => self.fs.fail_after(self.rng.below(60), Errno::NoSpace),
            }
            let opened = Log::open_among(self.opening(), &self.files).map(drop);
            self.note(format_args!("a troubled opening: {}", told(&opened)));
            self.fs.crash();
        }
        self.restart(true)
    }

    fn kill(&mut self) -> Result<(), Violation> {
        if self.fs.has_lost_writes() {
            // The page cache shows what the disk never got: only a restart of the machine helps.
            return self.crash();
        }
        self.subject = None;
        self.fs.kill();
        self.restart(false)
    }

    fn close(&mut self) -> Result<(), Violation> {
        if let Some(subject) = &self.subject {
            let result = subject.log.close();
            self.note(format_args!("close: {}", told(&result)));
            if result.is_ok() {
                self.model.flushed_to = self.model.end;
            }
        }
        if self.fs.is_off() {
            return self.crash();
        }
        self.kill()
    }

    fn opening(&self) -> LogOpen {
        LogOpen::standalone(DIR, self.config.clone(), self.env.clone())
    }

    fn reopen(&mut self) -> Result<(), Violation> {
        self.fs.set_faults(Faults::default());
        match Log::open_among(self.opening(), &self.files) {
            Ok(log) => {
                let (start, end) = (log.log_start_offset(), log.log_end_offset());
                self.note(format_args!("opened {start}..{end}"));
                self.subject = Some(Subject { log, bug: self.bug });
                Ok(())
            }
            Err(error) => {
                let detail = format!("the log does not open: {error}");
                Err(Violation::new("recovery", detail))
            }
        }
    }

    /// Opens the log again and takes over what is left of it, if that is right.
    fn restart(&mut self, lossy: bool) -> Result<(), Violation> {
        self.reopen()?;
        let Some(subject) = &self.subject else {
            return Ok(());
        };
        let log = &subject.log;
        let ends = (log.log_start_offset(), log.log_end_offset());
        let violation = |detail| Violation::new("recovery", detail);
        let found = subject.everything().map_err(violation)?;
        let loose = std::mem::take(&mut self.loose);
        if lossy && self.compacts {
            self.model.lose_unflushed(&found);
        }
        if self.model.cleaned_below > 0 {
            // A clean that failed, or was cut off by the crash, may have got anywhere.
            let clean = Clean {
                dirty_from: 0,
                end: self.model.cleaned_below,
                done: false,
                now_ms: i64::MAX,
                delete_retention_ms: None,
            };
            // The start may have gone back, and what lies there was compacted, too.
            let start = self.model.start;
            self.model.start = start.min(ends.0);
            self.model.compact(&found, clean).map_err(violation)?;
            self.model.start = start;
        }
        self.model
            .adopt(ends, &found, lossy, loose)
            .map_err(violation)?;
        self.model.assigned = None;
        self.epoch += 1;
        self.reloaded = true;
        // Everything that is left counts as replicated.
        subject.log.set_high_watermark(self.model.end);
        subject.log.last_stable_offset(self.model.end);
        self.verify()
    }

    /// After a reload: which of the producers that may be forgotten are.
    pub(super) fn reconcile(&mut self) -> Result<(), Violation> {
        let Some(subject) = &self.subject else {
            return Ok(());
        };
        if std::mem::take(&mut self.reloaded) {
            let now_ms = self.run.clock.wall_ms();
            let idle_ms = self.config.producer_id_expiration_ms;
            // Recovery reads a segment from its begin on, below the start of the log.
            let mut starts = subject.segments();
            starts.extend([self.model.start, self.model.deleted_to]);
            let said = subject.producers();
            self.model
                .producers
                .reconcile(&said, &starts, &self.model.batches, (now_ms, idle_ms))
                .map_err(|detail| Violation::new("producers", detail))?;
        }
        Ok(())
    }

    /// Holds the log against its model.
    fn verify(&mut self) -> Result<(), Violation> {
        self.fs.set_faults(Faults::default());
        if self.fs.is_off() || self.subject.as_ref().is_none_or(|s| s.log.is_offline()) {
            return Ok(());
        }
        self.reconcile()?;
        let Some(subject) = &self.subject else {
            return Ok(());
        };
        let ends = (subject.log.log_start_offset(), subject.log.log_end_offset());
        if ends != (self.model.start, self.model.end) {
            let (start, end) = (self.model.start, self.model.end);
            let detail = format!("the log is {ends:?} and should be {start}..{end}");
            return Err(Violation::new("ends", detail));
        }
        let checks = [
            ("reads", answers::reads(subject, &self.model, &self.rng)),
            (
                "times",
                answers::times(subject, &self.model, &self.rng, self.run.clock.wall_ms()),
            ),
            ("epochs", answers::epochs(subject, &self.model)),
            (
                "transactions",
                answers::transactions(subject, &self.model, &self.rng),
            ),
            (
                "producers",
                self.model.producers.check(&subject.producers()),
            ),
        ];
        for (property, result) in checks {
            if let Err(detail) = result {
                if self.fs.is_off() {
                    return Ok(());
                }
                return Err(Violation::new(property, detail));
            }
        }
        self.note(format_args!("verified {ends:?}"));
        Ok(())
    }
}

pub(super) fn told<T>(result: &Result<T, LogError>) -> String {
    match result {
        Ok(_) => "ok".to_owned(),
        Err(error) => error.to_string(),
    }
}
