//! Listening sockets: which addresses a configured listener comes to, and what clients are told.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZero;

use klamm_config::{BrokerConfig, Endpoint};
use klamm_net::{Listener, Threads};

use crate::error::BrokerError;
use crate::settings;

const NETWORK_THREADS: &str = "num.network.threads";

/// A listening socket that nobody is served on yet.
pub(crate) struct Opened {
    pub(crate) name: String,
    pub(crate) controller: bool,
    pub(crate) listeners: Vec<Listener>,
}

impl Opened {
    fn port(&self) -> u16 {
        self.listeners
            .first()
            .map_or(0, |listener| listener.local_addr().port())
    }
}

/// Opens all listening sockets of the configuration.
pub(crate) async fn open_listeners(config: &BrokerConfig) -> Result<Vec<Opened>, BrokerError> {
    let budget = settings::request_budget(config);
    let mut threads = NetworkThreads::default();
    let mut opened = Vec::new();
    for endpoint in config.listeners() {
        let controller = config.controller_listener_names().contains(&endpoint.name);
        // What controllers tell each other must not wait behind clients' requests.
        let threads = match controller {
            true => None,
            false => Some(threads.of(&endpoint.name, config)?),
        };
        let mut listeners: Vec<Listener> = Vec::new();
        for mut address in resolve(endpoint).await? {
            if let Some(first) = listeners.first() {
                // One host may have several addresses; they share the port that the first was given.
                address.set_port(first.local_addr().port());
            }
            let mut options = settings::listener_config(&endpoint.name, config, budget.as_ref());
            options.threads.clone_from(&threads);
            match Listener::bind(address, options) {
                Ok(listener) => listeners.push(listener),
                // `localhost` may name an address that this machine does not have.
                Err(failed) if !listeners.is_empty() && is_absent(&failed.source) => {}
                Err(failed) => return Err(failed.into()),
            }
        }
        opened.push(Opened {
            name: endpoint.name.clone(),
            controller,
            listeners,
        });
    }
    Ok(opened)
}

/// Which threads clients' connections live on (`num.network.threads`).
///
/// All listeners share as many as the broker's value says, or, as long as nobody has set it, as the
/// machine has processors: Kafka's default of three for each listener would be idle threads on a
/// small machine and idle processors on a large one. A listener with a value of its own has threads
/// of its own.
#[derive(Debug, Default)]
struct NetworkThreads {
    shared: Option<Threads>,
}

impl NetworkThreads {
    fn of(&mut self, listener: &str, config: &BrokerConfig) -> Result<Threads, BrokerError> {
        let start = |count| Threads::start(count, "klamm-net").map_err(BrokerError::Thread);
        if let Some(own) = config.listener_override(listener, NETWORK_THREADS) {
            let count = own.trim().parse().ok().filter(|count| *count > 0);
            return start(count.ok_or_else(|| BrokerError::Unsupported {
                setting: NETWORK_THREADS,
                value: own.to_owned(),
                reason: "a listener's own value has to be a number from 1 on",
            })?);
        }
        if let Some(shared) = &self.shared {
            return Ok(shared.clone());
        }
        let threads = start(match config.is_set(NETWORK_THREADS) {
            true => usize::try_from(config.num_network_threads()).unwrap_or(1),
            false => std::thread::available_parallelism().map_or(1, NonZero::get),
        })?;
        self.shared = Some(threads.clone());
        Ok(threads)
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported
    )
}

async fn resolve(endpoint: &Endpoint) -> Result<Vec<SocketAddr>, BrokerError> {
    if endpoint.host.is_empty() {
        // All interfaces, IPv4 through the IPv6 socket where there is IPv6 at all.
        let six = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), endpoint.port);
        let four = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), endpoint.port);
        let has_six = std::net::UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok();
        return Ok(vec![if has_six { six } else { four }]);
    }
    let failed = |source| BrokerError::Resolve {
        listener: endpoint.name.clone(),
        host: endpoint.host.clone(),
        source,
    };
    let found = tokio::net::lookup_host((endpoint.host.as_str(), endpoint.port));
    let mut addresses: Vec<_> = found.await.map_err(failed)?.collect();
    addresses.sort_by_key(SocketAddr::is_ipv6);
    addresses.dedup();
    if addresses.is_empty() {
        return Err(failed(io::ErrorKind::NotFound.into()));
    }
    Ok(addresses)
}

/// What clients are told: the configured host, or this machine's name where none is configured, and
/// the real port where the system was to choose one.
pub(crate) fn advertised<'a>(
    endpoints: &[Endpoint],
    opened: impl IntoIterator<Item = &'a Opened> + Clone,
) -> Vec<Endpoint> {
    let real = |endpoint: &Endpoint| {
        let mut endpoint = endpoint.clone();
        if endpoint.host.is_empty() {
            endpoint.host = host_name();
        }
        if endpoint.port == 0 {
            let mut opened = opened.clone().into_iter();
            let found = opened.find(|opened| opened.name == endpoint.name);
            endpoint.port = found.map_or(0, Opened::port);
        }
        endpoint
    };
    endpoints.iter().map(real).collect()
}

fn host_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(pairs: &[(&str, &str)]) -> BrokerConfig {
        BrokerConfig::from_pairs(pairs.iter().copied()).unwrap()
    }

    #[test]
    fn connections_live_on_as_many_threads_as_configured() {
        let processors = std::thread::available_parallelism().unwrap().get();
        let mut threads = NetworkThreads::default();
        let shared = threads.of("PLAINTEXT", &config(&[])).unwrap();
        assert_eq!(shared.count(), processors);

        let config = config(&[
            ("num.network.threads", "5"),
            ("listener.name.inside.num.network.threads", "1"),
        ]);
        let mut threads = NetworkThreads::default();
        let shared = threads.of("PLAINTEXT", &config).unwrap();
        assert_eq!(shared.count(), 5);
        assert_eq!(threads.of("INSIDE", &config).unwrap().count(), 1);
        let again = threads.of("OUTSIDE", &config).unwrap();
        assert!(again.is_same(&shared));
    }

    #[test]
    fn a_number_of_threads_that_is_none_is_refused() {
        for bad in ["many", "0", "-1"] {
            let config = config(&[("listener.name.inside.num.network.threads", bad)]);
            let refused = NetworkThreads::default().of("INSIDE", &config);
            let Err(BrokerError::Unsupported { setting, value, .. }) = refused else {
                panic!("{bad} was taken");
            };
            assert_eq!((setting, &*value), (NETWORK_THREADS, bad));
        }
    }
}
