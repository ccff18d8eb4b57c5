//! `partition.metadata`: which topic id a partition's directory belongs to.

use std::io;
use std::path::Path;

use klamm_env::{FileExt, Fs, FsExt, OpenMode};
use klamm_records::Uuid;

use crate::batch::HEADER_LEN;
use crate::error::{FileProblem, IoContext, LogError};
use crate::names::{self, FileKind, PARTITION_METADATA};

/// Reads the topic id of a partition's directory; none if the file is missing.
///
/// # Errors
/// [`LogError::MalformedFile`] or [`LogError::Io`].
pub fn read(fs: &dyn Fs, dir: &Path) -> Result<Option<Uuid>, LogError> {
    let path = dir.join(PARTITION_METADATA);
    let content = match fs.read(&path) {
        Ok(content) => content,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).at("read", &path),
    };
    parse(&String::from_utf8_lossy(&content))
        .map(Some)
        .map_err(|problem| LogError::MalformedFile {
            file: path,
            problem,
        })
}

fn parse(text: &str) -> Result<Uuid, FileProblem> {
    let mut lines = text.lines();
    let mut value = |key: &'static str| {
        let line = lines.next().ok_or(FileProblem::MissingKey(key))?;
        match line.split_once(':') {
            Some((name, value)) if name == key => Ok(value.trim()),
            _ => Err(FileProblem::MissingKey(key)),
        }
    };
    let invalid = |key, value: &str| FileProblem::Value {
        key,
        value: value.to_owned(),
    };
    let version = value("version")?;
    match version.parse() {
        Ok(0_i64) => {}
        Ok(other) => return Err(FileProblem::Version(other)),
        Err(_) => return Err(invalid("version", version)),
    }
    let id = value("topic_id")?;
    match id.parse::<Uuid>() {
        Ok(id) if !id.is_zero() => Ok(id),
        _ => Err(invalid("topic_id", id)),
    }
}

/// What is known of the file of a directory that a crash may have left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// The topic id, or that there is no file.
    Sound(Option<Uuid>),
    /// A file that was torn before the first batch was to make it durable. It was removed; that is
    /// durable once the directory is synced.
    Removed,
}

/// Reads the topic id as [`read`] does, but for a malformed file as long as there are no batches.
///
/// # Errors
/// Those of [`read`].
pub(crate) fn read_after_crash(fs: &dyn Fs, dir: &Path) -> Result<Found, LogError> {
    match read(fs, dir) {
        Err(LogError::MalformedFile { file, .. }) if !has_batches(fs, dir)? => {
            fs.remove_file(&file).at("remove", &file)?;
            Ok(Found::Removed)
        }
        found => found.map(Found::Sound),
    }
}

/// Whether a segment holds anything but the zeros of a preallocated file.
fn has_batches(fs: &dyn Fs, dir: &Path) -> Result<bool, LogError> {
    for entry in fs.read_dir(dir).at("list", dir)? {
        let parsed = names::parse_file_name(&entry.name);
        if parsed.is_none_or(|(_, kind, _)| kind != FileKind::Log) {
            continue;
        }
        let path = dir.join(&entry.name);
        let file = fs.open(&path, OpenMode::Read).at("open", &path)?;
        let mut header = [0; HEADER_LEN];
        let len = file.read_at(&mut header, 0).at("read", &path)?;
        if header[..len].iter().any(|&byte| byte != 0) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Writes the topic id of a partition's directory, such that a crash leaves all of it or nothing.
///
/// # Errors
/// [`LogError::Io`].
pub fn write(fs: &dyn Fs, dir: &Path, topic_id: Uuid) -> Result<(), LogError> {
    let path = dir.join(PARTITION_METADATA);
    fs.write_atomically(&path, content(topic_id).as_bytes())
        .at("write", &path)
}

/// The same without waiting for the disk: for a directory that never had batches, where
/// [`read_after_crash`] passes over what a crash leaves of the file.
pub(crate) fn note(fs: &dyn Fs, dir: &Path, topic_id: Uuid) -> Result<(), LogError> {
    let path = dir.join(PARTITION_METADATA);
    let file = fs.open(&path, OpenMode::Truncate).at("create", &path)?;
    file.write_all_at(content(topic_id).as_bytes(), 0)
        .at("write", &path)
}

/// Makes what was noted durable, once the directory is synced, too. The file is not written again:
/// a directory that seems to have no batches may have had some, which a power cut can bring back.
pub(crate) fn settle(fs: &dyn Fs, dir: &Path) -> Result<(), LogError> {
    let path = dir.join(PARTITION_METADATA);
    let file = fs.open(&path, OpenMode::Write).at("open", &path)?;
    file.sync_all().at("sync", &path)
}

fn content(topic_id: Uuid) -> String {
    format!("version: 0\ntopic_id: {topic_id}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::TestDir;

    #[test]
    fn round_trips_in_kafkas_form() {
        let dir = TestDir::new();
        assert_eq!(read(&*dir.env.fs, dir.path()).unwrap(), None);
        let id: Uuid = "5Fpt6Mw1Tn2BYvFDbzwMXA".parse().unwrap();
        write(&*dir.env.fs, dir.path(), id).unwrap();
        let content = dir
            .env
            .fs
            .read(&dir.path().join(PARTITION_METADATA))
            .unwrap();
        assert_eq!(content, b"version: 0\ntopic_id: 5Fpt6Mw1Tn2BYvFDbzwMXA");
        assert_eq!(read(&*dir.env.fs, dir.path()).unwrap(), Some(id));
    }

    #[test]
    fn rejects_malformed_files() {
        assert_eq!(parse(""), Err(FileProblem::MissingKey("version")));
        assert_eq!(parse("version: 1\n"), Err(FileProblem::Version(1)));
        assert_eq!(
            parse("version: 0\n"),
            Err(FileProblem::MissingKey("topic_id"))
        );
        for id in ["", "AAAAAAAAAAAAAAAAAAAAAA", "not an id"] {
            assert!(matches!(
                parse(&format!("version: 0\ntopic_id: {id}")),
                Err(FileProblem::Value {
                    key: "topic_id",
                    ..
                })
            ));
        }
    }
}
