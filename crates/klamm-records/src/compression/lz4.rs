//! The LZ4 frame format, the part of it that Kafka's Java client takes: version 1, independent
//! blocks, checksums of header and blocks verified, the content's not.

use ::lz4::block::{CompressionMode, compress_bound, compress_to_buffer, decompress_to_buffer};

use super::{Compression, CompressionError};

/// Kafka's default level, at which it uses the fast compressor and not the high one.
pub(super) const DEFAULT_LEVEL: i32 = 9;

const MAGIC: [u8; 4] = 0x184d_2204_u32.to_le_bytes();
const VERSION_1: u8 = 1 << 6;
const INDEPENDENT: u8 = 1 << 5;
const BLOCK_CHECKSUM: u8 = 1 << 4;
const CONTENT_SIZE: u8 = 1 << 3;
const CONTENT_CHECKSUM: u8 = 1 << 2;
const RESERVED: u8 = 0b11;
const NOT_COMPRESSED: u32 = 1 << 31;
/// Size number 4: blocks of 64 KiB.
const BLOCK_SIZE_64_KIB: u8 = 4 << 4;
const BLOCK_LEN: usize = 64 * 1024;

pub(crate) struct Decoder<'a> {
    input: &'a [u8],
    flags: u8,
    block_len_max: usize,
    finished: bool,
}

fn corrupt(reason: &'static str) -> CompressionError {
    CompressionError::Corrupt {
        compression: Compression::Lz4,
        reason,
    }
}

const CUT_SHORT: CompressionError = CompressionError::UnexpectedEnd(Compression::Lz4);

impl<'a> Decoder<'a> {
    pub(super) fn new(
        input: &'a [u8],
        ignore_header_checksum: bool,
    ) -> Result<Decoder<'a>, CompressionError> {
        let after_magic = input
            .strip_prefix(&MAGIC)
            .ok_or(corrupt("no frame magic"))?;
        let &[flags, sizes, ref rest @ ..] = after_magic else {
            return Err(CUT_SHORT);
        };
        if flags >> 6 != VERSION_1 >> 6 || flags & RESERVED != 0 {
            return Err(corrupt("frame version or reserved bits"));
        }
        if flags & INDEPENDENT == 0 {
            return Err(corrupt("blocks depend on each other"));
        }
        let size_number = sizes >> 4;
        if sizes & 0x8f != 0 || !(4..=7).contains(&size_number) {
            return Err(corrupt("block size"));
        }
        let rest = if flags & CONTENT_SIZE == 0 {
            rest
        } else {
            rest.get(8..).ok_or(CUT_SHORT)?
        };
        let descriptor = &after_magic[..after_magic.len() - rest.len()];
        let (&checksum, rest) = rest.split_first().ok_or(CUT_SHORT)?;
        if checksum != header_checksum(descriptor) && !ignore_header_checksum {
            return Err(corrupt("header checksum does not match"));
        }
        Ok(Decoder {
            input: rest,
            flags,
            block_len_max: 1 << (8 + 2 * u32::from(size_number)),
            finished: false,
        })
    }

    fn take_u32(&mut self) -> Result<u32, CompressionError> {
        let (bytes, rest) = self.input.split_first_chunk().ok_or(CUT_SHORT)?;
        self.input = rest;
        Ok(u32::from_le_bytes(*bytes))
    }

    pub(super) fn next_piece(&mut self, out: &mut Vec<u8>) -> Result<usize, CompressionError> {
        let start = out.len();
        while !self.finished && out.len() == start {
            let word = self.take_u32()?;
            let len = (word & !NOT_COMPRESSED) as usize;
            if len == 0 {
                self.finished = true;
                if self.flags & CONTENT_CHECKSUM != 0 {
                    self.take_u32()?;
                }
                break;
            }
            if len > self.block_len_max {
                return Err(corrupt("a block exceeds the frame's block size"));
            }
            let (block, rest) = self.input.split_at_checked(len).ok_or(CUT_SHORT)?;
            self.input = rest;
            if self.flags & BLOCK_CHECKSUM != 0 && self.take_u32()? != xxh32(block) {
                return Err(corrupt("block checksum does not match"));
            }
            if word & NOT_COMPRESSED == 0 {
                self.decompress_block(block, out)?;
            } else {
                out.extend_from_slice(block);
            }
        }
        Ok(out.len() - start)
    }

    fn decompress_block(&self, block: &[u8], out: &mut Vec<u8>) -> Result<(), CompressionError> {
        let start = out.len();
        // No byte of a block gives more than 255.
        let room = self.block_len_max.min(block.len().saturating_mul(255));
        out.resize(start + room, 0);
        let len = decompress_to_buffer(block, Some(room as i32), &mut out[start..])
            .map_err(|_| corrupt("not an LZ4 block"))?;
        out.truncate(start + len);
        Ok(())
    }
}

