//! The codecs of batch bodies, as Kafka's Java client writes and reads them.
//!
//! Reading goes piece by piece through [`Decoder`], so that a walk over a batch needs memory for
//! one piece (64 KiB, a snappy or LZ4 block) and not for the whole; [`Scratch`](crate::Scratch)
//! holds the contexts and gives the whole body up to a limit. Writing takes the whole body.
//!
//! | codec | written | read |
//! |---|---|---|
//! | gzip | one member | any number of members |
//! | snappy | xerial framing, blocks of 32 KiB | xerial framing, or one raw block |
//! | lz4 | frame, independent blocks of 64 KiB, no checksums | frames of independent blocks |
//! | zstd | one frame without content size | any number of frames, windows to 128 MiB |

mod gzip;
mod lz4;
mod snappy;
mod zstd;

use std::fmt;
use std::str::FromStr;

/// A codec, by the number that batch attributes carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Compression {
    /// No compression.
    #[default]
    None,
    /// gzip (RFC 1952).
    Gzip,
    /// Snappy in xerial framing.
    Snappy,
    /// LZ4 frame.
    Lz4,
    /// Zstandard.
    Zstd,
}

impl Compression {
    /// All codecs in the order of their numbers.
    pub const ALL: [Compression; 5] = [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];

    /// Number in batch attributes.
    pub fn id(self) -> u8 {
        self as u8
    }

    /// The codec of a number; `None` for 5 to 7 and anything that does not fit three bits.
    pub fn from_id(id: u8) -> Option<Compression> {
        Compression::ALL.get(usize::from(id)).copied()
    }

    /// Name as in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Snappy => "snappy",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        }
    }

    /// Levels that configurations may ask for; `None` if the codec has none. gzip also takes -1,
    /// the library's default.
    pub fn levels(self) -> Option<std::ops::RangeInclusive<i32>> {
        match self {
            Compression::None | Compression::Snappy => None,
            Compression::Gzip => Some(1..=9),
            Compression::Lz4 => Some(1..=17),
            Compression::Zstd => Some(-131_072..=22),
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that is no codec.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a compression codec: expected none, gzip, snappy, lz4 or zstd")]
pub struct UnknownCodecName;

impl FromStr for Compression {
    type Err = UnknownCodecName;

    fn from_str(name: &str) -> Result<Compression, UnknownCodecName> {
        Compression::ALL
            .into_iter()
            .find(|codec| codec.name() == name)
            .ok_or(UnknownCodecName)
    }
}

/// A codec together with a level that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Codec {
    compression: Compression,
    level: i32,
}

impl Codec {
    /// No compression.
    pub const NONE: Codec = Codec {
        compression: Compression::None,
        level: 0,
    };

    /// A codec at a level. A codec without levels takes any and ignores it, as in Kafka.
    pub fn new(compression: Compression, level: i32) -> Result<Codec, CompressionError> {
        let default = Codec::from(compression);
        match compression.levels() {
            None => Ok(default),
            Some(levels) if levels.contains(&level) || level == default.level => {
                Ok(Codec { compression, level })
            }
            Some(_) => Err(CompressionError::InvalidLevel { compression, level }),
        }
    }

    /// The codec.
    pub fn compression(self) -> Compression {
        self.compression
    }

    /// The level; 0 where the codec has none.
    pub fn level(self) -> i32 {
        self.level
    }
}

impl From<Compression> for Codec {
    /// The codec at Kafka's default level: gzip -1, lz4 9 (which stands for the fast compressor),
    /// zstd 3.
    fn from(compression: Compression) -> Codec {
        let level = match compression {
            Compression::None | Compression::Snappy => 0,
            Compression::Gzip => -1,
            Compression::Lz4 => lz4::DEFAULT_LEVEL,
            Compression::Zstd => 3,
        };
        Codec { compression, level }
    }
}

/// Why a body cannot be compressed or decompressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompressionError {
    /// The bytes are not what the codec writes.
    #[error("invalid {compression} data: {reason}")]
    Corrupt {
        /// The codec.
        compression: Compression,
        /// What is wrong.
        reason: &'static str,
    },
    /// The bytes end before the codec's end.
    #[error("{0} data ends too early")]
    UnexpectedEnd(Compression),
    /// The content is larger than allowed.
    #[error("the decompressed data exceeds {limit} bytes")]
    TooLarge {
        /// Most bytes that may come out.
        limit: usize,
    },
    /// The codec has no such level.
    #[error("{compression} has no level {level}")]
    InvalidLevel {
        /// The codec.
        compression: Compression,
        /// The level asked for.
        level: i32,
    },
    /// The library refused to compress.
    #[error("{0} failed to compress")]
    EncoderFailed(Compression),
}

