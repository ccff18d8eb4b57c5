use std::io::IoSlice;
use std::sync::MutexGuard;
use std::sync::atomic::Ordering;

use klamm_records::control::EndTransactionMarker;
use klamm_records::{PreparedBatch, TimestampType};
use smallvec::SmallVec;

use crate::LogConfig;
use crate::batch::{BatchMeta, HEADER_LEN, NO_TIMESTAMP, verify_checksum};
use crate::error::{BatchFault, LogError};
use crate::index::txn::AbortedTxn;
use crate::log::{Log, State};
use crate::producer_state::{AppendOrigin, BatchNote, CompletedTxn, PendingUpdate, marker};
use crate::segment::{RollCheck, WriteFailure};

/// What an append did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendInfo {
    /// Offset of the first record.
    pub first_offset: i64,
    /// Offset of the last record.
    pub last_offset: i64,
    /// Largest timestamp of the batches, -1 if they have none.
    pub max_timestamp: i64,
    /// Time that the log stamped the batches with, -1 if they keep their producer's.
    pub log_append_time_ms: i64,
    /// First offset of the log.
    pub log_start_offset: i64,
    /// Whether the batch was in the log already and nothing was written; the offsets are those it
    /// has there.
    pub duplicate: bool,
    /// Bytes written.
    pub bytes: u64,
    /// Whether `flush_messages` wants the batches durable before anybody hears of them, and they
    /// are not yet: the log's [`Flusher`](crate::Flusher) is at it.
    pub sync_pending: bool,
}

/// Usual case: one batch, header and body apart.
type Slices<'a> = SmallVec<[IoSlice<'a>; 4]>;
type Metas = SmallVec<[BatchMeta; 2]>;
type Markers = SmallVec<[Option<EndTransactionMarker>; 2]>;

/// How much of what another replica wrote is taken at a time. It all goes into one segment.
#[derive(Clone, Copy)]
struct Room {
    bytes_max: u64,
    age_ms_max: i64,
}

impl Room {
    const ENDLESS: Room = Room {
        bytes_max: u64::MAX,
        age_ms_max: i64::MAX,
    };

    /// What a segment has room for. By time, too, if records go by time: a segment goes with its
    /// youngest one. Its leader rolled in between, and a replica that took hours or days at once
    /// would keep the oldest of them for so much longer, and again with every further copy.
    fn of_segment(config: &LogConfig) -> Room {
        let (local_ms, _) = config.local_limits();
        let by_time = config.delete && config.retention_ms.max(local_ms) >= 0;
        Room {
            bytes_max: config.segment_bytes_max(),
            age_ms_max: if by_time { config.segment_ms } else { i64::MAX },
        }
    }

    /// Whether `meta` goes with what begins with `first` and has `length` bytes.
    fn has(self, first: Option<&BatchMeta>, length: usize, meta: &BatchMeta) -> bool {
        first.is_none_or(|first| {
            let age_ms = meta.max_timestamp.saturating_sub(first.max_timestamp);
            let is_near = first.max_timestamp < 0 || age_ms <= self.age_ms_max;
            is_near && (length + meta.size) as u64 <= self.bytes_max
        })
    }
}

/// Checked batches with their offsets, ready to be written.
struct Checked {
    metas: Metas,
    updates: SmallVec<[PendingUpdate; 2]>,
    completed: SmallVec<[CompletedTxn; 1]>,
}

