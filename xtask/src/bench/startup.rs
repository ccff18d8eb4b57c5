//! How long until the first record is acknowledged, and what an idle broker holds.

use super::{BOTH, header, median, row};
use crate::batch::{self, Producer};
use crate::broker::{Against, Broker, Spec, klamm_binary};
use crate::wire::{Connection, now_ms};
use crate::{Result, cache};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

#[derive(Default)]
struct Figures {
    fresh_ms: Vec<f64>,
    again_ms: Vec<f64>,
    idle_mib: Vec<f64>,
    stop_ms: Vec<f64>,
}

pub fn run(turns: usize) -> Result<()> {
    let mut figures = [Figures::default(), Figures::default()];
    for turn in 0..turns {
        for (against, figures) in BOTH.iter().zip(&mut figures) {
            one_turn(*against, turn, figures)?;
        }
    }
    let [klamm, kafka] = figures;
    header("Start and size");
    let ms = |what, a: Vec<f64>, b: Vec<f64>| row(what, "ms", median(a), median(b));
    ms(
        "start to first acknowledged record, fresh folder",
        klamm.fresh_ms,
        kafka.fresh_ms,
    );
    ms(
        "start to first acknowledged record, used folder",
        klamm.again_ms,
        kafka.again_ms,
    );
    ms("SIGTERM to end", klamm.stop_ms, kafka.stop_ms);
    row(
        "idle memory (resident)",
        "MiB",
        median(klamm.idle_mib),
        median(kafka.idle_mib),
    );
    let binary = fs::metadata(klamm_binary()?)?.len() as f64;
    row(
        "size on disk (binary; jars)",
        "MB",
        binary / 1e6,
        folder_bytes(&cache::kafka_jars()?)? / 1e6,
    );
    println!(
        "\nKafka's folder is formatted beforehand, outside the measurement; its heap is 768 MiB.\n"
    );
    Ok(())
}

fn one_turn(against: Against, turn: usize, figures: &mut Figures) -> Result<()> {
    let spec = Spec::new(cache::scratch(&format!("bench-start-{against}-{turn}"))?)?;
    let mut broker = Broker::prepare(against, spec)?;
    figures.fresh_ms.push(first_record_ms(&mut broker, true)?);
    std::thread::sleep(Duration::from_secs(3));
    figures.idle_mib.push(broker.memory_mib()?.0);
    figures.stop_ms.push(broker.stop()?.as_secs_f64() * 1e3);
    figures.again_ms.push(first_record_ms(&mut broker, false)?);
    broker.stop()?;
    fs::remove_dir_all(&broker.spec.folder)?;
    Ok(())
}

/// From the start of the process to the acknowledgement of a record.
fn first_record_ms(broker: &mut Broker, create: bool) -> Result<f64> {
    let value = b"the first record".to_vec();
    let batch = batch::build(Producer::NONE, now_ms(), &[value]);
    let begun = Instant::now();
    broker.spawn()?;
    let mut made = !create;
    loop {
        if let Ok(mut connection) = Connection::open(broker.spec.port) {
            made = made || matches!(connection.create_topic("first", 1, &[]), Ok(0 | 36));
            if made && matches!(connection.produce("first", 0, -1, &batch), Ok(p) if p.error == 0) {
                return Ok(begun.elapsed().as_secs_f64() * 1e3);
            }
        }
        if begun.elapsed() > Duration::from_secs(60) {
            return Err(format!("no record acknowledged in 60 s:\n{}", broker.log_tail()).into());
        }
        std::thread::sleep(Duration::from_micros(500));
    }
}

fn folder_bytes(folder: &Path) -> Result<f64> {
    let mut sum = 0;
    for entry in fs::read_dir(folder)? {
        sum += entry?.metadata()?.len();
    }
    Ok(sum as f64)
}
