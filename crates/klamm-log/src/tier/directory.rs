//! A tier in a directory: a file system that is not the log's, such as a network share or a large
//! and slow disk.
//!
//! One directory holds one partition's segments, each as a handful of files:
//!
//! ```text
//! 00000000000000000000-<id>.log  .index  .timeindex  .txnindex  .snapshot  .leader-epoch-checkpoint
//! 00000000000000000000-<id>.segment      what is known of it, a line for each fact
//! ```
//!
//! The data of a segment is durable, names included, before the tier says so; what is known of it is
//! replaced as a whole. Whoever is killed or loses power in between leaves a segment that was begun
//! and not finished, which [`RemoteLog::tidy`](crate::tier::RemoteLog::tidy) removes. Brokers share
//! the directory: only the leader of a partition writes there.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use klamm_env::{File, FileExt as _, Fs, FsExt as _, OpenMode};
use klamm_records::crc;

use crate::tier::{
    IndexKind, RemoteMetadata, RemoteSegment, RemoteSegmentState, RemoteStorage, SegmentData,
    TierError,
};

/// End of the name of the file that holds what is known of a segment.
const FACTS: &str = ".segment";
/// That file while it is written.
const FACTS_BEGUN: &str = ".segment.tmp";
const LOG: &str = ".log";
/// The form of that file.
const VERSION: &str = "1";
/// Bytes that are copied at a time.
const COPY_BYTES: usize = 1 << 20;

const INDEXES: [(IndexKind, &str); 5] = [
    (IndexKind::Offset, ".index"),
    (IndexKind::Timestamp, ".timeindex"),
    (IndexKind::Transaction, ".txnindex"),
    (IndexKind::ProducerSnapshot, ".snapshot"),
    (IndexKind::LeaderEpoch, ".leader-epoch-checkpoint"),
];

const STATES: [(RemoteSegmentState, &str); 3] = [
    (RemoteSegmentState::CopyStarted, "COPY_SEGMENT_STARTED"),
    (RemoteSegmentState::CopyFinished, "COPY_SEGMENT_FINISHED"),
    (RemoteSegmentState::DeleteStarted, "DELETE_SEGMENT_STARTED"),
];

/// Remote storage of one partition, and its metadata, in a directory.
#[derive(Debug)]
pub struct DirectoryTier {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
}

fn failed(error: io::Error) -> TierError {
    TierError::Failed(Box::new(error))
}

impl DirectoryTier {
    /// The tier in `dir`, which is created with its parents if it is not there.
    ///
    /// # Errors
    /// The file system's.
    pub fn open(fs: Arc<dyn Fs>, dir: impl Into<PathBuf>) -> Result<DirectoryTier, TierError> {
        let dir = dir.into();
        let tier = DirectoryTier { fs, dir };
        tier.create().map_err(failed)?;
        Ok(tier)
    }

    fn create(&self) -> io::Result<()> {
        // One that was made and is empty may have been left before its name was made durable.
        if self.fs.exists(&self.dir)? && !self.fs.read_dir(&self.dir)?.is_empty() {
            return Ok(());
        }
        self.fs.create_dir_all(&self.dir)?;
        // Their names, from the new one up, as far as there are any: parents may be as new.
        for dir in self.dir.ancestors().skip(1) {
            if dir.as_os_str().is_empty() {
                break;
            }
            self.fs.sync_dir(dir)?;
        }
        Ok(())
    }

    fn path(&self, segment: &RemoteSegment, suffix: &str) -> PathBuf {
        self.dir.join(format!("{}{suffix}", stem(segment)))
    }

    fn write(&self, path: &Path, fill: impl FnOnce(&dyn File) -> io::Result<()>) -> io::Result<()> {
        let file = self.fs.open(path, OpenMode::Truncate)?;
        fill(&*file)?;
        file.sync_all()
    }

    fn copy(&self, segment: &RemoteSegment, data: &SegmentData) -> io::Result<()> {
        self.write(&self.path(segment, LOG), |to| {
            let mut buffer = vec![0; COPY_BYTES.min(data.log.len)];
            let mut done = 0;
            while done < data.log.len {
                let len = buffer.len().min(data.log.len - done);
                let (part, at) = (&mut buffer[..len], done as u64);
                data.log.file.read_exact_at(part, data.log.position + at)?;
                to.write_all_at(part, at)?;
                done += len;
            }
            Ok(())
        })?;
        for (kind, bytes) in &data.indexes {
            self.write(&self.path(segment, suffix_of(*kind)), |to| {
                to.write_all_at(bytes, 0)
            })?;
        }
        self.fs.sync_dir(&self.dir)
    }

