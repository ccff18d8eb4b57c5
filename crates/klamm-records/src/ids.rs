//! Identifiers that travel with records: Kafka's UUID and the name of a partition.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Kafka's 16-byte identifier of topics, directories, clusters and members.
///
/// The text form is URL-safe base64 without padding, 22 characters. Order is by bytes, which is
/// not the order of Java's `Uuid.compareTo` (that one compares two signed halves).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Uuid([u8; 16]);

impl Uuid {
    /// All zeros: "no id".
    pub const ZERO: Uuid = Uuid([0; 16]);
    /// The number one.
    pub const ONE: Uuid = Uuid::reserved(1);
    /// Topic id of the metadata log, `__cluster_metadata`.
    pub const METADATA_TOPIC: Uuid = Uuid::ONE;
    /// Directory id of a replica that has no directory yet.
    pub const UNASSIGNED_DIR: Uuid = Uuid::reserved(1);
    /// Directory id of a replica whose directory is offline, whichever it was.
    pub const LOST_DIR: Uuid = Uuid::reserved(2);
    /// Directory id of a replica from before directories had ids.
    pub const MIGRATING_DIR: Uuid = Uuid::ZERO;

    const fn reserved(last: u8) -> Uuid {
        let mut bytes = [0; 16];
        bytes[15] = last;
        Uuid(bytes)
    }

    /// The id with these bytes, most significant first as on the wire.
    pub const fn from_bytes(bytes: [u8; 16]) -> Uuid {
        Uuid(bytes)
    }

    /// The bytes as on the wire.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Whether this is [`Uuid::ZERO`].
    pub fn is_zero(&self) -> bool {
        self.0 == [0; 16]
    }

    /// Whether Kafka keeps the id for itself: the first hundred numbers, which holds the reserved
    /// topic ids and directory ids.
    pub fn is_reserved(&self) -> bool {
        self.0[..15] == [0; 15] && self.0[15] < 100
    }

    /// A version 4 UUID out of random bytes; `None` if the result is reserved or its text starts
    /// with `-`, which command-line tools would take for an option. Draw again then.
    pub fn from_random(mut bytes: [u8; 16]) -> Option<Uuid> {
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        let id = Uuid(bytes);
        // The first base64 digit is the top six bits; 62 is '-'.
        (!id.is_reserved() && bytes[0] >> 2 != 62).then_some(id)
    }
}

const BASE64_URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const TEXT_LEN: usize = 22;

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = u128::from_be_bytes(self.0);
        let mut text = [0_u8; TEXT_LEN];
        for (index, digit) in text.iter_mut().take(TEXT_LEN - 1).enumerate() {
            *digit = BASE64_URL[(bits >> (122 - 6 * index)) as usize & 63];
        }
        text[TEXT_LEN - 1] = BASE64_URL[(bits << 4) as usize & 63];
        // Only ASCII was written.
        f.pad(str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not a [`Uuid`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a UUID: expected 22 characters of URL-safe base64")]
pub struct UuidParseError;

impl FromStr for Uuid {
    type Err = UuidParseError;

    /// Reads the 22-character form; the padded form of 24 is taken too, as Kafka does. As in Java,
    /// the four bits after the last byte are not looked at.
    fn from_str(text: &str) -> Result<Uuid, UuidParseError> {
        let digits = text.strip_suffix("==").unwrap_or(text).as_bytes();
        if digits.len() != TEXT_LEN {
            return Err(UuidParseError);
        }
        let mut bits = 0_u128;
        for &digit in &digits[..TEXT_LEN - 1] {
            bits = bits << 6 | u128::from(base64_value(digit)?);
        }
        bits = bits << 2 | u128::from(base64_value(digits[TEXT_LEN - 1])? >> 4);
        Ok(Uuid(bits.to_be_bytes()))
    }
}

fn base64_value(digit: u8) -> Result<u8, UuidParseError> {
    match digit {
        b'A'..=b'Z' => Ok(digit - b'A'),
        b'a'..=b'z' => Ok(digit - b'a' + 26),
        b'0'..=b'9' => Ok(digit - b'0' + 52),
        b'-' => Ok(62),
        b'_' => Ok(63),
        _ => Err(UuidParseError),
    }
}

/// A partition of a topic. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// Name of the topic.
    pub topic: Arc<str>,
    /// Number of the partition, from 0.
    pub partition: i32,
}

impl TopicPartition {
    /// Names a partition.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> TopicPartition {
        TopicPartition {
            topic: topic.into(),
            partition,
        }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts as printed by Kafka 4.3.1's `Uuid` and `DirectoryId`.
    #[test]
    fn reserved_ids_print_as_in_kafka() {
        assert_eq!(Uuid::MIGRATING_DIR.to_string(), "AAAAAAAAAAAAAAAAAAAAAA");
        assert_eq!(Uuid::UNASSIGNED_DIR.to_string(), "AAAAAAAAAAAAAAAAAAAAAQ");
        assert_eq!(Uuid::LOST_DIR.to_string(), "AAAAAAAAAAAAAAAAAAAAAg");
        assert!(Uuid::LOST_DIR.is_reserved() && Uuid::ZERO.is_zero());
    }

    #[test]
    fn text_round_trips_every_digit() {
        for seed in 0..=255_u8 {
            let id = Uuid::from_bytes(std::array::from_fn(|i| seed.wrapping_mul(i as u8 * 7 + 1)));
            assert_eq!(id.to_string().parse(), Ok(id));
            assert_eq!(format!("{id}==").parse(), Ok(id));
        }
    }

    #[test]
    fn rejects_what_kafka_rejects() {
        for text in [
            "",
            "AAAA",
            "AAAAAAAAAAAAAAAAAAAAA",
            "AAAAAAAAAAAAAAAAAAAAA+",
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAA",
            "ÄAAAAAAAAAAAAAAAAAAAA",
        ] {
            assert_eq!(text.parse::<Uuid>(), Err(UuidParseError), "{text}");
        }
        assert_eq!("AAAAAAAAAAAAAAAAAAAAAR".parse(), Ok(Uuid::ONE));
    }

    #[test]
    fn random_ids_are_version_4_and_no_command_line_option() {
        let id = Uuid::from_random([0; 16]).unwrap();
        assert_eq!((id.as_bytes()[6], id.as_bytes()[8]), (0x40, 0x80));
        assert_eq!(Uuid::from_random([0xf8; 16]), None);
        assert_eq!(Uuid::from_random([0xfb; 16]), None);
        assert!(Uuid::from_random([0xfc; 16]).is_some());
    }

    #[test]
    fn partitions_print_as_directories_are_named() {
        assert_eq!(TopicPartition::new("a.b", 7).to_string(), "a.b-7");
    }
}
