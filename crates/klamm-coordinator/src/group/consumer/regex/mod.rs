//! Subscriptions by regular expressions, with the syntax and meaning of RE2/J 1.8, which Kafka
//! uses.
//!
//! `syntax` reads an expression as RE2/J does, refuses what it refuses in its words, and writes it
//! anew for the crate `regex`, whose syntax differs in many corners. `class` holds sets of
//! characters, `escape` what stands behind a backslash. Names of topics are ASCII, so everything else matches nothing here.

mod class;
mod escape;
mod syntax;

use regex::bytes::{Regex, RegexBuilder};

/// An expression that RE2/J refuses too, and its word for what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{description}")]
pub struct RegexError {
    /// `PatternSyntaxException.getDescription` of RE2/J.
    pub description: &'static str,
}

/// A regular expression over names of topics.
#[derive(Clone, Debug)]
pub struct TopicRegex(Regex);

/// How large a compiled expression may get, in bytes. RE2/J knows no limit but the memory.
const COMPILED_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How deep a translated expression may be nested: a few levels for each of the original's.
const COMPILED_DEPTH_MAX: u32 = 1_000;

impl TopicRegex {
    /// Reads an expression.
    ///
    /// # Errors
    /// If RE2/J refuses it, or if it grows beyond all measure by repetitions of repetitions.
    pub fn new(expression: &str) -> Result<Self, RegexError> {
        let pattern = syntax::translate(expression)?;
        let regex = RegexBuilder::new(&format!(r"\A(?:{pattern})\z"))
            .unicode(false)
            .size_limit(COMPILED_BYTES_MAX)
            .nest_limit(COMPILED_DEPTH_MAX)
            .build()
            .map_err(|_| RegexError {
                description: syntax::INVALID_REPEAT_SIZE,
            })?;
        Ok(TopicRegex(regex))
    }

    /// Whether the whole name matches.
    pub fn matches(&self, topic: &str) -> bool {
        self.0.is_match(topic.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What RE2/J 1.8 says of each expression, and which of the names it matches in full.
    const GOLDEN: &str = include_str!("../../../../tests/golden/re2j.tsv");
    const NAMES: &str = include_str!("../../../../tests/golden/re2j-names.txt");

    #[test]
    fn reads_expressions_as_re2j_does() {
        let names: Vec<&str> = NAMES.lines().collect();
        let mut count = 0;
        for line in GOLDEN.lines() {
            let (expression, verdict) = line.split_once('\t').unwrap();
            let expected = match verdict.strip_prefix("! ") {
                Some(description) => Err(description.to_owned()),
                None => Ok(verdict.trim().to_owned()),
            };
            let found = match TopicRegex::new(expression) {
                Ok(regex) => {
                    let hits = names.iter().enumerate().filter(|(_, n)| regex.matches(n));
                    let hits: Vec<String> = hits.map(|(at, _)| at.to_string()).collect();
                    Ok(hits.join(" "))
                }
                Err(error) => Err(error.description.to_owned()),
            };
            assert_eq!(found, expected, "{expression}");
            count += 1;
        }
        assert!(count > 100, "only {count} expressions");
    }

    #[test]
    fn repetitions_of_repetitions_end() {
        let refused = TopicRegex::new("((((a{1000}){1000}){1000}){1000})").unwrap_err();
        assert_eq!(refused.description, "invalid repeat count");
        let deep = format!("{}a{}", "(".repeat(100_000), ")".repeat(100_000));
        let refused = TopicRegex::new(&deep).unwrap_err();
        assert_eq!(refused.description, "expression nests too deeply");
        let deep = format!("{}a{}", "(".repeat(90), ")*".repeat(90));
        assert!(TopicRegex::new(&deep).unwrap().matches("aaa"));
    }
}
