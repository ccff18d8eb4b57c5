//! Kafka's checkpoint files: a version, a count, then one entry a line. Replaced atomically.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::Path;

use klamm_env::{Fs, FsExt};
use klamm_records::TopicPartition;

use crate::error::{FileProblem, IoContext, LogError};

/// Offsets up to which each log is known to be on disk.
pub const RECOVERY_POINT: &str = "recovery-point-offset-checkpoint";
/// First offsets of logs whose start lies above their first segment's.
pub const LOG_START: &str = "log-start-offset-checkpoint";
/// High watermarks.
pub const HIGH_WATERMARK: &str = "replication-offset-checkpoint";
/// Offsets up to which each log is compacted.
pub const CLEANER: &str = "cleaner-offset-checkpoint";

const VERSION: i64 = 0;

/// An offset for each of some partitions: the content of the checkpoint files of a log directory.
pub type PartitionOffsets = BTreeMap<TopicPartition, i64>;

/// Reads a checkpoint of a log directory. A missing or empty file has no entries.
///
/// # Errors
/// [`LogError::MalformedFile`] or [`LogError::Io`].
pub fn read_offsets(fs: &dyn Fs, path: &Path) -> Result<PartitionOffsets, LogError> {
    let entries = read_lines(fs, path, |line| {
        let mut fields = line.split_whitespace();
        let topic = fields.next()?;
        let partition = fields.next()?.parse().ok()?;
        let offset = fields.next()?.parse().ok()?;
        fields
            .next()
            .is_none()
            .then(|| (TopicPartition::new(topic, partition), offset))
    })?;
    Ok(entries.into_iter().collect())
}

/// Replaces a checkpoint of a log directory.
///
/// # Errors
/// [`LogError::Io`]; the old content stays.
pub fn write_offsets(fs: &dyn Fs, path: &Path, offsets: &PartitionOffsets) -> Result<(), LogError> {
    write_lines(
        fs,
        path,
        offsets.iter().map(|(partition, offset)| {
            format!("{} {} {offset}", partition.topic, partition.partition)
        }),
    )
}

/// Reads the leader epochs of a partition as pairs of epoch and start offset.
pub(crate) fn read_epochs(fs: &dyn Fs, path: &Path) -> Result<Vec<(i32, i64)>, LogError> {
    read_lines(fs, path, |line| {
        let mut fields = line.split_whitespace();
        let epoch = fields.next()?.parse().ok()?;
        let start = fields.next()?.parse().ok()?;
        fields.next().is_none().then_some((epoch, start))
    })
}

/// Replaces the leader epochs of a partition.
pub(crate) fn write_epochs(
    fs: &dyn Fs,
    path: &Path,
    epochs: impl ExactSizeIterator<Item = (i32, i64)>,
) -> Result<(), LogError> {
    write_lines(
        fs,
        path,
        epochs.map(|(epoch, start)| format!("{epoch} {start}")),
    )
}

fn read_lines<T>(
    fs: &dyn Fs,
    path: &Path,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Vec<T>, LogError> {
    let content = match fs.read(path) {
        Ok(content) => content,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).at("read", path),
    };
    let malformed = |problem| LogError::MalformedFile {
        file: path.to_owned(),
        problem,
    };
    let text = std::str::from_utf8(&content).map_err(|_| malformed(FileProblem::Line(1)))?;
    let mut lines = text.lines();
    // Kafka creates the file empty and takes a lone version line as empty too.
    let (Some(version), Some(count)) = (lines.next(), lines.next()) else {
        return Ok(Vec::new());
    };
    let version: i64 = version
        .parse()
        .map_err(|_| malformed(FileProblem::Line(1)))?;
    if version != VERSION {
        return Err(malformed(FileProblem::Version(version)));
    }
    let expected: usize = count.parse().map_err(|_| malformed(FileProblem::Line(2)))?;
    let mut entries = Vec::new();
    for (index, line) in lines.enumerate() {
        entries.push(parse(line).ok_or_else(|| malformed(FileProblem::Line(index + 3)))?);
    }
    if entries.len() == expected {
        Ok(entries)
    } else {
        Err(malformed(FileProblem::EntryCount {
            expected,
            found: entries.len(),
        }))
    }
}

fn write_lines(
    fs: &dyn Fs,
    path: &Path,
    lines: impl ExactSizeIterator<Item = String>,
) -> Result<(), LogError> {
    let mut content = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(content, "{VERSION}\n{}", lines.len());
    for line in lines {
        content.push_str(&line);
        content.push('\n');
    }
    fs.write_atomically(path, content.as_bytes())
        .at("write", path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::TestDir;

    fn read(content: &str) -> Result<PartitionOffsets, LogError> {
        let dir = TestDir::new();
        let path = dir.path().join(RECOVERY_POINT);
        dir.env
            .fs
            .write_atomically(&path, content.as_bytes())
            .unwrap();
        read_offsets(&*dir.env.fs, &path)
    }

    #[test]
    fn offsets_are_written_as_kafka_does() {
        let dir = TestDir::new();
        let path = dir.path().join(HIGH_WATERMARK);
        let offsets = PartitionOffsets::from([
            (TopicPartition::new("b", 0), 7),
            (TopicPartition::new("a", 10), i64::MAX),
        ]);
        write_offsets(&*dir.env.fs, &path, &offsets).unwrap();
        assert_eq!(
            dir.env.fs.read(&path).unwrap(),
            b"0\n2\na 10 9223372036854775807\nb 0 7\n"
        );
        assert_eq!(read_offsets(&*dir.env.fs, &path).unwrap(), offsets);
    }

    #[test]
    fn missing_and_empty_files_have_no_entries() {
        let dir = TestDir::new();
        assert!(
            read_offsets(&*dir.env.fs, &dir.path().join("none"))
                .unwrap()
                .is_empty()
        );
        assert!(read("").unwrap().is_empty());
        assert!(read("0\n").unwrap().is_empty());
        assert!(read("0\n0\n").unwrap().is_empty());
    }

    #[test]
    fn rejects_malformed_files() {
        let problem = |content: &str| match read(content) {
            Err(LogError::MalformedFile { problem, .. }) => problem,
            other => panic!("{other:?}"),
        };
        assert_eq!(problem("1\n0\n"), FileProblem::Version(1));
        assert_eq!(problem("x\n0\n"), FileProblem::Line(1));
        assert_eq!(problem("0\n-1\n"), FileProblem::Line(2));
        assert_eq!(problem("0\n1\na b 3\n"), FileProblem::Line(3));
        assert_eq!(problem("0\n1\na 0 3 4\n"), FileProblem::Line(3));
        assert_eq!(
            problem("0\n2\na 0 3\n"),
            FileProblem::EntryCount {
                expected: 2,
                found: 1
            }
        );
    }

    #[test]
    fn epochs_are_written_as_kafka_does() {
        let dir = TestDir::new();
        let path = dir.path().join("leader-epoch-checkpoint");
        write_epochs(&*dir.env.fs, &path, vec![(0, 0), (5, 100)].into_iter()).unwrap();
        assert_eq!(dir.env.fs.read(&path).unwrap(), b"0\n2\n0 0\n5 100\n");
        assert_eq!(
            read_epochs(&*dir.env.fs, &path).unwrap(),
            [(0, 0), (5, 100)]
        );
    }
}
