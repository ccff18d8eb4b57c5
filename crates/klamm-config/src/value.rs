//! A configuration's value: read from text by type, checked by validator, written back as Kafka writes it.

use crate::def::{ConfigDef, Default, Validator, ValueType};
use crate::duration;
use crate::error::{ConfigError, Reason};
use crate::quorum;

/// A value of one of Kafka's configuration types.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "one variant a type")]
pub enum Value {
    /// No value.
    Null,
    Boolean(bool),
    Int(i32),
    Short(i16),
    Long(i64),
    Double(f64),
    /// A string, class name or password.
    Text(String),
    List(Vec<String>),
}

impl Value {
    /// The text that reads back as this value; `None` for no value.
    pub fn to_text(&self) -> Option<String> {
        Some(match self {
            Self::Null => return None,
            Self::Boolean(b) => b.to_string(),
            Self::Int(n) => n.to_string(),
            Self::Short(n) => n.to_string(),
            Self::Long(n) => n.to_string(),
            Self::Double(n) => java_double(*n),
            Self::Text(s) => s.clone(),
            Self::List(items) => items.join(","),
        })
    }

    /// The value as Kafka prints it inside a message: lists in brackets.
    fn in_message(&self) -> String {
        match self {
            Self::List(items) => format!("[{}]", items.join(", ")),
            other => other.to_text().unwrap_or_else(|| "null".to_owned()),
        }
    }

    #[allow(clippy::cast_precision_loss, reason = "bounds are compared as doubles")]
    fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Int(n) => Some(f64::from(*n)),
            Self::Short(n) => Some(f64::from(*n)),
            Self::Long(n) => Some(*n as f64),
            Self::Double(n) => Some(*n),
            _ => None,
        }
    }
}