impl Log {
    /// Appends batches as the leader: they get the next offsets and `leader_epoch`, and, if the
    /// log is so configured, `now_ms` as their timestamp. All of them are written or none.
    ///
    /// A batch of an idempotent producer that is in the log already is not written again; the
    /// result then tells where it is. `batches` are changed in their headers.
    ///
    /// # Errors
    /// The producer's ([`LogError::OutOfOrderSequence`], [`LogError::InvalidProducerEpoch`],
    /// [`LogError::InvalidTxnState`], [`LogError::TransactionCoordinatorFenced`]), a size
    /// ([`LogError::RecordTooLarge`], [`LogError::BatchTooLarge`]), or the disk's; none changes
    /// the log.
    pub fn append_as_leader(
        &self,
        batches: &mut [PreparedBatch],
        leader_epoch: i32,
        now_ms: i64,
        origin: AppendOrigin,
    ) -> Result<AppendInfo, LogError> {
        let markers = batches
            .iter()
            .map(|batch| {
                let control = batch.header().attributes.is_control();
                control.then(|| marker::read(&batch.to_bytes())).flatten()
            })
            .collect::<Markers>();
        let mut state = self.open_state()?;
        let log_append_time = match state.config.timestamp_type {
            TimestampType::CreateTime => None,
            TimestampType::LogAppendTime => Some(now_ms),
        };
        let first_offset = self.log_end_offset();
        let mut next_offset = first_offset;
        let mut metas = Metas::with_capacity(batches.len());
        for batch in &mut *batches {
            let max = state.config.max_message_bytes as usize;
            if batch.size() > max {
                let size = batch.size();
                return Err(LogError::RecordTooLarge { size, max });
            }
            batch.assign(next_offset, leader_epoch, log_append_time);
            metas.push(parse_header(batch.header_bytes(), 0)?);
            next_offset += batch.offset_count();
        }
        if metas.is_empty() {
            return Ok(self.nothing_appended(first_offset));
        }
        let checked = match check(&state, metas, &markers, origin)? {
            Ok(checked) => checked,
            Err(known) => return Ok(self.duplicate_info(&state, known)),
        };
        let mut slices = Slices::with_capacity(batches.len() * 2);
        for batch in batches.iter() {
            slices.push(IoSlice::new(batch.header_bytes()));
            slices.push(IoSlice::new(batch.body()));
        }
        let mut info = self.write(&mut state, &mut slices, checked, now_ms)?;
        info.log_append_time_ms = log_append_time.unwrap_or(NO_TIMESTAMP);
        self.after_append(state, &mut info)?;
        Ok(info)
    }

    /// A producer is about to write in a transaction. If the log knows the transaction there is
    /// nothing to verify, and none is returned; else the transaction coordinator must be asked,
    /// and the append must then show the guard that is returned
    /// ([`AppendOrigin::VerifiedClient`]). `bumps_epoch` tells producers that end each transaction
    /// with an epoch of its own.
    ///
    /// # Errors
    /// [`LogError::InvalidProducerEpoch`] if the log has seen a newer epoch, or the log is closed.
    pub fn begin_verification(
        &self,
        producer_id: i64,
        epoch: i16,
        sequence: i32,
        bumps_epoch: bool,
        now_ms: i64,
    ) -> Result<Option<u64>, LogError> {
        let mut state = self.open_state()?;
        let end = self.log_end_offset();
        state.producers.check_epoch(producer_id, epoch, end)?;
        if state.producers.has_transaction(producer_id, epoch) {
            return Ok(None);
        }
        let verifications = &mut state.producers.verifications;
        let guard = verifications.begin(producer_id, epoch, sequence, bumps_epoch, now_ms);
        Ok(Some(guard))
    }

    /// Appends batches as they came from the leader, with their offsets and epochs. Reads up to
    /// the last whole batch, and not past one of an epoch above `leader_epoch`, which belongs to
    /// a leader this follower does not know yet. Checksums are verified.
    ///
    /// # Errors
    /// [`LogError::UnexpectedAppendOffset`], [`LogError::OffsetsOutOfOrder`],
    /// [`LogError::InvalidBatch`], [`LogError::BatchTooLarge`], or the disk's; none changes the
    /// log.
    pub fn append_as_follower(
        &self,
        bytes: &[u8],
        leader_epoch: i32,
        now_ms: i64,
    ) -> Result<AppendInfo, LogError> {
        self.append_copied(bytes, leader_epoch, Room::ENDLESS, now_ms)
    }

    /// The same of what a fetch brought, which may be more than a segment has room for, or is to
    /// hold by its topic's `segment.ms`: what is beyond that is not taken, and is for the next call.
    /// Without anything to take the result has no bytes.
    ///
    /// # Errors
    /// Those of [`Log::append_as_follower`].
    pub fn append_fetched(
        &self,
        bytes: &[u8],
        leader_epoch: i32,
        now_ms: i64,
    ) -> Result<AppendInfo, LogError> {
        let room = Room::of_segment(&self.config());
        self.append_copied(bytes, leader_epoch, room, now_ms)
    }

