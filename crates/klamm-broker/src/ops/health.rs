//! Whether the broker serves.

use std::sync::atomic::{AtomicU8, Ordering};

/// A broker's state of health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Health {
    /// Not serving yet.
    Starting,
    /// Serving.
    Ready,
    /// On its way down.
    Stopping,
    /// No longer able to serve, for instance because no data directory is left.
    Failed,
}

impl Health {
    /// The word in `/health`'s answer.
    pub fn name(self) -> &'static str {
        match self {
            Health::Starting => "starting",
            Health::Ready => "ready",
            Health::Stopping => "stopping",
            Health::Failed => "failed",
        }
    }
}

/// The state, shared.
#[derive(Debug)]
pub(super) struct HealthCell(AtomicU8);

impl HealthCell {
    pub(super) fn new() -> Self {
        HealthCell(AtomicU8::new(Health::Starting as u8))
    }

    pub(super) fn set(&self, health: Health) {
        self.0.store(health as u8, Ordering::Release);
    }

    pub(super) fn get(&self) -> Health {
        match self.0.load(Ordering::Acquire) {
            0 => Health::Starting,
            1 => Health::Ready,
            2 => Health::Stopping,
            _ => Health::Failed,
        }
    }
}
