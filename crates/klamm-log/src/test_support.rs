//! Helpers of this crate's unit tests.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use klamm_env::{Env, ManualClock, OpenMode, OsFs, SplitMix64};

use crate::storage::LogDir;

/// A directory that vanishes with the value, with a clock that stands still and fixed randomness.
pub(crate) struct TestDir {
    dir: tempfile::TempDir,
    pub(crate) env: Env,
    pub(crate) clock: Arc<ManualClock>,
}

impl TestDir {
    pub(crate) fn new() -> TestDir {
        let clock = Arc::new(ManualClock::new(1_700_000_000_000));
        TestDir {
            dir: tempfile::tempdir().unwrap(),
            env: Env {
                clock: clock.clone(),
                rng: Arc::new(SplitMix64::new(42)),
                fs: Arc::new(OsFs),
            },
            clock,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn log_dir(&self) -> Arc<LogDir> {
        LogDir::new(self.env.fs.clone(), PathBuf::from(self.path()))
    }

    pub(crate) fn truncate(&self, path: &Path, len: u64) {
        let file = self.env.fs.open(path, OpenMode::Write).unwrap();
        file.set_len(len).unwrap();
    }
}
