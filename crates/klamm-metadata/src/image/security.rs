use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use klamm_records::Uuid;

use crate::cow_map::CowMap;

/// An access control entry. The numbers are those of Kafka's `ResourceType`, `PatternType`,
/// `AclOperation` and `AclPermissionType`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Acl {
    /// Kind of resource.
    pub resource_type: i8,
    /// Name, or prefix of names, of the resources.
    pub resource_name: String,
    /// How the name is matched: 3 literal, 4 prefixed.
    pub pattern_type: i8,
    /// Whom the entry is for, as `Type:name`.
    pub principal: String,
    /// Host the client comes from; `*` for any.
    pub host: String,
    /// The operation.
    pub operation: i8,
    /// 2 deny, 3 allow.
    pub permission_type: i8,
}

/// Access control entries by id.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AclsImage {
    pub(crate) entries: CowMap<Uuid, Arc<Acl>>,
}

impl AclsImage {
    /// All entries by id.
    pub fn iter(&self) -> impl Iterator<Item = (Uuid, &Arc<Acl>)> {
        self.entries.iter().map(|(&id, acl)| (id, acl))
    }

    /// An entry by id.
    pub fn get(&self, id: Uuid) -> Option<&Arc<Acl>> {
        self.entries.get(&id)
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// What a server keeps of a user's password for SCRAM (RFC 5802). `Debug` hides the keys.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramCredential {
    /// Random salt.
    pub salt: Bytes,
    /// Checks what a client proves.
    pub stored_key: Bytes,
    /// Proves the server to a client.
    pub server_key: Bytes,
    /// Rounds of hashing.
    pub iterations: i32,
}

impl fmt::Debug for ScramCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScramCredential").finish_non_exhaustive()
    }
}

/// SCRAM credentials by mechanism (1 SHA-256, 2 SHA-512) and user.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScramImage {
    pub(crate) credentials: BTreeMap<(i8, String), ScramCredential>,
}

impl ScramImage {
    /// The credential of a user for a mechanism.
    pub fn get(&self, mechanism: i8, user: &str) -> Option<&ScramCredential> {
        self.credentials.get(&(mechanism, user.to_owned()))
    }

    /// All credentials as mechanism, user, credential.
    pub fn iter(&self) -> impl Iterator<Item = (i8, &str, &ScramCredential)> {
        self.credentials
            .iter()
            .map(|((mechanism, user), c)| (*mechanism, user.as_str(), c))
    }
}

/// A delegation token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DelegationToken {
    /// Whom the token stands for, as `Type:name`.
    pub owner: String,
    /// Who asked for it, as `Type:name`.
    pub requester: String,
    /// Who may renew it, as `Type:name`.
    pub renewers: Vec<String>,
    /// When it was made, in milliseconds since the Unix epoch.
    pub issue_timestamp_ms: i64,
    /// After which it cannot be renewed.
    pub max_timestamp_ms: i64,
    /// When it ends unless renewed.
    pub expiration_timestamp_ms: i64,
}
