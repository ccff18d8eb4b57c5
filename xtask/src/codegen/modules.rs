//! Rust source around the messages: module lists, the table of API keys, the enums of records.

use std::fmt::Write as _;

use anyhow::{Context, Result, ensure};

use super::model::Message;
use super::schema::{Kind, Schema, Versions};

/// `mod.rs` of a folder of messages.
pub(super) fn mod_file(doc: &str, messages: &[Message], enum_name: Option<(&str, &str)>) -> String {
    let mut code: String = doc.lines().map(|line| format!("//! {line}\n")).collect();
    code.push('\n');
    let mut modules: Vec<&str> = messages
        .iter()
        .map(|message| message.module.as_str())
        .collect();
    let mut uses: Vec<String> = messages
        .iter()
        .map(|message| format!("pub use {}::{};\n", message.module, message.name))
        .collect();
    if let Some((module, name)) = enum_name {
        modules.push(module);
        uses.push(format!("pub use {module}::{name};\n"));
    }
    for module in modules {
        let public = if enum_name.is_some_and(|(name, _)| name == module) {
            ""
        } else {
            "pub "
        };
        let _ = writeln!(code, "{public}mod {module};");
    }
    code + "\n" + &uses.concat()
}

/// The enum of API keys and the facts about each.
pub(super) fn api_keys(schemas: &[Schema]) -> Result<String> {
    let mut requests: Vec<&Schema> = schemas
        .iter()
        .filter(|schema| schema.kind == Kind::Request)
        .collect();
    requests.sort_by_key(|schema| schema.api_key);

    let mut variants = String::new();
    let mut rows = String::new();
    for (index, schema) in requests.iter().enumerate() {
        ensure!(
            schema.api_key == i16::try_from(index).ok(),
            "a gap in the API keys before {}",
            schema.name
        );
        let name = request_stem(&schema.name);
        let versions = schema.valid_versions;
        let listeners = match schema.listeners.as_slice() {
            [] => "NEITHER",
            [one] if one == "broker" => "BROKER",
            [one] if one == "controller" => "CONTROLLER",
            [one, two] if one == "broker" && two == "controller" => "BOTH",
            other => anyhow::bail!("listeners {other:?}"),
        };
        let doc = match versions.is_empty() {
            true => format!("Request {index}, removed in Kafka 4.0"),
            false => format!("Request {index}, versions {versions}"),
        };
        let _ = writeln!(variants, "/// {doc}.\n{name} = {index},");
        let range = |versions: Versions| match versions {
            range if range.is_empty() => "VersionRange::NONE".to_owned(),
            Versions { min, max: i16::MAX } => format!("VersionRange::from({min})"),
            Versions { min, max } => format!("VersionRange::new({min}, {max})"),
        };
        let _ = writeln!(
            rows,
            "api(ApiKey::{name}, {name:?}, {}, {}, {}, {listeners}),",
            range(versions),
            range(schema.flexible_versions),
            schema.latest_version_unstable,
        );
    }
    let count = requests.len();
    Ok(format!(
        "//! The API keys and what the schemas say about each.

        use crate::VersionRange;

        use super::{{Api, BOTH, BROKER, CONTROLLER, NEITHER, api}};

        /// A request by its number on the wire.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(i16)]
        pub enum ApiKey {{\n{variants}}}

        /// Key, name, versions, flexible versions, whether the latest is unstable, listeners.
        #[rustfmt::skip]
        pub(super) static APIS: [Api; {count}] = [\n{rows}];\n"
    ))
}

fn request_stem(name: &str) -> &str {
    name.strip_suffix("Request").unwrap_or(name)
}

