//! Zigzag variable-length integers as records use them.
//!
//! Reading accepts exactly what Java's `ByteUtils` accepts: at most 5 (10) bytes, bits beyond 32
//! (64) dropped, an encoding longer than needed allowed.

/// Bytes of the longest encoded 32-bit number.
pub(crate) const VARINT_LEN_MAX: usize = 5;

/// Takes an encoded 32-bit number off the front of `input`. `None` if it is cut short or too long.
#[inline]
pub(crate) fn read_i32(input: &mut &[u8]) -> Option<i32> {
    let (&first, rest) = input.split_first()?;
    if first < 0x80 {
        *input = rest;
        return Some(unzigzag32(u32::from(first)));
    }
    let mut raw = u32::from(first & 0x7f);
    for (index, &byte) in rest.iter().take(VARINT_LEN_MAX - 1).enumerate() {
        raw |= u32::from(byte & 0x7f) << (7 * (index + 1));
        if byte < 0x80 {
            *input = &rest[index + 1..];
            return Some(unzigzag32(raw));
        }
    }
    None
}

/// Takes an encoded 64-bit number off the front of `input`. `None` if it is cut short or too long.
#[inline]
pub(crate) fn read_i64(input: &mut &[u8]) -> Option<i64> {
    let mut raw = 0_u64;
    for (index, &byte) in input.iter().take(10).enumerate() {
        raw |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            *input = &input[index + 1..];
            return Some((raw >> 1) as i64 ^ -((raw & 1) as i64));
        }
    }
    None
}

fn unzigzag32(raw: u32) -> i32 {
    (raw >> 1) as i32 ^ -((raw & 1) as i32)
}

/// Appends an encoded 32-bit number.
pub(crate) fn write_i32(out: &mut Vec<u8>, value: i32) {
    write_raw(out, u64::from((value << 1 ^ value >> 31) as u32));
}

/// Appends an encoded 64-bit number.
pub(crate) fn write_i64(out: &mut Vec<u8>, value: i64) {
    write_raw(out, (value << 1 ^ value >> 63) as u64);
}

fn write_raw(out: &mut Vec<u8>, mut raw: u64) {
    while raw >= 0x80 {
        out.push(raw as u8 | 0x80);
        raw >>= 7;
    }
    out.push(raw as u8);
}

/// Bytes that [`write_i32`] appends.
pub(crate) fn len_i32(value: i32) -> usize {
    let raw = (value << 1 ^ value >> 31) as u32;
    (38 - raw.leading_zeros() as usize).max(7) / 7
}

/// Bytes that [`write_i64`] appends.
pub(crate) fn len_i64(value: i64) -> usize {
    let raw = (value << 1 ^ value >> 63) as u64;
    (70 - raw.leading_zeros() as usize).max(7) / 7
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_trip_in_the_length_foretold() {
        for shift in 0..64 {
            let bit = 1_i64 << shift;
            for value in [bit, bit.wrapping_sub(1), bit.wrapping_neg(), !bit] {
                let mut out = Vec::new();
                write_i64(&mut out, value);
                assert_eq!(out.len(), len_i64(value), "{value}");
                let mut input = &out[..];
                assert_eq!((read_i64(&mut input), input.len()), (Some(value), 0));
                let value = value as i32;
                let mut out = Vec::new();
                write_i32(&mut out, value);
                assert_eq!(out.len(), len_i32(value), "{value}");
                let mut input = &out[..];
                assert_eq!((read_i32(&mut input), input.len()), (Some(value), 0));
            }
        }
        assert_eq!((len_i32(0), len_i64(0)), (1, 1));
    }

    #[test]
    fn refuses_what_is_cut_short_or_too_long() {
        assert_eq!(read_i32(&mut &[][..]), None);
        assert_eq!(read_i32(&mut &[0x80, 0x80][..]), None);
        assert_eq!(read_i32(&mut &[0x80, 0x80, 0x80, 0x80, 0x80, 0][..]), None);
        assert_eq!(read_i64(&mut &[0x80; 10][..]), None);
        assert_eq!(read_i64(&mut &[0x80; 9][..]), None);
    }

    #[test]
    fn accepts_needless_length_as_java_does() {
        assert_eq!(read_i32(&mut &[0x82, 0x80, 0x80, 0x80, 0][..]), Some(1));
        assert_eq!(read_i32(&mut &[0x82, 0x80, 0x80, 0x80, 0x70][..]), Some(1));
    }
}
