//! Rust expressions for one field: its default, the test against it, reading and writing.

use anyhow::{Result, bail, ensure};

use super::model::{Scalar, Slot, Struct, Type};
use super::schema::Versions;

/// A test of `version` for `wanted`, among versions known to be in `known`; `None` if it always
/// holds.
pub(super) fn condition(wanted: Versions, known: Versions) -> Option<String> {
    let Versions { min, max } = wanted.intersect(known);
    match (min > known.min, max < known.max) {
        (false, false) => None,
        (true, false) => Some(format!("version >= {min}")),
        (false, true) => Some(format!("version <= {max}")),
        (true, true) if min == max => Some(format!("version == {min}")),
        (true, true) => Some(format!("({min}..={max}).contains(&version)")),
    }
}

/// A test of `version` for lying outside of `wanted`, among versions known to be in `known`.
pub(super) fn outside(wanted: Versions, known: Versions) -> Option<String> {
    let Versions { min, max } = wanted.intersect(known);
    match (min > known.min, max < known.max) {
        (false, false) => None,
        (true, false) => Some(format!("version < {min}")),
        (false, true) => Some(format!("version > {max}")),
        (true, true) => Some(format!("!({min}..={max}).contains(&version)")),
    }
}

/// The default of a field, in Rust and in words.
pub(super) struct Default {
    pub(super) expr: String,
    /// What the docs say; `None` for the type's own zero value.
    pub(super) words: Option<String>,
    /// Whether `#[derive(Default)]` gives the same.
    pub(super) derived: bool,
    kind: DefaultKind,
}

enum DefaultKind {
    Null,
    /// Zero, false, or of no length.
    Zero,
    True,
    Literal,
}

impl Default {
    pub(super) fn of(slot: &Slot) -> Result<Default> {
        let text = slot.default.as_deref();
        if text == Some("null") || slot.type_ == Type::Records {
            ensure!(slot.optional, "null as the default of a type without null");
            return Ok(Default {
                expr: "None".to_owned(),
                words: (slot.type_ != Type::Records).then(|| "null".to_owned()),
                derived: true,
                kind: DefaultKind::Null,
            });
        }
        let (expr, kind) = match (&slot.type_, text) {
            (Type::Scalar(Scalar::Bool), Some("true")) => ("true".to_owned(), DefaultKind::True),
            (Type::Scalar(Scalar::Bool), None | Some("false")) => {
                ("false".to_owned(), DefaultKind::Zero)
            }
            (Type::Scalar(Scalar::Int(name)), text) => int_default(name, text.unwrap_or("0"))?,
            (Type::Scalar(Scalar::Float), None) => ("0.0".to_owned(), DefaultKind::Zero),
            (Type::Scalar(Scalar::Uuid), None) => ("Uuid::ZERO".to_owned(), DefaultKind::Zero),
            (Type::String, None | Some("")) => ("ByteStr::EMPTY".to_owned(), DefaultKind::Zero),
            (Type::String, Some(text)) => (
                format!("ByteStr::from_static({text:?})"),
                DefaultKind::Literal,
            ),
            (Type::Bytes, None) => ("Bytes::new()".to_owned(), DefaultKind::Zero),
            (Type::Array(_), None) => ("Vec::new()".to_owned(), DefaultKind::Zero),
            (Type::Struct(name), None) => (format!("{name}::default()"), DefaultKind::Zero),
            (type_, text) => bail!("default {text:?} for {type_:?}"),
        };
        let zero = matches!(kind, DefaultKind::Zero);
        let expr = if slot.optional {
            format!("Some({expr})")
        } else {
            expr
        };
        Ok(Default {
            words: match text {
                None if slot.optional => Some("empty".to_owned()),
                _ if zero => None,
                _ => text.map(str::to_owned),
            },
            derived: zero && !slot.optional,
            expr,
            kind,
        })
    }

