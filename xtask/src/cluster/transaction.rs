//! A transaction, step by step: what the clients of the load do not do.

use crate::Result;
use crate::batch::{self, CRC_FROM, Producer};
use crate::wire::{Connection, Reader, Writer, now_ms};
use std::time::{Duration, Instant};

const TIMEOUT_MS: i32 = 60_000;
/// How long a marker, or a coordinator, may take.
const PATIENCE: Duration = Duration::from_secs(60);
const TRANSACTIONAL: u8 = 0x10;
/// COORDINATOR_LOAD_IN_PROGRESS, _NOT_AVAILABLE, NOT_COORDINATOR, CONCURRENT_TRANSACTIONS.
const LATER: [i16; 4] = [14, 15, 16, 51];
/// REQUEST_TIMED_OUT.
const TIMED_OUT: i16 = 7;
/// INVALID_PRODUCER_EPOCH, INVALID_TXN_STATE, PRODUCER_FENCED.
const FENCED: [i16; 3] = [47, 48, 90];

/// How it ended, as its producer was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    Committed,
    /// Somebody else did.
    Fenced,
}

pub(super) struct Transaction {
    name: String,
    coordinator: Connection,
    leader: Connection,
    topic: String,
    partition: i32,
    id: i64,
    epoch: i16,
}

impl Transaction {
    /// Gets a producer id and adds one partition.
    pub(super) fn begin(
        name: &str,
        coordinator: Connection,
        leader: Connection,
        (topic, partition): (&str, i32),
    ) -> Result<Transaction> {
        let mut new = Transaction {
            name: name.into(),
            coordinator,
            leader,
            topic: topic.into(),
            partition,
            id: -1,
            epoch: -1,
        };
        let mut body = Writer::default();
        body.string(name).i32(TIMEOUT_MS);
        let answer = new.ask(22, &body, |r| r.i16())?.1;
        let mut r = Reader(&answer);
        (new.id, new.epoch) = (r.i64()?, r.i16()?);
        let mut body = new.named();
        body.i32(1).string(topic).i32(1).i32(partition);
        let added = new.ask(24, &body, |r| {
            r.i32()?;
            r.string()?;
            r.i32()?;
            r.i32()?;
            r.i16()
        })?;
        match added.0 {
            0 => Ok(new),
            code => Err(format!("adding a partition was answered with {code}").into()),
        }
    }

    fn named(&self) -> Writer {
        let mut body = Writer::default();
        body.string(&self.name).i64(self.id).i16(self.epoch);
        body
    }

    /// Asks the coordinator (version 1 of a request) until it does not say that it will answer later:
    /// the code and what is behind it.
    fn ask(
        &mut self,
        key: i16,
        body: &Writer,
        code: impl Fn(&mut Reader) -> std::io::Result<i16>,
    ) -> Result<(i16, Vec<u8>)> {
        let end = Instant::now() + PATIENCE;
        loop {
            let answer = self.coordinator.call(key, 1, body)?;
            let mut r = Reader(&answer);
            r.i32()?;
            let code = code(&mut r)?;
            if !LATER.contains(&code) || Instant::now() > end {
                return Ok((code, r.0.to_vec()));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// One record.
    pub(super) fn write(&mut self) -> Result<()> {
        let producer = Producer {
            id: self.id,
            epoch: self.epoch,
            sequence: 0,
        };
        let mut batch = batch::build(producer, now_ms(), &[b"in a transaction".to_vec()]);
        batch[CRC_FROM + 1] |= TRANSACTIONAL;
        batch::reseal(&mut batch);
        let mut body = Writer::default();
        body.string(&self.name).i16(-1).i32(30_000);
        body.i32(1).string(&self.topic).i32(1).i32(self.partition);
        body.bytes(&batch);
        let end = Instant::now() + PATIENCE;
        loop {
            self.leader.send(0, 7, &body.0)?;
            match self.leader.receive_produce()?.error {
                0 => return Ok(()),
                // The leader could not ask the coordinator yet; clients try again, too.
                code if code == TIMED_OUT || LATER.contains(&code) => {
                    if Instant::now() > end {
                        return Err(format!("a record was answered with {code}").into());
                    }
                    std::thread::sleep(Duration::from_millis(50));
                }
                code => return Err(format!("a record was answered with {code}").into()),
            }
        }
    }

    /// EndTxn.
    pub(super) fn commit(&mut self) -> Result<Ended> {
        let mut body = self.named();
        body.i8(1);
        match self.ask(26, &body, |r| r.i16())?.0 {
            0 => Ok(Ended::Committed),
            code if FENCED.contains(&code) => Ok(Ended::Fenced),
            code => Err(format!("the commit was answered with {code}").into()),
        }
    }

    /// Waits until the partition has no open transaction. Whether its record is there is not looked at.
    pub(super) fn wait_decided(&mut self, ended: Ended) -> Result<()> {
        let begun = Instant::now();
        while self.end_offset(1)? < self.end_offset(0)? {
            if begun.elapsed() > PATIENCE {
                return Err(format!("{ended:?}, and open after {PATIENCE:?}").into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// ListOffsets v2 of the end, or with `isolation` 1 of the last stable offset.
    fn end_offset(&mut self, isolation: i8) -> Result<i64> {
        let mut body = Writer::default();
        body.i32(-1).i8(isolation).i32(1).string(&self.topic);
        body.i32(1).i32(self.partition).i64(-1);
        let answer = self.leader.call(2, 2, &body)?;
        let mut r = Reader(&answer);
        r.i32()?;
        r.i32()?;
        r.string()?;
        r.i32()?;
        r.i32()?;
        let code = r.i16()?;
        r.i64()?;
        match (code, r.i64()?) {
            (0, offset) => Ok(offset),
            (code, _) => Err(format!("ListOffsets answered {code}").into()),
        }
    }
}
