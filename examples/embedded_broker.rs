//! The whole broker inside a program: start it on a free port, ask it who it is, stop it.
//!
//! `cargo run -p klamm-examples --example embedded_broker`

#![allow(clippy::print_stdout, reason = "a program for people to read")]

use std::error::Error;

use klamm_broker::Broker;
use klamm_config::BrokerConfig;
use klamm_env::Env;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let config = BrokerConfig::from_pairs([
        ("listeners", "PLAINTEXT://127.0.0.1:0"),
        ("klamm.metrics.listeners", ""),
        ("log.dirs", &dir.path().to_string_lossy()),
    ])?;
    let broker = Broker::start(config, Env::os()).await?;
    println!(
        "cluster {} is ready on {:?}",
        broker.cluster_id(),
        broker.address("PLAINTEXT")
    );
    broker.shutdown().await;
    Ok(())
}
