//! Record batches (format 2, uncompressed) for [`crate::wire`]: built here and read back here.

use crate::wire::{Reader, Writer};
use std::io;

pub const HEADER_LEN: usize = 61;
/// Where the checksummed part begins: behind base offset, length, leader epoch, magic and CRC.
pub const CRC_FROM: usize = 21;

/// Who wrote a batch, for deduplication.
#[derive(Debug, Clone, Copy)]
pub struct Producer {
    pub id: i64,
    pub epoch: i16,
    pub sequence: i32,
}

impl Producer {
    pub const NONE: Producer = Producer {
        id: -1,
        epoch: -1,
        sequence: -1,
    };
}

/// A batch of records without keys or headers.
pub fn build(producer: Producer, timestamp: i64, values: &[Vec<u8>]) -> Vec<u8> {
    let mut records = Writer::default();
    for (i, value) in values.iter().enumerate() {
        let mut record = Writer::default();
        record
            .i8(0)
            .varint(0)
            .varint(i as i64)
            .varint(-1)
            .varint(value.len() as i64);
        record.0.extend(value);
        record.varint(0);
        records.varint(record.0.len() as i64);
        records.0.extend(record.0);
    }
    let count = values.len() as i32;
    let mut batch = Writer::default();
    batch
        .i64(0)
        .i32((HEADER_LEN - 12 + records.0.len()) as i32)
        .i32(-1)
        .i8(2)
        .i32(0);
    batch.i16(0).i32(count - 1).i64(timestamp).i64(timestamp);
    batch
        .i64(producer.id)
        .i16(producer.epoch)
        .i32(producer.sequence)
        .i32(count);
    batch.0.extend(records.0);
    reseal(&mut batch.0);
    batch.0
}

/// Puts the right checksum into a batch that was changed.
pub fn reseal(batch: &mut [u8]) {
    let crc = crc32c(&batch[CRC_FROM..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}

/// The values of every whole batch, with their offsets; checks lengths, checksums and offsets.
/// A batch cut off at the end is left out, as a fetch may cut it.
pub fn read_all(mut data: &[u8]) -> io::Result<Vec<(i64, Vec<u8>)>> {
    let mut out = Vec::new();
    while data.len() >= HEADER_LEN {
        let mut r = Reader(data);
        let base_offset = r.i64()?;
        let length = r.i32()?;
        let Ok(length) = usize::try_from(length) else {
            return Err(torn(base_offset, "negative length"));
        };
        if data.len() < length + 12 {
            break;
        }
        let (batch, rest) = data.split_at(length + 12);
        data = rest;
        r.take(4)?;
        if r.i8()? != 2 {
            return Err(torn(base_offset, "not format 2"));
        }
        if r.i32()? as u32 != crc32c(&batch[CRC_FROM..]) {
            return Err(torn(base_offset, "checksum"));
        }
        r.take(36)?;
        let count = r.i32()?;
        r.0 = &r.0[..length + 12 - HEADER_LEN];
        for i in 0..i64::from(count) {
            let size = r.varint()?;
            let mut record = Reader(r.take(size as usize)?);
            record.i8()?;
            record.varint()?;
            if record.varint()? != i {
                return Err(torn(base_offset, "offset delta"));
            }
            let key = record.varint()?;
            record.take(key.max(0) as usize)?;
            let value = record.varint()?;
            out.push((
                base_offset + i,
                record.take(value.max(0) as usize)?.to_vec(),
            ));
        }
        if !r.0.is_empty() {
            return Err(torn(base_offset, "bytes left over"));
        }
    }
    Ok(out)
}

fn torn(offset: i64, what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("batch at offset {offset}: {what}"),
    )
}

/// CRC-32C, eight tables of 256.
pub fn crc32c(data: &[u8]) -> u32 {
    static TABLES: std::sync::OnceLock<[[u32; 256]; 8]> = std::sync::OnceLock::new();
    let tables = TABLES.get_or_init(|| {
        let mut t = [[0u32; 256]; 8];
        for i in 0..256u32 {
            let mut c = i;
            for _ in 0..8 {
                c = if c & 1 == 1 {
                    (c >> 1) ^ 0x82f6_3b78
                } else {
                    c >> 1
                };
            }
            t[0][i as usize] = c;
        }
        for i in 0..256 {
            for k in 1..8 {
                t[k][i] = (t[k - 1][i] >> 8) ^ t[0][(t[k - 1][i] & 0xff) as usize];
            }
        }
        t
    });
    let mut crc = !0u32;
    let mut chunks = data.chunks_exact(8);
    for c in &mut chunks {
        let low = crc ^ u32::from_le_bytes([c[0], c[1], c[2], c[3]]);
        crc = 0;
        for k in 0..4 {
            crc ^= tables[7 - k][((low >> (8 * k)) & 0xff) as usize];
            crc ^= tables[3 - k][c[4 + k] as usize];
        }
    }
    for &byte in chunks.remainder() {
        crc = (crc >> 8) ^ tables[0][((crc ^ u32::from(byte)) & 0xff) as usize];
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_check_value_of_crc32c() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn reads_what_it_builds() {
        let values = vec![b"one".to_vec(), Vec::new(), vec![7; 300]];
        let mut batch = build(
            Producer {
                id: 5,
                epoch: 0,
                sequence: 9,
            },
            1_700_000_000_000,
            &values,
        );
        batch[..8].copy_from_slice(&40i64.to_be_bytes());
        let whole = batch.len();
        batch.extend(build(Producer::NONE, 0, &values));
        let found = read_all(&batch[..whole + 70]).unwrap();
        let expected: Vec<_> = (40..).zip(values).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn refuses_a_flipped_bit() {
        let mut batch = build(Producer::NONE, 0, &[vec![1, 2, 3]]);
        let last = batch.len() - 2;
        batch[last] ^= 1;
        assert!(read_all(&batch).is_err());
    }
}
