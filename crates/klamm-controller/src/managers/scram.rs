//! SCRAM credentials (KIP-554). Clients send salted passwords; what is stored proves a password
//! but does not tell it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use klamm_metadata::MetadataImage;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::alter_user_scram_credentials_request::{
    ScramCredentialDeletion, ScramCredentialUpsertion,
};
use klamm_protocol::messages::alter_user_scram_credentials_response::AlterUserScramCredentialsResult;
use klamm_protocol::messages::describe_user_scram_credentials_response::{
    CredentialInfo, DescribeUserScramCredentialsResult,
};
use klamm_protocol::messages::{
    AlterUserScramCredentialsRequest, AlterUserScramCredentialsResponse,
    DescribeUserScramCredentialsRequest, DescribeUserScramCredentialsResponse,
};
use klamm_protocol::metadata::{
    MetadataRecord, RemoveUserScramCredentialRecord, UserScramCredentialRecord,
};
use sha2::{Digest, Sha256, Sha512};

use super::{ApiError, Context, Outcome, wire_result};

const SHA_256: i8 = 1;
const SHA_512: i8 = 2;
const ITERATIONS_MIN: i32 = 4096;
const ITERATIONS_MAX: i32 = 16384;

/// Sets and deletes credentials. Each user succeeds or fails on its own; none may come up twice.
pub fn alter_user_scram_credentials(
    context: &Context<'_>,
    request: &AlterUserScramCredentialsRequest,
) -> Outcome<AlterUserScramCredentialsResponse> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let deletions = request.deletions.iter().map(|deletion| &*deletion.name);
    for user in deletions.chain(request.upsertions.iter().map(|upsertion| &*upsertion.name)) {
        *counts.entry(user).or_default() += 1;
    }
    let mut records: Vec<MetadataRecord> = Vec::new();
    let mut response = AlterUserScramCredentialsResponse::default();
    let mut answered = BTreeSet::new();
    let mut answer = |user: &klamm_protocol::ByteStr, result: Result<MetadataRecord, ApiError>| {
        if !answered.insert(user.clone()) {
            return;
        }
        let result = if counts[&**user] > 1 {
            let message = "A user credential cannot be altered twice in the same request";
            Err(ApiError::new(ErrorCode::DuplicateResource, message))
        } else {
            result.map(|record| records.push(record))
        };
        let (error_code, error_message) = wire_result(&result);
        response.results.push(AlterUserScramCredentialsResult {
            user: user.clone(),
            error_code,
            error_message,
            ..AlterUserScramCredentialsResult::default()
        });
    };
    for deletion in &request.deletions {
        answer(&deletion.name, delete(context, deletion));
    }
    for upsertion in &request.upsertions {
        answer(&upsertion.name, upsert(context, upsertion));
    }
    Outcome {
        records,
        reply: response,
    }
}

fn check(context: &Context<'_>, user: &str, mechanism: i8) -> Result<(), ApiError> {
    if !context.image.metadata_version().supports_scram() {
        let message = "The current metadata.version does not support SCRAM";
        return Err(ApiError::new(ErrorCode::UnsupportedVersion, message));
    }
    if user.is_empty() {
        let message = "Username must not be empty";
        return Err(ApiError::new(ErrorCode::UnacceptableCredential, message));
    }
    if ![SHA_256, SHA_512].contains(&mechanism) {
        let message = "Unknown SCRAM mechanism";
        return Err(ApiError::new(ErrorCode::UnsupportedSaslMechanism, message));
    }
    Ok(())
}

fn delete(
    context: &Context<'_>,
    deletion: &ScramCredentialDeletion,
) -> Result<MetadataRecord, ApiError> {
    check(context, &deletion.name, deletion.mechanism)?;
    if context
        .image
        .scram()
        .get(deletion.mechanism, &deletion.name)
        .is_none()
    {
        let message = "Attempt to delete a user credential that does not exist";
        return Err(ApiError::new(ErrorCode::ResourceNotFound, message));
    }
    let record = RemoveUserScramCredentialRecord {
        name: deletion.name.detached(),
        mechanism: deletion.mechanism,
        ..RemoveUserScramCredentialRecord::default()
    };
    Ok(record.into())
}

