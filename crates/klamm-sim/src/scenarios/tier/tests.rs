//! The property is violated by what it must not allow.

use std::sync::Arc;

use klamm_env::Env;
use klamm_log::tier::{MemoryTier, RemoteLog, RemoteStorage as _};
use klamm_log::{AppendOrigin, Log, LogConfig, LogOpen};
use klamm_records::{BatchBuilder, BatchOptions, PreparedBatch};

use super::whole::{self, Written};
use super::*;
use crate::{SimFs, SimRng};

#[test]
fn what_is_gone_or_changed_is_seen() {
    let run = Run::new(1);
    let fs = SimFs::new(SimRng::new(1), run.clock.clone(), run.trace.clone());
    let env = Env {
        clock: Arc::new(run.clock),
        rng: Arc::new(SimRng::new(2)),
        fs: Arc::new(fs),
    };
    let config = LogConfig {
        remote_storage: true,
        local_retention_ms: 0,
        ..LogConfig::default()
    };
    let log = Arc::new(Log::open(LogOpen::standalone("/log", config, env)).unwrap());
    let mut batches = Vec::new();
    for value in [&b"a"[..], b"b", b"c"] {
        let mut builder = BatchBuilder::new(BatchOptions::default());
        builder.append(1, None, Some(value), []).unwrap();
        let mut batch = [PreparedBatch::trusted(builder.build().unwrap()).unwrap()];
        let info = log
            .append_as_leader(&mut batch, 0, 1, AppendOrigin::Client)
            .unwrap();
        batches.push(Written {
            base: info.first_offset,
            next: info.last_offset + 1,
            bytes: batch[0].to_bytes().to_vec(),
        });
        log.roll().unwrap();
    }
    log.set_high_watermark(3);
    let tier = Arc::new(MemoryTier::default());
    let remote = RemoteLog::open(log.clone(), tier.clone(), tier.clone()).unwrap();
    let first = remote.upload_next(3).unwrap().unwrap();
    log.apply_retention(i64::MAX, 3).unwrap();
    assert_eq!(log.local_log_start_offset(), 1);
    assert_eq!(whole::check(&log, &remote, &batches), Ok(()));
    let mut other = batches.clone();
    other[0].bytes[65] ^= 1;
    assert!(whole::check(&log, &remote, &other).is_err());
    let mut other = batches.clone();
    other[2].bytes[65] ^= 1;
    assert!(whole::check(&log, &remote, &other).is_err());
    assert!(whole::check(&log, &remote, &batches[..2]).is_err());
    assert!(whole::check(&log, &remote, &batches[1..]).is_err());
    tier.delete_segment(&first).unwrap();
    assert!(whole::check(&log, &remote, &batches).is_err());
}
