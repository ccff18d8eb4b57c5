//! Reader of the golden file; `tests/golden/Golden.java` describes its format.

use std::io::Read;

use bytes::{Buf, Bytes};

/// A message as Kafka writes it.
pub(crate) struct Golden {
    /// Kafka's name of the message; with `framed:` in front if it is inside a metadata frame, with
    /// `prefixed:` if it is key or value of a coordinator record with its prefix.
    pub(crate) name: String,
    /// The version it is written in.
    pub(crate) version: i16,
    /// What Kafka wrote.
    pub(crate) bytes: Bytes,
    /// What Kafka makes of the bytes in the other versions.
    pub(crate) crosses: Vec<Cross>,
}

/// The same message in another version.
pub(crate) struct Cross {
    /// The other version.
    pub(crate) version: i16,
    /// Length and CRC-32 of what Kafka writes; `None` if it refuses to.
    pub(crate) result: Option<(usize, u32)>,
}

/// All golden messages.
pub(crate) fn read() -> Vec<Golden> {
    let packed = include_bytes!("../golden/messages.bin.gz");
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(&packed[..])
        .read_to_end(&mut plain)
        .unwrap();
    let mut file = Bytes::from(plain);
    let mut all = Vec::new();
    while file.has_remaining() {
        let name_len = usize::from(file.get_u8());
        let name = String::from_utf8(file.split_to(name_len).into()).unwrap();
        let version = file.get_i16();
        let len = usize::try_from(file.get_i32()).unwrap();
        let bytes = file.split_to(len);
        let cross = |file: &mut Bytes| {
            let version = file.get_i16();
            let len = usize::try_from(file.get_i32()).ok();
            let crc = file.get_u32();
            Cross {
                version,
                result: len.map(|len| (len, crc)),
            }
        };
        let crosses = (0..file.get_u8()).map(|_| cross(&mut file)).collect();
        all.push(Golden {
            name,
            version,
            bytes,
            crosses,
        });
    }
    all
}
