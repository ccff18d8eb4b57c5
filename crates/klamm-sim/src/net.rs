//! The network between processes: requests and answers that come late, twice, or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use klamm_env::Rng as _;
use tokio::sync::oneshot;

use crate::executor::{Executor, Process};
use crate::{SimRng, Trace};

/// Whom a message comes from or goes to.
pub type Address = i32;

/// How the network treats messages, in cases per million, each way on its own.
#[derive(Clone, Copy, Debug, Default)]
pub struct NetFaults {
    /// Messages that never arrive.
    pub loss: u32,
    /// Requests that arrive twice.
    pub duplicates: u32,
    /// Messages that take up to [`NetFaults::slow_ms`]; others overtake them.
    pub slow: u32,
    /// How long the slow ones take at most, in milliseconds.
    pub slow_ms: u64,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// Nothing came in time: whether the request was served nobody knows.
    TimedOut,
    /// Nobody listens there.
    Refused,
}

/// The network. Clones share it.
#[derive(Clone)]
pub struct Network {
    state: Arc<Mutex<State>>,
    executor: Executor,
    rng: SimRng,
    trace: Trace,
}

#[derive(Debug, Default)]
struct State {
    faults: NetFaults,
    /// Ways that are cut, as from and to.
    cuts: BTreeSet<(Address, Address)>,
    listening: BTreeMap<Address, Process>,
}

impl Network {
    /// A network that is whole.
    pub fn new(executor: Executor, rng: SimRng, trace: Trace) -> Network {
        Network {
            state: Arc::default(),
            executor,
            rng,
            trace,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on messages are treated like this.
    pub fn set_faults(&self, faults: NetFaults) {
        self.state().faults = faults;
    }

    /// Messages between the two are lost; in one direction only, if `both` is not set.
    pub fn cut(&self, from: Address, to: Address, both: bool) {
        let mut state = self.state();
        state.cuts.insert((from, to));
        if both {
            state.cuts.insert((to, from));
        }
    }

    /// Takes back a cut, both ways.
    pub fn splice(&self, one: Address, other: Address) {
        let mut state = self.state();
        state.cuts.remove(&(one, other));
        state.cuts.remove(&(other, one));
    }

    /// Takes back all cuts.
    pub fn mend(&self) {
        self.state().cuts.clear();
    }

    /// Whether anything is cut.
    pub fn is_cut(&self) -> bool {
        !self.state().cuts.is_empty()
    }

    /// From now on `process` serves requests to `address`.
    pub fn listen(&self, address: Address, process: Process) {
        self.state().listening.insert(address, process);
    }

    /// Nobody serves requests to `address` any more.
    pub fn hang_up(&self, address: Address) {
        self.state().listening.remove(&address);
    }

    fn listener(&self, address: Address) -> Option<Process> {
        self.state().listening.get(&address).copied()
    }

    /// How long a message takes; `None` if it gets lost.
    fn delay(&self, from: Address, to: Address) -> Option<Duration> {
        let state = self.state();
        let faults = state.faults;
        if state.cuts.contains(&(from, to)) || self.rng.chance(faults.loss) {
            return None;
        }
        let mut delay_us = 100 + self.rng.below(900);
        if self.rng.chance(faults.slow) {
            delay_us += self.rng.below(faults.slow_ms.max(1) * 1000);
        }
        Some(Duration::from_micros(delay_us))
    }

    /// Asks `to` on behalf of `from`. What `serve` gives is run by the process that listens there
    /// when the request arrives; twice, if the network delivers it twice.
    pub async fn call<T, F>(
        &self,
        (from, to): (Address, Address),
        what: &'static str,
        timeout: Duration,
        serve: impl Fn() -> F + Send + Sync + 'static,
    ) -> Result<T, NoAnswer>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let answer = Arc::new(Mutex::new(Some(answer)));
        let serve = Arc::new(serve);
        let copies = 1 + usize::from(self.rng.chance(self.state().faults.duplicates));
        for _ in 0..copies {
            let Some(delay) = self.delay(from, to) else {
                self.trace.note(format_args!("{what} {from}->{to} is lost"));
                continue;
            };
            let (net, answer, serve) = (self.clone(), Arc::clone(&answer), Arc::clone(&serve));
            self.executor
                .spawn(format!("{what} {from}->{to}"), async move {
                    net.executor.sleep(delay).await;
                    net.deliver((from, to), what, answer, serve);
                });
        }
        // Those who hold the other end may be killed: then nothing comes, as nothing does in time.
        drop(answer);
        let late = self.executor.sleep(timeout);
        let in_time = async {
            match answered.await {
                Ok(answer) => answer,
                Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            answer = in_time => answer,
            () = late => Err(NoAnswer::TimedOut),
        }
    }

    /// The request has arrived.
    fn deliver<T, F>(
        &self,
        (from, to): (Address, Address),
        what: &'static str,
        answer: Answer<T>,
        serve: Arc<impl Fn() -> F + Send + Sync + 'static>,
    ) where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let Some(process) = self.listener(to) else {
            self.answer((to, from), what, answer, Err(NoAnswer::Refused));
            return;
        };
        let net = self.clone();
        let name = format!("{what} of {from} at {to}");
        self.executor.spawn_in(process, name, async move {
            let result = serve().await;
            net.answer((to, from), what, answer, Ok(result));
        });
    }

    fn answer<T: Send + 'static>(
        &self,
        (from, to): (Address, Address),
        what: &'static str,
        answer: Answer<T>,
        result: Result<T, NoAnswer>,
    ) {
        let Some(delay) = self.delay(from, to) else {
            self.trace
                .note(format_args!("{what} {from}->{to}: the answer is lost"));
            return;
        };
        let executor = self.executor.clone();
        self.executor
            .spawn(format!("{what} {to}<-{from}"), async move {
                executor.sleep(delay).await;
                let waiting = answer.lock().unwrap_or_else(PoisonError::into_inner).take();
                if let Some(waiting) = waiting {
                    // The one who asked may be gone.
                    let _ = waiting.send(result);
                }
            });
    }
}

