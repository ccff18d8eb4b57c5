//! What must never be forgotten: the vote, and up to where the log was purged.
//!
//! One file with two slots, written in turn. A slot holds a number that grows with each write, and
//! a checksum; the newer slot that is whole counts. A write that is torn by a crash leaves the
//! other slot, which holds the state before it: nothing was promised on the torn one yet.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use klamm_env::{File, FileExt, Fs, OpenMode};
use openraft::impls::leader_id_std::LeaderId;
use openraft::vote::RaftLeaderId;

use super::codec::{Reader, put_log_id};
use super::types::{LogId, NodeId, Vote};

/// Name of the file.
const FILE_NAME: &str = "hard-state";
/// Slots lie in blocks of their own, so that tearing one cannot harm the other.
const SLOT_LEN: u64 = 4096;
/// Directories that hold a name which may be new: of this file, of the directory of the Raft log, of
/// that of the metadata log. Nothing is promised before the first save, so that it is early enough.
const NEW_DIRS: usize = 3;
const MAGIC: &[u8; 8] = b"KLAMMHS1";

/// The state, as it was saved last.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct HardState {
    pub(super) vote: Option<Vote>,
    pub(super) purged: Option<LogId>,
}

/// The file that keeps a [`HardState`].
#[derive(Debug)]
pub(super) struct HardStateFile {
    file: Arc<dyn File>,
    serial: u64,
    state: HardState,
    /// The directory to be made durable, with its name, with the first save.
    dir: Option<(Arc<dyn Fs>, PathBuf)>,
}

impl HardStateFile {
    /// Opens the file in `dir`, or makes it.
    pub(super) fn open(fs: &Arc<dyn Fs>, dir: &Path) -> io::Result<Self> {
        let file = fs.open(&dir.join(FILE_NAME), OpenMode::Create)?;
        if file.is_empty()? {
            file.set_len(2 * SLOT_LEN)?;
        }
        // A file that a crash takes before the first vote held nothing yet; the first save makes
        // name and length durable along with the state.
        let mut newest = (0, HardState::default());
        let mut written = false;
        for slot in 0..2 {
            let mut block = vec![0; SLOT_LEN as usize];
            let len = file.read_up_to_at(&mut block, slot * SLOT_LEN)?;
            written |= block.iter().any(|byte| *byte != 0);
            if let Some((serial, state)) = decode(&block[..len])
                && serial > newest.0
            {
                newest = (serial, state);
            }
        }
        if written && newest.0 == 0 && !first_write_was_torn(&*file)? {
            let message = "both copies of the controller's vote are damaged";
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Ok(HardStateFile {
            file,
            serial: newest.0,
            state: newest.1,
            dir: (newest.0 == 0).then(|| (Arc::clone(fs), dir.to_owned())),
        })
    }

    pub(super) fn state(&self) -> HardState {
        self.state
    }

    /// Writes the state, durably.
    pub(super) fn save(&mut self, state: HardState) -> io::Result<()> {
        let serial = self.serial + 1;
        let content = encode(serial, &state);
        self.file.write_all_at(&content, (serial % 2) * SLOT_LEN)?;
        match self.dir.take() {
            Some((fs, dir)) => {
                self.file.sync_all()?;
                for dir in dir.ancestors().take(NEW_DIRS) {
                    fs.sync_dir(dir)?;
                }
            }
            None => self.file.sync_data()?,
        }
        self.serial = serial;
        self.state = state;
        Ok(())
    }
}

/// Whether only the first slot to be written (number 1) holds anything: then nothing was ever
/// saved, and a crash tore the first attempt.
fn first_write_was_torn(file: &dyn File) -> io::Result<bool> {
    let mut other = vec![0; SLOT_LEN as usize];
    file.read_up_to_at(&mut other, 0)?;
    Ok(other.iter().all(|byte| *byte == 0))
}

fn encode(serial: u64, state: &HardState) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend(serial.to_be_bytes());
    let vote = state.vote;
    out.push(u8::from(vote.is_some()));
    let (term, node, committed) = vote.map_or((0, NodeId(0), false), |v| {
        (v.leader_id.term, v.leader_id.voted_for, v.committed)
    });
    out.extend(term.to_be_bytes());
    out.extend(i64::from(node.0).to_be_bytes());
    out.push(u8::from(committed));
    put_log_id(&mut out, state.purged);
    out.extend(crc32fast::hash(&out).to_be_bytes());
    out
}

