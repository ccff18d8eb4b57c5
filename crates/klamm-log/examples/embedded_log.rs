//! A log inside a program, with no Kafka around it: one thread appends, another follows the tail.
//!
//! ```text
//! cargo run -p klamm-log --example embedded_log [DIRECTORY]
//! ```

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use klamm_env::{Env, FileExt};
use klamm_log::{AppendOrigin, Log, LogConfig, LogOpen};
use klamm_records::{BatchBuilder, BatchOptions, PreparedBatch, Scratch, batches};

fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::args_os().nth(1).map_or_else(
        || std::env::temp_dir().join("klamm-embedded-log"),
        PathBuf::from,
    );
    let env = Env::os();
    let log = Log::open(LogOpen::standalone(&dir, LogConfig::default(), env.clone()))?;
    let log = Arc::new(log);
    let first = log.log_end_offset();
    say(&format!(
        "{} holds offsets {}..{first}",
        dir.display(),
        log.log_start_offset()
    ));

    let follower = std::thread::spawn({
        let log = log.clone();
        move || follow(&log, first, first + 30).map_err(|error| error.to_string())
    });
    for n in 0..10 {
        let mut batch = BatchBuilder::new(BatchOptions::default());
        for part in ["a", "b", "c"] {
            let value = format!("event {n}{part}");
            batch.append(env.clock.wall_ms(), None, Some(value.as_bytes()), [])?;
        }
        let mut batch = [PreparedBatch::trusted(batch.build()?)?];
        log.append_as_leader(&mut batch, 0, env.clock.wall_ms(), AppendOrigin::Client)?;
    }
    // On disk, not only in the page cache.
    log.flush(i64::MAX)?;
    follower.join().map_err(|_| "the follower panicked")??;
    log.close()?;
    Ok(())
}

/// Prints the records from `next` on until `end`, as they come.
fn follow(log: &Log, mut next: i64, end: i64) -> Result<(), Box<dyn Error>> {
    let mut scratch = Scratch::new();
    while next < end {
        if !log.wait_for(next, Duration::from_secs(10)) {
            return Err("nothing came".into());
        }
        for part in log.read(next, 1 << 20, i64::MAX, true)?.parts {
            let mut bytes = vec![0; part.len];
            part.file.read_exact_at(&mut bytes, part.position)?;
            for batch in batches(&bytes) {
                for record in batch?.records(&mut scratch)? {
                    let record = record?;
                    // A batch may begin before the offset asked for.
                    if record.offset >= next {
                        let value = String::from_utf8_lossy(record.value.unwrap_or_default());
                        say(&format!("{}: {value}", record.offset));
                        next = record.offset + 1;
                    }
                }
            }
        }
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "an example talks to whoever runs it")]
fn say(line: &str) {
    println!("{line}");
}
