//! A fuzzer that needs no tools: Kafka's bytes, damaged at random from a seed.
//!
//! `KLAMM_FUZZ_ROUNDS=1000 cargo test -p klamm-protocol mutations` runs longer; a failure prints
//! the round that gives it, to be tried again with `KLAMM_FUZZ_START`.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;

use crate::catalog::ALL;
use crate::golden_file::{self, Golden};
use crate::targets;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// Changes a few bytes: flips, extremes, cuts, repeats and pieces of another message.
fn damage(random: &mut Random, bytes: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len());
        let tail = (at + 1 + random.below(8)).min(bytes.len());
        match random.below(6) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            1 if !bytes.is_empty() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..tail)),
            4 => {
                let copy = bytes[at..tail].to_vec();
                bytes.splice(at..at, copy);
            }
            _ => {
                let from = random.below(other.len());
                let to = (from + random.below(16)).min(other.len());
                bytes.splice(at..at, other[from..to].iter().copied());
            }
        }
    }
    bytes
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|value| value.parse().ok())
        .unwrap_or(default)
}

fn round(seed: u64, golden: &[Golden]) {
    let mut random = Random(seed);
    for message in golden {
        let other = &golden[random.below(golden.len())].bytes;
        let bytes = damage(&mut random, &message.bytes, other);
        match ALL.iter().find(|entry| entry.name == message.name) {
            Some(entry) => targets::message_is_stable(entry, message.version, Bytes::from(bytes)),
            None => {
                targets::stored_record(&bytes);
                // The same as key and value of a coordinator record.
                let mut pair = vec![other.len().min(255) as u8];
                pair.extend_from_slice(&other[..other.len().min(255)]);
                pair.extend_from_slice(&bytes);
                targets::stored_record(&pair);
            }
        }
    }
}

#[test]
fn damaged_messages_are_refused_or_read_the_same_twice() {
    let golden = golden_file::read();
    let start = setting("KLAMM_FUZZ_START", 0);
    for seed in start..start + setting("KLAMM_FUZZ_ROUNDS", 4) {
        let outcome = catch_unwind(AssertUnwindSafe(|| round(seed, &golden)));
        assert!(
            outcome.is_ok(),
            "try again with KLAMM_FUZZ_START={seed} KLAMM_FUZZ_ROUNDS=1"
        );
    }
}

#[test]
fn noise_does_no_harm() {
    let mut random = Random(setting("KLAMM_FUZZ_START", 0));
    for _ in 0..5_000 * setting("KLAMM_FUZZ_ROUNDS", 4) {
        let noise: Vec<u8> = (0..random.below(48)).map(|_| random.next() as u8).collect();
        targets::any_message(&noise);
        targets::stored_record(&noise);
        // A request of a known key, most of the time in a version it has.
        let mut request = vec![0, random.below(93) as u8, 0, random.below(14) as u8];
        request.extend_from_slice(&noise);
        targets::request_frame(&request);
    }
}
