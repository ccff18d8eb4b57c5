use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, PoisonError};

/// Lines kept for the report of a failure, unless more are asked for.
pub(crate) const LINES_KEPT: usize = 1000;

/// Of FNV-1a, here over words: not for secrets, the same on every platform.
const FACTOR: u64 = 0x0000_0100_0000_01b3;

/// What happened in a run, as a hash over all of it and its last lines. Clones share it.
#[derive(Clone, Default)]
pub struct Trace(Arc<Mutex<State>>);

struct State {
    hash: u64,
    count: u64,
    lines: VecDeque<String>,
    lines_max: usize,
}

impl Default for State {
    fn default() -> State {
        State {
            hash: 0xcbf2_9ce4_8422_2325,
            count: 0,
            lines: VecDeque::new(),
            lines_max: LINES_KEPT,
        }
    }
}

impl Trace {
    /// An empty trace.
    pub fn new() -> Trace {
        Trace::default()
    }

    /// An empty trace that keeps that many lines.
    pub(crate) fn keeping(lines_max: usize) -> Trace {
        let trace = Trace::default();
        trace
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .lines_max = lines_max.max(1);
        trace
    }

    /// Takes down a line.
    pub fn note(&self, line: impl fmt::Display) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The oldest line's room is the newest one's: there are millions of them.
        let mut text = if state.lines.len() == state.lines_max {
            state.lines.pop_front().unwrap_or_default()
        } else {
            String::new()
        };
        text.clear();
        // A string takes all there is.
        let _ = write!(text, "{line}");
        let mut hash = state.hash;
        let (words, rest) = text.as_bytes().as_chunks::<8>();
        for word in words {
            hash = (hash ^ u64::from_le_bytes(*word)).wrapping_mul(FACTOR);
            hash ^= hash >> 32;
        }
        for byte in rest.iter().chain(b"\n") {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(FACTOR);
        }
        state.hash = hash;
        state.count += 1;
        state.lines.push_back(text);
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
