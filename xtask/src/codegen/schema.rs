//! Kafka's message schemas as they lie in its jars: JSON with `//` comments.

use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

/// What a schema describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Kind {
    Request,
    Response,
    Header,
    Data,
    Metadata,
    CoordinatorKey,
    CoordinatorValue,
}

/// One schema.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Schema {
    pub(super) api_key: Option<i16>,
    #[serde(rename = "type")]
    pub(super) kind: Kind,
    #[serde(default)]
    pub(super) listeners: Vec<String>,
    pub(super) name: String,
    pub(super) valid_versions: Versions,
    #[serde(default)]
    pub(super) flexible_versions: Versions,
    #[serde(default)]
    pub(super) latest_version_unstable: bool,
    #[serde(default)]
    pub(super) fields: Vec<Field>,
    #[serde(default)]
    pub(super) common_structs: Vec<CommonStruct>,
}

/// A struct that several fields share.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct CommonStruct {
    pub(super) name: String,
    #[serde(rename = "versions")]
    _versions: Versions,
    pub(super) fields: Vec<Field>,
}

/// A field of a message or of a struct in it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Field {
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) type_name: String,
    #[serde(rename = "versions")]
    stated_versions: Option<Versions>,
    #[serde(default)]
    pub(super) nullable_versions: Versions,
    #[serde(default)]
    pub(super) tagged_versions: Versions,
    pub(super) tag: Option<u32>,
    /// The versions in which the field itself is written in the flexible way, if not those of
    /// the message.
    pub(super) flexible_versions: Option<Versions>,
    #[serde(default)]
    pub(super) ignorable: bool,
    pub(super) default: Option<serde_json::Value>,
    pub(super) entity_type: Option<String>,
    #[serde(default)]
    pub(super) fields: Vec<Field>,
    #[serde(rename = "about")]
    _about: Option<String>,
    #[serde(rename = "mapKey")]
    _map_key: Option<bool>,
    #[serde(rename = "zeroCopy")]
    _zero_copy: Option<bool>,
}

impl Field {
    /// The versions that have the field: if not stated, those in which it is tagged.
    pub(super) fn versions(&self) -> Versions {
        self.stated_versions.unwrap_or(self.tagged_versions)
    }

    /// The default as the schema spells it; a JSON null counts as none, as in Kafka's generator.
    pub(super) fn default_text(&self) -> Option<String> {
        match self.default.as_ref()? {
            serde_json::Value::Null => None,
            serde_json::Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        }
    }

    /// The element type if the field is an array.
    pub(super) fn element_type(&self) -> Option<&str> {
        self.type_name.strip_prefix("[]")
    }
}

/// A range of versions, both ends included; empty if `min > max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Versions {
    pub(super) min: i16,
    pub(super) max: i16,
}

impl Versions {
    pub(super) const NONE: Versions = Versions { min: 0, max: -1 };

    pub(super) fn is_empty(self) -> bool {
        self.min > self.max
    }

    pub(super) fn intersect(self, other: Versions) -> Versions {
        let both = Versions {
            min: self.min.max(other.min),
            max: self.max.min(other.max),
        };
        if both.is_empty() {
            Versions::NONE
        } else {
            both
        }
    }

    /// The smallest range that holds both.
    pub(super) fn hull(self, other: Versions) -> Versions {
        match (self.is_empty(), other.is_empty()) {
            (true, _) => other,
            (_, true) => self,
            _ => Versions {
                min: self.min.min(other.min),
                max: self.max.max(other.max),
            },
        }
    }

    pub(super) fn covers(self, other: Versions) -> bool {
        self.intersect(other) == other
    }
}

impl Default for Versions {
    fn default() -> Versions {
        Versions::NONE
    }
}

impl TryFrom<String> for Versions {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Versions> {
        if text == "none" {
            return Ok(Versions::NONE);
        }
        let (min, max) = match text.split_once('-') {
            Some((min, max)) => (min.parse()?, max.parse()?),
            None => match text.strip_suffix('+') {
                Some(min) => (min.parse()?, i16::MAX),
                None => (text.parse()?, text.parse()?),
            },
        };
        ensure!(0 <= min && min <= max, "bad version range {text}");
        Ok(Versions { min, max })
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            range if range.is_empty() => f.write_str("none"),
            Versions { min, max: i16::MAX } => write!(f, "{min}+"),
            Versions { min, max } if min == max => write!(f, "{min}"),
            Versions { min, max } => write!(f, "{min}-{max}"),
        }
    }
}

/// Reads all schemas under `folder` of a jar, sorted by name.
#[expect(
    clippy::disallowed_methods,
    reason = "a tool of the repository, run by hand"
)]
pub(super) fn read_jar(jar: &Path, folder: &str) -> Result<Vec<Schema>> {
    let file = std::fs::File::open(jar).with_context(|| jar.display().to_string())?;
    let mut archive = zip::ZipArchive::new(file)?;
    let mut schemas = Vec::new();
    for index in 0..archive.len() {
        let entry = archive.by_index(index)?;
        let name = entry.name()?.to_string();
        let inside = name.strip_prefix(folder).filter(|rest| !rest.contains('/'));
        if inside.is_some_and(|rest| rest.ends_with(".json")) {
            let text = std::io::read_to_string(entry)?;
            schemas.push(parse(&text).with_context(|| name)?);
        }
    }
    if schemas.is_empty() {
        bail!("{} has no schemas under {folder}", jar.display());
    }
    schemas.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(schemas)
}

fn parse(text: &str) -> Result<Schema> {
    let without_comments: String = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| [line, "\n"])
        .collect();
    let mut schema: Schema = serde_json::from_str(&without_comments)?;
    schema.listeners.sort();
    Ok(schema)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(text: &str) -> Versions {
        Versions::try_from(text.to_owned()).unwrap()
    }

    #[test]
    fn version_ranges_read_and_print() {
        for text in ["none", "3", "0-7", "12+"] {
            assert_eq!(versions(text).to_string(), text);
        }
        for text in ["", "7-3", "+", "1-", "-1", "a"] {
            assert!(Versions::try_from(text.to_owned()).is_err(), "{text}");
        }
    }

    #[test]
    fn version_ranges_meet_and_join() {
        assert_eq!(versions("0-7").intersect(versions("5+")), versions("5-7"));
        assert_eq!(versions("0-4").intersect(versions("5+")), Versions::NONE);
        assert_eq!(versions("0-1").hull(versions("4")), versions("0-4"));
        assert_eq!(versions("4").hull(Versions::NONE), versions("4"));
        assert!(versions("0+").covers(versions("3-4")) && !versions("4+").covers(versions("3-4")));
    }

    #[test]
    fn a_schema_reads_through_its_comments() {
        let schema = parse(
            r#"// A licence.
            { "type": "data", "name": "Sample", "validVersions": "0-1", "flexibleVersions": "1+",
              // Of the fields.
              "fields": [
                { "name": "Plain", "type": "int32", "versions": "0+", "default": "-1" },
                { "name": "Tagged", "type": "[]string", "taggedVersions": "1+", "tag": 0,
                  "nullableVersions": "1+", "default": null }
              ] }"#,
        )
        .unwrap();
        assert_eq!(schema.fields[0].default_text().as_deref(), Some("-1"));
        assert_eq!(schema.fields[1].versions(), versions("1+"));
        assert_eq!(schema.fields[1].element_type(), Some("string"));
        assert_eq!(schema.fields[1].default_text(), None);
        assert!(parse(r#"{ "type": "data", "name": "Sample", "unknown": 1 }"#).is_err());
    }
}