fn decode(block: &[u8]) -> Option<(u64, HardState)> {
    let len = encode(0, &HardState::default()).len();
    let (content, crc) = block.get(..len)?.split_last_chunk::<4>()?;
    if !content.starts_with(MAGIC) || crc32fast::hash(content).to_be_bytes() != *crc {
        return None;
    }
    let mut reader = Reader(&content[MAGIC.len()..]);
    let mut read = || -> io::Result<(u64, HardState)> {
        let serial = reader.u64()?;
        let present = reader.u8()? != 0;
        let (term, node) = (reader.u64()?, reader.u64()? as i64);
        let committed = reader.u8()? != 0;
        let leader_id = LeaderId::new(term, NodeId(i32::try_from(node).unwrap_or_default()));
        let vote = present.then_some(Vote {
            leader_id,
            committed,
        });
        Ok((
            serial,
            HardState {
                vote,
                purged: reader.log_id()?,
            },
        ))
    };
    read().ok()
}

#[cfg(test)]
mod tests {
    use klamm_env::Env;

    use super::super::types::log_id;
    use super::*;

    fn state(term: u64) -> HardState {
        let vote = Vote {
            leader_id: LeaderId::new(term, NodeId(7)),
            committed: term.is_multiple_of(2),
        };
        HardState {
            vote: Some(vote),
            purged: (term > 2).then(|| log_id(term, 12)),
        }
    }

    #[test]
    fn what_was_saved_last_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let fs = Env::os().fs;
        let mut file = HardStateFile::open(&fs, dir.path()).unwrap();
        assert_eq!(file.state(), HardState::default());
        for term in 1..6 {
            file.save(state(term)).unwrap();
            let again = HardStateFile::open(&fs, dir.path()).unwrap();
            assert_eq!(again.state(), state(term));
        }
    }

    #[test]
    fn a_torn_write_leaves_the_state_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let fs = Env::os().fs;
        let path = dir.path().join(FILE_NAME);
        let mut file = HardStateFile::open(&fs, dir.path()).unwrap();
        file.save(state(1)).unwrap();
        file.save(state(2)).unwrap();
        let whole = encode(3, &state(3));
        for kept in 0..whole.len() {
            let raw = fs.open(&path, OpenMode::Write).unwrap();
            raw.write_all_at(&whole[..kept], SLOT_LEN).unwrap();
            raw.write_all_at(&vec![0xff; whole.len() - kept], SLOT_LEN + kept as u64)
                .unwrap();
            let found = HardStateFile::open(&fs, dir.path()).unwrap();
            assert_eq!(found.state(), state(2), "{kept} bytes kept");
        }
    }

    #[test]
    fn a_torn_first_write_counts_as_none() {
        let dir = tempfile::tempdir().unwrap();
        let fs = Env::os().fs;
        HardStateFile::open(&fs, dir.path()).unwrap();
        let raw = fs
            .open(&dir.path().join(FILE_NAME), OpenMode::Write)
            .unwrap();
        raw.write_all_at(&encode(1, &state(1))[..20], SLOT_LEN)
            .unwrap();
        let found = HardStateFile::open(&fs, dir.path()).unwrap();
        assert_eq!(found.state(), HardState::default());
    }

    #[test]
    fn refuses_a_file_of_which_both_copies_are_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let fs = Env::os().fs;
        let mut file = HardStateFile::open(&fs, dir.path()).unwrap();
        file.save(state(1)).unwrap();
        file.save(state(2)).unwrap();
        let raw = fs
            .open(&dir.path().join(FILE_NAME), OpenMode::Write)
            .unwrap();
        raw.write_all_at(&[1], 30).unwrap();
        raw.write_all_at(&[1], SLOT_LEN + 30).unwrap();
        let error = HardStateFile::open(&fs, dir.path()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
