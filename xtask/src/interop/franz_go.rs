//! Franz-go's own tests of groups, transactions and share groups, as its module comes: chains of
//! groups whose members join and leave, each of which must have every record once and in order.

use super::Run;
use crate::broker::{Broker, Spec};
use crate::report::Outcome;
use crate::{Result, cache, runtimes};
use std::fs::{self, File};
use std::process::{Command, Stdio};
use std::time::Duration;

const SUITE: &str = "franz-go-tests";
const TESTS: [&str; 5] = [
    "TestGroupETL",
    "TestTxnEtl",
    "TestShareGroupETL",
    "TestShareGroupAckOnClose",
    "TestShareGroupOffsetsAdmin",
];
/// Of `--records`, so that the usual run is a short one. What the tests take by default are 500,000.
const RECORDS_PART: usize = 20;

impl Run {
    pub(super) fn franz_go_tests(&mut self) -> Result<()> {
        let tests = match runtimes::franz_go_tests() {
            Ok(tests) => tests,
            Err(e) => {
                self.report.missing(SUITE, &e.to_string());
                return Ok(());
            }
        };
        let spec = Spec::new(self.folder.join(SUITE))?;
        let mut broker = match Broker::start(self.against, spec) {
            Ok(broker) => broker,
            Err(e) => {
                let outcome = Outcome::Fail(e.to_string());
                self.report.tell("franz-go-tests.start", outcome, None);
                return Ok(());
            }
        };
        let records = (self.records / RECORDS_PART).max(500);
        let only = self.only_of(SUITE);
        let only = only.as_deref().and_then(|name| name.split_once('.'));
        let all = format!("^({})$", TESTS.join("|"));
        let pattern = only.map_or(all, |(_, test)| test.to_string());
        let (said, log) = (
            self.folder.join("franz-go-tests.out"),
            self.folder.join("franz-go-tests.log"),
        );
        let mut command = Command::new(tests);
        command
            .args(["-test.v", "-test.timeout", "2h", "-test.run", &pattern])
            .env("KGO_SEEDS", broker.bootstrap())
            .env("KGO_TEST_RF", "1")
            .env("KGO_TEST_RECORDS", records.to_string())
            .env("KGO_LOG_LEVEL", "none")
            .current_dir(cache::folder("go")?)
            .stdin(Stdio::null())
            .stdout(File::create(&said)?)
            .stderr(File::create(&log)?);
        let ended = command.status()?;
        let said = fs::read_to_string(&said)?;
        let told = self.tell_go_tests(&said);
        if told == 0 || (ended.success() != self.go_passed(&said)) {
            let tail: Vec<&str> = said.lines().rev().take(20).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            let why = format!("{ended}, {told} tests told:\n{}", tail.join("\n"));
            self.report.tell(SUITE, Outcome::Fail(why), None);
        }
        self.report
            .test("franz-go-tests.ends-cleanly", || broker.stop().map(drop));
        Ok(())
    }

    /// Tells what `go test -v` told; how many tests that were.
    fn tell_go_tests(&mut self, said: &str) -> usize {
        let mut told = 0;
        for line in said.lines() {
            let Some((kind, rest)) = line.trim_start().strip_prefix("--- ").and_then(|rest| {
                let (kind, rest) = rest.split_once(": ")?;
                Some((kind, rest))
            }) else {
                continue;
            };
            let (name, time) = rest.split_once(' ').unwrap_or((rest, ""));
            let seconds = time.trim_matches(['(', ')', 's']).parse().ok();
            let outcome = match kind {
                "PASS" => Outcome::Pass,
                "SKIP" => Outcome::Skip("skipped by franz-go".into()),
                _ => Outcome::Fail(complaints(said)),
            };
            told += 1;
            let took = seconds.map(Duration::from_secs_f64);
            self.report.tell(&format!("{SUITE}.{name}"), outcome, took);
        }
        told
    }

    fn go_passed(&self, said: &str) -> bool {
        !said.contains("--- FAIL") && said.lines().any(|line| line == "PASS")
    }
}

/// What the tests complained of.
fn complaints(said: &str) -> String {
    let complaint = |line: &&str| line.contains("_test.go:") || line.contains("sendErr");
    let plain = |line: &&str| !line.contains("deleting ") && !line.contains("completed in");
    let lines: Vec<&str> = said
        .lines()
        .filter(complaint)
        .filter(plain)
        .take(12)
        .collect();
    lines.join("\n")
}
