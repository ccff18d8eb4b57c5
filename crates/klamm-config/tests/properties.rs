//! Properties read and write as Java's do (golden/properties.tsv, made by `cargo xtask config-facts`).

use klamm_config::Properties;
use proptest::prelude::*;

/// The golden files' own escapes.
fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        out.push(match (c, if c == '\\' { chars.next() } else { None }) {
            ('\\', Some('n')) => '\n',
            ('\\', Some('r')) => '\r',
            ('\\', Some('t')) => '\t',
            ('\\', Some('f')) => '\x0c',
            ('\\', Some('s')) => ' ',
            ('\\', Some(other)) => other,
            _ => c,
        });
    }
    out
}

#[test]
fn reads_what_java_reads() {
    for line in include_str!("golden/properties.tsv")
        .lines()
        .filter(|l| !l.starts_with("store:"))
    {
        let fields: Vec<&str> = line.split('\t').collect();
        let read = Properties::parse(&unescape(fields[0]));
        if fields[1] == "error" {
            assert!(read.is_err(), "{line}");
            continue;
        }
        let mut ours: Vec<(String, String)> = read
            .unwrap()
            .iter()
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect();
        ours.sort();
        let theirs: Vec<(String, String)> = fields[2..]
            .chunks(2)
            .map(|pair| (unescape(pair[0]), unescape(pair[1])))
            .collect();
        assert_eq!(ours, theirs, "{line}");
    }
}

#[test]
fn writes_what_java_writes() {
    for line in include_str!("golden/properties.tsv")
        .lines()
        .filter_map(|l| l.strip_prefix("store:"))
    {
        let fields: Vec<&str> = line.split('\t').collect();
        let mut properties = Properties::new();
        properties.set(unescape(fields[0]), unescape(fields[1]));
        assert_eq!(properties.to_text(), unescape(fields[2]), "{line}");
    }
}

#[test]
fn bytes_are_latin_1() {
    let read = Properties::parse_bytes(b"a=caf\xe9").unwrap();
    assert_eq!(read.get("a"), Some("café"));
}

#[test]
fn half_a_surrogate_pair_is_replaced() {
    assert_eq!(
        Properties::parse("a=\\uD83D!").unwrap().get("a"),
        Some("\u{fffd}!")
    );
}

#[test]
fn an_error_names_its_line() {
    let error = Properties::parse("a=b\n\nc=\\\n \\uqqqq").unwrap_err();
    assert_eq!(error.to_string(), "line 3: malformed \\uxxxx encoding");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_is_written_reads_back(entries in proptest::collection::btree_map(".{0,12}", ".{0,24}", 0..6)) {
        let mut properties = Properties::new();
        for (key, value) in &entries {
            properties.set(key.as_str(), value.as_str());
        }
        prop_assert_eq!(Properties::parse(&properties.to_text()).unwrap(), properties);
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[\\PC\\\\=: \n\r\tu0-9]{0,64}") {
        let _ = Properties::parse(&text);
    }
}
