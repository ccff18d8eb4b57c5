//! The commands of Docker, and guards over what they made: whatever was begun is removed when its
//! guard goes, and what an interrupted run left is removed before the next one begins.

use super::PATIENCE;
use crate::{Result, cache};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The image's name in the compose files.
pub const IMAGE: &str = "klamm";

/// A Docker engine that answers, and the command for compose files.
pub struct Engine {
    compose: Vec<&'static str>,
}

impl Engine {
    /// Fails with the reason if there is none here.
    pub fn find() -> Result<Engine> {
        if !cache::has("docker") {
            return Err("docker is not installed".into());
        }
        docker(&["info"]).map_err(|_| "no Docker engine answers")?;
        if docker(&["compose", "version"]).is_ok() {
            return Ok(Engine {
                compose: vec!["docker", "compose"],
            });
        }
        if !cache::has("docker-compose") {
            return Err("neither docker compose nor docker-compose is installed".into());
        }
        Ok(Engine {
            compose: vec!["docker-compose"],
        })
    }

    /// Starts a container of the image: `options` for Docker, `arguments` for Klamm.
    pub fn run(&self, name: &str, options: &[&str], arguments: &[&str]) -> Result<Container> {
        let container = Container::named(name);
        container.remove();
        let begin = ["run", "--detach", "--name", &container.0];
        docker(&[&begin[..], options, &[IMAGE], arguments].concat())?;
        Ok(container)
    }

    /// Begins with a compose file of the repository, under a name of the suite's own.
    pub fn project(&self, file: &str, name: &str) -> Result<Project> {
        let mut command: Vec<String> = self.compose.iter().map(ToString::to_string).collect();
        let file = cache::root().join(file).display().to_string();
        command.extend([
            "-f".into(),
            file,
            "-p".into(),
            format!("klamm-suite-{name}"),
        ]);
        let project = Project(command);
        project.run(&["down", "--volumes", "--remove-orphans"])?;
        Ok(project)
    }
}

/// Runs a command of Docker; what it says, on both streams.
pub fn docker(arguments: &[&str]) -> Result<String> {
    let words = [&["docker"], arguments].concat();
    run(&words)
}

fn run(words: &[&str]) -> Result<String> {
    let out = Command::new(words[0])
        .args(&words[1..])
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("{}: {e}", words[0]))?;
    let text = [out.stdout, out.stderr].concat();
    let text = String::from_utf8_lossy(&text).trim().to_string();
    if out.status.success() {
        return Ok(text);
    }
    Err(format!("{}: {}\n{text}", words.join(" "), out.status).into())
}

/// A container. Dropping it removes it and the volumes it has for itself.
pub struct Container(String);

impl Container {
    fn named(name: &str) -> Container {
        Container(format!("klamm-suite-{name}"))
    }

    fn remove(&self) {
        // Most often there is none.
        let _ = docker(&["rm", "--force", "--volumes", &self.0]);
    }

    pub fn as_member(&self) -> Member {
        Member(self.0.clone())
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.remove();
    }
}

/// A container, whoever removes it.
pub struct Member(pub String);

impl Member {
    pub fn inspect(&self, what: &str) -> Result<String> {
        docker(&["inspect", "--format", what, &self.0])
    }

    pub fn logs(&self) -> Result<String> {
        docker(&["logs", &self.0])
    }

    /// What the image's own check says of it.
    pub fn healthy(&self) -> Result<()> {
        docker(&["exec", &self.0, "/klamm", "health"]).map(drop)
    }

    /// Waits until the engine's checks call it healthy; tells how long that took.
    pub fn wait_healthy(&self) -> Result<Duration> {
        let begun = Instant::now();
        loop {
            let status = self.inspect("{{.State.Health.Status}}")?;
            if status == "healthy" {
                return Ok(begun.elapsed());
            }
            if begun.elapsed() > PATIENCE {
                let logs = self.logs()?;
                return Err(format!("{} is {status} after {PATIENCE:?}:\n{logs}", self.0).into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// SIGTERM, and what Docker does of its own accord after the grace period. Refuses any other end
    /// than one in order; tells how long it took.
    pub fn stop(&self) -> Result<Duration> {
        let begun = Instant::now();
        docker(&["stop", &self.0])?;
        let took = begun.elapsed();
        self.ended_in_order()?;
        Ok(took)
    }

    pub fn ended_in_order(&self) -> Result<()> {
        let state = self.inspect("{{.State.Status}} {{.State.ExitCode}}")?;
        let logs = self.logs()?;
        if state != "exited 0" || !logs.contains("serve: stopped") {
            return Err(format!("{} is '{state}':\n{logs}", self.0).into());
        }
        Ok(())
    }

    /// Waits for its end; the exit code.
    pub fn wait(&self) -> Result<i32> {
        Ok(docker(&["wait", &self.0])?.parse()?)
    }
}

/// A volume. Dropping it removes it; its containers must be gone by then.
pub struct Volume(pub String);

impl Volume {
    pub fn new(name: &str) -> Result<Volume> {
        let volume = Volume(format!("klamm-suite-{name}"));
        let _ = docker(&["volume", "rm", "--force", &volume.0]);
        docker(&["volume", "create", &volume.0])?;
        Ok(volume)
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = docker(&["volume", "rm", "--force", &self.0]);
    }
}

/// What a compose file makes. Dropping it removes all of it, volumes included.
pub struct Project(Vec<String>);

impl Project {
    /// A command of compose.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        let command = self.0.iter().map(String::as_str);
        run(&command.chain(arguments.iter().copied()).collect::<Vec<_>>())
    }

    /// Starts all from the image that is there.
    pub fn up(&self) -> Result<()> {
        self.run(&["up", "--detach", "--no-build"]).map(drop)
    }

    pub fn member(&self, service: &str) -> Result<Member> {
        let ids = self.run(&["ps", "--all", "--quiet", service]);
        // The older command shows those that ended anyway, and knows no --all.
        let ids = ids.or_else(|_| self.run(&["ps", "--quiet", service]))?;
        let id = ids.lines().last().unwrap_or_default();
        if id.is_empty() {
            return Err(format!("there is no container of {service}").into());
        }
        Ok(Member(id.into()))
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        let _ = self.run(&["down", "--volumes", "--remove-orphans", "--timeout", "0"]);
    }
}
