use bytes::Bytes;
use klamm_protocol::messages::alter_client_quotas_request::{EntityData, EntryData, OpData};
use klamm_protocol::messages::alter_user_scram_credentials_request::{
    ScramCredentialDeletion, ScramCredentialUpsertion,
};
use klamm_protocol::messages::create_acls_request::AclCreation;
use klamm_protocol::messages::delete_acls_request::DeleteAclsFilter;
use klamm_protocol::messages::describe_client_quotas_request::ComponentData;
use klamm_protocol::messages::{
    AlterClientQuotasRequest, AlterUserScramCredentialsRequest, CreateAclsRequest,
    DeleteAclsRequest, DescribeAclsRequest, DescribeClientQuotasRequest,
    DescribeUserScramCredentialsRequest,
};

use super::*;
use crate::managers::{acls, quotas, scram};

fn quota(
    cluster: &mut Cluster,
    entity: &[(&str, Option<&str>)],
    ops: &[(&str, Option<f64>)],
) -> Result<(), (ErrorCode, String)> {
    let part = |(kind, name): &(&str, Option<&str>)| EntityData {
        entity_type: (*kind).into(),
        entity_name: name.map(ByteStr::from),
        ..Default::default()
    };
    let op = |(key, value): &(&str, Option<f64>)| OpData {
        key: (*key).into(),
        value: value.unwrap_or_default(),
        remove: value.is_none(),
        ..Default::default()
    };
    let entry = EntryData {
        entity: entity.iter().map(part).collect(),
        ops: ops.iter().map(op).collect(),
        ..Default::default()
    };
    let request = AlterClientQuotasRequest {
        entries: vec![entry],
        ..Default::default()
    };
    let outcome = quotas::alter_client_quotas(&cluster.context(), &request);
    let reply = cluster.commit(outcome);
    result_of(reply.entries[0].error_code, &reply.entries[0].error_message)
}

#[test]
fn quotas_are_set_found_and_removed() {
    let mut cluster = Cluster::empty();
    let bob = [("user", Some("bob"))];
    let rate = "producer_byte_rate";
    assert_eq!(quota(&mut cluster, &bob, &[(rate, Some(100.0))]), Ok(()));
    assert_eq!(
        quota(
            &mut cluster,
            &[("user", None)],
            &[("request_percentage", Some(12.5))]
        ),
        Ok(())
    );
    let both = [("user", Some("bob")), ("client-id", Some("c"))];
    assert_eq!(quota(&mut cluster, &both, &[(rate, Some(5.0))]), Ok(()));
    let find = |match_type, name: Option<&str>, strict| {
        let component = ComponentData {
            entity_type: "user".into(),
            match_type,
            match_: name.map(ByteStr::from),
            ..Default::default()
        };
        let components = vec![component];
        let request = DescribeClientQuotasRequest {
            components,
            strict,
            ..Default::default()
        };
        quotas::describe_client_quotas(&cluster.image, &request)
            .unwrap()
            .entries
            .unwrap()
    };
    assert_eq!(find(0, Some("bob"), true).len(), 1);
    assert_eq!(find(0, Some("bob"), false).len(), 2);
    assert_eq!(find(1, None, true)[0].values[0].value, 12.5);
    assert_eq!(find(2, None, false).len(), 3);
    assert_eq!(quota(&mut cluster, &bob, &[(rate, None)]), Ok(()));
    assert_eq!(cluster.image.quotas().iter().count(), 2);
}

#[test]
fn refuses_quotas_as_kafka_does() {
    let mut cluster = Cluster::empty();
    let mut fails = |entity: &[(&str, Option<&str>)], ops: &[(&str, Option<f64>)]| {
        let (code, message) = quota(&mut cluster, entity, ops).unwrap_err();
        assert_eq!(code, ErrorCode::InvalidRequest);
        message
    };
    let bob = [("user", Some("bob"))];
    let rate = "producer_byte_rate";
    assert_eq!(
        fails(&bob, &[(rate, Some(100.5))]),
        "producer_byte_rate cannot be a fractional value."
    );
    assert_eq!(
        fails(&bob, &[(rate, Some(-1.0))]),
        "Quota producer_byte_rate must be greater than 0"
    );
    assert_eq!(
        fails(&bob, &[(rate, Some(1e30))]),
        "Proposed value for producer_byte_rate is too large for a LONG."
    );
    assert_eq!(
        fails(&bob, &[("zz", Some(1.0))]),
        "Invalid configuration key zz"
    );
    let connections = [("connection_creation_rate", Some(1.0))];
    assert_eq!(
        fails(&bob, &connections),
        "Invalid configuration key connection_creation_rate"
    );
    let ip = fails(&[("ip", Some("999.1.1.1"))], &connections);
    assert_eq!(ip, "999.1.1.1 is not a valid IP or resolvable host.");
    let mixed = fails(
        &[("ip", Some("1.1.1.1")), ("user", Some("x"))],
        &connections,
    );
    assert!(
        mixed.starts_with("Invalid quota entity combination"),
        "{mixed}"
    );
    assert_eq!(
        fails(&[("zz", Some("a"))], &[]),
        "Unhandled client quota entity type: zz"
    );
    assert_eq!(
        fails(&[("user", Some(""))], &[]),
        "Empty user not supported"
    );
    assert_eq!(fails(&[], &[]), "Invalid empty client quota entity");
    let twice = fails(&bob, &[(rate, Some(1.0)), (rate, Some(2.0))]);
    assert_eq!(
        twice,
        "Ignoring duplicate entity ClientQuotaEntity(entries={user=bob})"
    );
}

