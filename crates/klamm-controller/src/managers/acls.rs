//! Access control entries, kept here and evaluated elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use klamm_metadata::{Acl, MetadataImage};
use klamm_protocol::messages::create_acls_request::AclCreation;
use klamm_protocol::messages::create_acls_response::AclCreationResult;
use klamm_protocol::messages::delete_acls_request::DeleteAclsFilter;
use klamm_protocol::messages::delete_acls_response::{
    DeleteAclsFilterResult, DeleteAclsMatchingAcl,
};
use klamm_protocol::messages::describe_acls_response::{AclDescription, DescribeAclsResource};
use klamm_protocol::messages::{
    CreateAclsRequest, CreateAclsResponse, DeleteAclsRequest, DeleteAclsResponse,
    DescribeAclsRequest, DescribeAclsResponse,
};
use klamm_protocol::metadata::{AccessControlEntryRecord, RemoveAccessControlEntryRecord};
use klamm_protocol::{ByteStr, ErrorCode};

use super::{ApiError, Context, Outcome, RECORDS_PER_REQUEST_MAX, wire_result};

const UNKNOWN: i8 = 0;
const ANY: i8 = 1;
const PATTERN_MATCH: i8 = 2;
const PATTERN_LITERAL: i8 = 3;
const PATTERN_PREFIXED: i8 = 4;
const DENY: i8 = 2;
const ALLOW: i8 = 3;
const RESOURCE_TYPES: &[&str] = &[
    "UNKNOWN",
    "ANY",
    "TOPIC",
    "GROUP",
    "CLUSTER",
    "TRANSACTIONAL_ID",
    "DELEGATION_TOKEN",
    "USER",
];
/// `CREATE_TOKENS` and `DESCRIBE_TOKENS` are 13 and 14, `TWO_PHASE_COMMIT` is 15.
const OPERATION_MAX: i8 = 15;

/// Adds entries. One that is there already is not added again, which is no error.
pub fn create_acls(
    context: &Context<'_>,
    request: &CreateAclsRequest,
) -> Outcome<CreateAclsResponse> {
    let mut records = Vec::new();
    let mut response = CreateAclsResponse::default();
    let mut present: BTreeSet<Acl> = context
        .image
        .acls()
        .iter()
        .map(|(_, acl)| Acl::clone(acl))
        .collect();
    for creation in &request.creations {
        let result = check(creation).map(|()| {
            let acl = acl_of(creation);
            if present.insert(acl.clone()) {
                let record = AccessControlEntryRecord {
                    id: context.new_uuid(),
                    resource_type: acl.resource_type,
                    resource_name: acl.resource_name.into(),
                    pattern_type: acl.pattern_type,
                    principal: acl.principal.into(),
                    host: acl.host.into(),
                    operation: acl.operation,
                    permission_type: acl.permission_type,
                    ..AccessControlEntryRecord::default()
                };
                records.push(record.into());
            }
        });
        let (error_code, error_message) = wire_result(&result);
        response.results.push(AclCreationResult {
            error_code,
            error_message,
            ..Default::default()
        });
    }
    Outcome {
        records,
        reply: response,
    }
}

fn acl_of(creation: &AclCreation) -> Acl {
    Acl {
        resource_type: creation.resource_type,
        resource_name: creation.resource_name.to_string(),
        pattern_type: creation.resource_pattern_type,
        principal: creation.principal.to_string(),
        host: creation.host.to_string(),
        operation: creation.operation,
        permission_type: creation.permission_type,
    }
}

fn name_of(names: &[&'static str], number: i8) -> &'static str {
    usize::try_from(number)
        .ok()
        .and_then(|index| names.get(index).copied())
        .unwrap_or("UNKNOWN")
}

fn check(creation: &AclCreation) -> Result<(), ApiError> {
    let invalid = |message: String| Err(ApiError::new(ErrorCode::InvalidRequest, message));
    let resource_type = creation.resource_type;
    if resource_type <= ANY || resource_type as usize >= RESOURCE_TYPES.len() {
        let name = name_of(RESOURCE_TYPES, resource_type);
        return invalid(format!("Invalid resourceType {name}"));
    }
    if ![PATTERN_LITERAL, PATTERN_PREFIXED].contains(&creation.resource_pattern_type) {
        let name = name_of(&["UNKNOWN", "ANY", "MATCH"], creation.resource_pattern_type);
        return invalid(format!("Invalid patternType {name}"));
    }
    if creation.operation <= ANY || creation.operation > OPERATION_MAX {
        return invalid(format!(
            "Invalid operation {}",
            name_of(&["UNKNOWN", "ANY"], creation.operation)
        ));
    }
    if ![DENY, ALLOW].contains(&creation.permission_type) {
        let name = name_of(&["UNKNOWN", "ANY"], creation.permission_type);
        return invalid(format!("Invalid permissionType {name}"));
    }
    if creation.resource_name.is_empty() {
        return invalid("Resource name should not be empty".to_owned());
    }
    if !creation.principal.contains(':') {
        let message = format!(
            "Could not parse principal from `{}` (no colon is present separating the principal \
             type from the principal name)",
            creation.principal
        );
        return invalid(message);
    }
    Ok(())
}

/// Which entries a request means; what is `None` or "any" matches all.
struct Filter<'a> {
    resource_type: i8,
    resource_name: Option<&'a ByteStr>,
    pattern_type: i8,
    principal: Option<&'a ByteStr>,
    host: Option<&'a ByteStr>,
    operation: i8,
    permission_type: i8,
}

impl Filter<'_> {
    fn check(&self) -> Result<(), ApiError> {
        let invalid = |message: &str| Err(ApiError::new(ErrorCode::InvalidRequest, message));
        let known = |number: i8, max: i8| number > UNKNOWN && number <= max;
        let types = RESOURCE_TYPES.len() as i8 - 1;
        if !known(self.resource_type, types) || !known(self.pattern_type, PATTERN_PREFIXED) {
            return invalid("Unknown patternFilter.");
        }
        if !known(self.operation, OPERATION_MAX) || !known(self.permission_type, ALLOW) {
            return invalid("Unknown entryFilter.");
        }
        Ok(())
    }

    fn matches(&self, acl: &Acl) -> bool {
        let number = |filter: i8, value: i8| filter == ANY || filter == value;
        let text = |filter: Option<&ByteStr>, value: &str| {
            filter.is_none_or(|filter| filter.as_str() == value)
        };
        number(self.resource_type, acl.resource_type)
            && self.matches_name(acl)
            && text(self.principal, &acl.principal)
            && text(self.host, &acl.host)
            && number(self.operation, acl.operation)
            && number(self.permission_type, acl.permission_type)
    }

    fn matches_name(&self, acl: &Acl) -> bool {
        let own = self.pattern_type;
        if ![ANY, PATTERN_MATCH, acl.pattern_type].contains(&own) {
            return false;
        }
        let Some(name) = self.resource_name else {
            return true;
        };
        match (own, acl.pattern_type) {
            // Not how an entry is written, but to which resources it applies.
            (PATTERN_MATCH, PATTERN_LITERAL) => {
                *name == acl.resource_name || acl.resource_name == "*"
            }
            (PATTERN_MATCH, PATTERN_PREFIXED) => name.starts_with(&acl.resource_name),
            _ => *name == acl.resource_name,
        }
    }
}

