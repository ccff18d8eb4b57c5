//! Rust source of one message: its structs, how they are read and written.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use anyhow::{Context, Result};

use super::fields::{self, Default, condition};
use super::model::{Message, Slot, Struct};
use super::schema::{Kind, Versions};

/// The module of a message. `api_key` names the variant of `ApiKey`, for requests.
pub(super) fn module(message: &Message, api_key: Option<&str>) -> Result<String> {
    let mut body = String::new();
    for (index, struct_) in message.structs.iter().enumerate() {
        let code = struct_code(message, struct_, index == 0);
        body += &code.with_context(|| format!("{}.{}", message.name, struct_.name))?;
    }
    body += &traits(message, api_key);
    Ok(format!(
        "//! {}\n\n{}\n{body}",
        summary(message),
        imports(&body)
    ))
}

/// What the message is, in one line.
fn summary(message: &Message) -> String {
    let versions = match (message.latest_unstable, message.versions.max) {
        (true, max) => format!("versions {}, of which {max} is unstable", message.versions),
        (false, _) => plural(message.versions),
    };
    let flexible = match message.flexible.intersect(message.versions) {
        range if range.is_empty() => "never flexible".to_owned(),
        range if range == message.versions => "all flexible".to_owned(),
        range => format!("flexible {}+", range.min),
    };
    let key = message.api_key.unwrap_or_default();
    let what = match message.kind {
        Kind::Request => {
            let listeners = message.listeners.join(" and ");
            format!("request {key} of the {listeners} listeners, ")
        }
        Kind::Response => format!("response {key}, "),
        Kind::Metadata => format!("metadata record {key}, "),
        Kind::CoordinatorKey => format!("key of record type {key}, "),
        Kind::CoordinatorValue => format!("value of record type {key}, "),
        Kind::Header | Kind::Data => String::new(),
    };
    format!("`{}`: {what}{versions}, {flexible}.", message.name)
}

fn plural(versions: Versions) -> String {
    if versions.min == versions.max {
        format!("version {versions}")
    } else {
        format!("versions {versions}")
    }
}

fn imports(body: &str) -> String {
    let used = |names: &[&'static str]| -> Vec<&'static str> {
        let words = words(body);
        names
            .iter()
            .copied()
            .filter(|name| words.contains(name))
            .collect()
    };
    let mut imports = String::new();
    if !used(&["Bytes"]).is_empty() {
        imports += "use bytes::Bytes;\n";
    }
    if !used(&["Uuid"]).is_empty() {
        imports += "use klamm_records::Uuid;\n";
    }
    if !imports.is_empty() {
        imports.push('\n');
    }
    if !used(&["require"]).is_empty() {
        imports += "use crate::error::require;\n";
    }
    let own = used(&[
        "ApiKey",
        "ByteStr",
        "DecodeError",
        "Decoder",
        "EncodeError",
        "Encoder",
        "Message",
        "RecordKey",
        "Records",
        "Request",
        "UnknownTags",
        "VersionRange",
    ]);
    let _ = writeln!(imports, "use crate::{{{}}};", own.join(", "));
    imports
}

/// The identifiers of some source code.
fn words(code: &str) -> BTreeSet<&str> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_')
        .collect()
}

