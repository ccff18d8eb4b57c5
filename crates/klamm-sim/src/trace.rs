use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Lines kept for the report of a failure.
const LINES_KEPT: usize = 1000;

/// What happened in a run, as a hash over all of it and its last lines. Clones share it.
#[derive(Clone, Default)]
pub struct Trace(Arc<Mutex<State>>);

struct State {
    hash: u64,
    count: u64,
    lines: VecDeque<String>,
}

impl Default for State {
    fn default() -> State {
        State {
            // FNV-1a, 64 bit: not for secrets, the same on every platform.
            hash: 0xcbf2_9ce4_8422_2325,
            count: 0,
            lines: VecDeque::new(),
        }
    }
}

impl Trace {
    /// An empty trace.
    pub fn new() -> Trace {
        Trace::default()
    }

    /// Takes down a line.
    pub fn note(&self, line: impl fmt::Display) {
        let line = line.to_string();
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for byte in line.bytes().chain([b'\n']) {
            state.hash = (state.hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        state.count += 1;
        if state.lines.len() == LINES_KEPT {
            state.lines.pop_front();
        }
        state.lines.push_back(line);
    }

    /// Hash over all lines so far.
    pub fn hash(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).hash
    }

    /// Lines so far.
    pub fn len(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).count
    }

    /// Whether nothing was taken down.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The last lines, oldest first.
    pub fn tail(&self, lines: usize) -> Vec<String> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let skip = state.lines.len().saturating_sub(lines);
        state.lines.iter().skip(skip).cloned().collect()
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Trace({} lines, {:016x})", self.len(), self.hash())
    }
}

/// A short stand-in for bytes in a trace.
pub(crate) fn digest(bytes: &[u8]) -> u64 {
    let mut hash = bytes.len() as u64;
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash ^= hash >> 29;
    }
    hash
}
