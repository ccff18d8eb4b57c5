//! Guards the house rules of docs/architecture.md: which crate may depend on which, and which
//! crates must stay pure.
#![allow(
    clippy::disallowed_methods,
    reason = "reads the sources of the workspace"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// What each crate may use of the workspace. An edge that is missing here is a new edge of the
/// architecture: discuss it, then add it with the reason in docs/architecture.md.
const ALLOWED: &[(&str, &[&str])] = &[
    ("klamm-env", &[]),
    ("klamm-records", &[]),
    ("klamm-config", &[]),
    ("klamm-protocol", &["klamm-records"]),
    ("klamm-log", &["klamm-records", "klamm-env"]),
    ("klamm-metadata", &["klamm-protocol", "klamm-records"]),
    (
        "klamm-controller",
        &[
            "klamm-metadata",
            "klamm-protocol",
            "klamm-records",
            "klamm-config",
            "klamm-log",
            "klamm-env",
        ],
    ),
    (
        "klamm-replication",
        &[
            "klamm-metadata",
            "klamm-protocol",
            "klamm-records",
            "klamm-log",
            "klamm-env",
        ],
    ),
    (
        "klamm-coordinator",
        &[
            "klamm-metadata",
            "klamm-protocol",
            "klamm-records",
            "klamm-env",
        ],
    ),
    ("klamm-client", &["klamm-protocol"]),
    ("klamm-net", &["klamm-env"]),
    (
        "klamm-broker",
        &[
            "klamm-client",
            "klamm-net",
            "klamm-coordinator",
            "klamm-replication",
            "klamm-controller",
            "klamm-metadata",
            "klamm-protocol",
            "klamm-records",
            "klamm-config",
            "klamm-log",
            "klamm-env",
        ],
    ),
    ("klamm", &["klamm-broker", "klamm-config", "klamm-env"]),
];

/// Crates that never do I/O, and therefore must not be able to.
const PURE: &[&str] = &[
    "klamm-records",
    "klamm-config",
    "klamm-protocol",
    "klamm-metadata",
];

/// What a pure crate must not depend on.
const IMPURE: &[&str] = &[
    "tokio",
    "rustix",
    "libc",
    "socket2",
    "klamm-env",
    "openraft",
];

fn workspace_root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Normal (not dev, not build) dependencies of each workspace package.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--no-deps",
            "--format-version",
            "1",
            "--offline",
        ])
        .current_dir(workspace_root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let normal = |package: &Value| {
        let all = package["dependencies"].as_array().unwrap();
        all.iter()
            .filter(|dependency| dependency["kind"].is_null())
            .map(|dependency| dependency["name"].as_str().unwrap().to_owned())
            .collect()
    };
    packages
        .iter()
        .map(|p| (p["name"].as_str().unwrap().to_owned(), normal(p)))
        .collect()
}

#[test]
fn crates_depend_only_downwards() {
    let allowed: BTreeMap<_, _> = ALLOWED.iter().copied().collect();
    for (package, uses) in dependencies() {
        let Some(allowed) = allowed.get(package.as_str()) else {
            continue;
        };
        for used in uses.iter().filter(|used| used.starts_with("klamm")) {
            assert!(
                allowed.contains(&used.as_str()),
                "{package} must not depend on {used}"
            );
        }
    }
}

#[test]
fn every_published_crate_is_in_the_allow_list() {
    let listed: BTreeSet<_> = ALLOWED.iter().map(|(name, _)| (*name).to_owned()).collect();
    let present: BTreeSet<_> = std::fs::read_dir(workspace_root().join("crates"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "klamm-sim")
        .collect();
    assert_eq!(listed, present);
}

#[test]
fn pure_crates_cannot_do_io() {
    let dependencies = dependencies();
    for package in PURE {
        for used in &dependencies[*package] {
            assert!(
                !IMPURE.contains(&used.as_str()),
                "{package} is pure and must not use {used}"
            );
        }
    }
}

#[test]
fn only_the_raft_folder_names_openraft() {
    for (package, uses) in dependencies() {
        if package != "klamm-controller" {
            assert!(
                !uses.contains("openraft"),
                "{package} must not use openraft"
            );
        }
    }
    let controller = workspace_root().join("crates/klamm-controller/src");
    visit(&controller, &mut |path, text| {
        if !path.starts_with(controller.join("raft")) {
            let code = text
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"));
            for line in code {
                assert!(
                    !line.contains("openraft::"),
                    "{} names openraft",
                    path.display()
                );
            }
        }
    });
}

#[test]
fn every_crate_has_a_paragraph_in_the_architecture_page() {
    let page = std::fs::read_to_string(workspace_root().join("docs/architecture.md")).unwrap();
    for (name, _) in ALLOWED {
        assert!(
            page.contains(&format!("`{name}`")),
            "docs/architecture.md does not tell of {name}"
        );
    }
}

/// Production files longer than the budget of 500 lines, generated code apart. The list may only
/// shrink.
const LONG_FILES: &[&str] = &[];

#[test]
fn files_stay_short() {
    let mut long = Vec::new();
    let crates = workspace_root().join("crates");
    visit(&crates, &mut |path, text| {
        let name = path
            .strip_prefix(workspace_root())
            .unwrap()
            .display()
            .to_string();
        let production = text
            .split("#[cfg(test)]")
            .next()
            .unwrap_or_default()
            .lines()
            .count();
        let generated = text.starts_with("// Generated by `cargo xtask");
        let test = name.contains("/tests/")
            || name.ends_with("tests.rs")
            || name.ends_with("testing.rs")
            || name.ends_with("_test.rs");
        if production > 500 && !generated && !test && !LONG_FILES.contains(&name.as_str()) {
            long.push(format!("{name}: {production}"));
        }
    });
    assert!(long.is_empty(), "files over 500 lines: {long:#?}");
}

fn visit(dir: &Path, look: &mut dyn FnMut(&Path, &str)) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if path
                .file_name()
                .is_none_or(|name| name != "target" && name != "fuzz")
            {
                visit(&path, look);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            look(&path, &std::fs::read_to_string(&path).unwrap());
        }
    }
}
