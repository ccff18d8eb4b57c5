use std::time::Duration;

use klamm_env::Env;
use klamm_records::Compression;

use super::JournalError;
use crate::config::LogConfig;

/// How a [`Journal`](super::Journal) behaves.
///
/// ```
/// # use std::time::Duration;
/// use klamm_log::{Options, Compression};
///
/// let options = Options {
///     keep_for: Some(Duration::from_secs(3600)),
///     compression: Compression::Lz4,
///     ..Options::default()
/// };
/// ```
#[derive(Clone, Debug)]
pub struct Options {
    /// Size at which a new file is begun; 64 MiB by default, at most 2 GiB. The oldest file is
    /// what [`keep_for`](Options::keep_for) and [`keep_bytes`](Options::keep_bytes) drop at a
    /// time, and all records of one append must fit into one.
    pub segment_bytes: u32,
    /// Age beyond which records may be dropped; none: they stay.
    pub keep_for: Option<Duration>,
    /// Size of the whole beyond which the oldest records may be dropped; none: they stay.
    pub keep_bytes: Option<u64>,
    /// How long [`compact`](super::Journal::compact) keeps the removal of a key, so that whoever
    /// follows the journal learns of it; a day by default.
    pub keep_removals_for: Duration,
    /// Codec for what is appended, by default none. Pays off for
    /// [`append_all`](super::Journal::append_all).
    pub compression: Compression,
    /// Whether each append is on disk when it returns, and not only in the page cache.
    pub sync_each_append: bool,
    /// Clock, randomness and file system.
    pub env: Env,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            segment_bytes: 64 << 20,
            keep_for: None,
            keep_bytes: None,
            keep_removals_for: Duration::from_secs(24 * 3600),
            compression: Compression::None,
            sync_each_append: false,
            env: Env::os(),
        }
    }
}

impl Options {
    pub(super) fn log_config(&self) -> Result<LogConfig, JournalError> {
        // Room for one batch header and some records.
        if self.segment_bytes < 1024 || self.segment_bytes > i32::MAX as u32 {
            return Err(JournalError::Options("a segment has from 1 KiB to 2 GiB"));
        }
        let signed = |value: u128| i64::try_from(value).unwrap_or(i64::MAX);
        Ok(LogConfig {
            segment_bytes: self.segment_bytes,
            segment_ms: i64::MAX,
            max_message_bytes: self.segment_bytes,
            delete: true,
            compact: true,
            retention_ms: self.keep_for.map_or(-1, |age| signed(age.as_millis())),
            retention_bytes: self.keep_bytes.map_or(-1, |bytes| signed(bytes.into())),
            delete_retention_ms: signed(self.keep_removals_for.as_millis()),
            min_compaction_lag_ms: 0,
            flush_messages: if self.sync_each_append { 1 } else { i64::MAX },
            file_delete_delay_ms: 0,
            ..LogConfig::default()
        })
    }
}
