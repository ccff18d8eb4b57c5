//! The thread for work that is due now and then and may block: flushes, retention, checkpoints,
//! removal of deleted files.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use klamm_records::Uuid;
use klamm_replication::ReplicaManager;
use tokio::task::spawn_blocking;
use tracing::error;

use crate::supervise::Supervisor;

const INTERVAL: Duration = Duration::from_secs(1);

/// The running thread.
#[derive(Debug)]
pub(crate) struct Upkeep {
    stop: mpsc::Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Upkeep {
    /// Starts the thread. `failed` is told of directories whose disk failed.
    pub(crate) fn start(
        replicas: ReplicaManager,
        supervisor: Supervisor,
        failed: impl Fn(Vec<Uuid>) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let run = move || {
            while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                supervisor.round("upkeep", || {
                    let offline = replicas.tick();
                    if !offline.is_empty() {
                        failed(offline);
                    }
                });
            }
        };
        let thread = thread::Builder::new()
            .name("klamm-upkeep".to_owned())
            .spawn(run)?;
        Ok(Upkeep {
            stop,
            thread: Some(thread),
        })
    }

    /// Ends the thread and waits for the round at hand.
    pub(crate) async fn stop(&mut self) {
        // The thread is gone already if nobody hears this.
        let _ = self.stop.send(());
        if let Some(thread) = self.thread.take() {
            let joined = spawn_blocking(move || thread.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                error!("the upkeep thread ended with a panic");
            }
        }
    }
}
