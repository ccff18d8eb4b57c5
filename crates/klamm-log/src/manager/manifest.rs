//! `klamm-manifest`: what an orderly shutdown knew of the logs of a directory, so that ten thousand
//! of them can be opened without reading their files. Kafka passes over it.
//!
//! It belongs to one clean-shutdown marker, by the time at which that was written: after Kafka has
//! had the directory there is another marker. It is written after the marker and removed before the
//! marker is, so that after an unclean stop there is none. Each log in it is then held against its
//! directory once more ([`KnownLog::is_of`]).
//!
//! Form: a magic number, a version, the marker's time, the number of logs, the logs; at the end the
//! CRC-32C of all before it. Numbers are big-endian.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use klamm_env::{Fs, FsExt};
use klamm_records::{Uuid, crc};

use crate::clean_shutdown::CLEAN_SHUTDOWN_FILE;
use crate::error::{IoContext, LogError};
use crate::index::time::TimestampOffset;
use crate::log::{KnownLog, KnownSegment};

/// Name of the file, in a log directory.
pub(crate) const MANIFEST_FILE: &str = "klamm-manifest";

const MAGIC: &[u8; 8] = b"klammdir";
const VERSION: u32 = 1;
const CRC_LEN: usize = 4;

/// The logs of a directory by the names of their own directories.
pub(super) type Manifest = BTreeMap<String, KnownLog>;

/// Takes the manifest away and returns what it says of the logs, if it belongs to the marker of a
/// clean shutdown that is there now. To be called before that is taken.
///
/// # Errors
/// The disk's. A manifest that is damaged counts as absent.
pub(super) fn take(fs: &dyn Fs, dir: &Path) -> Result<Manifest, LogError> {
    let path = dir.join(MANIFEST_FILE);
    let content = match fs.read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Manifest::new()),
        content => content.at("read", &path)?,
    };
    let marker_ms = marker_ms(fs, dir)?;
    fs.remove_file(&path).at("remove", &path)?;
    fs.sync_dir(dir).at("sync", dir)?;
    let found = decode(&content).filter(|(of_ms, _)| Some(*of_ms) == marker_ms);
    Ok(found.map_or_else(Manifest::new, |(_, manifest)| manifest))
}

/// Writes the manifest that belongs to the marker which is there.
///
/// # Errors
/// The disk's.
pub(super) fn write(fs: &dyn Fs, dir: &Path, manifest: &Manifest) -> Result<(), LogError> {
    let Some(marker_ms) = marker_ms(fs, dir)? else {
        return Ok(());
    };
    let path = dir.join(MANIFEST_FILE);
    fs.write_atomically(&path, &encode(marker_ms, manifest))
        .at("write", &path)
}

/// When the marker of a clean shutdown was written; none if there is none.
fn marker_ms(fs: &dyn Fs, dir: &Path) -> Result<Option<i64>, LogError> {
    let path = dir.join(CLEAN_SHUTDOWN_FILE);
    match fs.metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        found => Ok(Some(found.at("inspect", &path)?.modified_ms)),
    }
}

fn encode(marker_ms: i64, manifest: &Manifest) -> Vec<u8> {
    let mut to = Vec::with_capacity(64 + manifest.len() * 160);
    to.extend_from_slice(MAGIC);
    to.extend_from_slice(&VERSION.to_be_bytes());
    put(&mut to, marker_ms);
    put_len(&mut to, manifest.len());
    for (name, log) in manifest {
        put_bytes(&mut to, name.as_bytes());
        put(&mut to, log.modified_ms);
        to.extend_from_slice(log.topic_id.unwrap_or(Uuid::ZERO).as_bytes());
        put(&mut to, log.end);
        put_len(&mut to, log.segments.len());
        for segment in &log.segments {
            put(&mut to, segment.base_offset);
            put(&mut to, segment.size.cast_signed());
            put(&mut to, segment.modified_ms);
            to.push(segment.has_txn_index.into());
            to.push(segment.max_timestamp.is_some().into());
            if let Some(max) = segment.max_timestamp {
                put(&mut to, max.timestamp);
                put(&mut to, max.offset);
            }
        }
        put_len(&mut to, log.epochs.len());
        for &(epoch, start) in &log.epochs {
            put(&mut to, epoch.into());
            put(&mut to, start);
        }
        put_len(&mut to, log.snapshots.len());
        for &offset in &log.snapshots {
            put(&mut to, offset);
        }
        to.push(log.producers.is_some().into());
        if let Some(producers) = &log.producers {
            put_bytes(&mut to, producers);
        }
    }
    let checksum = crc::crc32c(&to);
    to.extend_from_slice(&checksum.to_be_bytes());
    to
}

fn put(to: &mut Vec<u8>, value: i64) {
    to.extend_from_slice(&value.to_be_bytes());
}

/// Lengths of what is in memory always fit.
fn put_len(to: &mut Vec<u8>, len: usize) {
    to.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
}

fn put_bytes(to: &mut Vec<u8>, bytes: &[u8]) {
    put_len(to, bytes.len());
    to.extend_from_slice(bytes);
}

/// The time of the marker that the manifest belongs to, and the logs; none if it is damaged or of
/// another version.
fn decode(content: &[u8]) -> Option<(i64, Manifest)> {
    let (body, checksum) = content.split_last_chunk::<CRC_LEN>()?;
    if u32::from_be_bytes(*checksum) != crc::crc32c(body) {
        return None;
    }
    let mut from = Reader(body.strip_prefix(MAGIC)?);
    if from.u32()? != VERSION {
        return None;
    }
    let marker_ms = from.i64()?;
    let mut manifest = Manifest::new();
    for _ in 0..from.u32()? {
        let name = String::from_utf8(from.bytes()?.to_vec()).ok()?;
        manifest.insert(name, from.log()?);
    }
    from.0.is_empty().then_some((marker_ms, manifest))
}

/// Reads what [`encode`] wrote.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_be_bytes)
    }

    fn flag(&mut self) -> Option<bool> {
        self.array::<1>().map(|[byte]| byte != 0)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.u32()?).ok()?;
        self.take(len)
    }

    /// As many entries as the number in front says.
    fn list<T>(&mut self, entry: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.u32()?;
        (0..count).map(|_| entry(self)).collect()
    }

    fn segment(&mut self) -> Option<KnownSegment> {
        Some(KnownSegment {
            base_offset: self.i64()?,
            size: self.i64()?.cast_unsigned(),
            modified_ms: self.i64()?,
            has_txn_index: self.flag()?,
            max_timestamp: if self.flag()? {
                Some(TimestampOffset {
                    timestamp: self.i64()?,
                    offset: self.i64()?,
                })
            } else {
                None
            },
        })
    }

    fn log(&mut self) -> Option<KnownLog> {
        let modified_ms = self.i64()?;
        let topic_id = Uuid::from_bytes(self.array()?);
        let log = KnownLog {
            modified_ms,
            topic_id: (!topic_id.is_zero()).then_some(topic_id),
            end: self.i64()?,
            segments: self.list(Reader::segment)?,
            epochs: self.list(|from| Some((i32::try_from(from.i64()?).ok()?, from.i64()?)))?,
            snapshots: self.list(Reader::i64)?,
            producers: if self.flag()? {
                Some(self.bytes()?.to_vec())
            } else {
                None
            },
        };
        (!log.segments.is_empty()).then_some(log)
    }
}

#[cfg(test)]
mod tests;
