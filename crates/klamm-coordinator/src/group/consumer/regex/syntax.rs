//! Reads the syntax of RE2/J and writes that of the crate `regex`.
//!
//! What an expression captures and which of several matches it would prefer does not matter: all
//! that is asked is whether a whole name matches.

use std::collections::BTreeSet;

use super::RegexError;
use super::class::{self, Class};

pub(super) const INVALID_REPEAT_SIZE: &str = "invalid repeat count";
const INTERNAL: &str = "regexp/syntax: internal error";
pub(super) const INVALID_CHAR_RANGE: &str = "invalid character class range";
pub(super) const INVALID_ESCAPE: &str = "invalid escape sequence";
const INVALID_NAMED_CAPTURE: &str = "invalid named capture";
const DUPLICATE_NAMED_CAPTURE: &str = "duplicate capture group name";
const INVALID_PERL_OP: &str = "invalid or unsupported Perl syntax";
const INVALID_REPEAT_OP: &str = "invalid nested repetition operator";
const MISSING_BRACKET: &str = "missing closing ]";
const MISSING_PAREN: &str = "missing closing )";
const MISSING_REPEAT_ARGUMENT: &str = "missing argument to repetition operator";

const NESTS_TOO_DEEPLY: &str = "expression nests too deeply";

/// The most that one repetition may ask for.
const REPEAT_MAX: u32 = 1_000;
/// How deep groups may be nested. RE2/J ends where its thread's stack does.
const DEPTH_MAX: usize = 100;

pub(super) type Parsed<T> = Result<T, RegexError>;

pub(super) fn fail<T>(description: &'static str) -> Parsed<T> {
    Err(RegexError { description })
}

/// The expression in the syntax of the crate `regex`, for bytes without Unicode.
pub(super) fn translate(expression: &str) -> Parsed<String> {
    let mut parser = Parser {
        chars: expression.chars().collect(),
        at: 0,
        flags: Flags::default(),
        groups: vec![Group::default()],
        names: BTreeSet::new(),
    };
    let mut after_repeat = false;
    while let Some(next) = parser.peek() {
        after_repeat = parser.step(next, after_repeat)?;
    }
    match (parser.groups.pop(), parser.groups.is_empty()) {
        (Some(group), true) => Ok(group.pattern()),
        _ => fail(MISSING_PAREN),
    }
}

#[derive(Clone, Copy, Default)]
pub(super) struct Flags {
    pub(super) fold: bool,
    dot_matches_newline: bool,
}

/// An open group: the alternatives before, and the pieces of the one at hand.
#[derive(Default)]
struct Group {
    alternatives: Vec<String>,
    pieces: Vec<String>,
    outer_flags: Flags,
}

impl Group {
    fn pattern(mut self) -> String {
        self.alternatives.push(self.pieces.concat());
        self.alternatives.join("|")
    }
}

pub(super) struct Parser {
    pub(super) chars: Vec<char>,
    pub(super) at: usize,
    pub(super) flags: Flags,
    groups: Vec<Group>,
    names: BTreeSet<String>,
}

impl Parser {
    pub(super) fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    pub(super) fn pop(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += 1;
        Some(next)
    }

    fn looking_at(&self, text: &str) -> bool {
        let mut rest = self.chars[self.at..].iter();
        text.chars().all(|wanted| rest.next() == Some(&wanted))
    }

    /// The place of a character from here on.
    pub(super) fn find(&self, wanted: char) -> Option<usize> {
        let rest = self.chars[self.at..].iter();
        let place = rest.clone().position(|c| *c == wanted)?;
        Some(self.at + place)
    }

    fn push(&mut self, piece: impl Into<String>) {
        if let Some(group) = self.groups.last_mut() {
            group.pieces.push(piece.into());
        }
    }

    fn push_class(&mut self, class: Class) {
        self.push(class.pattern());
    }

    fn literal(&mut self, code: u32) {
        self.push_class(Class::range(code, code, self.flags.fold));
    }