    /// A test of `self.field` for being another value than the default.
    pub(super) fn differs(&self, slot: &Slot) -> Result<String> {
        let name = format!("self.{}", slot.name);
        let scalar = matches!(slot.type_, Type::Scalar(_));
        ensure!(!(scalar && slot.optional), "a nullable {:?}", slot.type_);
        Ok(match (&self.kind, &slot.type_) {
            (DefaultKind::Null, _) => format!("{name}.is_some()"),
            (DefaultKind::True, _) => format!("!{name}"),
            (_, Type::Scalar(Scalar::Bool)) => name,
            (_, Type::Scalar(Scalar::Uuid)) => format!("!{name}.is_zero()"),
            (_, Type::Scalar(_) | Type::Struct(_)) => format!("{name} != {}", self.expr),
            (DefaultKind::Literal, _) => match &slot.default {
                Some(text) if !slot.optional => format!("{name} != {text:?}"),
                _ => bail!("a nullable string with a default text"),
            },
            (DefaultKind::Zero, _) if slot.optional => {
                format!("{name}.as_ref().is_none_or(|value| !value.is_empty())")
            }
            (DefaultKind::Zero, _) => format!("!{name}.is_empty()"),
        })
    }
}

fn int_default(name: &str, text: &str) -> Result<(String, DefaultKind)> {
    let value: i64 = match text.strip_prefix("0x") {
        Some(digits) => i64::from_str_radix(digits, 16)?,
        None => text.parse()?,
    };
    Ok(match value {
        0 => ("0".to_owned(), DefaultKind::Zero),
        i64::MAX => ("i64::MAX".to_owned(), DefaultKind::Literal),
        value if name == "i32" && value == i64::from(i32::MAX) => {
            ("i32::MAX".to_owned(), DefaultKind::Literal)
        }
        value if name == "i32" && value == i64::from(i32::MIN) => {
            ("i32::MIN".to_owned(), DefaultKind::Literal)
        }
        value => (value.to_string(), DefaultKind::Literal),
    })
}

/// An expression that reads the field in versions in which it is there.
pub(super) fn read(slot: &Slot, parent: &Struct) -> String {
    let occurs = slot.versions.intersect(parent.versions);
    if slot.never_flexible {
        return "d.legacy_nullable_string()?".to_owned();
    }
    let plain = read_as(&slot.type_, "");
    if !slot.optional {
        return plain;
    }
    let nullable = match &slot.type_ {
        Type::Struct(name) if slot.tag.is_some() => {
            format!("d.nullable_tagged_struct(version, {name}::decode)?")
        }
        type_ => read_as(type_, "nullable_"),
    };
    if slot.nullable.intersect(occurs).is_empty() {
        return format!("Some({plain})");
    }
    match condition(slot.nullable, occurs) {
        None => nullable,
        Some(test) => format!("if {test} {{ {nullable} }} else {{ Some({plain}) }}"),
    }
}

fn read_as(type_: &Type, prefix: &str) -> String {
    match type_ {
        Type::Scalar(scalar) => format!("d.{}()?", scalar_method(*scalar)),
        Type::String => format!("d.{prefix}string()?"),
        Type::Bytes => format!("d.{prefix}bytes()?"),
        Type::Records => format!("d.{prefix}records()?"),
        Type::Struct(name) if prefix.is_empty() => format!("{name}::decode(d, version)?"),
        Type::Struct(name) => format!("d.nullable_struct(version, {name}::decode)?"),
        Type::Array(element) => match &**element {
            Type::Struct(name) => format!("d.{prefix}structs(version, {name}::decode)?"),
            Type::Scalar(scalar) => format!("d.{prefix}list(Decoder::{})?", scalar_method(*scalar)),
            _ => format!("d.{prefix}list(Decoder::string)?"),
        },
    }
}

fn scalar_method(scalar: Scalar) -> &'static str {
    match scalar {
        Scalar::Bool => "bool",
        Scalar::Int(name) => name,
        Scalar::Float => "f64",
        Scalar::Uuid => "uuid",
    }
}

/// Code that writes a field.
pub(super) struct Write {
    /// An expression of type `()`, or `Result<(), EncodeError>`.
    expr: String,
    fallible: bool,
}

impl Write {
    pub(super) fn statement(&self) -> String {
        if self.fallible {
            format!("{}?;", self.expr)
        } else {
            format!("{};", self.expr)
        }
    }

    pub(super) fn closure(&self) -> String {
        if self.fallible {
            format!("|e| {}", self.expr)
        } else {
            format!("|e| {{ {}; Ok(()) }}", self.expr)
        }
    }
}

