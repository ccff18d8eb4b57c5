//! The command line without a broker: help, look-ups, refusals and their exit codes.

use std::process::{Command, Output};

fn klamm(args: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_klamm"));
    command
        .args(args)
        .env_clear()
        .envs(variables.iter().copied());
    command.output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn help_teaches() {
    let help = out(&klamm(&["--help"], &[]));
    for word in [
        "server.properties",
        "KAFKA_CFG_",
        "--override",
        "./data",
        "/metrics",
        "Exit codes",
        "SIGTERM",
    ] {
        assert!(help.contains(word), "{word}");
    }
    assert!(out(&klamm(&["--version"], &[])).starts_with("klamm 0."));
}

#[test]
fn a_configuration_is_explained() {
    let output = klamm(&["config", "explain", "retention.ms"], &[]);
    let text = out(&output);
    assert!(output.status.success());
    assert!(
        text.starts_with("retention.ms (topic configuration)\n"),
        "{text}"
    );
    assert!(text.contains("604800000") && text.contains("log.retention.hours (in hours)"));
}

#[test]
fn an_unknown_configuration_gets_suggestions() {
    let output = klamm(&["config", "explain", "log.retention.mss"], &[]);
    assert_eq!(output.status.code(), Some(2));
    let message = err(&output);
    assert!(
        message.contains("did you mean log.retention.ms"),
        "{message}"
    );
}

#[test]
fn configurations_are_listed() {
    let args = ["config", "list", "num.partitions", "--scope", "broker"];
    let text = out(&klamm(&args, &[]));
    assert!(
        text.lines().any(|l| l.contains(" num.partitions ")),
        "{text}"
    );
    assert!(text.lines().all(|l| l.starts_with("broker")), "{text}");
    assert!(out(&klamm(&["config", "list"], &[])).lines().count() > 400);
}

#[test]
fn what_would_be_in_force_is_shown_without_secrets() {
    let output = klamm(
        &["config", "show", "--override", "ssl.key.password=hush"],
        &[
            ("KAFKA_CFG_NUM_PARTITIONS", "4"),
            ("KAFKA_HEAP_OPTS", "-Xmx1g"),
        ],
    );
    let text = out(&output);
    let line = "num.partitions=4  # environment KAFKA_CFG_NUM_PARTITIONS";
    assert!(text.contains(line), "{text}");
    assert!(!text.contains("hush") && !text.contains("heap"), "{text}");
}

/// Arguments, variables, and the whole of what must be said.
type Case<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], &'a str);

#[test]
fn bad_settings_are_refused_with_code_2_and_kafkas_words() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("server.properties");
    #[expect(clippy::disallowed_methods, reason = "a test's own file")]
    std::fs::write(&path, "num.partitions=none\n").unwrap();
    let file = path.to_str().unwrap();
    let in_file = format!(
        "klamm: Invalid value none for configuration num.partitions: \
         Not a number of type INT (file {file})\n"
    );
    let cases: [Case<'_>; 6] = [
        (
            &["--override", "num.partitions=0"],
            &[],
            "klamm: Invalid value 0 for configuration num.partitions: \
             Value must be at least 1 (command line)\n",
        ),
        (&[file], &[], &in_file),
        (
            &[],
            &[("KAFKA_CFG_LOG_RETENTION_MS", "0")],
            "klamm: log.retention.ms must be unlimited (-1) or, greater than or equal to 1\n",
        ),
        (
            &["--config", "/no/such/file"],
            &[],
            "klamm: cannot read /no/such/file: No such file or directory (os error 2)\n",
        ),
        (
            &["--override", "x"],
            &[],
            "klamm: --override needs name=value, not 'x'\n",
        ),
        (
            &["--metrics-listen", "here"],
            &[],
            "klamm: klamm.metrics.listeners needs host:port, not here\n",
        ),
    ];
    for (args, variables, message) in cases {
        let output = klamm(args, variables);
        let told = (output.status.code(), err(&output));
        assert_eq!(told, (Some(2), message.to_owned()), "{args:?}");
    }
    assert_eq!(
        klamm(&["--log-level", "x=loud"], &[]).status.code(),
        Some(2)
    );
    assert_eq!(klamm(&["--no-such-flag"], &[]).status.code(), Some(2));
}

#[test]
fn health_of_nobody_is_bad() {
    // Port 1 is not served on any machine that runs tests.
    let output = klamm(&["health", "127.0.0.1:1"], &[]);
    assert_eq!(output.status.code(), Some(1));
    let message = err(&output);
    assert!(
        message.starts_with("klamm: no answer from 127.0.0.1:1: "),
        "{message}"
    );
}

#[test]
#[allow(
    clippy::disallowed_methods,
    reason = "a test writes its own configuration"
)]
fn directories_are_formatted_in_kafkas_words() {
    let dir = tempfile::tempdir().unwrap();
    let (data, file) = (
        dir.path().join("data"),
        dir.path().join("server.properties"),
    );
    let text = format!(
        "process.roles=broker,controller\nnode.id=1\ncontroller.listener.names=CONTROLLER\n\
         controller.quorum.bootstrap.servers=localhost:9093\n\
         listeners=PLAINTEXT://:9092,CONTROLLER://localhost:9093\nlog.dirs={}\n",
        data.display()
    );
    std::fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    let storage = |args: &[&str]| klamm(&[&["storage"], args].concat(), &[]);
    let id = out(&storage(&["random-uuid"]));
    let id = id.trim();
    assert_eq!(id.len(), 22);
    let format = ["format", "-t", id, "-c", file];
    let refused = storage(&format);
    assert_eq!(refused.status.code(), Some(1));
    assert!(err(&refused).contains("you must specify one of the following: --standalone"));
    let both = storage(&[&format[..], &["--standalone", "--no-initial-controllers"]].concat());
    assert_eq!(both.status.code(), Some(2));
    let formatted = storage(&[&format[..], &["--standalone"]].concat());
    let shown = data.display();
    assert_eq!(
        out(&formatted),
        format!(
            "Formatting dynamic metadata voter directory {shown} with metadata.version 4.3-IV0.\n"
        )
    );
    let info = out(&storage(&["info", "-c", file]));
    assert!(
        info.starts_with(&format!(
            "Found log directory:\n  {shown}\n\nFound metadata: {{cluster.id={id}, directory.id="
        )),
        "{info}"
    );
    assert!(info.ends_with(", node.id=1, version=1}\n\n"), "{info}");
}