pub(super) fn compress(
    level: i32,
    input: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), CompressionError> {
    let failed = CompressionError::EncoderFailed(Compression::Lz4);
    let descriptor = [VERSION_1 | INDEPENDENT, BLOCK_SIZE_64_KIB];
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&descriptor);
    out.push(header_checksum(&descriptor));
    for block in input.chunks(BLOCK_LEN) {
        let mode = match level {
            DEFAULT_LEVEL => CompressionMode::DEFAULT,
            level => CompressionMode::HIGHCOMPRESSION(level),
        };
        let start = out.len();
        out.resize(
            start + 4 + compress_bound(block.len()).map_err(|_| failed)?,
            0,
        );
        let len = compress_to_buffer(block, Some(mode), false, &mut out[start + 4..])
            .map_err(|_| failed)?;
        let word = if len < block.len() {
            out.truncate(start + 4 + len);
            len as u32
        } else {
            out.truncate(start + 4);
            out.extend_from_slice(block);
            block.len() as u32 | NOT_COMPRESSED
        };
        out[start..start + 4].copy_from_slice(&word.to_le_bytes());
    }
    out.extend_from_slice(&[0; 4]);
    Ok(())
}

fn header_checksum(descriptor: &[u8]) -> u8 {
    (xxh32(descriptor) >> 8) as u8
}

/// xxHash of 32 bits with seed 0.
fn xxh32(bytes: &[u8]) -> u32 {
    const P1: u32 = 0x9e37_79b1;
    const P2: u32 = 0x85eb_ca77;
    const P3: u32 = 0xc2b2_ae3d;
    const P4: u32 = 0x27d4_eb2f;
    const P5: u32 = 0x1656_67b1;
    let (stripes, tail) = bytes.as_chunks::<16>();
    let mut hash = if stripes.is_empty() {
        P5
    } else {
        let mut lanes = [P1.wrapping_add(P2), P2, 0, 0_u32.wrapping_sub(P1)];
        for stripe in stripes {
            for (lane, word) in lanes.iter_mut().zip(stripe.as_chunks::<4>().0) {
                *lane = lane
                    .wrapping_add(u32::from_le_bytes(*word).wrapping_mul(P2))
                    .rotate_left(13)
                    .wrapping_mul(P1);
            }
        }
        lanes[0]
            .rotate_left(1)
            .wrapping_add(lanes[1].rotate_left(7))
            .wrapping_add(lanes[2].rotate_left(12))
            .wrapping_add(lanes[3].rotate_left(18))
    };
    hash = hash.wrapping_add(bytes.len() as u32);
    let (words, rest) = tail.as_chunks::<4>();
    for word in words {
        hash = hash
            .wrapping_add(u32::from_le_bytes(*word).wrapping_mul(P3))
            .rotate_left(17)
            .wrapping_mul(P4);
    }
    for &byte in rest {
        hash = hash
            .wrapping_add(u32::from(byte).wrapping_mul(P5))
            .rotate_left(11)
            .wrapping_mul(P1);
    }
    hash = (hash ^ (hash >> 15)).wrapping_mul(P2);
    hash = (hash ^ (hash >> 13)).wrapping_mul(P3);
    hash ^ (hash >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with the Java library's `XXHash32`.
    #[test]
    fn hashes_as_published() {
        assert_eq!(xxh32(b""), 0x02cc_5d05);
        assert_eq!(xxh32(b"abc"), 0x32d1_53ff);
        assert_eq!(
            xxh32(b"Nobody inspects the spammish repetition"),
            0xe229_3b2f
        );
        assert_eq!(header_checksum(&[0x60, 0x40]), 0x82);
    }
}