    /// Appends what another replica wrote: at least a batch, and no more than there is room for.
    fn append_copied(
        &self,
        bytes: &[u8],
        leader_epoch: i32,
        room: Room,
        now_ms: i64,
    ) -> Result<AppendInfo, LogError> {
        let mut metas = Metas::new();
        let mut markers = Markers::new();
        let mut length = 0;
        while let Some(meta) = whole_batch(&bytes[length..], length)? {
            if meta.leader_epoch > leader_epoch || !room.has(metas.first(), length, &meta) {
                break;
            }
            let batch = &bytes[length..length + meta.size];
            verify_checksum(batch, meta.magic).map_err(|reason| LogError::InvalidBatch {
                position: length,
                reason,
            })?;
            if let Some(previous) = metas.last().map(|meta: &BatchMeta| meta.last_offset)
                && meta.last_offset <= previous
            {
                let next = meta.last_offset;
                return Err(LogError::OffsetsOutOfOrder { previous, next });
            }
            markers.push(meta.is_control().then(|| marker::read(batch)).flatten());
            metas.push(meta);
            length += meta.size;
        }
        let mut state = self.open_state()?;
        let log_end = self.log_end_offset();
        let (Some(first), Some(last)) = (metas.first(), metas.last()) else {
            return Ok(self.nothing_appended(log_end));
        };
        if first.base_offset < log_end {
            return Err(LogError::UnexpectedAppendOffset {
                first: first.base_offset,
                last: last.last_offset,
                log_end,
            });
        }
        // A follower never sees a duplicate: it takes what the leader wrote.
        let Ok(checked) = check(&state, metas, &markers, AppendOrigin::Replication)? else {
            return Ok(self.nothing_appended(log_end));
        };
        let mut slices: Slices<'_> = SmallVec::from_iter([IoSlice::new(&bytes[..length])]);
        let mut info = self.write(&mut state, &mut slices, checked, now_ms)?;
        self.after_append(state, &mut info)?;
        Ok(info)
    }

