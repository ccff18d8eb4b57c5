//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

const EXAMPLES: &str = "\
Examples:
  klamm                                      a cluster of one on localhost:9092, data in ./data
  klamm server.properties                    with the file you have
  klamm --override log.dirs=/var/lib/klamm --override listeners=PLAINTEXT://0.0.0.0:9092 \\
        --override advertised.listeners=PLAINTEXT://broker.example.org:9092
  KAFKA_CFG_NUM_PARTITIONS=6 klamm           with the environment
  klamm config explain log.retention.ms      what a configuration means, and whether Klamm honours it
  klamm config list retention                every configuration with that in its name
  klamm config show server.properties        what would be in force, and where each value comes from

Configuration:
  All names, types, defaults and rules are Kafka 4.3's. Later sources win:
    1. the properties file
    2. the environment: KAFKA_FOO_BAR=x, then KAFKA_CFG_FOO_BAR=x, set foo.bar=x
       (_ is a dot, __ an underscore, ___ a hyphen; CLUSTER_ID names the cluster)
    3. --override foo.bar=x
  Without process.roles the node is broker and controller of a cluster of one, and nothing needs to
  be formatted. With controller.quorum.bootstrap.servers it does: klamm storage format --help. A configuration that is unknown, or known and not honoured yet, is named once at start.

Data:
  Records, offsets and metadata live in log.dirs, ./data by default, in Kafka's own formats. One
  process at a time may use a directory, and it belongs to the cluster that first wrote to it.

Clients:
  Any Kafka client or tool: kafka-topics --bootstrap-server localhost:9092 --list

Metrics and health:
  http://127.0.0.1:9644/metrics for Prometheus, /health for probes (--metrics-listen moves them,
  --metrics-listen off turns them off).

Stop with Ctrl-C or SIGTERM: the broker closes its logs, and the next start needs no recovery.

Exit codes:
  0 stopped as asked   1 failed        2 bad command line or configuration
  3 address in use     4 data directory in use    5 data directory of another cluster or node";

/// Apache Kafka's job, done in Rust: a broker with its own controller, for any Kafka client or tool.
#[derive(Debug, Parser)]
#[command(name = "klamm", version, after_long_help = EXAMPLES, args_conflicts_with_subcommands = true)]
#[command(after_help = "See --help for examples, configuration sources, data and exit codes.")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) serve: Serve,
}

/// What to do instead of starting a broker.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Look up configurations
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Format data directories and look into them, as kafka-storage does
    Storage {
        #[command(subcommand)]
        command: StorageCommand,
    },
    /// Ask a running broker whether it is ready (exit code 0) or not (1)
    Health {
        /// Where it serves /health
        #[arg(value_name = "HOST:PORT", default_value = "127.0.0.1:9644")]
        address: String,
    },
}

/// Where settings come from.
#[derive(Debug, Args)]
pub(crate) struct Sources {
    /// A Java properties file, such as server.properties
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// The same, as an option
    #[arg(long, value_name = "FILE", conflicts_with = "file")]
    pub(crate) config: Option<PathBuf>,
    /// The file to use if no other is named and the environment sets neither listeners nor process.roles (for images)
    #[arg(long, value_name = "FILE")]
    pub(crate) default_config: Option<PathBuf>,
    /// Sets one configuration over file and environment (may be repeated)
    #[arg(long = "override", value_name = "NAME=VALUE")]
    pub(crate) overrides: Vec<String>,
}

/// How to start a broker.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    #[command(flatten)]
    pub(crate) sources: Sources,
    /// Form of the log on standard error
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) log_format: LogFormat,
    /// What to log: error, warn, info, debug, trace, or per part (info,klamm_log=debug)
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub(crate) log_level: String,
    /// Where to serve /metrics and /health, as HOST:PORT, or off
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) metrics_listen: Option<String>,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line, for machines
    Json,
}

/// What to look up.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// List configurations, with type, default and whether Klamm honours them
    List {
        /// Only names that contain this
        pattern: Option<String>,
        /// Only configurations of this kind of thing
        #[arg(long)]
        scope: Option<ScopeArg>,
        /// Only those that Klamm honours
        #[arg(long)]
        honoured: bool,
    },
    /// Explain one configuration
    Explain {
        /// Its name, such as log.retention.ms
        name: String,
    },
    /// Check a configuration and show the values in force that are not defaults
    Show {
        #[command(flatten)]
        sources: Sources,
    },
}

/// What to do with directories.
#[derive(Debug, Subcommand)]
pub(crate) enum StorageCommand {
    /// Prepare the data directories of a node for its first start
    ///
    /// A cluster of one does so by itself. Where controllers come and go
    /// (controller.quorum.bootstrap.servers) the first voters are named here.
    Format(FormatArgs),
    /// Say what the data directories of a node are
    Info {
        /// A Java properties file, such as server.properties
        #[arg(long, short = 'c', value_name = "FILE")]
        config: PathBuf,
    },
    /// Print a random id for a cluster or a directory
    RandomUuid,
}

/// How to format.
#[derive(Debug, Args)]
pub(crate) struct FormatArgs {
    /// A Java properties file, such as server.properties
    #[arg(long, short = 'c', value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// The id of the cluster, the same on all nodes
    #[arg(long, short = 't', value_name = "ID")]
    pub(crate) cluster_id: String,
    /// This controller is the first voter, and the only one until others are added
    #[arg(long, short = 's', group = "voters")]
    pub(crate) standalone: bool,
    /// These are the first voters; all of them are formatted with the same
    #[arg(
        long,
        short = 'I',
        group = "voters",
        value_name = "ID@HOST:PORT:DIRECTORY-ID,…"
    )]
    pub(crate) initial_controllers: Option<String>,
    /// The voters are others: a broker, or a controller that is added to them later
    #[arg(long, short = 'N', group = "voters")]
    pub(crate) no_initial_controllers: bool,
    /// The release whose features a new cluster begins with, such as 4.2
    #[arg(long, short = 'r', value_name = "RELEASE")]
    pub(crate) release_version: Option<String>,
    /// The level of a feature that a new cluster begins with (may be repeated)
    #[arg(long, short = 'f', value_name = "FEATURE=LEVEL")]
    pub(crate) feature: Vec<String>,
    /// Pass over directories that are formatted
    #[arg(long, short = 'g')]
    pub(crate) ignore_formatted: bool,
}

/// What a configuration belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs, reason = "the names say it")]
pub(crate) enum ScopeArg {
    Broker,
    Topic,
    Group,
    ClientMetrics,
}
