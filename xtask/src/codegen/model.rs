//! Schemas worked out for Rust: every struct with the versions it can occur in, every field with
//! its type.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};

use super::names::{snake_case, upper_first};
use super::schema::{Field, Kind, Schema, Versions};

/// A message and the structs inside it.
pub(super) struct Message {
    pub(super) name: String,
    pub(super) module: String,
    pub(super) kind: Kind,
    pub(super) api_key: Option<i16>,
    pub(super) listeners: Vec<String>,
    pub(super) versions: Versions,
    pub(super) latest_unstable: bool,
    pub(super) flexible: Versions,
    /// The message itself first, then the structs in the order they are met.
    pub(super) structs: Vec<Struct>,
}

/// One Rust struct.
pub(super) struct Struct {
    pub(super) name: String,
    /// Versions of the message in which it can occur.
    pub(super) versions: Versions,
    pub(super) fields: Vec<Slot>,
}

/// One Rust field.
pub(super) struct Slot {
    pub(super) name: String,
    pub(super) kafka_type: String,
    pub(super) type_: Type,
    /// As the schema states it.
    pub(super) versions: Versions,
    /// As the schema states it.
    pub(super) nullable: Versions,
    /// Versions in which it is a tagged field.
    pub(super) tagged: Versions,
    pub(super) tag: Option<u32>,
    pub(super) ignorable: bool,
    pub(super) default: Option<String>,
    pub(super) entity: Option<String>,
    /// Written as before flexible versions in all versions.
    pub(super) never_flexible: bool,
    /// Whether the Rust type is an `Option`.
    pub(super) optional: bool,
}

/// Type of a field, nullability aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Scalar(Scalar),
    String,
    Bytes,
    Records,
    Struct(String),
    Array(Box<Type>),
}

/// A type of fixed size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scalar {
    Bool,
    Int(&'static str),
    Float,
    Uuid,
}

impl Type {
    fn parse(text: &str) -> Type {
        if let Some(element) = text.strip_prefix("[]") {
            return Type::Array(Box::new(Type::parse(element)));
        }
        match text {
            "bool" => Type::Scalar(Scalar::Bool),
            "int8" => Type::Scalar(Scalar::Int("i8")),
            "int16" => Type::Scalar(Scalar::Int("i16")),
            "uint16" => Type::Scalar(Scalar::Int("u16")),
            "int32" => Type::Scalar(Scalar::Int("i32")),
            "uint32" => Type::Scalar(Scalar::Int("u32")),
            "int64" => Type::Scalar(Scalar::Int("i64")),
            "float64" => Type::Scalar(Scalar::Float),
            "uuid" => Type::Scalar(Scalar::Uuid),
            "string" => Type::String,
            "bytes" => Type::Bytes,
            "records" => Type::Records,
            name => Type::Struct(upper_first(name)),
        }
    }

    /// The Rust type, nullability aside.
    pub(super) fn rust(&self) -> String {
        match self {
            Type::Scalar(Scalar::Bool) => "bool".to_owned(),
            Type::Scalar(Scalar::Int(name)) => (*name).to_owned(),
            Type::Scalar(Scalar::Float) => "f64".to_owned(),
            Type::Scalar(Scalar::Uuid) => "Uuid".to_owned(),
            Type::String => "ByteStr".to_owned(),
            Type::Bytes => "Bytes".to_owned(),
            Type::Records => "Records".to_owned(),
            Type::Struct(name) => name.clone(),
            Type::Array(element) => format!("Vec<{}>", element.rust()),
        }
    }
}

impl Message {
    /// Works out a schema. `None` if the message was removed from the protocol.
    pub(super) fn new(schema: &Schema) -> Result<Option<Message>> {
        if schema.valid_versions.is_empty() {
            return Ok(None);
        }
        let mut structs = Structs::default();
        for common in &schema.common_structs {
            ensure!(
                structs
                    .common
                    .insert(&common.name, &common.fields)
                    .is_none(),
                "common struct {} is defined twice",
                common.name
            );
        }
        structs.visit(&schema.name, &schema.fields, schema.valid_versions, 0)?;
        let structs = structs
            .order
            .into_iter()
            .map(|found| found.finish(schema))
            .collect::<Result<_>>()?;
        Ok(Some(Message {
            name: schema.name.clone(),
            module: snake_case(&schema.name),
            kind: schema.kind,
            api_key: schema.api_key,
            listeners: schema.listeners.clone(),
            versions: schema.valid_versions,
            latest_unstable: schema.latest_version_unstable,
            flexible: schema.flexible_versions,
            structs,
        }))
    }
}