fn struct_code(message: &Message, struct_: &Struct, top: bool) -> Result<String> {
    let flexible = message.flexible.intersect(struct_.versions);
    let tags = !flexible.is_empty();
    let defaults = struct_
        .fields
        .iter()
        .map(Default::of)
        .collect::<Result<Vec<_>>>()?;
    let derived = defaults.iter().all(|default| default.derived);
    let name = &struct_.name;

    let mut code = String::new();
    let doc = match top {
        true => summary(message),
        false => format!(
            "Part of [`{}`], {}.",
            message.name,
            plural(struct_.versions)
        ),
    };
    let derive = if derived {
        "Clone, Debug, Default, PartialEq"
    } else {
        "Clone, Debug, PartialEq"
    };
    let _ = writeln!(code, "/// {doc}\n#[derive({derive})]\npub struct {name} {{");
    for (slot, default) in struct_.fields.iter().zip(&defaults) {
        let _ = writeln!(
            code,
            "{}pub {}: {},",
            field_doc(slot, default),
            slot.name,
            slot.rust_type()
        );
    }
    if tags {
        code +=
            "/// Tagged fields of other releases.\npub unknown_tags: Option<Box<UnknownTags>>,\n";
    }
    code += "}\n\n";

    if !derived {
        let _ = writeln!(
            code,
            "impl Default for {name} {{ fn default() -> Self {{ {name} {{"
        );
        for (slot, default) in struct_.fields.iter().zip(&defaults) {
            let _ = writeln!(code, "{}: {},", slot.name, default.expr);
        }
        code += if tags {
            "unknown_tags: None,\n}}}\n\n"
        } else {
            "}}}\n\n"
        };
    }

    let decode = decode_body(struct_, &defaults, flexible);
    let encode = encode_body(struct_, &defaults, tags)?;
    if top {
        let (min, max) = (message.versions.min, message.versions.max);
        let flexible = match message.flexible.intersect(message.versions) {
            range if range.is_empty() => "NONE".to_owned(),
            range => format!("from({})", range.min),
        };
        let _ = write!(
            code,
            "impl Message for {name} {{
            const NAME: &'static str = {name:?};
            const VERSIONS: VersionRange = VersionRange::new({min}, {max});
            const FLEXIBLE: VersionRange = VersionRange::{flexible};

            fn decode(d: &mut Decoder, version: i16) -> Result<Self, DecodeError> {{
                d.begin::<Self>(version)?;
                {decode}
            }}

            fn encode(&self, e: &mut Encoder, version: i16) -> Result<(), EncodeError> {{
                e.begin::<Self>(version)?;
                {encode}
            }}
            }}\n\n"
        );
    } else {
        let uses = |body| {
            if words(body).contains("version") {
                "version"
            } else {
                "_version"
            }
        };
        let (read, write) = (uses(&decode), uses(&encode));
        let _ = write!(
            code,
            "impl {name} {{
            fn decode(d: &mut Decoder, {read}: i16) -> Result<Self, DecodeError> {{
                {decode}
            }}

            fn encode(&self, e: &mut Encoder, {write}: i16) -> Result<(), EncodeError> {{
                {encode}
            }}
            }}\n\n"
        );
    }
    Ok(code)
}

fn field_doc(slot: &Slot, default: &Default) -> String {
    let mut doc = format!("/// `{}`, {}", slot.kafka_type, plural(slot.versions));
    if let Some(tag) = slot.tag {
        let _ = write!(doc, ", tag {tag}");
    }
    if slot.optional && !slot.nullable.is_empty() {
        match slot.nullable.covers(slot.versions) {
            true => doc += ", nullable",
            false => {
                let _ = write!(doc, ", nullable {}", slot.nullable);
            }
        }
    }
    if let Some(words) = &default.words {
        let _ = write!(doc, ", default {words}");
    }
    if slot.ignorable {
        doc += ", ignorable";
    }
    match &slot.entity {
        Some(entity) => doc + "; `" + entity + "`.\n",
        None => doc + ".\n",
    }
}

