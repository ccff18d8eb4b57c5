//! The foreign programs of `interop/`: builds or installs each once, in the cache folder.

use crate::{Result, cache};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Runs a preparing command; its output is shown only if it fails.
fn prepare(command: &mut Command) -> Result<()> {
    let out = command
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("{command:?}: {e}"))?;
    if out.status.success() {
        return Ok(());
    }
    let text = [out.stdout, out.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines[lines.len().saturating_sub(15)..].join("\n");
    Err(format!("{command:?}: {}\n{tail}", out.status).into())
}

/// The JVM driver: its class path and log configuration.
pub struct Java {
    classpath: String,
    log4j: PathBuf,
}

impl Java {
    pub fn prepare() -> Result<Java> {
        for program in ["java", "javac", "mvn"] {
            if !cache::has(program) {
                return Err(format!("{program} is not installed").into());
            }
        }
        let jars = cache::kafka_jars()?;
        let classes = cache::folder("classes")?;
        compile(&jars, &classes)?;
        let log4j = classes.join("log4j2.properties");
        // The tools' own words are compared; what their clients log is kept apart.
        fs::write(&log4j, LOG4J)?;
        Ok(Java {
            classpath: format!("{}:{}/*", classes.display(), jars.display()),
            log4j,
        })
    }

    /// A run of `klamm.interop.Main`.
    pub fn driver(&self, suite: &str, log: &Path) -> Command {
        let mut java = self.java();
        java.arg(format!("-Dklamm.log={}", log.display()));
        java.args(["-cp", &self.classpath, "klamm.interop.Main", suite]);
        java
    }

    /// A run of one of Kafka's own classes.
    pub fn class(&self, class: &str) -> Command {
        let mut java = self.java();
        // They do little: what the better compiler would gain, it costs.
        java.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]);
        java.arg("-Dklamm.log=/dev/null")
            .args(["-cp", &self.classpath, class]);
        java
    }

    fn java(&self) -> Command {
        let mut java = Command::new("java");
        java.args(["-Xshare:auto", "-Xmx512m"]);
        java.arg(format!(
            "-Dlog4j2.configurationFile={}",
            self.log4j.display()
        ));
        java
    }
}

/// Compiles the sources, unless these very ones were compiled last.
fn compile(jars: &Path, classes: &Path) -> Result<()> {
    let folder = cache::root().join("interop/java/src/klamm/interop");
    let mut sources = Vec::new();
    for entry in fs::read_dir(folder)? {
        sources.push(entry?.path());
    }
    sources.sort();
    let mut hasher = DefaultHasher::new();
    jars.hash(&mut hasher);
    for source in &sources {
        (source, fs::read(source)?).hash(&mut hasher);
    }
    let (stamp, wanted) = (classes.join("compiled"), hasher.finish().to_string());
    if fs::read_to_string(&stamp).ok().as_ref() == Some(&wanted) {
        return Ok(());
    }
    let mut javac = Command::new("javac");
    javac.args(["-Xlint:all,-processing,-path", "-Werror", "-d"]);
    javac.arg(classes).arg("-cp");
    javac.arg(format!("{}/*", jars.display())).args(sources);
    // While it compiles the classes are of neither.
    fs::write(&stamp, "")?;
    prepare(&mut javac)?;
    Ok(fs::write(&stamp, wanted)?)
}

const LOG4J: &str = "rootLogger.level=WARN
rootLogger.appenderRef.f.ref=F
appender.f.type=File
appender.f.name=F
appender.f.fileName=${sys:klamm.log:-/dev/null}
appender.f.layout.type=PatternLayout
appender.f.layout.pattern=[%d] %p %m (%c)%n
";

/// The Python of a virtual environment with the clients.
pub fn python() -> Result<PathBuf> {
    if !cache::has("python3") {
        return Err("python3 is not installed".into());
    }
    let requirements = cache::root().join("interop/python/requirements.txt");
    let wanted = fs::read_to_string(&requirements)?;
    let folder = cache::folder("python")?;
    let (python, stamp) = (folder.join("venv/bin/python"), folder.join("installed"));
    if fs::read_to_string(&stamp).ok().as_deref() != Some(&wanted) {
        prepare(
            Command::new("python3")
                .args(["-m", "venv", "--clear"])
                .arg(folder.join("venv")),
        )?;
        let mut pip = Command::new(&python);
        pip.args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "-r",
        ]);
        prepare(pip.arg(&requirements))?;
        fs::write(&stamp, wanted)?;
    }
    Ok(python)
}

/// The folder of the built Go programs.
pub fn go() -> Result<PathBuf> {
    if !cache::has("go") {
        return Err("go is not installed".into());
    }
    let out = cache::folder("go")?;
    let mut build = Command::new("go");
    build
        .args(["build", "-o"])
        .arg(format!("{}/", out.display()))
        .args(["./suite", "./sarama", "./load", "./cluster", "./member"]);
    prepare(build.current_dir(cache::root().join("interop/go")))?;
    Ok(out)
}

/// Franz-go's own tests, as one program.
pub fn franz_go_tests() -> Result<PathBuf> {
    if !cache::has("go") {
        return Err("go is not installed".into());
    }
    let program = cache::folder("go")?.join("franz-go.test");
    let mut build = Command::new("go");
    build.args(["test", "-c", "-o"]).arg(&program);
    build.arg("github.com/twmb/franz-go/pkg/kgo");
    prepare(build.current_dir(cache::root().join("interop/go")))?;
    Ok(program)
}

/// The folder with the Node program and its modules.
pub fn node() -> Result<PathBuf> {
    for program in ["node", "npm"] {
        if !cache::has(program) {
            return Err(format!("{program} is not installed").into());
        }
    }
    let source = cache::root().join("interop/node");
    let folder = cache::folder("node")?;
    let lock = fs::read_to_string(source.join("package-lock.json"))?;
    let fresh = fs::read_to_string(folder.join("package-lock.json"))
        .ok()
        .as_deref()
        == Some(&lock)
        && folder.join("installed").exists();
    let copied = [
        "package.json",
        "package-lock.json",
        "suite.js",
        "member.js",
        ".npmrc",
    ];
    for name in copied {
        fs::copy(source.join(name), folder.join(name))?;
    }
    if !fresh {
        prepare(Command::new("npm").arg("ci").current_dir(&folder))?;
        fs::write(folder.join("installed"), "")?;
    }
    Ok(folder)
}
