//! Runs a broker until a signal asks for its end.

use std::io;
use std::time::{Duration, Instant};

use klamm_broker::Broker;
use klamm_config::{BrokerConfig, Endpoint, Loaded};
use klamm_env::Env;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use crate::cli::Serve;
use crate::failure::Failure;
use crate::{logging, settings};

/// When the program began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Start(Instant);

impl Start {
    #[expect(
        clippy::disallowed_methods,
        reason = "times the program itself, before there is an Env"
    )]
    pub(crate) fn now() -> Self {
        Self(Instant::now())
    }

    fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// Starts a broker as told and stops it when told.
pub(crate) fn run(options: &Serve, started: Start) -> Result<(), Failure> {
    let Loaded { config, warnings } =
        settings::load(&options.sources, options.metrics_listen.as_deref())?;
    logging::start(options.log_format, &options.log_level)?;
    for warning in warnings {
        warn!("{warning}");
    }
    // Tokio's default is one worker a core.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("klamm")
        .build()
        .map_err(Failure::Runtime)?;
    let served = runtime.block_on(serve(config, started));
    // What still runs now (a file operation that hangs) must not keep the process alive.
    runtime.shutdown_timeout(Duration::from_secs(1));
    served
}

async fn serve(config: BrokerConfig, started: Start) -> Result<(), Failure> {
    // Before the broker starts, so that a signal during start-up is not lost.
    let mut signals = Signals::new().map_err(Failure::Runtime)?;
    // With several controllers a start takes as long as the others do to come.
    let broker = tokio::select! {
        started = Broker::start(config.clone(), Env::os()) => started?,
        name = signals.next() => {
            info!(signal = name, "stopping before the start was complete");
            return Ok(());
        }
    };
    announce(&broker, &config, started);

    let name = tokio::select! {
        name = signals.next() => name,
        () = broker.lost() => return Err(Failure::NoDirectories),
        why = broker.controller_failed() => return Err(Failure::Controller(why)),
    };
    info!(signal = name, "shutting down");
    tokio::select! {
        () = broker.shutdown() => info!("stopped"),
        name = signals.next() => warn!(signal = name, "stopping at once: logs are not closed cleanly"),
    }
    Ok(())
}

/// The one line on standard output: where to connect and where the data is.
#[allow(clippy::print_stdout, reason = "the program's one line of output")]
fn announce(broker: &Broker, config: &BrokerConfig, started: Start) {
    let version = env!("CARGO_PKG_VERSION");
    let (to, data) = (addresses(broker, config), config.log_dirs().join(", "));
    let ms = started.elapsed().as_millis();
    println!("klamm {version} ready in {ms} ms: connect to {to}, data in {data}");
    let (node, cluster) = (broker.node_id(), broker.cluster_id());
    let metrics = broker.ops_addresses();
    info!(
        ms,
        node,
        cluster,
        addresses = to,
        directories = data,
        ?metrics,
        "ready"
    );
}

/// Where clients connect, or brokers to a controller alone: the advertised listeners, with the real port where the system chose it.
fn addresses(broker: &Broker, config: &BrokerConfig) -> String {
    let address = |endpoint: &Endpoint| {
        let bound = broker.address(&endpoint.name).map(|address| address.port());
        let port = if endpoint.port == 0 {
            bound.unwrap_or(0)
        } else {
            endpoint.port
        };
        let host = if endpoint.host.is_empty() {
            "localhost"
        } else {
            &endpoint.host
        };
        // An IPv6 address needs its brackets before a port.
        if host.contains(':') {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        }
    };
    let own = if config.is_broker() {
        config.advertised_listeners()
    } else {
        config.advertised_controller_listeners()
    };
    let all: Vec<String> = own.iter().map(address).collect();
    all.join(", ")
}

/// SIGINT and SIGTERM.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for one and names it.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}
