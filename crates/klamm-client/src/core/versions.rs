use std::collections::BTreeMap;

use klamm_protocol::messages::ApiVersionsResponse;
use klamm_protocol::{ApiKey, Message, Request};

use crate::ClientError;

/// The versions of requests that a broker serves.
#[derive(Clone, Debug, Default)]
pub struct VersionTable(BTreeMap<i16, (i16, i16)>);

impl VersionTable {
    /// What a broker says of itself.
    pub fn of(response: &ApiVersionsResponse) -> Self {
        let ranges = response.api_keys.iter();
        VersionTable(
            ranges
                .map(|range| (range.api_key, (range.min_version, range.max_version)))
                .collect(),
        )
    }

    /// Lowest and highest version of a request that the broker serves.
    pub fn range(&self, key: ApiKey) -> Option<(i16, i16)> {
        self.0.get(&key.code()).copied()
    }

    /// The highest version of `R`, up to `max`, that both sides know.
    ///
    /// # Errors
    /// [`ClientError::NoCommonVersion`].
    pub fn best<R: Request>(&self, max: i16) -> Result<i16, ClientError> {
        let none = ClientError::NoCommonVersion(R::API_KEY);
        let Some((lowest, highest)) = self.range(R::API_KEY) else {
            return Err(none);
        };
        let known = <R as Message>::VERSIONS;
        let version = highest.min(known.max).min(max);
        if version >= lowest.max(known.min) {
            Ok(version)
        } else {
            Err(none)
        }
    }
}