/// An enum of all records that are framed with an API key: those of the metadata log.
pub(super) fn framed_enum(name: &str, doc: &str, messages: &[Message]) -> Result<String> {
    let stem = |message: &Message| -> Result<(String, i16)> {
        let key = message.api_key.with_context(|| message.name.clone())?;
        Ok((message.name.trim_end_matches("Record").to_owned(), key))
    };
    let mut sorted: Vec<&Message> = messages.iter().collect();
    sorted.sort_by_key(|message| message.api_key);

    let mut variants = String::new();
    let mut from = String::new();
    let [mut keys, mut names, mut versions, mut encode, mut decode] = [const { String::new() }; 5];
    for message in sorted {
        let (variant, key) = stem(message)?;
        let record = &message.name;
        let _ = writeln!(variants, "/// Record {key}.\n{variant}({record}),");
        let _ = writeln!(keys, "{name}::{variant}(_) => {key},");
        let _ = writeln!(names, "{name}::{variant}(_) => {record}::NAME,");
        let _ = writeln!(versions, "{name}::{variant}(_) => {record}::VERSIONS,");
        let _ = writeln!(
            encode,
            "{name}::{variant}(record) => record.encode(e, version),"
        );
        let _ = writeln!(decode, "{key} => {record}::decode(d, version)?.into(),");
        let _ = writeln!(
            from,
            "impl From<{record}> for {name} {{
            fn from(record: {record}) -> {name} {{ {name}::{variant}(record) }}
            }}\n"
        );
    }
    Ok(format!(
        "//! {doc}

        use bytes::Bytes;

        use super::*;
        use crate::{{DecodeError, Decoder, EncodeError, Encoder, Message, VersionRange, record_frame}};

        /// {doc}
        #[derive(Clone, Debug, PartialEq)]
        pub enum {name} {{\n{variants}}}

        impl {name} {{
            /// The number that tells the records apart.
            pub fn api_key(&self) -> i16 {{ match self {{\n{keys}}} }}

            /// Kafka's name of the record.
            pub fn name(&self) -> &'static str {{ match self {{\n{names}}} }}

            /// The versions of the record.
            pub fn versions(&self) -> VersionRange {{ match self {{\n{versions}}} }}

            /// The value of a Kafka record: the frame, then the record in `version`.
            pub fn encode_value(&self, version: i16) -> Result<Bytes, EncodeError> {{
                record_frame::encode_framed(self.api_key(), version, |e| self.encode(e, version))
            }}

            /// Reads what [`{name}::encode_value`] wrote, or Kafka.
            pub fn decode_value(value: Bytes) -> Result<{name}, DecodeError> {{
                record_frame::decode_framed(value, Self::decode)
            }}

            fn encode(&self, e: &mut Encoder, version: i16) -> Result<(), EncodeError> {{
                match self {{\n{encode}}}
            }}

            fn decode(d: &mut Decoder, api_key: i16, version: i16) -> Result<{name}, DecodeError> {{
                Ok(match api_key {{
                    {decode}
                    record_type => return Err(DecodeError::UnknownRecordType {{ record_type }}),
                }})
            }}
        }}

        {from}"
    ))
}

/// An enum of all records with a typed key and a value: those of the coordinators.
pub(super) fn keyed_enum(name: &str, doc: &str, messages: &[Message]) -> Result<String> {
    let mut keys: Vec<&Message> = messages
        .iter()
        .filter(|message| message.kind == Kind::CoordinatorKey)
        .collect();
    keys.sort_by_key(|message| message.api_key);

    let mut variants = String::new();
    let [mut types, mut encode, mut decode] = [const { String::new() }; 3];
    for message in keys {
        let type_ = message.api_key.with_context(|| message.name.clone())?;
        let key = &message.name;
        let variant = key.trim_end_matches("Key");
        let _ = writeln!(
            variants,
            "/// Records of type {type_}.\n{variant}({key}, Option<{variant}Value>),"
        );
        let _ = writeln!(types, "{name}::{variant}(..) => {key}::RECORD_TYPE,");
        let _ = writeln!(
            encode,
            "{name}::{variant}(key, value) => record_frame::encode_pair(key, value.as_ref(), version),"
        );
        let _ = writeln!(
            decode,
            "{key}::RECORD_TYPE => {{
            let (key, value) = record_frame::decode_pair(key, value)?;
            {name}::{variant}(key, value)
            }}"
        );
    }
    Ok(format!(
        "//! {doc}

        use bytes::Bytes;

        use super::*;
        use crate::{{DecodeError, EncodeError, RecordKey, record_frame}};

        /// {doc}
        ///
        /// A record without a value deletes what its key names.
        #[derive(Clone, Debug, PartialEq)]
        pub enum {name} {{\n{variants}}}

        impl {name} {{
            /// The number in front of the key.
            pub fn record_type(&self) -> i16 {{ match self {{\n{types}}} }}

            /// Key and value of a Kafka record, the value in `version`.
            pub fn encode(&self, version: i16) -> Result<(Bytes, Option<Bytes>), EncodeError> {{
                match self {{\n{encode}}}
            }}

            /// Reads key and value of a Kafka record.
            pub fn decode(key: Bytes, value: Option<Bytes>) -> Result<{name}, DecodeError> {{
                Ok(match record_frame::record_type(&key)? {{
                    {decode}
                    record_type => return Err(DecodeError::UnknownRecordType {{ record_type }}),
                }})
            }}
        }}"
    ))
}

/// A macro for tests that names every message.
pub(super) fn all_messages(paths: &[String]) -> String {
    let list: String = paths
        .iter()
        .map(|path| format!("klamm_protocol::{path},\n"))
        .collect();
    format!(
        "//! Every message there is.

        /// Gives the types of all messages to another macro.
        #[rustfmt::skip]
        macro_rules! all_messages {{
        ($wanted:ident) => {{
        $wanted! {{\n{list}}}
        }};
        }}

        pub(crate) use all_messages;\n"
    )
}
