//! `cargo xtask config-facts --jars DIR`: asks Kafka's own jars what configurations there are, and what it says to
//! good and bad values, and writes the answers into `klamm-config`.
//!
//! DIR holds the jars of a Kafka release (its `libs` folder); `javac` and `java` must be on the path. Written are
//! - `crates/klamm-config/tests/golden/config-facts.tsv`: one line a configuration, as `ConfigFacts.java` prints it;
//! - `crates/klamm-config/src/table.rs`: the same facts as Rust statics;
//! - `crates/klamm-config/tests/golden/config-verdicts.tsv`: Kafka's verdict on each case of `config-cases.txt`;
//! - `crates/klamm-config/tests/golden/properties.tsv`: `java.util.Properties` on each case of `properties-cases.txt`;
//! - `crates/klamm-config/tests/golden/describe.tsv`: what a Kafka that runs with `describe.properties` (started and
//!   stopped here; its ports and folder are in that file) tells of its configurations.

mod table;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Runs the subcommand with the arguments after its name.
pub fn run(args: &[String]) -> Result<()> {
    let jars =
        match args {
            [flag, dir] if flag == "--jars" => PathBuf::from(dir),
            _ => return Err(
                "usage: cargo xtask config-facts --jars DIR (the libs folder of a Kafka release)"
                    .into(),
            ),
        };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let sources = root.join("xtask/src/config_facts");
    let krate = root.join("crates/klamm-config");
    let golden = krate.join("tests/golden");
    let java = Java::compile(&jars, &sources, &root.join("target/config-facts"))?;

    let facts = java.run("ConfigFacts", None)?;
    fs::write(krate.join("src/table.rs"), table::render(&facts)?)?;
    fs::write(golden.join("config-facts.tsv"), facts)?;
    let verdicts = java.run("ConfigVerdicts", Some(&golden.join("config-cases.txt")))?;
    fs::write(golden.join("config-verdicts.tsv"), verdicts)?;
    let properties = java.run(
        "PropertiesGolden",
        Some(&golden.join("properties-cases.txt")),
    )?;
    fs::write(golden.join("properties.tsv"), properties)?;
    fs::write(
        golden.join("describe.tsv"),
        java.describe(&golden.join("describe.properties"))?,
    )?;
    Ok(())
}

const CLASSES: [&str; 4] = [
    "ConfigFacts",
    "ConfigVerdicts",
    "PropertiesGolden",
    "DescribeConfigs",
];
/// Where the Kafka of `describe.properties` listens and keeps its data.
const BOOTSTRAP: &str = "127.0.0.1:19600";
const DATA: &str = "/tmp/klamm-config-facts";

/// The Java programs beside this file, compiled against Kafka's jars.
struct Java {
    classpath: String,
}

impl Java {
    fn compile(jars: &Path, sources: &Path, classes: &Path) -> Result<Self> {
        fs::create_dir_all(classes)?;
        let jars = format!("{}/*", jars.display());
        let status = Command::new("javac")
            .args(["-cp", &jars, "-d"])
            .arg(classes)
            .args(CLASSES.map(|c| sources.join(format!("{c}.java"))))
            .status()?;
        if !status.success() {
            return Err("javac failed".into());
        }
        Ok(Self {
            classpath: format!("{}:{jars}", classes.display()),
        })
    }

    fn run(&self, class: &str, input: Option<&Path>) -> Result<String> {
        let input = match input {
            Some(path) => Stdio::from(fs::File::open(path)?),
            None => Stdio::null(),
        };
        Self::output(self.command(class).stdin(input), class)
    }

    /// Starts a Kafka with these properties, asks it, and stops it again.
    fn describe(&self, properties: &Path) -> Result<String> {
        let _ = fs::remove_dir_all(DATA);
        let cluster = ["format", "-t", "4L6g3nShT-eMCtK--X86sw", "-c"];
        Self::output(
            self.command("kafka.tools.StorageTool")
                .args(cluster)
                .arg(properties),
            "format",
        )?;
        let mut kafka = self
            .command("kafka.Kafka")
            .arg(properties)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let described = Self::output(
            self.command("DescribeConfigs").arg(BOOTSTRAP),
            "DescribeConfigs",
        );
        kafka.kill()?;
        kafka.wait()?;
        let _ = fs::remove_dir_all(DATA);
        described
    }

    fn command(&self, class: &str) -> Command {
        let mut command = Command::new("java");
        command.args([
            "-Dfile.encoding=UTF-8",
            "-Xmx512m",
            "-cp",
            &self.classpath,
            class,
        ]);
        command
    }

    fn output(command: &mut Command, what: &str) -> Result<String> {
        let output = command.stderr(Stdio::null()).output()?;
        if !output.status.success() || output.stdout.is_empty() {
            return Err(format!("{what} failed").into());
        }
        Ok(String::from_utf8(output.stdout)?)
    }
}
