//! Wall clocks of their own for the nodes, which can be set while they run. `clock.c` says how.

use crate::{Result, cache};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What the processes of a cluster see of time, by node.
pub struct Clocks {
    library: PathBuf,
    folder: PathBuf,
    offsets: BTreeMap<i32, File>,
}

impl Clocks {
    /// Compiles the library, with whatever compiler Rust uses for C as well.
    pub fn build(folder: &Path) -> Result<Clocks> {
        if !cache::has("cc") {
            return Err("cc, a C compiler, is not installed".into());
        }
        fs::create_dir_all(folder)?;
        let library = folder.join("clock.so");
        let out = Command::new("cc")
            .args(["-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o"])
            .arg(&library)
            .arg(cache::root().join("xtask/src/cluster/clock.c"))
            .arg("-ldl")
            .stdin(Stdio::null())
            .output()?;
        if !out.status.success() {
            let text = String::from_utf8_lossy(&out.stderr).into_owned();
            return Err(format!("clock.c does not compile: {text}").into());
        }
        Ok(Clocks {
            library,
            folder: folder.into(),
            offsets: BTreeMap::new(),
        })
    }

    /// Gives a node a clock that is right; what its command line begins with.
    pub fn add(&mut self, id: i32) -> Result<Vec<String>> {
        let path = self.folder.join(format!("clock-{id}"));
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)?;
        self.offsets.insert(id, file);
        self.set(id, 0)?;
        Ok(vec![
            "env".into(),
            format!("LD_PRELOAD={}", self.library.display()),
            format!("KLAMM_CLOCK_OFFSET={}", path.display()),
        ])
    }

    /// From now on a node's clock is off by so much.
    pub fn set(&self, id: i32, ms: i64) -> Result<()> {
        let file = self.offsets.get(&id).ok_or("it has no clock of its own")?;
        Ok(file.write_all_at(&ms.to_ne_bytes(), 0)?)
    }

    /// All are right again.
    pub fn heal(&self) -> Result<()> {
        self.offsets.keys().try_for_each(|id| self.set(*id, 0))
    }
}
