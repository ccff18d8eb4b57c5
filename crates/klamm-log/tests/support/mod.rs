//! Unpacks the fixtures.

use std::io::Read;
use std::path::Path;

use klamm_env::{Env, FileExt, OpenMode};

pub(crate) fn unzip(bytes: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    flate2::read::GzDecoder::new(bytes)
        .read_to_end(&mut content)
        .unwrap();
    content
}

/// Unpacks plain files and directories of a tar.gz with short names.
pub(crate) fn unpack(bytes: &[u8], to: &Path) {
    let fs = Env::os().fs;
    let archive = unzip(bytes);
    let mut rest = &archive[..];
    while rest.len() >= 512 && rest[0] != 0 {
        let (header, body) = rest.split_at(512);
        let text = |range: std::ops::Range<usize>| {
            let field = &header[range];
            let end = field.iter().position(|&b| b == 0).unwrap_or(field.len());
            std::str::from_utf8(&field[..end])
                .unwrap()
                .trim()
                .to_owned()
        };
        let path = to.join(text(0..100));
        let size = usize::from_str_radix(&text(124..136), 8).unwrap();
        match header[156] {
            b'5' => fs.create_dir_all(&path).unwrap(),
            b'0' => {
                let file = fs.open(&path, OpenMode::Truncate).unwrap();
                file.write_all_at(&body[..size], 0).unwrap();
            }
            other => panic!("entry of type {other}"),
        }
        rest = &body[size.div_ceil(512) * 512..];
    }
}