fn upsert(
    context: &Context<'_>,
    upsertion: &ScramCredentialUpsertion,
) -> Result<MetadataRecord, ApiError> {
    check(context, &upsertion.name, upsertion.mechanism)?;
    let refuse = |message: &str| Err(ApiError::new(ErrorCode::UnacceptableCredential, message));
    if upsertion.iterations < ITERATIONS_MIN {
        return refuse("Too few iterations");
    }
    if upsertion.iterations > ITERATIONS_MAX {
        return refuse("Too many iterations");
    }
    let (stored_key, server_key) = keys(upsertion.mechanism, &upsertion.salted_password);
    let record = UserScramCredentialRecord {
        name: upsertion.name.detached(),
        mechanism: upsertion.mechanism,
        salt: Bytes::copy_from_slice(&upsertion.salt),
        stored_key,
        server_key,
        iterations: upsertion.iterations,
        ..UserScramCredentialRecord::default()
    };
    Ok(record.into())
}

/// Stored key and server key of a salted password (RFC 5802, section 3).
fn keys(mechanism: i8, salted_password: &[u8]) -> (Bytes, Bytes) {
    match mechanism {
        SHA_512 => {
            let hmac = |text: &[u8]| hmac::<Hmac<Sha512>>(salted_password, text);
            let stored = Sha512::digest(hmac(b"Client Key")).to_vec();
            (stored.into(), hmac(b"Server Key").into())
        }
        _ => {
            let hmac = |text: &[u8]| hmac::<Hmac<Sha256>>(salted_password, text);
            let stored = Sha256::digest(hmac(b"Client Key")).to_vec();
            (stored.into(), hmac(b"Server Key").into())
        }
    }
}

fn hmac<M: Mac + KeyInit>(key: &[u8], text: &[u8]) -> Vec<u8> {
    // An HMAC takes keys of any length; the result type is the trait's.
    let Ok(mut mac) = <M as KeyInit>::new_from_slice(key) else {
        return Vec::new();
    };
    mac.update(text);
    mac.finalize().into_bytes().to_vec()
}

/// Tells which credentials users have, without the secrets. No users in the request means all.
pub fn describe_user_scram_credentials(
    image: &MetadataImage,
    request: &DescribeUserScramCredentialsRequest,
) -> DescribeUserScramCredentialsResponse {
    let mut by_user: BTreeMap<&str, Vec<CredentialInfo>> = BTreeMap::new();
    for (mechanism, user, credential) in image.scram().iter() {
        let iterations = credential.iterations;
        let info = CredentialInfo {
            mechanism,
            iterations,
            ..CredentialInfo::default()
        };
        by_user.entry(user).or_default().push(info);
    }
    let found = |user: &str, infos: &[CredentialInfo]| DescribeUserScramCredentialsResult {
        user: user.into(),
        credential_infos: infos.to_vec(),
        ..DescribeUserScramCredentialsResult::default()
    };
    let failed =
        |user: &str, error: ErrorCode, message: String| DescribeUserScramCredentialsResult {
            user: user.into(),
            error_code: error.code(),
            error_message: Some(message.into()),
            ..DescribeUserScramCredentialsResult::default()
        };
    let asked = request.users.as_deref().unwrap_or_default();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for user in asked {
        *counts.entry(&user.name).or_default() += 1;
    }
    let results = if asked.is_empty() {
        by_user
            .iter()
            .map(|(user, infos)| found(user, infos))
            .collect()
    } else {
        let answer = |(user, count): (&&str, &usize)| match by_user.get(user) {
            _ if *count > 1 => {
                let message = format!(
                    "Cannot describe SCRAM credentials for the same user twice in a single \
                     request: {user}"
                );
                failed(user, ErrorCode::DuplicateResource, message)
            }
            Some(infos) => found(user, infos),
            None => {
                let message =
                    format!("Attempt to describe a user credential that does not exist: {user}");
                failed(user, ErrorCode::ResourceNotFound, message)
            }
        };
        counts.iter().map(answer).collect()
    };
    DescribeUserScramCredentialsResponse {
        results,
        ..Default::default()
    }
}
