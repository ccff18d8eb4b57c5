//! Work that may wait for a disk, on the threads that tokio keeps for such work.

use std::pin::Pin;

use klamm_replication::BlockingPool;
use tokio::task::spawn_blocking;

/// The pool of the runtime that asks.
#[derive(Debug)]
pub(crate) struct RuntimePool;

impl BlockingPool for RuntimePool {
    fn run(&self, work: Box<dyn FnOnce() + Send>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let done = spawn_blocking(work);
        Box::pin(async move {
            // Work that panicked has done nothing that anybody counts on.
            let _ = done.await;
        })
    }
}
