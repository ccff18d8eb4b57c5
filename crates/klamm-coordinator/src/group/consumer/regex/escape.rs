//! What stands behind a backslash: classes and single characters.

use super::class::{self, Class};
use super::syntax::{INVALID_CHAR_RANGE, INVALID_ESCAPE, Parsed, Parser, fail};

const TRAILING_BACKSLASH: &str = "trailing backslash at end of expression";

impl Parser {
    /// `\pL`, `\p{Greek}`, `\d` and the like; none with nothing read if it is none of them.
    pub(super) fn escaped_class(&mut self) -> Parsed<Option<Class>> {
        if self.peek() != Some('\\') {
            return Ok(None);
        }
        match self.chars.get(self.at + 1).copied() {
            Some(kind @ ('p' | 'P')) => {
                self.at += 2;
                self.unicode_class(kind == 'P').map(Some)
            }
            Some(letter) => {
                let found = class::perl(letter);
                self.at += if found.is_some() { 2 } else { 0 };
                Ok(found)
            }
            None => Ok(None),
        }
    }

    fn unicode_class(&mut self, mut negated: bool) -> Parsed<Class> {
        let mut name = match self.pop() {
            None => return fail(INVALID_CHAR_RANGE),
            Some('{') => {
                let Some(end) = self.find('}') else {
                    return fail(INVALID_CHAR_RANGE);
                };
                let name = self.chars[self.at..end].iter().collect();
                self.at = end + 1;
                name
            }
            Some(letter) => letter.to_string(),
        };
        if name.starts_with('^') {
            negated = !negated;
            name.remove(0);
        }
        match class::unicode(&name, self.flags.fold) {
            Some(class) if negated => Ok(class.negated()),
            Some(class) => Ok(class),
            None => fail(INVALID_CHAR_RANGE),
        }
    }

    /// A single character behind a backslash.
    pub(super) fn escaped_char(&mut self) -> Parsed<u32> {
        self.at += 1;
        let Some(escaped) = self.pop() else {
            return fail(TRAILING_BACKSLASH);
        };
        match escaped {
            '1'..='7' if !self.peek().is_some_and(|c| c.is_digit(8)) => fail(INVALID_ESCAPE),
            '0'..='7' => {
                let mut code = escaped.to_digit(8).unwrap_or(0);
                for _ in 1..3 {
                    let Some(digit) = self.peek().and_then(|c| c.to_digit(8)) else {
                        break;
                    };
                    code = code * 8 + digit;
                    self.at += 1;
                }
                Ok(code)
            }
            'a' => Ok(7),
            'f' => Ok(12),
            'n' => Ok(10),
            'r' => Ok(13),
            't' => Ok(9),
            'v' => Ok(11),
            'x' => self.hex(),
            _ if !escaped.is_ascii_alphanumeric() => Ok(escaped as u32),
            _ => fail(INVALID_ESCAPE),
        }
    }

    fn hex(&mut self) -> Parsed<u32> {
        let digit = |c: Option<char>| c.and_then(|c| c.to_digit(16));
        if self.peek() != Some('{') {
            let (high, low) = (digit(self.pop()), digit(self.pop()));
            return match (high, low) {
                (Some(high), Some(low)) => Ok(high * 16 + low),
                _ => fail(INVALID_ESCAPE),
            };
        }
        self.at += 1;
        let mut code = 0_u32;
        let mut digits = 0;
        loop {
            let next = self.pop();
            if next == Some('}') && digits > 0 {
                return Ok(code);
            }
            let Some(value) = digit(next) else {
                return fail(INVALID_ESCAPE);
            };
            code = code * 16 + value;
            digits += 1;
            if code > u32::from(char::MAX) {
                return fail(INVALID_ESCAPE);
            }
        }
    }
}
