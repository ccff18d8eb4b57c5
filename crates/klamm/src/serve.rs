//! Runs a broker until a signal asks for its end.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use klamm_broker::Broker;
use klamm_broker::ops::OpsServer;
use klamm_config::{BrokerConfig, Loaded};
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
    let directories = config.log_dirs().join(", ");
    let broker = Broker::start(config.clone(), Env::os()).await?;
    let ops = serve_metrics(&config, &broker).await?;
    announce(&broker, &directories, started);
    if let Some(ops) = &ops {
        info!(addresses = ?ops.local_addrs(), "metrics and health");
    }

    let name = signals.next().await;
    info!(signal = name, "shutting down");
    tokio::select! {
        () = broker.shutdown() => info!("stopped"),
        name = signals.next() => warn!(signal = name, "stopping at once: logs are not closed cleanly"),
    }
    Ok(())
}

/// Metrics are worth an address that was asked for, not one that Klamm chose itself.
async fn serve_metrics(
    config: &BrokerConfig,
    broker: &Broker,
) -> Result<Option<OpsServer>, Failure> {
    // A loaded configuration has no bad entry.
    let addresses = config.metrics_listeners().unwrap_or_default();
    if addresses.is_empty() {
        return Ok(None);
    }
    match OpsServer::bind(&addresses, Arc::clone(broker.metrics())).await {
        Ok(server) => Ok(Some(server)),
        Err(error) if config.is_set("klamm.metrics.listeners") => Err(error.into()),
        Err(error) => {
            warn!("{error}; going on without (--metrics-listen chooses another address)");
            Ok(None)
        }
    }
}

/// The one line on standard output: where to connect and where the data is.
#[allow(clippy::print_stdout, reason = "the program's one line of output")]
fn announce(broker: &Broker, directories: &str, started: Start) {
    let version = env!("CARGO_PKG_VERSION");
    let addresses: Vec<String> = broker
        .advertised()
        .iter()
        .map(|e| format!("{}:{}", e.host, e.port))
        .collect();
    let (addresses, ms) = (addresses.join(", "), started.elapsed().as_millis());
    println!("klamm {version} ready in {ms} ms: connect to {addresses}, data in {directories}");
    info!(ms, addresses, directories, "ready");
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