fn upsertion(name: &str, mechanism: i8, iterations: i32) -> ScramCredentialUpsertion {
    ScramCredentialUpsertion {
        name: name.into(),
        mechanism,
        iterations,
        salt: Bytes::from_static(b"salt"),
        salted_password: Bytes::from_static(b"0123456789abcdef0123456789abcdef"),
        ..Default::default()
    }
}

fn scram_results(
    cluster: &mut Cluster,
    upsertions: Vec<ScramCredentialUpsertion>,
    deletions: &[(&str, i8)],
) -> Vec<Result<(), (ErrorCode, String)>> {
    let deletion = |(name, mechanism): &(&str, i8)| ScramCredentialDeletion {
        name: (*name).into(),
        mechanism: *mechanism,
        ..Default::default()
    };
    let deletions = deletions.iter().map(deletion).collect();
    let request = AlterUserScramCredentialsRequest {
        deletions,
        upsertions,
        ..Default::default()
    };
    let outcome = scram::alter_user_scram_credentials(&cluster.context(), &request);
    let reply = cluster.commit(outcome);
    reply
        .results
        .iter()
        .map(|r| result_of(r.error_code, &r.error_message))
        .collect()
}

#[test]
fn credentials_prove_a_password_without_holding_it() {
    let mut cluster = Cluster::empty();
    let results = scram_results(&mut cluster, vec![upsertion("zoe", 1, 4096)], &[]);
    assert_eq!(results, [Ok(())]);
    let credential = cluster.image.scram().get(1, "zoe").unwrap().clone();
    // Computed with Python's hmac and hashlib.
    let hex = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    assert_eq!(hex(&credential.stored_key), STORED_KEY);
    assert_eq!(hex(&credential.server_key), SERVER_KEY);
    scram_results(&mut cluster, vec![upsertion("zoe", 2, 8192)], &[]);
    assert_eq!(
        cluster
            .image
            .scram()
            .get(2, "zoe")
            .unwrap()
            .stored_key
            .len(),
        64
    );
    let request = DescribeUserScramCredentialsRequest::default();
    let all = scram::describe_user_scram_credentials(&cluster.image, &request);
    let infos: Vec<_> = all.results[0]
        .credential_infos
        .iter()
        .map(|c| (c.mechanism, c.iterations))
        .collect();
    assert_eq!(infos, [(1, 4096), (2, 8192)]);
    assert_eq!(scram_results(&mut cluster, vec![], &[("zoe", 1)]), [Ok(())]);
    assert!(cluster.image.scram().get(1, "zoe").is_none());
}

#[test]
fn refuses_credentials_as_kafka_does() {
    let mut cluster = Cluster::empty();
    let mut fails = |upsertion| scram_results(&mut cluster, vec![upsertion], &[]).remove(0);
    use ErrorCode::{
        DuplicateResource, ResourceNotFound, UnacceptableCredential, UnsupportedSaslMechanism,
    };
    let result = fails(upsertion("z", 1, 1));
    assert_eq!(
        result,
        refused(UnacceptableCredential, "Too few iterations")
    );
    let result = fails(upsertion("z", 1, 99_999));
    assert_eq!(
        result,
        refused(UnacceptableCredential, "Too many iterations")
    );
    let result = fails(upsertion("", 1, 4096));
    assert_eq!(
        result,
        refused(UnacceptableCredential, "Username must not be empty")
    );
    let result = fails(upsertion("z", 3, 4096));
    assert_eq!(
        result,
        refused(UnsupportedSaslMechanism, "Unknown SCRAM mechanism")
    );
    let missing = "Attempt to delete a user credential that does not exist";
    let result = scram_results(&mut cluster, vec![], &[("z", 1)]);
    assert_eq!(result, [refused(ResourceNotFound, missing)]);
    let twice = "A user credential cannot be altered twice in the same request";
    let result = scram_results(&mut cluster, vec![upsertion("z", 1, 4096)], &[("z", 1)]);
    assert_eq!(result, [refused(DuplicateResource, twice)]);
    assert_eq!(cluster.image.scram().iter().count(), 0);
}

