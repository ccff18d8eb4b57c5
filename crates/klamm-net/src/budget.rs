use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A limit on the bytes of requests that are being read or handled, over all connections
/// (`queued.max.request.bytes`).
///
/// A request larger than the whole budget is let through when it is alone, as in Kafka's
/// `SimpleMemoryPool` (KIP-72): otherwise it could never be served.
#[derive(Clone, Debug)]
pub struct ByteBudget {
    permits: Arc<Semaphore>,
    units_max: u32,
}

/// The budget is counted in units of this many bytes.
const UNIT_BYTES: usize = 1024;

impl ByteBudget {
    /// A budget of `bytes`.
    pub fn new(bytes: usize) -> Self {
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES))
            .unwrap_or(u32::MAX)
            .max(1);
        ByteBudget {
            permits: Arc::new(Semaphore::new(units as usize)),
            units_max: units,
        }
    }

    /// Waits until `bytes` fit; they are given back when the permit is dropped.
    pub async fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX);
        self.permits
            .clone()
            .acquire_many_owned(units.min(self.units_max))
            .await
            .ok()
    }

    /// Bytes that are free, rounded down to whole units.
    pub fn free_bytes(&self) -> usize {
        self.permits.available_permits() * UNIT_BYTES
    }
}