    /// Reads one token; tells whether it was a repetition.
    fn step(&mut self, next: char, after_repeat: bool) -> Parsed<bool> {
        match next {
            '(' if self.looking_at("(?") => self.perl_group()?,
            '(' => {
                self.at += 1;
                self.open()?;
            }
            ')' => self.close()?,
            '|' => {
                self.at += 1;
                if let Some(group) = self.groups.last_mut() {
                    let done = std::mem::take(&mut group.pieces).concat();
                    group.alternatives.push(done);
                }
            }
            '*' | '+' | '?' => {
                self.at += 1;
                self.repeat(&next.to_string(), after_repeat)?;
                return Ok(true);
            }
            '{' => match self.counts()? {
                Some(counts) => {
                    self.repeat(&counts, after_repeat)?;
                    return Ok(true);
                }
                None => {
                    self.at += 1;
                    self.literal('{' as u32);
                }
            },
            '^' | '$' => {
                self.at += 1;
                // Names have no line breaks: lines and texts begin and end at the same places.
                self.push(if next == '^' { r"\A" } else { r"\z" });
            }
            '.' => {
                self.at += 1;
                let any = self.flags.dot_matches_newline;
                self.push_class(Class::of(|byte| any || byte != b'\n'));
            }
            '[' => self.class()?,
            '\\' => self.escape()?,
            _ => {
                self.at += 1;
                self.literal(next as u32);
            }
        }
        Ok(false)
    }

    fn open(&mut self) -> Parsed<()> {
        if self.groups.len() > DEPTH_MAX {
            return fail(NESTS_TOO_DEEPLY);
        }
        self.groups.push(Group {
            outer_flags: self.flags,
            ..Group::default()
        });
        Ok(())
    }

    fn close(&mut self) -> Parsed<()> {
        if self.groups.len() < 2 {
            // RE2/J tells a lone parenthesis by whether there is anything beside it to look at.
            let alone = self.groups.iter().all(|g| g.alternatives.is_empty());
            return fail(if alone { INTERNAL } else { MISSING_PAREN });
        }
        self.at += 1;
        if let Some(group) = self.groups.pop() {
            self.flags = group.outer_flags;
            self.push(format!("(?:{})", group.pattern()));
        }
        Ok(())
    }

    fn repeat(&mut self, operator: &str, after_repeat: bool) -> Parsed<()> {
        if self.peek() == Some('?') {
            self.at += 1;
        }
        if after_repeat {
            return fail(INVALID_REPEAT_OP);
        }
        let last = self.groups.last_mut().and_then(|g| g.pieces.last_mut());
        let Some(last) = last else {
            return fail(MISSING_REPEAT_ARGUMENT);
        };
        *last = format!("(?:{last}){operator}");
        Ok(())
    }

    /// The counts in braces; none if it is not a repetition, with nothing read.
    fn counts(&mut self) -> Parsed<Option<String>> {
        let start = self.at;
        let counts = self.try_counts();
        let Some((min, max)) = counts else {
            self.at = start;
            return Ok(None);
        };
        let valid = min.is_some_and(|min| {
            min <= REPEAT_MAX
                && match max {
                    None => true,
                    Some(None) => false,
                    Some(Some(max)) => max <= REPEAT_MAX && min <= max,
                }
        });
        if !valid {
            return fail(INVALID_REPEAT_SIZE);
        }
        let text = |count: u32| count.to_string();
        Ok(Some(match (min, max) {
            (Some(min), Some(Some(max))) => format!("{{{},{}}}", text(min), text(max)),
            (min, _) => format!("{{{},}}", text(min.unwrap_or(0))),
        }))
    }

    /// Minimum and maximum, as far as it looks like a repetition. Inner none: a number too large.
    fn try_counts(&mut self) -> Option<(Option<u32>, Option<Option<u32>>)> {
        self.at += 1;
        let min = self.number()?;
        let max = match self.peek()? {
            ',' => {
                self.at += 1;
                match self.peek()? {
                    '}' => None,
                    _ => Some(self.number()?),
                }
            }
            _ => Some(min),
        };
        (self.pop()? == '}').then_some((min, max))
    }

    /// A number without leading zeros; the inner none is one of more than eight digits.
    fn number(&mut self) -> Option<Option<u32>> {
        let start = self.at;
        while self.peek().is_some_and(|c| c.is_ascii_digit()) {
            self.at += 1;
        }
        let digits: String = self.chars[start..self.at].iter().collect();
        if digits.is_empty() || (digits.len() > 1 && digits.starts_with('0')) {
            return None;
        }
        Some(if digits.len() > 8 {
            None
        } else {
            digits.parse().ok()
        })
    }

