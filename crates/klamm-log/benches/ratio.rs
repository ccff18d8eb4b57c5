//! What the log costs above the file: the same bytes appended through a log of one partition and
//! written one after the other into a plain file, by turns.
//!
//! ```text
//! cargo bench -p klamm-log --bench ratio
//! ```
//!
//! Both write new files of the same size on the same disk and none syncs; a ratio of 1 would mean
//! that the log costs nothing. At least 0.8 is what the log promises for batches of 16 KiB and
//! more. `TMPDIR` says on which disk.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a measurement takes the time and says it"
)]

use std::time::Instant;

use klamm_env::{Env, FileExt, OpenMode};
use klamm_log::{AppendOrigin, Log, LogConfig, LogOpen};
use klamm_records::{BatchBuilder, BatchOptions, PreparedBatch};

const ROUNDS: usize = 15;
const BYTES: usize = 128 << 20;

fn batch(bytes: usize) -> PreparedBatch {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    let value = vec![b'x'; 1_000.min(bytes)];
    for n in 0..bytes.div_ceil(1_000) {
        let appended = builder.append(n as i64, None, Some(&value), []);
        appended.expect("a small record fits");
    }
    PreparedBatch::trusted(builder.build().expect("a batch")).expect("a valid batch")
}

/// Seconds for `count` appends to a new log.
fn through_the_log(batch: &PreparedBatch, count: usize) -> f64 {
    let dir = tempfile::tempdir().expect("a directory");
    let open = LogOpen::standalone(dir.path(), LogConfig::default(), Env::os());
    let log = Log::open(open).expect("the log opens");
    let begun = Instant::now();
    for _ in 0..count {
        let mut batches = [batch.clone()];
        log.append_as_leader(&mut batches, 0, 0, AppendOrigin::Client)
            .expect("appended");
    }
    begun.elapsed().as_secs_f64()
}

/// Seconds for `count` writes to a new file.
fn into_a_file(batch: &PreparedBatch, count: usize) -> f64 {
    let dir = tempfile::tempdir().expect("a directory");
    let (fs, bytes) = (Env::os().fs, batch.to_bytes());
    let path = dir.path().join("plain");
    let file = fs.open(&path, OpenMode::CreateNew).expect("a file");
    let begun = Instant::now();
    for n in 0..count {
        let position = (n * bytes.len()) as u64;
        file.write_all_at(&bytes, position).expect("written");
    }
    begun.elapsed().as_secs_f64()
}

fn main() {
    println!("| batch | log | plain write | log / plain write (least–most) |");
    println!("|---:|---:|---:|---:|");
    for size in [1_000, 16_000, 64_000, 256_000] {
        let batch = batch(size);
        let count = BYTES / batch.size();
        let mut rounds: Vec<[f64; 3]> = (0..ROUNDS)
            .map(|round| {
                // Who goes first changes, too.
                let (log, plain) = if round % 2 == 0 {
                    let log = through_the_log(&batch, count);
                    (log, into_a_file(&batch, count))
                } else {
                    let plain = into_a_file(&batch, count);
                    (through_the_log(&batch, count), plain)
                };
                let mb = (count * batch.size()) as f64 / 1e6;
                [plain / log, mb / log, mb / plain]
            })
            .collect();
        rounds.sort_by(|a, b| a[0].total_cmp(&b[0]));
        let [ratio, log, plain] = rounds[ROUNDS / 2];
        let (least, most) = (rounds[0][0], rounds[ROUNDS - 1][0]);
        println!(
            "| {size} B | {log:.0} MB/s | {plain:.0} MB/s | {ratio:.2} ({least:.2}–{most:.2}) |"
        );
    }
}