/// Bytes that codecs without blocks give at a time: small enough to stay in a core's cache.
pub(crate) const PIECE_LEN: usize = 64 * 1024;

/// Contexts that are costly to make, kept from one batch to the next.
#[derive(Default)]
pub(crate) struct Contexts {
    gzip: gzip::Context,
    zstd: zstd::Context,
}

/// Decompresses piece by piece.
pub(crate) enum Decoder<'a> {
    Gzip(gzip::Decoder<'a>),
    Snappy(snappy::Decoder<'a>),
    Lz4(lz4::Decoder<'a>),
    Zstd(zstd::Decoder<'a>),
    /// Not compressed: one piece, the input.
    None(&'a [u8]),
}

impl<'a> Decoder<'a> {
    /// A decoder for `input`. `legacy_lz4` accepts the wrong frame checksum that clients wrote
    /// into messages of magic 0 (KAFKA-3160).
    pub(crate) fn new(
        contexts: &'a mut Contexts,
        compression: Compression,
        input: &'a [u8],
        legacy_lz4: bool,
    ) -> Result<Decoder<'a>, CompressionError> {
        Ok(match compression {
            Compression::None => Decoder::None(input),
            Compression::Gzip => Decoder::Gzip(gzip::Decoder::new(&mut contexts.gzip, input)?),
            Compression::Snappy => Decoder::Snappy(snappy::Decoder::new(input)),
            Compression::Lz4 => Decoder::Lz4(lz4::Decoder::new(input, legacy_lz4)?),
            Compression::Zstd => Decoder::Zstd(zstd::Decoder::new(&mut contexts.zstd, input)?),
        })
    }

    /// Appends the next piece to `out`; returns its length, 0 at the end. A piece has at most
    /// [`PIECE_LEN`] bytes, or one block: 4 MiB for LZ4, and for snappy no more than 64 times the
    /// input.
    pub(crate) fn next_piece(&mut self, out: &mut Vec<u8>) -> Result<usize, CompressionError> {
        match self {
            Decoder::Gzip(decoder) => decoder.next_piece(out),
            Decoder::Snappy(decoder) => decoder.next_piece(out),
            Decoder::Lz4(decoder) => decoder.next_piece(out),
            Decoder::Zstd(decoder) => decoder.next_piece(out),
            Decoder::None(input) => {
                out.extend_from_slice(input);
                Ok(std::mem::take(input).len())
            }
        }
    }
}

/// Appends the compressed form of `input` to `out`.
pub(crate) fn compress(
    contexts: &mut Contexts,
    codec: Codec,
    input: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), CompressionError> {
    match codec.compression {
        Compression::None => {
            out.extend_from_slice(input);
            Ok(())
        }
        Compression::Gzip => gzip::compress(codec.level, input, out),
        Compression::Snappy => snappy::compress(input, out),
        Compression::Lz4 => lz4::compress(codec.level, input, out),
        Compression::Zstd => zstd::compress(&mut contexts.zstd, codec.level, input, out),
    }
}

#[cfg(test)]
mod tests;
