//! The runtime that openraft runs on: tokio, or a simulation in its place (see [`crate::runtime`]).

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use klamm_env::host::{self, Host};
use openraft::OptionalSend;
use openraft::async_runtime::{AsyncRuntime, Instant};
use openraft_rt_tokio::TokioRuntime;
use rand::TryRng;

use crate::runtime::{self, Elapsed, JoinError, JoinHandle, Moment, Sleep, Timeout};

/// The runtime. openraft names it and never has a value of it, but in its own tests.
#[derive(Debug)]
pub(crate) struct Runtime(TokioRuntime);

impl Instant for Moment {
    fn now() -> Self {
        Moment::now()
    }
}

type TokioRng = <TokioRuntime as AsyncRuntime>::ThreadLocalRng;

/// Random numbers: they spread the timeouts of elections.
pub(crate) enum RuntimeRng {
    Tokio(TokioRng),
    Hosted(Arc<dyn Host>),
}

impl TryRng for RuntimeRng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        match self {
            RuntimeRng::Tokio(rng) => rng.try_next_u32(),
            // The upper half.
            RuntimeRng::Hosted(host) => Ok((host.random() >> 32) as u32),
        }
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        match self {
            RuntimeRng::Tokio(rng) => rng.try_next_u64(),
            RuntimeRng::Hosted(host) => Ok(host.random()),
        }
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for chunk in bytes.chunks_mut(8) {
            let random = self.try_next_u64()?.to_le_bytes();
            chunk.copy_from_slice(&random[..chunk.len()]);
        }
        Ok(())
    }
}

impl AsyncRuntime for Runtime {
    type JoinError = JoinError;
    type JoinHandle<T: OptionalSend + 'static> = JoinHandle<T>;
    type Sleep = Sleep;
    type Instant = Moment;
    type TimeoutError = Elapsed;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = Timeout<T>;
    type ThreadLocalRng = RuntimeRng;
    type Mpsc = <TokioRuntime as AsyncRuntime>::Mpsc;
    type Watch = <TokioRuntime as AsyncRuntime>::Watch;
    type Oneshot = <TokioRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        runtime::spawn(future)
    }

    fn sleep(duration: Duration) -> Sleep {
        runtime::sleep(duration)
    }

    fn sleep_until(deadline: Moment) -> Sleep {
        runtime::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Timeout<F> {
        runtime::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Moment,
        future: F,
    ) -> Timeout<F> {
        runtime::timeout_at(deadline, future)
    }

    fn is_panic(error: &JoinError) -> bool {
        error.is_panic()
    }

    fn thread_rng() -> RuntimeRng {
        match host::current() {
            Some(host) => RuntimeRng::Hosted(host),
            None => RuntimeRng::Tokio(TokioRuntime::thread_rng()),
        }
    }

    fn new(threads: usize) -> Self {
        Runtime(TokioRuntime::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }

    async fn spawn_blocking<F, T>(work: F) -> Result<T, io::Error>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        runtime::spawn_blocking(work)
            .await
            .map_err(io::Error::other)
    }
}