fn decode_body(struct_: &Struct, defaults: &[Default], flexible: Versions) -> String {
    let mut tagged: Vec<&Slot> = struct_
        .fields
        .iter()
        .filter(|slot| slot.tag.is_some())
        .collect();
    tagged.sort_by_key(|slot| slot.tag);
    let mut literal = format!("{} {{\n", struct_.name);
    for (slot, default) in struct_.fields.iter().zip(defaults) {
        let value = match condition(slot.versions, struct_.versions) {
            _ if slot.tag.is_some() => default.expr.clone(),
            None => fields::read(slot, struct_),
            Some(test) => {
                format!(
                    "if {test} {{ {} }} else {{ {} }}",
                    fields::read(slot, struct_),
                    default.expr
                )
            }
        };
        let _ = writeln!(literal, "{}: {value},", slot.name);
    }
    if tagged.is_empty() {
        literal += if !flexible.is_empty() {
            "unknown_tags: d.unknown_tags()?,\n}"
        } else {
            "}"
        };
        return format!("Ok({literal})");
    }
    let mut arms = String::new();
    for slot in tagged {
        let tag = slot.tag.unwrap_or_default();
        let read = format!("this.{} = {}", slot.name, fields::read(slot, struct_));
        // Outside of its versions a known tag is an error.
        let _ = match condition(slot.tagged, flexible) {
            None => writeln!(arms, "{tag} => {read},"),
            Some(test) => writeln!(
                arms,
                "{tag} if {test} => {read},\n{tag} => return Err(DecodeError::TagNotInVersion {{ tag, version }}),"
            ),
        };
    }
    format!(
        "let mut this = {literal}unknown_tags: None,\n}};
        this.unknown_tags = d.tags(|d, tag| {{
            match tag {{
                {arms}                _ => return Ok(false),
            }}
            Ok(true)
        }})?;
        Ok(this)"
    )
}

fn encode_body(struct_: &Struct, defaults: &[Default], tags: bool) -> Result<String> {
    let mut code = String::new();
    let mut tagged = BTreeMap::new();
    for (slot, default) in struct_.fields.iter().zip(defaults) {
        let test = condition(slot.versions, struct_.versions);
        let differs = default.differs(slot)?;
        let refuse = format!(
            "return Err(EncodeError::unsupported(\"{}.{}\", version));",
            struct_.name, slot.name
        );
        let lost = match slot.ignorable {
            true => String::new(),
            false => format!("else if {differs} {{ {refuse} }}"),
        };
        let Some(tag) = slot.tag else {
            let write = fields::write(slot, struct_)?;
            let _ = match test {
                None => writeln!(code, "{write}"),
                Some(test) => writeln!(code, "if {test} {{ {write} }} {lost}"),
            };
            continue;
        };
        let write = format!(
            "tags.field({tag}, {})?;",
            fields::write_tagged(slot, struct_)?.closure()
        );
        let outside = fields::outside(slot.versions, struct_.versions);
        let write = match test.zip(outside) {
            None => format!("if {differs} {{ {write} }}\n"),
            Some((test, _)) if slot.ignorable => format!("if {test} && {differs} {{ {write} }}\n"),
            Some((_, outside)) => {
                format!("if {differs} {{ if {outside} {{ {refuse} }} {write} }}\n")
            }
        };
        tagged.insert(tag, write);
    }
    // Tags are written in rising order, whatever the order of the fields.
    let tagged: String = tagged.into_values().collect();
    code += &match (tags, tagged.is_empty()) {
        (false, _) => "Ok(())".to_owned(),
        (true, true) => "e.unknown_tags(&self.unknown_tags)".to_owned(),
        (true, false) => {
            format!("let mut tags = e.tags(&self.unknown_tags);\n{tagged}tags.finish()")
        }
    };
    Ok(code)
}

fn traits(message: &Message, api_key: Option<&str>) -> String {
    let name = &message.name;
    match (message.kind, api_key) {
        (Kind::Request, Some(key)) => {
            let stem = name.trim_end_matches("Request");
            format!(
                "impl Request for {name} {{
                const API_KEY: ApiKey = ApiKey::{key};
                type Response = super::{stem}Response;
                }}\n"
            )
        }
        (Kind::CoordinatorKey, _) => {
            let stem = name.trim_end_matches("Key");
            let type_ = message.api_key.unwrap_or_default();
            format!(
                "impl RecordKey for {name} {{
                const RECORD_TYPE: i16 = {type_};
                type Value = super::{stem}Value;
                }}\n"
            )
        }
        _ => String::new(),
    }
}