#[derive(Default)]
struct Structs<'a> {
    common: BTreeMap<&'a str, &'a [Field]>,
    order: Vec<Found<'a>>,
}

struct Found<'a> {
    name: String,
    fields: &'a [Field],
    versions: Versions,
}

impl<'a> Structs<'a> {
    /// Notes a struct, and those of its fields, as occurring in `versions`.
    fn visit(
        &mut self,
        name: &str,
        fields: &'a [Field],
        versions: Versions,
        depth: u32,
    ) -> Result<()> {
        ensure!(
            depth < 16,
            "{name}: structs that hold themselves would need a bound on depth"
        );
        match self.order.iter_mut().find(|found| found.name == name) {
            Some(found) => {
                ensure!(
                    std::ptr::eq(found.fields, fields),
                    "two structs named {name}"
                );
                found.versions = found.versions.hull(versions);
            }
            None => self.order.push(Found {
                name: name.to_owned(),
                fields,
                versions,
            }),
        }
        for field in fields {
            let type_name = upper_first(field.element_type().unwrap_or(&field.type_name));
            let inner = versions.intersect(field.versions());
            if inner.is_empty() {
                continue;
            }
            if !field.fields.is_empty() {
                self.visit(&type_name, &field.fields, inner, depth + 1)?;
            } else if let Some(fields) = self.common.get(type_name.as_str()).copied() {
                self.visit(&type_name, fields, inner, depth + 1)?;
            }
        }
        Ok(())
    }
}

impl Found<'_> {
    fn finish(self, schema: &Schema) -> Result<Struct> {
        let mut fields = Vec::new();
        for field in self.fields {
            // A field of versions that are no longer valid only.
            if field.versions().intersect(self.versions).is_empty() {
                continue;
            }
            let slot = Slot::new(field, self.versions, schema);
            fields.push(slot.with_context(|| format!("{}.{}", self.name, field.name))?);
        }
        Ok(Struct {
            name: self.name,
            versions: self.versions,
            fields,
        })
    }
}

impl Slot {
    fn new(field: &Field, versions: Versions, schema: &Schema) -> Result<Slot> {
        let type_ = Type::parse(&field.type_name);
        let occurs = field.versions().intersect(versions);
        let nullable = field.nullable_versions.intersect(occurs);
        let never_flexible = match field.flexible_versions {
            None => false,
            Some(Versions::NONE) if type_ == Type::String => true,
            Some(_) => bail!("a field with flexible versions of its own"),
        };
        let tagged = field.tagged_versions.intersect(occurs);
        ensure!(
            tagged.is_empty() || tagged == occurs,
            "tagged in some of its versions only"
        );
        ensure!(
            field.tag.is_some() != tagged.is_empty(),
            "tag without versions or the reverse"
        );
        ensure!(
            schema.flexible_versions.covers(tagged),
            "tagged in a version without tags"
        );
        ensure!(
            tagged.is_empty() || type_ != Type::Records,
            "record data in a tagged field"
        );
        if let Type::Array(element) = &type_ {
            ensure!(
                !matches!(**element, Type::Array(_) | Type::Bytes | Type::Records),
                "such an array"
            );
        }
        Ok(Slot {
            name: field_name(&field.name),
            kafka_type: field.type_name.clone(),
            optional: type_ == Type::Records || !nullable.is_empty(),
            type_,
            versions: field.versions(),
            nullable: field.nullable_versions,
            tagged,
            tag: field.tag,
            ignorable: field.ignorable,
            default: field.default_text(),
            entity: field.entity_type.clone(),
            never_flexible,
        })
    }

    /// The Rust type.
    pub(super) fn rust_type(&self) -> String {
        let inner = self.type_.rust();
        if self.optional {
            format!("Option<{inner}>")
        } else {
            inner
        }
    }
}

/// The request header repeats "request" in two names that are plain enough without.
fn field_name(name: &str) -> String {
    match name {
        "RequestApiKey" => "api_key".to_owned(),
        "RequestApiVersion" => "api_version".to_owned(),
        _ => snake_case(name),
    }
}
