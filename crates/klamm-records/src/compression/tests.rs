use proptest::prelude::*;

use super::*;
use crate::Scratch;

fn codecs() -> Vec<Codec> {
    let mut all: Vec<Codec> = Compression::ALL.into_iter().map(Codec::from).collect();
    for (compression, levels) in [
        (Compression::Gzip, &[1, 6, 9][..]),
        (Compression::Lz4, &[1, 3, 12, 17]),
        (Compression::Zstd, &[-131_072, -1, 1, 12]),
    ] {
        all.extend(
            levels
                .iter()
                .map(|&level| Codec::new(compression, level).unwrap()),
        );
    }
    all
}

fn round_trip(codec: Codec, input: &[u8], scratch: &mut Scratch) {
    let mut packed = vec![1, 2, 3];
    scratch.compress(codec, input, &mut packed).unwrap();
    assert_eq!(packed[..3], [1, 2, 3], "compressing appends");
    let unpacked = scratch
        .decompress(codec.compression(), &packed[3..])
        .unwrap();
    assert!(unpacked == input, "{codec:?}, {} bytes", input.len());
}

#[test]
fn every_codec_and_level_round_trips() {
    let mut scratch = Scratch::new();
    let noise: Vec<u8> = (0..100_000_u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let text = b"Hello Kafka! ".repeat(10_000);
    for codec in codecs() {
        for len in [0, 1, 13, 32 * 1024, 64 * 1024, 64 * 1024 + 1, 100_000] {
            round_trip(codec, &noise[..len], &mut scratch);
            round_trip(codec, &text[..len], &mut scratch);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_bytes_round_trip(input in proptest::collection::vec(any::<u8>(), 0..2000), repeat in 1_usize..40) {
        let mut scratch = Scratch::new();
        for compression in Compression::ALL {
            round_trip(compression.into(), &input.repeat(repeat), &mut scratch);
        }
    }

    /// Any bytes give an error or some output within the limit, never a panic.
    #[test]
    fn arbitrary_input_is_survived(input in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut scratch = Scratch::with_limit(1 << 20);
        for compression in Compression::ALL {
            let _ = scratch.decompress(compression, &input);
        }
    }
}

#[test]
fn refuses_every_truncation() {
    let mut scratch = Scratch::new();
    let text = b"Hello Kafka! ".repeat(3000);
    for compression in Compression::ALL.into_iter().skip(1) {
        let mut packed = Vec::new();
        scratch
            .compress(compression.into(), &text, &mut packed)
            .unwrap();
        for len in 0..packed.len() {
            // A cut between two snappy blocks leaves a shorter stream, as it does for Java; no
            // bytes at all are an empty stream of no zstd frames.
            match scratch.decompress(compression, &packed[..len]) {
                Ok(out) => assert!(
                    compression == Compression::Snappy && out.len() < text.len() || len == 0,
                    "{compression} cut to {len}"
                ),
                Err(CompressionError::UnexpectedEnd(_) | CompressionError::Corrupt { .. }) => {}
                Err(error) => panic!("{compression} cut to {len}: {error}"),
            }
        }
    }
}

#[test]
fn refuses_flipped_bits_or_gives_something() {
    let mut scratch = Scratch::with_limit(1 << 22);
    let text = b"Hello Kafka! ".repeat(300);
    for compression in Compression::ALL {
        let mut packed = Vec::new();
        scratch
            .compress(compression.into(), &text, &mut packed)
            .unwrap();
        for bit in 0..packed.len() * 8 {
            packed[bit / 8] ^= 1 << (bit % 8);
            let _ = scratch.decompress(compression, &packed);
            packed[bit / 8] ^= 1 << (bit % 8);
        }
        // The contexts survived all that.
        assert!(scratch.decompress(compression, &packed).unwrap() == text);
    }
}

#[test]
fn a_bomb_ends_at_the_limit() {
    let zeros = vec![0; 12 << 20];
    for compression in Compression::ALL.into_iter().skip(1) {
        let mut packed = Vec::new();
        Scratch::new()
            .compress(compression.into(), &zeros, &mut packed)
            .unwrap();
        let mut scratch = Scratch::with_limit(1 << 20);
        assert_eq!(
            scratch.decompress(compression, &packed).unwrap_err(),
            CompressionError::TooLarge { limit: 1 << 20 }
        );
        assert!(scratch.buffer.capacity() <= 8 << 20, "{compression}");
        scratch.decompress(Compression::None, b"x").unwrap();
        assert!(
            scratch.buffer.capacity() <= 1 << 20,
            "the buffer is given back"
        );
    }
}

#[test]
fn a_snappy_block_cannot_claim_more_than_it_can_hold() {
    // A raw block that says to be 2³¹-1 bytes long.
    let lie = [0xff, 0xff, 0xff, 0xff, 0x07, 0];
    let mut scratch = Scratch::new();
    assert!(scratch.decompress(Compression::Snappy, &lie).is_err());
    assert!(scratch.buffer.capacity() < 1 << 20);
}

#[test]
fn reads_what_other_writers_make() {
    let mut scratch = Scratch::new();
    let text = b"Hello Kafka! ".repeat(100);
    // Raw snappy, as librdkafka could be told to send.
    let raw = snap::raw::Encoder::new().compress_vec(&text).unwrap();
    assert!(scratch.decompress(Compression::Snappy, &raw).unwrap() == text);
    // Members and frames one after the other.
    for compression in [Compression::Gzip, Compression::Snappy, Compression::Zstd] {
        let mut packed = Vec::new();
        for part in text.chunks(500) {
            scratch
                .compress(compression.into(), part, &mut packed)
                .unwrap();
        }
        assert!(
            scratch.decompress(compression, &packed).unwrap() == text,
            "{compression}"
        );
    }
    // gzip with a name, an extra field and a header checksum.
    let mut packed = Vec::new();
    scratch
        .compress(Compression::Gzip.into(), &text, &mut packed)
        .unwrap();
    let mut named = vec![0x1f, 0x8b, 8, 0b1_1110, 0, 0, 0, 0, 0, 3];
    named.extend_from_slice(b"\x02\0ab name\0comment\0");
    let mut crc = flate2::Crc::new();
    crc.update(&named);
    named.extend_from_slice(&(crc.sum() as u16).to_le_bytes());
    named.extend_from_slice(&packed[10..]);
    assert!(scratch.decompress(Compression::Gzip, &named).unwrap() == text);
}

#[test]
fn lz4_frames_with_checksums_and_content_size_are_read() {
    let encoder = |checksums: bool| {
        use ::lz4::{BlockMode, BlockSize, ContentChecksum, EncoderBuilder};
        let mut builder = EncoderBuilder::new();
        builder
            .block_mode(BlockMode::Independent)
            .block_size(BlockSize::Max256KB)
            .checksum(if checksums {
                ContentChecksum::ChecksumEnabled
            } else {
                ContentChecksum::NoChecksum
            });
        builder
    };
    let text = b"Hello Kafka! ".repeat(50_000);
    let mut scratch = Scratch::new();
    for checksums in [false, true] {
        let mut writer = encoder(checksums).build(Vec::new()).unwrap();
        std::io::Write::write_all(&mut writer, &text).unwrap();
        let (packed, result) = writer.finish();
        result.unwrap();
        assert!(scratch.decompress(Compression::Lz4, &packed).unwrap() == text);
    }
    // What we write is read by liblz4's own frame reader.
    let mut packed = Vec::new();
    scratch
        .compress(Compression::Lz4.into(), &text, &mut packed)
        .unwrap();
    let mut unpacked = Vec::new();
    let mut reader = ::lz4::Decoder::new(&packed[..]).unwrap();
    std::io::Read::read_to_end(&mut reader, &mut unpacked).unwrap();
    assert!(unpacked == text);
}

#[test]
fn lz4_with_dependent_blocks_is_refused_as_in_kafka() {
    let mut writer = ::lz4::EncoderBuilder::new()
        .block_mode(::lz4::BlockMode::Linked)
        .build(Vec::new())
        .unwrap();
    std::io::Write::write_all(&mut writer, b"abc").unwrap();
    let (packed, _) = writer.finish();
    assert_eq!(
        Scratch::new()
            .decompress(Compression::Lz4, &packed)
            .unwrap_err(),
        CompressionError::Corrupt {
            compression: Compression::Lz4,
            reason: "blocks depend on each other"
        }
    );
}

#[test]
fn levels_outside_of_kafkas_are_refused() {
    for (compression, level) in [
        (Compression::Gzip, 0),
        (Compression::Gzip, 10),
        (Compression::Lz4, 0),
        (Compression::Lz4, 18),
        (Compression::Zstd, 23),
        (Compression::Zstd, -131_073),
    ] {
        assert_eq!(
            Codec::new(compression, level),
            Err(CompressionError::InvalidLevel { compression, level })
        );
    }
    assert_eq!(
        Codec::new(Compression::Gzip, -1),
        Ok(Compression::Gzip.into())
    );
    assert_eq!(
        Codec::new(Compression::Snappy, 99),
        Ok(Compression::Snappy.into())
    );
    assert_eq!("lz4".parse(), Ok(Compression::Lz4));
    assert!("LZ4".parse::<Compression>().is_err());
}
