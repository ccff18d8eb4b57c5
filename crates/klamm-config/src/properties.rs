//! Java's `.properties` files, by the rules of `java.util.Properties`.
//!
//! A line is a key, a separator (`=`, `:` or white space, with white space around it) and a value. Lines that begin with
//! `#` or `!` are comments. A line that ends in an odd number of backslashes goes on in the next, whose leading white
//! space does not count. `\t`, `\n`, `\r`, `\f` and `\uXXXX` stand for what they do in Java; before any other character
//! a backslash means that character. The last of equal keys wins.

use std::fmt::Write as _;

/// The entries of a file in the order of their keys' first appearance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Properties {
    entries: Vec<(String, String)>,
}

/// A `\u` that four hexadecimal digits do not follow: all that can be wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: malformed \\uxxxx encoding")]
pub struct PropertiesError {
    /// Where the entry begins, from 1.
    pub line: usize,
}

impl Properties {
    /// No entries.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a file's text.
    ///
    /// # Errors
    /// For a malformed `\u` escape.
    pub fn parse(text: &str) -> Result<Self, PropertiesError> {
        let mut properties = Self::new();
        for (line, logical) in logical_lines(text) {
            let (key, value) = split(&logical);
            let read = |raw: &[char]| unescape(raw).ok_or(PropertiesError { line });
            properties.set(read(key)?, read(value)?);
        }
        Ok(properties)
    }

    /// Reads a file's bytes, each one character of ISO 8859-1, as Kafka does.
    ///
    /// # Errors
    /// For a malformed `\u` escape.
    pub fn parse_bytes(bytes: &[u8]) -> Result<Self, PropertiesError> {
        Self::parse(&bytes.iter().copied().map(char::from).collect::<String>())
    }

    /// Sets a key, in place of what it had.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<String>) {
        let (key, value) = (key.into(), value.into());
        match self.entries.iter_mut().find(|(k, _)| *k == key) {
            Some(entry) => entry.1 = value,
            None => self.entries.push((key, value)),
        }
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.entries
            .iter()
            .find(|(k, _)| k == key)
            .map(|(_, value)| value.as_str())
    }

    /// All entries.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The text that Java would write, without its time stamp: one line an entry, ASCII only.
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        for (key, value) in self.iter() {
            escape(key, true, &mut out);
            out.push('=');
            escape(value, false, &mut out);
            out.push('\n');
        }
        out
    }
}

/// White space inside a line.
const fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\x0c')
}

/// Lines with their continuations joined, comments and blank ones left out; escapes are still in them.
fn logical_lines(text: &str) -> Vec<(usize, Vec<char>)> {
    let mut lines = Vec::new();
    let mut open: Option<(usize, Vec<char>)> = None;
    for (at, natural) in natural_lines(text).into_iter().enumerate() {
        let content = natural.trim_start_matches(is_blank);
        let (line, mut so_far) = match open.take() {
            Some(begun) => begun,
            None if content.is_empty() || content.starts_with(['#', '!']) => continue,
            None => (at + 1, Vec::new()),
        };
        let backslashes = content.chars().rev().take_while(|c| *c == '\\').count();
        so_far.extend(content.chars());
        if backslashes % 2 == 1 {
            so_far.pop();
            open = Some((line, so_far));
        } else {
            lines.push((line, so_far));
        }
    }
    lines.extend(open);
    lines
}

/// Lines ended by LF, CR or both.
fn natural_lines(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text
        .split('\n')
        .flat_map(|l| l.strip_suffix('\r').unwrap_or(l).split('\r'))
        .collect();
    // What follows the last line end is no line if it is empty.
    if lines.last().is_some_and(|l| l.is_empty()) {
        lines.pop();
    }
    lines
}

/// Key and value of a logical line, both still escaped.
fn split(line: &[char]) -> (&[char], &[char]) {
    let mut escaped = false;
    let end = line.iter().position(|&c| {
        let stop = !escaped && (is_blank(c) || c == '=' || c == ':');
        escaped = c == '\\' && !escaped;
        stop
    });
    let Some(end) = end else { return (line, &[]) };
    let (key, mut rest) = line.split_at(end);
    let skip_blanks = |rest: &[char]| rest.iter().take_while(|c| is_blank(**c)).count();
    rest = &rest[skip_blanks(rest)..];
    if let [separator, after @ ..] = rest
        && matches!(separator, '=' | ':')
    {
        rest = &after[skip_blanks(after)..];
    }
    (key, rest)
}

/// Resolves escapes. A surrogate without its other half becomes U+FFFD: Rust's strings have no place for it.
fn unescape(raw: &[char]) -> Option<String> {
    let mut units: Vec<u16> = Vec::with_capacity(raw.len());
    let mut chars = raw.iter().copied();
    while let Some(c) = chars.next() {
        let plain = if c == '\\' { chars.next() } else { Some(c) };
        let resolved = match (c, plain) {
            ('\\', Some('t')) => '\t',
            ('\\', Some('n')) => '\n',
            ('\\', Some('r')) => '\r',
            ('\\', Some('f')) => '\x0c',
            ('\\', Some('u')) => {
                let mut unit = 0u16;
                for _ in 0..4 {
                    let digit = chars.next()?.to_digit(16)?;
                    unit = unit << 4 | u16::try_from(digit).ok()?;
                }
                units.push(unit);
                continue;
            }
            (_, Some(other)) => other,
            (_, None) => continue,
        };
        units.extend_from_slice(resolved.encode_utf16(&mut [0; 2]));
    }
    Some(String::from_utf16_lossy(&units))
}

/// As Java writes it: in a key every blank is escaped, in a value only one that leads.
fn escape(text: &str, key: bool, out: &mut String) {
    for (at, c) in text.chars().enumerate() {
        match c {
            ' ' if key || at == 0 => out.push_str("\\ "),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\x0c' => out.push_str("\\f"),
            '\\' | '=' | ':' | '#' | '!' => out.extend(['\\', c]),
            ' '..='~' => out.push(c),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    // Writing to a String cannot fail.
                    let _ = write!(out, "\\u{unit:04X}");
                }
            }
        }
    }
}
