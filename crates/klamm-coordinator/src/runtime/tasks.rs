//! Where tasks run and how they wait: tokio in a broker, a seeded executor in the simulator.

use std::time::Duration;

use super::storage::BoxFuture;

/// Runs tasks and lets them wait.
pub trait Tasks: Send + Sync + 'static {
    /// Runs a task beside its caller.
    fn spawn(&self, task: BoxFuture<'static, ()>);

    /// Done when `duration` has passed.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;

    /// Whether a shard that panics is loaded again. Where it is not, the panic ends the task.
    fn survive_panics(&self) -> bool {
        true
    }
}

/// The tokio runtime that the caller is in, with time enabled.
#[derive(Clone, Copy, Debug, Default)]
pub struct TokioTasks;

impl Tasks for TokioTasks {
    #[expect(
        clippy::disallowed_methods,
        reason = "the runtime is the driver of its shards"
    )]
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        tokio::spawn(task);
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
}
