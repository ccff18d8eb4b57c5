//! The static binary, and the image around it: what the Dockerfile's last stage says, with the
//! first one's results made here, so that nothing is fetched.

use super::engine::{IMAGE, docker};
use crate::{Result, cache};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Names a ready static binary.
const BINARY: &str = "KLAMM_STATIC_BIN";
/// By this the first stage, which has no name, is found again.
const STAGE: &str = "klamm-suite=stage";

fn target() -> String {
    format!("{}-unknown-linux-musl", std::env::consts::ARCH)
}

/// Whether a static binary is there or can be built; the reason if not.
pub fn buildable() -> Result<()> {
    if std::env::var_os(BINARY).is_some() {
        return Ok(());
    }
    let target = target();
    let libraries = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", &target])
        .stderr(Stdio::null())
        .output()?;
    let libraries = String::from_utf8_lossy(&libraries.stdout)
        .trim()
        .to_string();
    if !Path::new(&libraries).is_dir() {
        return Err(format!("no Rust for {target}: rustup target add {target}").into());
    }
    if !cache::has("musl-gcc") {
        return Err("musl-gcc is not installed (Debian: musl-tools)".into());
    }
    Ok(())
}

fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(BINARY) {
        return Ok(PathBuf::from(path).canonicalize()?);
    }
    let target = target();
    let status = Command::new("cargo")
        .args(["build", "--quiet", "--release", "--locked"])
        .args(["--package", "klamm", "--target", &target])
        .current_dir(cache::root())
        .stdin(Stdio::null())
        .status()?;
    if !status.success() {
        return Err(format!("cargo build --target {target} failed").into());
    }
    Ok(cache::target().join(target).join("release/klamm"))
}

/// The image under its name. Dropping it takes it away, and gives the name back to whatever had it.
pub struct Image {
    id: String,
    before: Option<String>,
}

pub fn make(folder: &Path) -> Result<Image> {
    let before = docker(&["image", "inspect", "--format", "{{.Id}}", IMAGE]).ok();
    let context = folder.join("context");
    lay_out(&context)?;
    let shown = context.display().to_string();
    docker(&["build", "--force-rm", "--tag", IMAGE, &shown])?;
    let id = docker(&["image", "inspect", "--format", "{{.Id}}", IMAGE])?;
    let size: f64 = docker(&["image", "inspect", "--format", "{{.Size}}", IMAGE])?.parse()?;
    println!("      the image has {:.1} MB", size / 1e6);
    let before = before.filter(|before| *before != id);
    Ok(Image { id, before })
}

impl Drop for Image {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = docker(&["tag", before, IMAGE]);
        }
        let _ = docker(&["rmi", "--force", &self.id]);
        let stage = format!("label={STAGE}");
        let _ = docker(&["image", "prune", "--force", "--filter", &stage]);
    }
}

/// Makes the folder that the image is built from: a first stage that has what the last one takes
/// from it, and the last one to the letter.
fn lay_out(context: &Path) -> Result<()> {
    let dockerfile = fs::read_to_string(cache::root().join("Dockerfile"))?;
    let at = dockerfile
        .rfind("\nFROM ")
        .ok_or("the Dockerfile has one stage only")?;
    let (first, last) = dockerfile.split_at(at + 1);
    if context.exists() {
        fs::remove_dir_all(context)?;
    }
    fs::create_dir_all(context)?;
    let mut stage = format!("FROM scratch AS build\nLABEL {STAGE}\n");
    for line in last.lines().filter(|line| line.starts_with("COPY ")) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [from, source] = [words.get(1), words.iter().rev().nth(1)];
        let (Some(&"--from=build"), Some(source)) = (from, source) else {
            return Err(format!("not copied from the first stage: {line}").into());
        };
        match source.strip_prefix("/src/") {
            Some("target/release/klamm") => {
                fs::copy(binary()?, context.join("klamm"))?;
                stage += &format!("COPY klamm {source}\n");
            }
            Some(path) => {
                let name = path.replace('/', "-");
                fs::copy(cache::root().join(path), context.join(&name))?;
                stage += &format!("COPY {name} {source}\n");
            }
            None if first.lines().any(|l| l == format!("RUN mkdir {source}")) => {
                stage += &format!("WORKDIR {source}\n");
            }
            None => return Err(format!("the first stage does not make {source}").into()),
        }
    }
    Ok(fs::write(context.join("Dockerfile"), stage + last)?)
}
