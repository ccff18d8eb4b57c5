//! Waiting: by tokio's clock, or by that of the host that a simulation puts in its place.

use std::future::Future;
use std::time::Duration;

use klamm_env::host;

/// Waits until `duration` has passed.
pub(crate) async fn sleep(duration: Duration) {
    match host::current() {
        Some(host) => host.sleep_until(host.now() + duration).await,
        None => tokio::time::sleep(duration).await,
    }
}

/// What a future comes to; `None` if it takes longer than `duration`.
pub(crate) async fn within<F: Future>(duration: Duration, future: F) -> Option<F::Output> {
    tokio::select! {
        biased;
        output = future => Some(output),
        () = sleep(duration) => None,
    }
}