fn creation(name: &str, pattern: i8, operation: i8) -> AclCreation {
    AclCreation {
        resource_type: 2,
        resource_name: name.into(),
        resource_pattern_type: pattern,
        principal: "User:bob".into(),
        host: "*".into(),
        operation,
        permission_type: 3,
        ..Default::default()
    }
}

fn add_acls(
    cluster: &mut Cluster,
    creations: Vec<AclCreation>,
) -> Vec<Result<(), (ErrorCode, String)>> {
    let request = CreateAclsRequest {
        creations,
        ..Default::default()
    };
    let outcome = acls::create_acls(&cluster.context(), &request);
    let reply = cluster.commit(outcome);
    reply
        .results
        .iter()
        .map(|r| result_of(r.error_code, &r.error_message))
        .collect()
}

#[test]
fn entries_are_added_once_found_by_filter_and_removed() {
    let mut cluster = Cluster::empty();
    let creations = vec![
        creation("orders", 3, 3),
        creation("orders", 3, 3),
        creation("ord", 4, 4),
        creation("*", 3, 8),
        creation("other", 3, 3),
    ];
    assert!(add_acls(&mut cluster, creations).iter().all(Result::is_ok));
    assert_eq!(cluster.image.acls().len(), 4);
    let count = |name: Option<&str>, pattern_type_filter| {
        let request = DescribeAclsRequest {
            resource_type_filter: 1,
            resource_name_filter: name.map(ByteStr::from),
            pattern_type_filter,
            principal_filter: None,
            host_filter: None,
            operation: 1,
            permission_type: 1,
            ..Default::default()
        };
        acls::describe_acls(&cluster.image, &request)
            .resources
            .len()
    };
    assert_eq!(count(None, 1), 4);
    assert_eq!(count(Some("orders"), 3), 1);
    assert_eq!(
        count(Some("orders"), 2),
        3,
        "itself, the prefix and the wildcard apply"
    );
    assert_eq!(count(Some("ord"), 4), 1);
    let filter = DeleteAclsFilter {
        resource_type_filter: 2,
        resource_name_filter: Some("orders".into()),
        pattern_type_filter: 2,
        principal_filter: None,
        host_filter: None,
        operation: 1,
        permission_type: 1,
        ..Default::default()
    };
    let unknown = DeleteAclsFilter {
        operation: 0,
        ..filter.clone()
    };
    let request = DeleteAclsRequest {
        filters: vec![filter, unknown],
        ..Default::default()
    };
    let outcome = acls::delete_acls(&cluster.context(), &request);
    let reply = cluster.commit(outcome);
    assert_eq!(reply.filter_results[0].matching_acls.len(), 3);
    assert_eq!(
        reply.filter_results[1].error_message.as_deref(),
        Some("Unknown entryFilter.")
    );
    assert_eq!(cluster.image.acls().len(), 1);
}

#[test]
fn refuses_entries_as_kafka_does() {
    let mut cluster = Cluster::empty();
    let mut fails = |creation| {
        let (code, message) = add_acls(&mut cluster, vec![creation])
            .remove(0)
            .unwrap_err();
        assert_eq!(code, ErrorCode::InvalidRequest);
        message
    };
    assert_eq!(
        fails(AclCreation {
            resource_type: 1,
            ..creation("a", 3, 3)
        }),
        "Invalid resourceType ANY"
    );
    assert_eq!(fails(creation("a", 2, 3)), "Invalid patternType MATCH");
    assert_eq!(fails(creation("a", 3, 1)), "Invalid operation ANY");
    assert_eq!(
        fails(AclCreation {
            permission_type: 0,
            ..creation("a", 3, 3)
        }),
        "Invalid permissionType UNKNOWN"
    );
    assert_eq!(
        fails(creation("", 3, 3)),
        "Resource name should not be empty"
    );
    let principal = fails(AclCreation {
        principal: "bob".into(),
        ..creation("a", 3, 3)
    });
    assert!(
        principal.starts_with("Could not parse principal from `bob`"),
        "{principal}"
    );
}

const STORED_KEY: &str = "f9a9091b52b40765796accc5e554dc0a70d409deb29f945d8401983baacbaa5b";
const SERVER_KEY: &str = "755431461794a2a28f28db3477940c7235d85bc9489446b0910602df3d3f922d";