/// Writes the field in versions in which it is there.
pub(super) fn write(slot: &Slot, parent: &Struct) -> Result<String> {
    let occurs = slot.versions.intersect(parent.versions);
    let name = format!("self.{}", slot.name);
    if slot.never_flexible {
        return Ok(format!("e.legacy_nullable_string({name}.as_ref())?;"));
    }
    if !slot.optional {
        return Ok(write_plain(&slot.type_, &name, false).statement());
    }
    let required = format!(
        "require(&{name}, \"{}.{}\", version)?",
        parent.name, slot.name
    );
    let plain = write_plain(&slot.type_, &required, true);
    let nullable = write_nullable(&slot.type_, &name)?;
    if slot.nullable.intersect(occurs).is_empty() {
        return Ok(plain.statement());
    }
    Ok(match condition(slot.nullable, occurs) {
        None => nullable.statement(),
        Some(test) => {
            format!(
                "if {test} {{ {} }} else {{ {} }}",
                nullable.statement(),
                plain.statement()
            )
        }
    })
}

/// Writes the content of a tagged field.
pub(super) fn write_tagged(slot: &Slot, parent: &Struct) -> Result<Write> {
    let name = format!("self.{}", slot.name);
    if !slot.optional {
        return Ok(write_plain(&slot.type_, &name, false));
    }
    ensure!(
        slot.nullable.covers(slot.tagged),
        "{}: tagged and nullable at times",
        parent.name
    );
    if let Type::Struct(type_) = &slot.type_ {
        let expr = format!("e.nullable_tagged_struct({name}.as_ref(), version, {type_}::encode)");
        return Ok(Write {
            expr,
            fallible: true,
        });
    }
    write_nullable(&slot.type_, &name)
}

fn write_plain(type_: &Type, value: &str, is_reference: bool) -> Write {
    let reference = if is_reference {
        value.to_owned()
    } else {
        format!("&{value}")
    };
    let (expr, fallible) = match type_ {
        Type::Scalar(scalar) => (format!("e.{}({value})", scalar_method(*scalar)), false),
        Type::String => (format!("e.string({reference})"), true),
        Type::Bytes => (format!("e.bytes({reference})"), true),
        Type::Records => (format!("e.records({reference})"), true),
        Type::Struct(_) => (format!("{value}.encode(e, version)"), true),
        Type::Array(element) => match &**element {
            Type::Struct(name) => (
                format!("e.structs({reference}, version, {name}::encode)"),
                true,
            ),
            Type::Scalar(scalar) => (
                format!("e.list({reference}, Encoder::{})", scalar_method(*scalar)),
                true,
            ),
            _ => (format!("e.strings({reference})"), true),
        },
    };
    Write { expr, fallible }
}

fn write_nullable(type_: &Type, value: &str) -> Result<Write> {
    let value = format!("{value}.as_ref()");
    let expr = match type_ {
        Type::Scalar(_) => bail!("a nullable {type_:?}"),
        Type::String => format!("e.nullable_string({value})"),
        Type::Bytes => format!("e.nullable_bytes({value})"),
        Type::Records => format!("e.nullable_records({value})"),
        Type::Struct(name) => format!("e.nullable_struct({value}, version, {name}::encode)"),
        Type::Array(element) => match &**element {
            Type::Struct(name) => format!("e.nullable_structs({value}, version, {name}::encode)"),
            Type::Scalar(scalar) => {
                format!(
                    "e.nullable_list({value}, Encoder::{})",
                    scalar_method(*scalar)
                )
            }
            _ => format!("e.nullable_strings({value})"),
        },
    };
    Ok(Write {
        expr,
        fallible: true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(min: i16, max: i16) -> Versions {
        Versions { min, max }
    }

    #[test]
    fn tests_of_the_version_leave_out_what_is_known() {
        let known = range(3, 9);
        assert_eq!(condition(range(0, i16::MAX), known), None);
        assert_eq!(
            condition(range(5, i16::MAX), known).unwrap(),
            "version >= 5"
        );
        assert_eq!(condition(range(0, 5), known).unwrap(), "version <= 5");
        assert_eq!(condition(range(5, 5), known).unwrap(), "version == 5");
        assert_eq!(
            condition(range(5, 7), known).unwrap(),
            "(5..=7).contains(&version)"
        );
        assert_eq!(outside(range(5, i16::MAX), known).unwrap(), "version < 5");
        assert_eq!(outside(range(0, 5), known).unwrap(), "version > 5");
        assert_eq!(outside(range(0, 9), known), None);
    }
}