    /// `(?flags)`, `(?flags:…)` and named groups.
    fn perl_group(&mut self) -> Parsed<()> {
        if self.looking_at("(?P<") || self.looking_at("(?<") {
            return self.named_group();
        }
        self.at += 2;
        let mut flags = self.flags;
        let mut negative = false;
        let mut saw_flag = false;
        loop {
            match self.pop() {
                Some(end @ (')' | ':')) => {
                    if negative && !saw_flag {
                        return fail(INVALID_PERL_OP);
                    }
                    if end == ':' {
                        self.open()?;
                    }
                    self.flags = flags;
                    return Ok(());
                }
                Some('-') if !negative => {
                    negative = true;
                    saw_flag = false;
                    continue;
                }
                Some('i') => flags.fold = !negative,
                Some('s') => flags.dot_matches_newline = !negative,
                // Greed and lines do not matter to whole names.
                Some('m' | 'U') => {}
                _ => return fail(INVALID_PERL_OP),
            }
            saw_flag = true;
        }
    }

    fn named_group(&mut self) -> Parsed<()> {
        let begin = self.at + if self.looking_at("(?P<") { 4 } else { 3 };
        self.at = begin;
        let Some(end) = self.find('>') else {
            return fail(INVALID_NAMED_CAPTURE);
        };
        let name: String = self.chars[begin..end].iter().collect();
        self.at = end + 1;
        let valid = |c: char| c == '_' || c.is_ascii_alphanumeric();
        if name.is_empty() || !name.chars().all(valid) {
            return fail(INVALID_NAMED_CAPTURE);
        }
        self.open()?;
        if !self.names.insert(name) {
            return fail(DUPLICATE_NAMED_CAPTURE);
        }
        Ok(())
    }

    fn escape(&mut self) -> Parsed<()> {
        let anchor = match self.chars.get(self.at + 1) {
            Some('A') => r"\A",
            Some('z') => r"\z",
            Some('b') => r"\b",
            Some('B') => r"\B",
            Some('C') => return fail(INVALID_ESCAPE),
            Some('Q') => {
                self.quoted();
                return Ok(());
            }
            _ => "",
        };
        if !anchor.is_empty() {
            self.at += 2;
            self.push(anchor);
        } else if let Some(class) = self.escaped_class()? {
            self.push_class(class);
        } else {
            let code = self.escaped_char()?;
            self.literal(code);
        }
        Ok(())
    }

    fn quoted(&mut self) {
        self.at += 2;
        while self.at < self.chars.len() && !self.looking_at(r"\E") {
            let code = self.chars[self.at] as u32;
            self.literal(code);
            self.at += 1;
        }
        self.at = (self.at + 2).min(self.chars.len());
    }

    /// `[…]`
    fn class(&mut self) -> Parsed<()> {
        self.at += 1;
        let negated = self.peek() == Some('^');
        self.at += usize::from(negated);
        let mut class = Class::default();
        let mut first = true;
        while self.peek() != Some(']') || first {
            first = false;
            class = class | self.class_item()?;
        }
        self.at += 1;
        self.push_class(if negated { class.negated() } else { class });
        Ok(())
    }

    fn class_item(&mut self) -> Parsed<Class> {
        if self.looking_at("[:") {
            let rest: String = self.chars[self.at..].iter().collect();
            if let Some(end) = rest.find(":]") {
                let name = &rest[..end + 2];
                let Some(class) = class::posix(name, self.flags.fold) else {
                    return fail(INVALID_CHAR_RANGE);
                };
                self.at += name.chars().count();
                return Ok(class);
            }
        }
        if let Some(class) = self.escaped_class()? {
            return Ok(class);
        }
        let low = self.class_char()?;
        let mut high = low;
        let is_range =
            self.peek() == Some('-') && self.chars.get(self.at + 1).is_none_or(|c| *c != ']');
        if is_range {
            self.at += 1;
            high = self.class_char()?;
            if high < low {
                return fail(INVALID_CHAR_RANGE);
            }
        }
        Ok(Class::range(low, high, self.flags.fold))
    }

    fn class_char(&mut self) -> Parsed<u32> {
        match self.peek() {
            None => fail(MISSING_BRACKET),
            Some('\\') => self.escaped_char(),
            Some(plain) => {
                self.at += 1;
                Ok(plain as u32)
            }
        }
    }
}