    fn open_file(&self, segment: &RemoteSegment, suffix: &str) -> Result<Arc<dyn File>, TierError> {
        let path = self.path(segment, suffix);
        match self.fs.open(&path, OpenMode::Read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(TierError::NotFound(segment.id))
            }
            opened => opened.map_err(failed),
        }
    }

    /// Removes a segment's files; `facts` tells whether that of its facts goes, too.
    fn remove(&self, segment: &RemoteSegment, facts: bool) -> io::Result<()> {
        let data = INDEXES.iter().map(|(_, suffix)| *suffix).chain([LOG]);
        let suffixes = data.filter(|_| !facts);
        let suffixes = suffixes.chain([FACTS, FACTS_BEGUN].into_iter().filter(|_| facts));
        for suffix in suffixes {
            match self.fs.remove_file(&self.path(segment, suffix)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                result => result?,
            }
        }
        // Also if there was nothing left to remove: an earlier try may have failed before its names
        // were gone for good, and the facts must not go before the data does.
        self.fs.sync_dir(&self.dir)
    }
}

impl RemoteStorage for DirectoryTier {
    fn copy_segment(&self, segment: &RemoteSegment, data: &SegmentData) -> Result<(), TierError> {
        self.copy(segment, data).map_err(failed)
    }

    fn fetch_segment(
        &self,
        segment: &RemoteSegment,
        from: u64,
        to: u64,
    ) -> Result<Vec<u8>, TierError> {
        let file = self.open_file(segment, LOG)?;
        let end = to.min(file.len().map_err(failed)?).max(from);
        let len = usize::try_from(end - from).map_err(|error| TierError::Failed(error.into()))?;
        let mut bytes = vec![0; len];
        let read = file.read_up_to_at(&mut bytes, from).map_err(failed)?;
        bytes.truncate(read);
        Ok(bytes)
    }

    fn fetch_index(&self, segment: &RemoteSegment, kind: IndexKind) -> Result<Vec<u8>, TierError> {
        let file = self.open_file(segment, suffix_of(kind))?;
        let len = file.len().map_err(failed)?;
        let len = usize::try_from(len).map_err(|error| TierError::Failed(error.into()))?;
        let mut bytes = vec![0; len];
        let read = file.read_up_to_at(&mut bytes, 0).map_err(failed)?;
        bytes.truncate(read);
        Ok(bytes)
    }

    fn delete_segment(&self, segment: &RemoteSegment) -> Result<(), TierError> {
        self.remove(segment, false).map_err(failed)
    }
}

impl RemoteMetadata for DirectoryTier {
    fn put(&self, segment: &RemoteSegment) -> Result<(), TierError> {
        if segment.state == RemoteSegmentState::DeleteFinished {
            return self.remove(segment, true).map_err(failed);
        }
        self.fs
            .write_atomically(&self.path(segment, FACTS), facts(segment).as_bytes())
            .map_err(failed)
    }

    fn list(&self) -> Result<Vec<RemoteSegment>, TierError> {
        let mut segments = Vec::new();
        for entry in self.fs.read_dir(&self.dir).map_err(failed)? {
            if !entry.name.ends_with(FACTS) {
                continue;
            }
            let path = self.dir.join(&entry.name);
            let content = match self.fs.read(&path) {
                // The leader has just removed it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                content => content.map_err(failed)?,
            };
            let read = std::str::from_utf8(&content).ok().and_then(parse);
            let Some(segment) = read else {
                let what = format!("{} is damaged", path.display());
                return Err(failed(io::Error::new(io::ErrorKind::InvalidData, what)));
            };
            segments.push(segment);
        }
        // Facts that were replaced and not synced, by one who failed or was killed there, must not
        // be taken back: local segments go by what is told here.
        self.fs.sync_dir(&self.dir).map_err(failed)?;
        Ok(segments)
    }
}

/// What the names of a segment's files begin with.
fn stem(segment: &RemoteSegment) -> String {
    let mut stem = format!("{:020}-", segment.start_offset);
    for byte in segment.id.as_bytes() {
        // Writing to a string cannot fail.
        let _ = write!(stem, "{byte:02x}");
    }
    stem
}

fn suffix_of(kind: IndexKind) -> &'static str {
    let of = INDEXES.iter().find(|(of, _)| *of == kind);
    of.map_or(".unknown", |(_, suffix)| suffix)
}

/// A segment as its file has it; the last line is the CRC-32C of those above.
fn facts(segment: &RemoteSegment) -> String {
    let state = STATES.iter().find(|(state, _)| *state == segment.state);
    let state = state.map_or("", |(_, name)| name);
    let epochs: Vec<String> = segment
        .epochs
        .iter()
        .map(|(epoch, start)| format!("{epoch}:{start}"))
        .collect();
    let text = format!(
        "version={VERSION}\nid={}\nstart_offset={}\nend_offset={}\nmax_timestamp_ms={}\nbytes={}\n\
         epochs={}\nstate={state}\n",
        segment.id,
        segment.start_offset,
        segment.end_offset,
        segment.max_timestamp_ms,
        segment.bytes,
        epochs.join(","),
    );
    let checksum = crc::crc32c(text.as_bytes());
    format!("{text}crc={checksum:08x}\n")
}

