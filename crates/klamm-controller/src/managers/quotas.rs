//! Client quotas.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use klamm_metadata::{MetadataImage, QuotaEntity};
use klamm_protocol::messages::{
    AlterClientQuotasRequest, AlterClientQuotasResponse, DescribeClientQuotasRequest,
    DescribeClientQuotasResponse, alter_client_quotas_request as asked,
    alter_client_quotas_response as altered, describe_client_quotas_response as described,
};
use klamm_protocol::metadata::{ClientQuotaRecord, MetadataRecord, client_quota_record};
use klamm_protocol::{ByteStr, ErrorCode};

use super::{ApiError, Context, Outcome, wire_result};

const USER: &str = "user";
const CLIENT_ID: &str = "client-id";
const IP: &str = "ip";

/// How a quota's number is bounded.
#[derive(Clone, Copy)]
enum Kind {
    Double,
    Int,
    Long,
}

const USER_AND_CLIENT_QUOTAS: &[(&str, Kind)] = &[
    ("producer_byte_rate", Kind::Long),
    ("consumer_byte_rate", Kind::Long),
    ("request_percentage", Kind::Double),
    ("controller_mutation_rate", Kind::Double),
];
const IP_QUOTAS: &[(&str, Kind)] = &[("connection_creation_rate", Kind::Int)];

fn invalid<T>(message: String) -> Result<T, ApiError> {
    Err(ApiError::new(ErrorCode::InvalidRequest, message))
}

/// Sets and removes quotas. Each entity succeeds or fails on its own.
pub fn alter_client_quotas(
    context: &Context<'_>,
    request: &AlterClientQuotasRequest,
) -> Outcome<AlterClientQuotasResponse> {
    let mut records = Vec::new();
    let mut response = AlterClientQuotasResponse::default();
    let mut seen = BTreeSet::new();
    for entry in &request.entries {
        let result = alter(context, entry, &mut seen).map(|new| records.extend(new));
        let (error_code, error_message) = wire_result(&result);
        let entity = entry.entity.iter().map(|part| altered::EntityData {
            entity_type: part.entity_type.clone(),
            entity_name: part.entity_name.clone(),
            ..Default::default()
        });
        response.entries.push(altered::EntryData {
            error_code,
            error_message,
            entity: entity.collect(),
            ..Default::default()
        });
    }
    if request.validate_only {
        records.clear();
    }
    Outcome {
        records,
        reply: response,
    }
}

fn alter(
    context: &Context<'_>,
    entry: &asked::EntryData,
    seen: &mut BTreeSet<QuotaEntity>,
) -> Result<Vec<MetadataRecord>, ApiError> {
    let entity = entity_of(&entry.entity)?;
    let mut changes: BTreeMap<&str, Option<f64>> = BTreeMap::new();
    let mut duplicate = !seen.insert(entity.clone());
    for op in &entry.ops {
        let value = (!op.remove).then_some(op.value);
        duplicate |= changes.insert(&op.key, value).is_some();
    }
    if duplicate {
        return invalid(format!("Ignoring duplicate entity {}", display(&entity)));
    }
    let known = quotas_of(&entity)?;
    let none = BTreeMap::new();
    let current = context.image.quotas().of(&entity).unwrap_or(&none);
    let mut records = Vec::new();
    for (key, value) in changes {
        let changed = match value {
            None => current.contains_key(key),
            Some(value) => {
                check_value(known, key, value)?;
                current.get(key) != Some(&value)
            }
        };
        if changed {
            let part = |(entity_type, entity_name): (&String, &Option<String>)| {
                client_quota_record::EntityData {
                    entity_type: entity_type.into(),
                    entity_name: entity_name.as_ref().map(Into::into),
                    ..Default::default()
                }
            };
            let record = ClientQuotaRecord {
                entity: entity.0.iter().map(part).collect(),
                key: key.into(),
                value: value.unwrap_or_default(),
                remove: value.is_none(),
                ..ClientQuotaRecord::default()
            };
            records.push(record.into());
        }
    }
    Ok(records)
}

/// As Java shows the entity in messages.
fn display(entity: &QuotaEntity) -> String {
    let part = |(kind, name): (&String, &Option<String>)| {
        format!("{kind}={}", name.as_deref().unwrap_or("null"))
    };
    let parts: Vec<String> = entity.0.iter().map(part).collect();
    format!("ClientQuotaEntity(entries={{{}}})", parts.join(", "))
}

fn entity_of(parts: &[asked::EntityData]) -> Result<QuotaEntity, ApiError> {
    if parts.is_empty() {
        return invalid("Invalid empty client quota entity".to_owned());
    }
    let mut entity = BTreeMap::new();
    for part in parts {
        let kind = &*part.entity_type;
        if entity.contains_key(kind) {
            let message = format!("Invalid client quota entity, duplicate entity entry {kind}");
            return invalid(message);
        }
        if ![USER, CLIENT_ID, IP].contains(&kind) {
            return invalid(format!("Unhandled client quota entity type: {kind}"));
        }
        if part
            .entity_name
            .as_ref()
            .is_some_and(|name| name.is_empty())
        {
            return invalid(format!("Empty {kind} not supported"));
        }
        let name = part.entity_name.as_ref().map(|name| name.to_string());
        entity.insert(kind.to_owned(), name);
    }
    Ok(QuotaEntity(entity))
}

