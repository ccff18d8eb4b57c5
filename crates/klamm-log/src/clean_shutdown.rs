//! `.kafka_cleanshutdown`: present in a log directory exactly while every log in it was closed
//! in order.

use std::io;
use std::path::Path;

use klamm_env::{Fs, FsExt, OpenMode};

use crate::error::{IoContext, LogError};

/// Name of the marker, in a log directory.
pub const CLEAN_SHUTDOWN_FILE: &str = ".kafka_cleanshutdown";

/// What the marker says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleanShutdown {
    /// Epoch the broker was registered with; none if the file does not say.
    pub broker_epoch: Option<i64>,
}

/// Takes the marker away, durably, and returns what it said; none if there was none. Called
/// before any log is touched, so that a crash while opening counts as unclean.
///
/// # Errors
/// [`LogError::Io`].
pub fn take(fs: &dyn Fs, dir: &Path) -> Result<Option<CleanShutdown>, LogError> {
    let path = dir.join(CLEAN_SHUTDOWN_FILE);
    let content = match fs.read(&path) {
        Ok(content) => content,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).at("read", &path),
    };
    fs.remove_file(&path).at("remove", &path)?;
    fs.sync_dir(dir).at("sync", dir)?;
    Ok(Some(CleanShutdown {
        broker_epoch: parse_broker_epoch(&String::from_utf8_lossy(&content)),
    }))
}

/// Writes the marker durably.
///
/// # Errors
/// [`LogError::Io`].
pub fn write(fs: &dyn Fs, dir: &Path, broker_epoch: i64) -> Result<(), LogError> {
    let path = dir.join(CLEAN_SHUTDOWN_FILE);
    let content = format!("{{\"version\":0,\"brokerEpoch\":{broker_epoch}}}");
    let file = fs.open(&path, OpenMode::Truncate).at("create", &path)?;
    klamm_env::FileExt::write_all_at(&*file, content.as_bytes(), 0).at("write", &path)?;
    file.sync_all().at("sync", &path)?;
    fs.sync_dir(dir).at("sync", dir)
}

/// The number after `"brokerEpoch":`. The file is one flat object of numbers, so this needs no
/// JSON parser; what does not fit counts as unknown, as in Kafka.
fn parse_broker_epoch(json: &str) -> Option<i64> {
    let (_, rest) = json.split_once("\"brokerEpoch\"")?;
    let rest = rest.trim_start().strip_prefix(':')?.trim_start();
    let end = rest
        .find(|c: char| !(c.is_ascii_digit() || c == '-'))
        .unwrap_or(rest.len());
    rest[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::TestDir;

    #[test]
    fn is_taken_once() {
        let dir = TestDir::new();
        assert_eq!(take(&*dir.env.fs, dir.path()).unwrap(), None);
        write(&*dir.env.fs, dir.path(), 42).unwrap();
        let content = dir
            .env
            .fs
            .read(&dir.path().join(CLEAN_SHUTDOWN_FILE))
            .unwrap();
        assert_eq!(content, b"{\"version\":0,\"brokerEpoch\":42}");
        let taken = take(&*dir.env.fs, dir.path()).unwrap();
        assert_eq!(
            taken,
            Some(CleanShutdown {
                broker_epoch: Some(42)
            })
        );
        assert_eq!(take(&*dir.env.fs, dir.path()).unwrap(), None);
    }

    #[test]
    fn reads_other_forms_leniently() {
        assert_eq!(
            parse_broker_epoch("{ \"brokerEpoch\" : -1, \"version\": 0 }"),
            Some(-1)
        );
        assert_eq!(parse_broker_epoch(""), None);
        assert_eq!(parse_broker_epoch("{\"brokerEpoch\":null}"), None);
    }
}