fn parse(content: &str) -> Option<RemoteSegment> {
    let at = content.rfind("crc=")?;
    let (text, checksum) = content.split_at(at);
    let checksum = checksum.strip_prefix("crc=")?.strip_suffix('\n')?;
    if u32::from_str_radix(checksum, 16).ok()? != crc::crc32c(text.as_bytes()) {
        return None;
    }
    let mut lines = text.lines();
    let mut value = |key: &str| lines.next()?.strip_prefix(key)?.strip_prefix('=');
    if value("version")? != VERSION {
        return None;
    }
    Some(RemoteSegment {
        id: value("id")?.parse().ok()?,
        start_offset: value("start_offset")?.parse().ok()?,
        end_offset: value("end_offset")?.parse().ok()?,
        max_timestamp_ms: value("max_timestamp_ms")?.parse().ok()?,
        bytes: value("bytes")?.parse().ok()?,
        epochs: parse_epochs(value("epochs")?)?,
        state: {
            let name = value("state")?;
            STATES.iter().find(|(_, of)| *of == name)?.0
        },
    })
}

fn parse_epochs(text: &str) -> Option<Vec<(i32, i64)>> {
    let pairs = text.split(',').filter(|pair| !pair.is_empty());
    let pair = |pair: &str| {
        let (epoch, start) = pair.split_once(':')?;
        Some((epoch.parse().ok()?, start.parse().ok()?))
    };
    pairs.map(pair).collect()
}

#[cfg(test)]
mod tests {
    use klamm_records::Uuid;

    use super::*;
    use crate::log::LogSlice;
    use crate::test_support::TestDir;

    fn segment(state: RemoteSegmentState) -> RemoteSegment {
        RemoteSegment {
            id: Uuid::from_bytes([7; 16]),
            start_offset: 40,
            end_offset: 90,
            max_timestamp_ms: -1,
            bytes: 5,
            epochs: vec![(0, 40), (3, 77)],
            state,
        }
    }

    fn data(dir: &TestDir) -> SegmentData {
        let path = dir.path().join("source");
        let file = dir.env.fs.open(&path, OpenMode::Truncate).unwrap();
        file.write_all_at(b"0batch", 0).unwrap();
        SegmentData {
            log: LogSlice {
                file,
                position: 1,
                len: 5,
            },
            indexes: vec![(IndexKind::Offset, b"index".to_vec())],
        }
    }

    #[test]
    fn what_is_known_of_a_segment_is_read_back() {
        for (state, _) in STATES {
            let segment = segment(state);
            let text = facts(&segment);
            assert_eq!(parse(&text), Some(segment.clone()));
            for len in 0..text.len() {
                assert_eq!(parse(&text[..len]), None);
            }
            assert_eq!(
                parse(&text.replace("start_offset=40", "start_offset=41")),
                None
            );
        }
        let mut none = segment(RemoteSegmentState::CopyFinished);
        none.epochs.clear();
        assert_eq!(parse(&facts(&none)), Some(none));
    }

    #[test]
    fn a_segment_comes_and_goes() {
        let dir = TestDir::new();
        let tier = DirectoryTier::open(dir.env.fs.clone(), dir.path().join("a/b")).unwrap();
        let mut segment = segment(RemoteSegmentState::CopyStarted);
        tier.put(&segment).unwrap();
        assert!(matches!(
            tier.fetch_segment(&segment, 0, 9),
            Err(TierError::NotFound(_))
        ));
        tier.copy_segment(&segment, &data(&dir)).unwrap();
        segment.state = RemoteSegmentState::CopyFinished;
        tier.put(&segment).unwrap();
        // Another broker sees it, too.
        let tier = DirectoryTier::open(dir.env.fs.clone(), dir.path().join("a/b")).unwrap();
        assert_eq!(tier.list().unwrap(), [segment.clone()]);
        assert_eq!(tier.fetch_segment(&segment, 1, 3).unwrap(), b"at");
        assert_eq!(tier.fetch_segment(&segment, 1, 300).unwrap(), b"atch");
        assert_eq!(tier.fetch_segment(&segment, 9, 12).unwrap(), b"");
        assert_eq!(
            tier.fetch_index(&segment, IndexKind::Offset).unwrap(),
            b"index"
        );
        assert!(tier.fetch_index(&segment, IndexKind::Timestamp).is_err());
        segment.state = RemoteSegmentState::DeleteStarted;
        tier.put(&segment).unwrap();
        tier.delete_segment(&segment).unwrap();
        tier.delete_segment(&segment).unwrap();
        segment.state = RemoteSegmentState::DeleteFinished;
        tier.put(&segment).unwrap();
        assert_eq!(tier.list().unwrap(), []);
        assert!(
            dir.env
                .fs
                .read_dir(&dir.path().join("a/b"))
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn damaged_facts_are_told_of() {
        let dir = TestDir::new();
        let tier = DirectoryTier::open(dir.env.fs.clone(), dir.path().join("a")).unwrap();
        let segment = segment(RemoteSegmentState::CopyFinished);
        tier.put(&segment).unwrap();
        let path = tier.path(&segment, FACTS);
        dir.truncate(&path, 30);
        assert!(matches!(tier.list(), Err(TierError::Failed(_))));
    }
}
