//! CRC-32C (Castagnoli), the checksum of record batches.
//!
//! The one place that names the crate behind it; it picks SSE4.2/PCLMULQDQ, AVX-512 or ARM's
//! instructions at run time.

use crc_fast::{CrcAlgorithm, Digest};

/// The checksum of `bytes`.
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// The checksum of two pieces one after the other, from the checksum of each. `second_len` is the
/// length of the second piece in bytes.
pub fn combine(first: u32, second: u32, second_len: usize) -> u32 {
    crc_fast::checksum_combine(
        CrcAlgorithm::Crc32Iscsi,
        u64::from(first),
        u64::from(second),
        second_len as u64,
    ) as u32
}

/// Computes a checksum piece by piece.
#[derive(Clone, Copy, Debug)]
pub struct Crc32c(Digest);

impl Crc32c {
    /// The checksum of nothing yet.
    pub fn new() -> Crc32c {
        Crc32c(Digest::new(CrcAlgorithm::Crc32Iscsi))
    }

    /// Takes in the next piece.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The checksum of all pieces so far.
    pub fn finish(&self) -> u32 {
        self.0.finalize() as u32
    }
}

impl Default for Crc32c {
    fn default() -> Crc32c {
        Crc32c::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_the_published_check_value() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        // RFC 3720, B.4.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    }

    #[test]
    fn pieces_give_the_sum_of_the_whole() {
        let bytes: Vec<u8> = (0..1000_u32).map(|i| (i * 7 % 251) as u8).collect();
        for cut in [0, 1, 40, 500, 999, 1000] {
            let (first, second) = bytes.split_at(cut);
            let mut digest = Crc32c::new();
            digest.update(first);
            digest.update(second);
            assert_eq!(digest.finish(), crc32c(&bytes));
            assert_eq!(
                combine(crc32c(first), crc32c(second), second.len()),
                crc32c(&bytes)
            );
        }
    }
}