/// What `Double.toString` gives.
fn java_double(n: f64) -> String {
    let size = n.abs();
    if n.is_nan() {
        return "NaN".to_owned();
    }
    if n.is_infinite() {
        return if n > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    if size == 0.0 || (1e-3..1e7).contains(&size) {
        return format!("{n:?}");
    }
    let text = format!("{n:e}");
    match text.split_once('e') {
        Some((digits, exponent)) if !digits.contains('.') => format!("{digits}.0E{exponent}"),
        Some((digits, exponent)) => format!("{digits}E{exponent}"),
        None => text,
    }
}

/// Java's `String.trim`: drops everything up to and including U+0020 at both ends.
pub(crate) fn trim(text: &str) -> &str {
    text.trim_matches(|c: char| c <= ' ')
}

impl ConfigDef {
    /// Reads and checks a given value.
    ///
    /// # Errors
    /// With Kafka's text if the value is not of the type or not valid.
    pub fn parse(&self, text: &str) -> Result<Value, ConfigError> {
        let value = self.read(text)?;
        self.check(&value)?;
        Ok(value)
    }

    /// The default's value, or an error if one must be given.
    pub(crate) fn default_value(&self) -> Result<Value, ConfigError> {
        match self.default {
            Default::Required => Err(ConfigError::Missing(self.name)),
            Default::Null => Ok(Value::Null),
            Default::Text(text) => self.read(text),
        }
    }

    fn read(&self, given: &str) -> Result<Value, ConfigError> {
        let text = trim(given);
        let number = |parsed: Option<Value>| {
            parsed.ok_or_else(|| self.invalid(given.to_owned(), Reason::NotANumber(self.kind)))
        };
        match self.kind {
            ValueType::Boolean => match () {
                () if text.eq_ignore_ascii_case("true") => Ok(Value::Boolean(true)),
                () if text.eq_ignore_ascii_case("false") => Ok(Value::Boolean(false)),
                () => Err(self.invalid(given.to_owned(), Reason::NotABoolean)),
            },
            ValueType::Int => number(text.parse().ok().map(Value::Int)),
            ValueType::Short => number(text.parse().ok().map(Value::Short)),
            ValueType::Long => number(text.parse().ok().map(Value::Long)),
            ValueType::Double => number(parse_double(text).map(Value::Double)),
            ValueType::String | ValueType::Password => Ok(Value::Text(text.to_owned())),
            ValueType::Class if text.is_empty() => {
                Err(self.invalid(given.to_owned(), Reason::NoSuchClass(given.to_owned())))
            }
            ValueType::Class => Ok(Value::Text(text.to_owned())),
            ValueType::List => Ok(Value::List(split_list(text))),
        }
    }

    fn invalid(&self, value: String, reason: Reason) -> ConfigError {
        ConfigError::Invalid {
            name: self.name.to_owned(),
            value,
            reason,
        }
    }

    fn refuse(&self, value: &Value, reason: Reason) -> Result<(), ConfigError> {
        Err(self.invalid(value.in_message(), reason))
    }

    /// Applies the validator.
    pub(crate) fn check(&self, value: &Value) -> Result<(), ConfigError> {
        match (self.validator, value) {
            (
                Validator::Any | Validator::QuorumVoters | Validator::BootstrapServers,
                Value::Null,
            ) => Ok(()),
            (Validator::Any, _) => Ok(()),
            (Validator::Range(min, max), _) => {
                let Some(n) = value.as_f64() else {
                    return self.refuse(value, Reason::Null);
                };
                match (min, max) {
                    (Some(min), _) if n < min.as_f64() => self.refuse(value, Reason::TooSmall(min)),
                    (_, Some(max)) if n > max.as_f64() => self.refuse(value, Reason::TooLarge(max)),
                    _ => Ok(()),
                }
            }
            (Validator::OneOf(valid), Value::Text(text)) if valid.contains(&text.as_str()) => {
                Ok(())
            }
            (Validator::OneOf(valid), _) => self.refuse(value, Reason::NotOneOf(valid)),
            (Validator::OneOfAnyCase(valid), Value::Text(text))
                if valid.iter().any(|v| v.eq_ignore_ascii_case(text)) =>
            {
                Ok(())
            }
            (Validator::OneOfAnyCase(valid), _) => {
                self.refuse(value, Reason::NotOneOfAnyCase(valid))
            }
            (Validator::ListOf { valid, empty, .. }, Value::List(items)) => {
                self.check_list(items, valid, empty)
            }
            (Validator::ListOf { null, .. }, _) if null => Ok(()),
            (Validator::ListOf { .. } | Validator::NonNull, Value::Null) => {
                self.refuse(value, Reason::Null)
            }
            (Validator::ListOf { .. } | Validator::NonNull, _) => Ok(()),
            (Validator::GzipLevel, Value::Int(-1 | 1..=9)) => Ok(()),
            (Validator::GzipLevel, _) => self.refuse(value, Reason::GzipLevel),
            (Validator::NonEmpty, Value::Text(text)) if text.is_empty() => {
                self.refuse(value, Reason::EmptyString)
            }
            (Validator::NonEmpty, _) => Ok(()),
            (Validator::QuorumVoters, _) => quorum::parse_voters(list(value))
                .map(drop)
                .map_err(Into::into),
            (Validator::BootstrapServers, _) => {
                quorum::check_bootstrap(list(value)).map_err(Into::into)
            }
            (Validator::ThrottledReplicas, _) if throttled_replicas(list(value)) => Ok(()),
            (Validator::ThrottledReplicas, _) => {
                self.refuse(value, Reason::ThrottledReplicas(self.name.to_owned()))
            }
            (Validator::ShareOffsetReset, Value::Text(text)) if duration::is_offset_reset(text) => {
                Ok(())
            }
            (Validator::ShareOffsetReset, _) => {
                let reason = Reason::ShareOffsetReset {
                    name: self.name.to_owned(),
                    value: value.in_message(),
                };
                self.refuse(value, reason)
            }
        }
    }

    fn check_list(
        &self,
        items: &[String],
        valid: &'static [&'static str],
        empty: bool,
    ) -> Result<(), ConfigError> {
        if items.is_empty() && !empty {
            return Err(ConfigError::EmptyList {
                name: self.name.to_owned(),
                valid,
            });
        }
        if items.iter().any(String::is_empty) {
            return Err(ConfigError::EmptyListEntry(self.name.to_owned()));
        }
        match items
            .iter()
            .find(|item| !valid.is_empty() && !valid.contains(&item.as_str()))
        {
            Some(bad) => Err(self.invalid(bad.clone(), Reason::NotOneOf(valid))),
            None => Ok(()),
        }
    }
}

/// `Double.parseDouble`: as Rust's, with a type suffix allowed and only Java's names for the special values.
fn parse_double(text: &str) -> Option<f64> {
    match text {
        "NaN" | "+NaN" | "-NaN" => return Some(f64::NAN),
        "Infinity" | "+Infinity" => return Some(f64::INFINITY),
        "-Infinity" => return Some(f64::NEG_INFINITY),
        _ => {}
    }
    let digits = text.strip_suffix(['d', 'D', 'f', 'F']).unwrap_or(text);
    if !digits.ends_with(|c: char| c.is_ascii_digit() || c == '.') || digits.contains(['n', 'N']) {
        return None;
    }
    digits.parse().ok()
}

/// A comma separated list; white space around the commas does not count.
pub(crate) fn split_list(text: &str) -> Vec<String> {
    if text.is_empty() {
        return Vec::new();
    }
    text.split(',')
        .map(|item| {
            item.trim_matches([' ', '\t', '\n', '\x0b', '\x0c', '\r'])
                .to_owned()
        })
        .collect()
}

fn list(value: &Value) -> &[String] {
    match value {
        Value::List(items) => items,
        _ => &[],
    }
}

fn throttled_replicas(items: &[String]) -> bool {
    let entry = |item: &String| {
        let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        item.split_once(':')
            .is_some_and(|(partition, broker)| digits(partition) && digits(broker))
    };
    matches!(items, [star] if star == "*") || items.iter().all(entry)
}
