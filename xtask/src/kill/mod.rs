//! `cargo xtask kill`: kill -9 under load, again and again. After each restart every acknowledged
//! record must be there once and in order, and no log torn.
//!
//! The load comes from [`lane`]s, one a partition: idempotent ones repeat what was not acknowledged
//! until it is, so their partitions must hold every number exactly once, whenever the broker died.

mod lane;

use crate::broker::{Against, Broker, Spec, cluster_id};
use crate::report::Report;
use crate::runtimes::Java;
use crate::wire::Connection;
use crate::{Flags, Result, batch, cache};
use lane::{Kind, Lane, Verifier};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub const USAGE: &str = "kill [--against klamm] [--rounds 50] [--prefill-mib 0] [--ready-limit-ms 1000] [--lane-mib-per-s 2] [--seed 1]";

const FILLED: &str = "filled";
const FILLED_PARTITIONS: i32 = 4;

pub fn run(args: &[String]) -> Result<()> {
    let known = [
        "against",
        "rounds",
        "prefill-mib",
        "ready-limit-ms",
        "lane-mib-per-s",
        "seed",
    ];
    let flags = Flags::parse(args, &known)?;
    let against = Against::parse(flags.get("against").unwrap_or("klamm"))?;
    let rounds: u32 = flags.number("rounds", 50)?;
    let prefill_mib: usize = flags.number("prefill-mib", 0)?;
    // The promise is Klamm's; what Kafka takes is only told.
    let limit = match against {
        Against::Klamm => flags.number("ready-limit-ms", 1000)?,
        Against::Kafka => flags.number("ready-limit-ms", 60_000)?,
    };
    let mut random = Random(flags.number("seed", 1)?);
    let mut report = Report::new();

    let spec = Spec::new(cache::scratch(&format!("kill-{against}"))?)?;
    let mut broker = Broker::start(against, spec)?;
    let port = broker.spec.port;
    let kinds = create_topics(port, flags.number("lane-mib-per-s", 2.0)?)?;
    if prefill_mib > 0 {
        report.test("kill.prefill", || prefill(port, prefill_mib));
    }
    let stop = Arc::new(AtomicBool::new(false));
    let mut lanes = Vec::new();
    for kind in kinds {
        lanes.push(Lane::start(kind, port, Arc::clone(&stop))?);
    }
    let mut verifiers: Vec<Verifier> = lanes.iter().map(|l| Verifier::new(l.kind)).collect();
    let mut ready = Vec::new();
    for round in 1..=rounds {
        report.test(&format!("kill.round-{round}"), || {
            std::thread::sleep(Duration::from_millis(200 + random.below(600)));
            broker.kill()?;
            // What is on its way in the socket still counts as acknowledged.
            std::thread::sleep(Duration::from_millis(20));
            let promised: Vec<u64> = lanes.iter().map(Lane::acknowledged).collect();
            let took = broker.start_again()?;
            ready.push(took);
            if took.as_millis() > limit {
                return Err(format!("ready after {} ms", took.as_millis()).into());
            }
            let mut connection = Connection::open(port)?;
            for ((lane, verifier), promised) in lanes.iter().zip(&mut verifiers).zip(promised) {
                lane.failure()?;
                verifier.catch_up(&mut connection, promised, lane)?;
            }
            Ok(())
        });
    }
    stop.store(true, Ordering::Relaxed);
    report.test("kill.whole-log", || whole_log(port, &mut lanes));
    if prefill_mib > 0 {
        report.test("kill.prefilled-log", || filled_is_whole(port, prefill_mib));
    }
    report.test("kill.ends-cleanly", || broker.stop().map(drop));
    report.test("kill.restart-after-clean-end", || {
        let took = broker.start_again()?;
        println!("      ready in {} ms", took.as_millis());
        broker.stop().map(drop)
    });
    dump_log(&broker, &mut report);
    ready.sort();
    if let (Some(first), Some(last)) = (ready.first(), ready.last()) {
        let middle = ready[ready.len() / 2].as_millis();
        println!(
            "\n{against}: {rounds} kills, ready again after {} / {middle} / {} ms (least, median, most)",
            first.as_millis(),
            last.as_millis()
        );
    }
    let total: u64 = lanes.iter().map(Lane::acknowledged).sum();
    println!("{total} records acknowledged");
    report.close()
}