    /// Rolls if needed, writes, and takes over what follows from the batches.
    fn write(
        &self,
        state: &mut State,
        slices: &mut [IoSlice<'_>],
        checked: Checked,
        now_ms: i64,
    ) -> Result<AppendInfo, LogError> {
        let Checked {
            metas,
            updates,
            completed,
        } = checked;
        let (first, last) = (metas[0], metas[metas.len() - 1]);
        let bytes: u64 = metas.iter().map(|meta| meta.size as u64).sum();
        let max_timestamp = metas
            .iter()
            .fold(NO_TIMESTAMP, |max, meta| max.max(meta.max_timestamp));
        let segment_bytes_max = state.config.segment_bytes_max();
        if bytes > segment_bytes_max {
            return Err(LogError::BatchTooLarge {
                size: bytes as usize,
                max: segment_bytes_max as usize,
            });
        }
        let roll = state.active.should_roll(&RollCheck {
            segment_bytes_max,
            segment_ms: state.config.segment_ms,
            append_bytes: bytes,
            max_timestamp,
            last_offset: last.last_offset,
            now_ms,
        })?;
        if roll {
            self.roll_to(state, first.base_offset)?;
        }
        let began = self.env.clock.monotonic();
        let written = self
            .note_origin(state, &metas)
            .map_err(|error| WriteFailure {
                error,
                undone: true,
            })
            .and_then(|()| state.active.append(slices, &metas, bytes));
        if let Err(WriteFailure { error, undone }) = written {
            if !undone {
                self.set_offline();
            }
            // No epoch begins with a batch that was not written.
            state.epochs.truncate_from_end(first.base_offset + 1);
            return Err(error);
        }
        self.note_written(state, bytes, began);
        self.end.store(last.next_offset(), Ordering::SeqCst);
        for update in updates {
            state.producers.commit(update);
        }
        for meta in metas.iter().filter(|meta| meta.is_transactional()) {
            let verifications = &mut state.producers.verifications;
            verifications.appended(meta.producer_id, meta.producer_epoch, meta.is_control());
        }
        for txn in &completed {
            self.complete_txn(state, txn)?;
        }
        state.producers.set_map_end(last.next_offset());
        self.publish_transactions(state);
        Ok(AppendInfo {
            first_offset: first.base_offset,
            last_offset: last.last_offset,
            max_timestamp,
            log_append_time_ms: NO_TIMESTAMP,
            log_start_offset: self.log_start_offset(),
            duplicate: false,
            bytes,
            sync_pending: false,
        })
    }

    fn complete_txn(&self, state: &mut State, txn: &CompletedTxn) -> Result<(), LogError> {
        let last_stable_offset = state.producers.last_stable_offset_after(txn);
        if txn.aborted {
            let entry = AbortedTxn {
                producer_id: txn.producer_id,
                first_offset: txn.first_offset,
                last_offset: txn.last_offset,
                last_stable_offset,
            };
            let written = state.active.txn_index().append(&entry);
            if let Err(error) = written {
                // The marker is in the log. Without the entry consumers would be given aborted
                // records, so the log stops serving until recovery rebuilds the index.
                self.set_offline();
                return Err(error);
            }
        }
        state.producers.complete(txn);
        Ok(())
    }

    /// Tells the listeners, and has the log flushed if its configuration asks for that.
    fn after_append(
        &self,
        state: MutexGuard<'_, State>,
        info: &mut AppendInfo,
    ) -> Result<(), LogError> {
        let end = info.last_offset + 1;
        let flush_messages = state.config.flush_messages;
        let group_sync = state.config.group_sync;
        drop(state);
        self.watch.notify(end);
        if group_sync {
            self.request_sync();
        }
        let due = flush_messages < i64::MAX && end - self.durable_offset() >= flush_messages;
        if due {
            info.sync_pending = self.request_sync();
            if !info.sync_pending {
                self.flush(end)?;
            }
        }
        Ok(())
    }

    fn nothing_appended(&self, end: i64) -> AppendInfo {
        AppendInfo {
            first_offset: end,
            last_offset: end - 1,
            max_timestamp: NO_TIMESTAMP,
            log_append_time_ms: NO_TIMESTAMP,
            log_start_offset: self.log_start_offset(),
            duplicate: false,
            bytes: 0,
            sync_pending: false,
        }
    }

    fn duplicate_info(&self, state: &State, known: BatchNote) -> AppendInfo {
        AppendInfo {
            first_offset: known.first_offset(),
            last_offset: known.last_offset,
            max_timestamp: known.timestamp,
            log_append_time_ms: known.timestamp,
            log_start_offset: self.log_start_offset(),
            duplicate: true,
            bytes: 0,
            // Whoever repeats a batch must not hear of it sooner than the first time.
            sync_pending: state.config.flush_messages < i64::MAX
                && known.last_offset >= self.durable_offset()
                && self.request_sync(),
        }
    }
}

/// Checks batches against the producers' state. The inner error is the place in the log of a
/// batch that is being retried.
fn check(
    state: &State,
    metas: Metas,
    markers: &Markers,
    origin: AppendOrigin,
) -> Result<Result<Checked, BatchNote>, LogError> {
    let mut updates: SmallVec<[PendingUpdate; 2]> = SmallVec::new();
    let mut completed = SmallVec::new();
    for (meta, marker) in metas.iter().zip(markers) {
        if !meta.has_producer_id() {
            continue;
        }
        let known = state.producers.get(meta.producer_id);
        if origin.is_client()
            && let Some(known) = known.and_then(|entry| entry.duplicate_of(meta))
        {
            return Ok(Err(known));
        }
        check_transaction(state, meta, origin)?;
        let index = match updates
            .iter()
            .position(|update| update.producer_id() == meta.producer_id)
        {
            Some(index) => index,
            None => {
                let verification = state.producers.verifications.get(meta.producer_id);
                updates.push(PendingUpdate::new(
                    meta.producer_id,
                    known,
                    verification,
                    origin,
                ));
                updates.len() - 1
            }
        };
        completed.extend(updates[index].add(meta, *marker)?);
    }
    Ok(Ok(Checked {
        metas,
        updates,
        completed,
    }))
}

/// The first batch of a transaction is taken only if the transaction coordinator said that the
/// transaction is open: a late one would open a transaction that nobody ends (KIP-890).
fn check_transaction(
    state: &State,
    meta: &BatchMeta,
    origin: AppendOrigin,
) -> Result<(), LogError> {
    let (producer_id, epoch) = (meta.producer_id, meta.producer_epoch);
    let begins = origin.is_verified()
        && meta.is_transactional()
        && !state.producers.has_transaction(producer_id, epoch);
    if !begins {
        return Ok(());
    }
    state
        .producers
        .check_epoch(producer_id, epoch, meta.base_offset)?;
    let verification = state.producers.verifications.get(producer_id);
    let expected = verification.map(|verification| verification.guard);
    let is_verified = expected.is_some() && expected == origin.guard();
    if state.config.transaction_verification && !meta.is_control() && !is_verified {
        return Err(LogError::InvalidTxnState { producer_id });
    }
    Ok(())
}

/// The header of the batch at the start of `bytes`; none if it is cut.
fn whole_batch(bytes: &[u8], position: usize) -> Result<Option<BatchMeta>, LogError> {
    match BatchMeta::parse(&bytes[..bytes.len().min(HEADER_LEN)]) {
        Ok(meta) if meta.size <= bytes.len() => Ok(Some(meta)),
        Ok(_) | Err(BatchFault::Truncated) => Ok(None),
        Err(reason) => Err(LogError::InvalidBatch { position, reason }),
    }
}

fn parse_header(bytes: &[u8], position: usize) -> Result<BatchMeta, LogError> {
    BatchMeta::parse(bytes).map_err(|reason| LogError::InvalidBatch { position, reason })
}
