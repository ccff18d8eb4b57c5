//! `partition.metadata`: which topic id a partition's directory belongs to.

use std::io;
use std::path::Path;

use klamm_env::{Fs, FsExt};
use klamm_records::Uuid;

use crate::error::{FileProblem, IoContext, LogError};
use crate::names::PARTITION_METADATA;

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

/// Writes the topic id of a partition's directory.
///
/// # Errors
/// [`LogError::Io`].
pub fn write(fs: &dyn Fs, dir: &Path, topic_id: Uuid) -> Result<(), LogError> {
    let path = dir.join(PARTITION_METADATA);
    let content = format!("version: 0\ntopic_id: {topic_id}");
    fs.write_atomically(&path, content.as_bytes())
        .at("write", &path)
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