type Answer<T> = Arc<Mutex<Option<oneshot::Sender<Result<T, NoAnswer>>>>>;

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.state().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::SimClock;

    fn network(faults: NetFaults) -> (Executor, Network) {
        let (rng, trace) = (SimRng::new(5), Trace::new());
        let executor = Executor::new(rng.fork("executor"), SimClock::new(0), trace.clone());
        let network = Network::new(executor.clone(), rng, trace);
        network.set_faults(faults);
        (executor, network)
    }

    fn ask(
        executor: &Executor,
        network: &Network,
        served: &Arc<AtomicU32>,
    ) -> Result<u32, NoAnswer> {
        let (network, served) = (network.clone(), Arc::clone(served));
        let call = async move {
            let serve = move || {
                let served = Arc::clone(&served);
                async move { served.fetch_add(1, Ordering::SeqCst) }
            };
            network
                .call((1, 2), "ask", Duration::from_secs(1), serve)
                .await
        };
        executor.block_on(Duration::from_secs(9), call).unwrap()
    }

    #[test]
    fn whom_one_asks_answers_unless_nobody_listens_or_the_way_is_cut() {
        let (executor, network) = network(NetFaults::default());
        let served = Arc::default();
        assert_eq!(ask(&executor, &network, &served), Err(NoAnswer::Refused));
        let process = executor.new_process();
        network.listen(2, process);
        assert_eq!(ask(&executor, &network, &served), Ok(0));
        network.cut(2, 1, false);
        assert_eq!(ask(&executor, &network, &served), Err(NoAnswer::TimedOut));
        assert_eq!(served.load(Ordering::SeqCst), 2, "the answer was lost");
        network.cut(1, 2, true);
        assert_eq!(ask(&executor, &network, &served), Err(NoAnswer::TimedOut));
        assert_eq!(served.load(Ordering::SeqCst), 2);
        network.mend();
        executor.pause(process);
        assert_eq!(ask(&executor, &network, &served), Err(NoAnswer::TimedOut));
        executor.end(process);
        network.hang_up(2);
        assert_eq!(ask(&executor, &network, &served), Err(NoAnswer::Refused));
        assert_eq!(served.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn messages_get_lost_and_come_twice() {
        let (executor, network) = network(NetFaults {
            loss: 300_000,
            duplicates: 300_000,
            slow: 300_000,
            slow_ms: 50,
        });
        network.listen(2, executor.new_process());
        let served = Arc::default();
        let answered = (0..100)
            .filter(|_| ask(&executor, &network, &served).is_ok())
            .count();
        let served = served.load(Ordering::SeqCst) as usize;
        assert!(answered > 20 && answered < 80, "{answered}");
        assert!(served > answered, "{served}");
    }
}