/// Removes the entries that match any of the request's filters.
pub fn delete_acls(
    context: &Context<'_>,
    request: &DeleteAclsRequest,
) -> Outcome<DeleteAclsResponse> {
    let mut removed = BTreeSet::new();
    let mut response = DeleteAclsResponse::default();
    for asked in &request.filters {
        let filter = delete_filter(asked);
        let found = filter.check().map(|()| {
            context
                .image
                .acls()
                .iter()
                .filter(|(_, acl)| filter.matches(acl))
                .collect::<Vec<_>>()
        });
        let found = found.and_then(|found| {
            if removed.len() + found.len() > RECORDS_PER_REQUEST_MAX {
                let message = format!(
                    "Cannot remove more than {RECORDS_PER_REQUEST_MAX} acls in a single delete \
                     operation."
                );
                return Err(ApiError::new(ErrorCode::InvalidRequest, message));
            }
            Ok(found)
        });
        let mut result = DeleteAclsFilterResult::default();
        match found {
            Ok(found) => {
                removed.extend(found.iter().map(|(id, _)| *id));
                result.matching_acls = found.iter().map(|(_, acl)| matching_acl(acl)).collect();
            }
            Err(error) => {
                result.error_code = error.code.code();
                result.error_message = error.wire_message();
            }
        }
        response.filter_results.push(result);
    }
    let records = removed
        .into_iter()
        .map(|id| {
            RemoveAccessControlEntryRecord {
                id,
                ..Default::default()
            }
            .into()
        })
        .collect();
    Outcome {
        records,
        reply: response,
    }
}

fn delete_filter(asked: &DeleteAclsFilter) -> Filter<'_> {
    Filter {
        resource_type: asked.resource_type_filter,
        resource_name: asked.resource_name_filter.as_ref(),
        pattern_type: asked.pattern_type_filter,
        principal: asked.principal_filter.as_ref(),
        host: asked.host_filter.as_ref(),
        operation: asked.operation,
        permission_type: asked.permission_type,
    }
}

fn matching_acl(acl: &Acl) -> DeleteAclsMatchingAcl {
    DeleteAclsMatchingAcl {
        resource_type: acl.resource_type,
        resource_name: acl.resource_name.as_str().into(),
        pattern_type: acl.pattern_type,
        principal: acl.principal.as_str().into(),
        host: acl.host.as_str().into(),
        operation: acl.operation,
        permission_type: acl.permission_type,
        ..DeleteAclsMatchingAcl::default()
    }
}

/// Tells the entries that match the request's filter, by resource.
pub fn describe_acls(image: &MetadataImage, request: &DescribeAclsRequest) -> DescribeAclsResponse {
    let filter = Filter {
        resource_type: request.resource_type_filter,
        resource_name: request.resource_name_filter.as_ref(),
        pattern_type: request.pattern_type_filter,
        principal: request.principal_filter.as_ref(),
        host: request.host_filter.as_ref(),
        operation: request.operation,
        permission_type: request.permission_type,
    };
    if let Err(error) = filter.check() {
        return DescribeAclsResponse {
            error_code: error.code.code(),
            error_message: error.wire_message(),
            ..DescribeAclsResponse::default()
        };
    }
    let mut resources: BTreeMap<(i8, i8, &str), Vec<AclDescription>> = BTreeMap::new();
    for (_, acl) in image.acls().iter().filter(|(_, acl)| filter.matches(acl)) {
        let resource = (
            acl.resource_type,
            acl.pattern_type,
            acl.resource_name.as_str(),
        );
        resources.entry(resource).or_default().push(AclDescription {
            principal: acl.principal.as_str().into(),
            host: acl.host.as_str().into(),
            operation: acl.operation,
            permission_type: acl.permission_type,
            ..AclDescription::default()
        });
    }
    let resources = resources
        .into_iter()
        .map(
            |((resource_type, pattern_type, name), acls)| DescribeAclsResource {
                resource_type,
                resource_name: name.into(),
                pattern_type,
                acls,
                ..DescribeAclsResource::default()
            },
        );
    DescribeAclsResponse {
        resources: resources.collect(),
        ..Default::default()
    }
}
