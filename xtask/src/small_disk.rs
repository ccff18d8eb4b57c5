//! A file system so small that it can be filled.

use crate::Result;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A mounted file system in memory; dropping it unmounts it.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    pub fn mount(at: &Path, mib: usize) -> Result<SmallDisk> {
        fs::create_dir_all(at)?;
        let out = Command::new("mount")
            .args(["-t", "tmpfs", "-o"])
            .arg(format!("size={mib}m"))
            .arg("klamm-small-disk")
            .arg(at)
            .output()?;
        if !out.status.success() {
            return Err("no file system may be mounted here".into());
        }
        Ok(SmallDisk(at.to_path_buf()))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Takes all the room that is left.
    pub fn fill(&self) -> Result<()> {
        let mut file = File::create(self.ballast())?;
        let mut piece = vec![0xa5; 64 << 10];
        while !piece.is_empty() {
            match file.write_all(&piece) {
                Ok(()) => {}
                // Down to the last page.
                Err(_) => piece.truncate(piece.len() / 2),
            }
        }
        Ok(())
    }

    /// Gives it back.
    pub fn relieve(&self) -> Result<()> {
        Ok(fs::remove_file(self.ballast())?)
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
