//! A replicated partition as its leader sees it: a real log, a model of the replication around it.
//!
//! There is one log, `klamm-log`'s, with its producer states, its verification of transactions and
//! its index of aborted ones. What followers do is a number: `committed` is how far all in-sync
//! replicas have got, and the high watermark, which the leader learns of later, follows it. An
//! election cuts the log anywhere between `committed` and its end, opens it anew (what a leader
//! only remembers is gone), and lets the new leader begin with a high watermark that may lie
//! behind. Whoever led before and does not know writes into a void: what it appends is nowhere,
//! and its high watermark stands still.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use klamm_coordinator::runtime::Appended;
use klamm_env::{Env, FileExt as _, Rng as _};
use klamm_log::{AppendOrigin, Log, LogConfig, LogError, LogOpen};
use klamm_protocol::ErrorCode;
use klamm_records::{BatchHeader, PreparedBatch, TopicPartition};
use tokio::sync::watch;

use super::super::Violation;
use super::Flaw;
use super::append_notes::Words;
use crate::{Executor, SimRng, Trace};

/// Topic and number.
pub(super) type Place = (&'static str, i32);

/// The time in which one leader leads.
#[derive(Debug)]
pub(super) struct Term {
    pub(super) epoch: i32,
    pub(super) leader: i32,
    high_watermark: watch::Sender<i64>,
    /// Somebody else leads by now, whether the leader knows or not.
    over: AtomicBool,
    /// Where a leader whose term is over believes the end of its log.
    void_end: AtomicI64,
}

impl Term {
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    pub(super) fn watch(&self) -> watch::Receiver<i64> {
        self.high_watermark.subscribe()
    }
}

/// The partition.
pub(super) struct Partition {
    pub(super) place: Place,
    env: Env,
    executor: Executor,
    rng: SimRng,
    trace: Trace,
    flaw: Flaw,
    /// Nothing is to go wrong any more.
    calm: Arc<AtomicBool>,
    state: Mutex<State>,
}

struct State {
    log: Arc<Log>,
    term: Arc<Term>,
    /// What no election takes back.
    committed: i64,
    /// Where batches end.
    ends: Vec<i64>,
    /// Followers do not fetch.
    stalled: bool,
    /// The largest last stable offset of what is committed.
    stable: i64,
}

/// Appends, in cases per thousand: refused for want of replicas, and slow.
const REFUSED: u64 = 15;
const SLOW: u64 = 100;

impl Partition {
    pub(super) fn new(
        place: Place,
        leader: i32,
        env: Env,
        (executor, rng, trace): (Executor, SimRng, Trace),
        flaw: Flaw,
        calm: Arc<AtomicBool>,
    ) -> Result<Arc<Partition>, Violation> {
        let log = open(place, &env)?;
        let term = Arc::new(Term {
            epoch: 0,
            leader,
            high_watermark: watch::Sender::new(0),
            over: AtomicBool::new(false),
            void_end: AtomicI64::new(0),
        });
        Ok(Arc::new(Partition {
            place,
            env,
            executor,
            rng,
            trace,
            flaw,
            calm,
            state: Mutex::new(State {
                log,
                term,
                committed: 0,
                ends: Vec::new(),
                stalled: false,
                stable: 0,
            }),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The term that is.
    pub(super) fn term(&self) -> Arc<Term> {
        Arc::clone(&self.state().term)
    }

    /// The log, for who leads in `term`; none if somebody else does.
    pub(super) fn log(&self, term: &Term) -> Option<Arc<Log>> {
        (!term.is_over()).then(|| Arc::clone(&self.state().log))
    }

    /// The log as it is.
    pub(super) fn truth(&self) -> Arc<Log> {
        Arc::clone(&self.state().log)
    }

    /// How far no election takes it back.
    pub(super) fn committed(&self) -> i64 {
        self.state().committed
    }

    /// Appends one batch on behalf of who believes to lead in `term`.
    pub(super) async fn append(
        self: &Arc<Self>,
        term: &Arc<Term>,
        batch: Bytes,
        origin: AppendOrigin,
    ) -> Result<Appended, ErrorCode> {
        if self.rng.below(1_000) < SLOW {
            let us = self.rng.below(20_000);
            self.executor.sleep(Duration::from_micros(us)).await;
        }
        if !self.is_calm() && self.rng.below(1_000) < REFUSED {
            return Err(ErrorCode::NotEnoughReplicas);
        }
        self.append_now(term, batch, origin)
    }

    /// The same, at once.
    pub(super) fn append_now(
        self: &Arc<Self>,
        term: &Arc<Term>,
        batch: Bytes,
        origin: AppendOrigin,
    ) -> Result<Appended, ErrorCode> {
        let count = BatchHeader::parse(&batch).map_or(1, |h| i64::from(h.last_offset_delta) + 1);
        let words = Words(self.place, &batch).to_string();
        let (topic, number) = self.place;
        if term.is_over() {
            let base_offset = term.void_end.fetch_add(count, Ordering::SeqCst);
            self.trace
                .note(format_args!("{topic}-{number}: into the void,{words}"));
            return Ok(Appended {
                base_offset,
                last_offset: base_offset + count - 1,
            });
        }
        let mut state = self.state();
        if self.flaw == Flaw::WritesVanish && self.rng.one_in(10) {
            let base_offset = state.log.log_end_offset();
            return Ok(Appended {
                base_offset,
                last_offset: base_offset - 1,
            });
        }
        let prepared = PreparedBatch::trusted(batch).map_err(|_| ErrorCode::CorruptMessage)?;
        let now_ms = self.env.clock.wall_ms();
        let epoch = state.term.epoch;
        let mut batches = [prepared];
        let appended = state
            .log
            .append_as_leader(&mut batches, epoch, now_ms, origin);
        let info = match appended {
            Ok(info) => info,
            Err(error) => {
                self.trace.note(format_args!(
                    "{topic}-{number}: refused with {error},{words}"
                ));
                return Err(code(&error));
            }
        };
        let (at, again) = (info.first_offset, info.duplicate);
        self.trace.note(format_args!(
            "{topic}-{number}: at {at}, again {again},{words}"
        ));
        if !info.duplicate {
            state.ends.push(info.last_offset + 1);
        }
        if self.flaw == Flaw::AnswersBeforeCommit {
            let end = info.last_offset + 1;
            term.high_watermark.send_if_modified(|at| {
                let grows = *at < end;
                *at = (*at).max(end);
                grows
            });
        }
        drop(state);
        self.replicate();
        Ok(Appended {
            base_offset: info.first_offset,
            last_offset: info.last_offset,
        })
    }

    fn is_calm(&self) -> bool {
        self.calm.load(Ordering::SeqCst)
    }

    /// Followers fetch what there is, some time from now; some time later the leader hears of it.
    fn replicate(self: &Arc<Self>) {
        let partition = Arc::clone(self);
        let term = self.term();
        self.executor.spawn("followers", async move {
            let us = partition.delay_us();
            partition.executor.sleep(Duration::from_micros(us)).await;
            let committed = {
                let mut state = partition.state();
                if state.stalled || term.is_over() {
                    return;
                }
                state.committed = state.log.log_end_offset();
                state.committed
            };
            let us = partition.delay_us() / 2;
            partition.executor.sleep(Duration::from_micros(us)).await;
            if !term.is_over() {
                term.high_watermark.send_if_modified(|at| {
                    let grows = *at < committed;
                    *at = (*at).max(committed);
                    grows
                });
            }
        });
    }

    fn delay_us(&self) -> u64 {
        match self.rng.index(50) {
            0 => self.rng.below(600_000),
            1..5 => self.rng.below(40_000),
            _ => 200 + self.rng.below(2_000),
        }
    }

    /// Followers stop fetching, or go on.
    pub(super) fn stall(self: &Arc<Self>, stalled: bool) {
        let was = std::mem::replace(&mut self.state().stalled, stalled);
        if was && !stalled {
            self.replicate();
        }
    }

    /// `leader` is elected: the log is cut, and opened anew.
    pub(super) fn elect(self: &Arc<Self>, leader: i32) -> Result<(), Violation> {
        let mut state = self.state();
        let end = state.log.log_end_offset();
        let committed = state.committed;
        let lost: Vec<i64> = state
            .ends
            .iter()
            .copied()
            .filter(|at| *at > committed)
            .collect();
        let keep = match self.rng.index(3) {
            0 => end,
            1 => committed,
            _ => self.rng.pick(&lost).copied().unwrap_or(end),
        };
        let before: Vec<i64> = state
            .ends
            .iter()
            .copied()
            .filter(|at| *at <= committed)
            .collect();
        let behind = self.rng.index(4);
        let high_watermark = match before.len().checked_sub(1 + behind) {
            Some(at) => before[at],
            None => 0,
        };
        state.term.void_end.store(end, Ordering::SeqCst);
        state.term.over.store(true, Ordering::SeqCst);
        let truncated = state.log.truncate_to(keep);
        truncated.map_err(|error| broken(self.place, &error))?;
        state.ends.retain(|at| *at <= keep);
        // The new leader's own log, read from its beginning.
        state.log.set_offline();
        state.log = open(self.place, &self.env)?;
        state.term = Arc::new(Term {
            epoch: state.term.epoch + 1,
            leader,
            high_watermark: watch::Sender::new(high_watermark),
            over: AtomicBool::new(false),
            void_end: AtomicI64::new(keep),
        });
        let (topic, number) = self.place;
        self.trace.note(format_args!(
            "{topic}-{number}: {leader} leads in {}; end {end}, kept {keep}, committed {committed}",
            state.term.epoch
        ));
        drop(state);
        self.replicate();
        Ok(())
    }

    /// What is in the log from `offset` on.
    pub(super) fn read(&self, log: &Log, offset: i64, bytes_max: usize) -> Result<Bytes, LogError> {
        let read = log.read(offset, bytes_max, i64::MAX, true)?;
        let mut bytes = Vec::with_capacity(read.len);
        for part in &read.parts {
            let start = bytes.len();
            bytes.resize(start + part.len, 0);
            part.file
                .read_exact_at(&mut bytes[start..], part.position)
                .map_err(|source| LogError::Io {
                    operation: "read",
                    path: log.dir(),
                    source,
                })?;
        }
        Ok(bytes.into())
    }

    /// The last stable offset of what is committed; it must not go back.
    pub(super) fn stable(&self) -> Result<i64, Violation> {
        let mut state = self.state();
        let stable = state.log.last_stable_offset(state.committed);
        if stable < state.stable {
            let detail = format!(
                "of {}-{}: from {} to {stable}",
                self.place.0, self.place.1, state.stable
            );
            return Err(Violation::new("last stable offset", detail));
        }
        state.stable = stable;
        Ok(stable)
    }
}

/// What a producer is told.
pub(super) fn code(error: &LogError) -> ErrorCode {
    match error {
        LogError::InvalidProducerEpoch { .. } => ErrorCode::InvalidProducerEpoch,
        LogError::InvalidTxnState { .. } => ErrorCode::InvalidTxnState,
        LogError::TransactionCoordinatorFenced { .. } => ErrorCode::TransactionCoordinatorFenced,
        LogError::OutOfOrderSequence { .. } => ErrorCode::OutOfOrderSequenceNumber,
        _ => ErrorCode::KafkaStorageError,
    }
}

fn broken((topic, number): Place, error: &LogError) -> Violation {
    Violation::new("disk", format!("{topic}-{number}: {error}"))
}

fn open(place: Place, env: &Env) -> Result<Arc<Log>, Violation> {
    let (topic, number) = place;
    let dir = PathBuf::from(format!("/{topic}-{number}"));
    let config = LogConfig {
        transaction_verification: true,
        ..LogConfig::default()
    };
    let open = LogOpen {
        topic_partition: TopicPartition::new(topic, number),
        standalone: false,
        ..LogOpen::standalone(dir, config, env.clone())
    };
    let log = Log::open(open);
    Ok(Arc::new(log.map_err(|error| broken(place, &error))?))
}