fn quotas_of(entity: &QuotaEntity) -> Result<&'static [(&'static str, Kind)], ApiError> {
    let Some(ip) = entity.0.get(IP) else {
        return Ok(USER_AND_CLIENT_QUOTAS);
    };
    if entity.0.len() > 1 {
        // The words run together in Kafka's text too.
        return invalid(
            "Invalid quota entity combination, IP entity shouldnot be combined with User or \
             ClientId"
                .to_owned(),
        );
    }
    match ip {
        // Kafka resolves names here; a controller that decides by what a name server says would
        // not decide the same twice.
        Some(ip) if ip.parse::<IpAddr>().is_err() => {
            invalid(format!("{ip} is not a valid IP or resolvable host."))
        }
        _ => Ok(IP_QUOTAS),
    }
}

fn check_value(known: &[(&str, Kind)], key: &str, value: f64) -> Result<(), ApiError> {
    let Some((_, kind)) = known.iter().find(|(name, _)| *name == key) else {
        return invalid(format!("Invalid configuration key {key}"));
    };
    if value.is_nan() || value <= 0.0 {
        return invalid(format!("Quota {key} must be greater than 0"));
    }
    let (max, name) = match kind {
        Kind::Double => return Ok(()),
        Kind::Int => (f64::from(i32::MAX), "an INT"),
        Kind::Long => (i64::MAX as f64, "a LONG"),
    };
    if value > max {
        return invalid(format!("Proposed value for {key} is too large for {name}."));
    }
    if value % 1.0 > 1e-6 {
        return invalid(format!("{key} cannot be a fractional value."));
    }
    Ok(())
}

const MATCH_EXACT: i8 = 0;
const MATCH_DEFAULT: i8 = 1;
const MATCH_SPECIFIED: i8 = 2;

/// Tells the quotas of the entities that match all components of the request, and no other types
/// if it is strict.
pub fn describe_client_quotas(
    image: &MetadataImage,
    request: &DescribeClientQuotasRequest,
) -> Result<DescribeClientQuotasResponse, ApiError> {
    let mut seen = BTreeSet::new();
    for component in &request.components {
        let kind = &*component.entity_type;
        if ![USER, CLIENT_ID, IP].contains(&kind) {
            let message = format!("Custom entity type '{kind}' not supported");
            return Err(ApiError::new(ErrorCode::UnsupportedVersion, message));
        }
        if !seen.insert(kind) {
            return invalid(format!("Duplicate {kind} component filter entity type"));
        }
        let named = component.match_.is_some();
        match component.match_type {
            MATCH_EXACT if !named => {
                return invalid(
                    "Request specified MATCH_TYPE_EXACT, but set match string to null.".to_owned(),
                );
            }
            MATCH_EXACT => {}
            MATCH_DEFAULT | MATCH_SPECIFIED if named => {
                return invalid(
                    "Request specified MATCH_TYPE_DEFAULT or MATCH_TYPE_SPECIFIED, but also \
                     specified a match string."
                        .to_owned(),
                );
            }
            MATCH_DEFAULT | MATCH_SPECIFIED => {}
            other => return invalid(format!("Unknown match type {other}")),
        }
    }
    if seen.contains(IP) && seen.len() > 1 {
        return invalid(
            "Invalid entity filter component combination, IP filter component should not be used \
             with user or clientId filter component."
                .to_owned(),
        );
    }
    let entries = image
        .quotas()
        .iter()
        .filter(|(entity, _)| matches(request, entity));
    let entries = entries.map(|(entity, quotas)| described::EntryData {
        entity: entity
            .0
            .iter()
            .map(|(kind, name)| described::EntityData {
                entity_type: kind.into(),
                entity_name: name.as_ref().map(ByteStr::from),
                ..Default::default()
            })
            .collect(),
        values: quotas
            .iter()
            .map(|(key, value)| described::ValueData {
                key: key.into(),
                value: *value,
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    });
    Ok(DescribeClientQuotasResponse {
        entries: Some(entries.collect()),
        ..Default::default()
    })
}

fn matches(request: &DescribeClientQuotasRequest, entity: &QuotaEntity) -> bool {
    let fits = request.components.iter().all(|component| {
        match (entity.0.get(&*component.entity_type), component.match_type) {
            (None, _) => false,
            (Some(name), MATCH_EXACT) => name.as_deref() == component.match_.as_deref(),
            (Some(name), MATCH_DEFAULT) => name.is_none(),
            (Some(_), _) => true,
        }
    });
    fits && (!request.strict || entity.0.len() == request.components.len())
}