/// xorshift64*, so that a run can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % bound
    }
}

/// One topic whose segments roll all the time, and one that keeps to its first.
fn create_topics(port: u16, mib_per_s: f64) -> Result<Vec<Kind>> {
    let mut connection = Connection::open(port)?;
    let rolling = [("segment.bytes", "1048576"), ("retention.ms", "-1")];
    let topics = [
        ("kill-rolling", 2, &rolling[..]),
        ("kill-plain", 2, &rolling[1..]),
        (FILLED, FILLED_PARTITIONS, &rolling[1..]),
    ];
    for (name, partitions, configs) in topics {
        let code = connection.create_topic(name, partitions, configs)?;
        if code != 0 {
            return Err(format!("{name} cannot be created: {code}").into());
        }
    }
    let kind = |topic, partition, acks, idempotent, in_flight| Kind {
        topic,
        partition,
        acks,
        idempotent,
        in_flight,
        bytes_per_s: mib_per_s * f64::from(1 << 20),
    };
    Ok(vec![
        kind("kill-rolling", 0, -1, true, 1),
        kind("kill-rolling", 1, 1, false, 5),
        kind("kill-plain", 0, 1, true, 5),
        kind("kill-plain", 1, -1, true, 5),
    ])
}

fn prefill(port: u16, mib: usize) -> Result<()> {
    let mut connection = Connection::open(port)?;
    let values: Vec<Vec<u8>> = (0..900).map(|i| vec![i as u8; 1100]).collect();
    let batch = batch::build(batch::Producer::NONE, 1_700_000_000_000, &values);
    for i in 0..mib {
        let partition = i as i32 % FILLED_PARTITIONS;
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let answer = connection.produce(FILLED, partition, 1, &batch)?;
            match answer.error {
                0 => break,
                3 | 6 if Instant::now() < end => std::thread::sleep(Duration::from_millis(20)),
                code => return Err(format!("partition {partition} answered {code}").into()),
            }
        }
    }
    Ok(())
}

fn filled_is_whole(port: u16, mib: usize) -> Result<()> {
    let mut connection = Connection::open(port)?;
    for partition in 0..FILLED_PARTITIONS {
        let (mut next, mut end) = (0, i64::MAX);
        while next < end {
            let (error, high_watermark, bytes) =
                connection.fetch(FILLED, partition, next, 16 << 20)?;
            end = high_watermark;
            let records = batch::read_all(&bytes)?;
            let Some((last, _)) = records.last() else {
                return Err(format!("{FILLED}-{partition}: error {error} at {next}").into());
            };
            next = last + 1;
        }
        let batches = (0..mib)
            .filter(|i| *i as i32 % FILLED_PARTITIONS == partition)
            .count();
        if next != batches as i64 * 900 {
            return Err(
                format!("{FILLED}-{partition} ends at {next}, {batches} batches sent").into(),
            );
        }
    }
    Ok(())
}

/// Reads everything from the start with fresh eyes, once the load has ended.
fn whole_log(port: u16, lanes: &mut [Lane]) -> Result<()> {
    let mut connection = Connection::open(port)?;
    for lane in lanes {
        lane.join()?;
        Verifier::new(lane.kind).catch_up(&mut connection, lane.acknowledged(), lane)?;
    }
    Ok(())
}

/// Kafka's own tool reads every file, where Java is at hand.
fn dump_log(broker: &Broker, report: &mut Report) {
    let java = match Java::prepare() {
        Ok(java) => java,
        Err(e) => return report.missing("kill.dump-log", &e.to_string()),
    };
    report.test("kill.dump-log", || {
        let data = broker.spec.data();
        let mut command = java.driver("dump", std::path::Path::new("/dev/null"));
        command.args([
            "--only",
            "every-file",
            "--bootstrap",
            "none",
            "--golden",
            "none",
        ]);
        command
            .arg("--log-dir")
            .arg(&data)
            .args(["--cluster-id", &cluster_id(&data)?]);
        let out = command.output()?;
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        if text.starts_with("pass\t") {
            Ok(())
        } else {
            Err(text.into())
        }
    });
}
