//! The requests of the protocol by number, and what is known of each.

mod table;

use std::fmt;

use crate::VersionRange;

pub use table::ApiKey;

/// On which kind of listener a request is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Listener {
    /// Where clients and other brokers connect.
    Broker,
    /// Where controllers and brokers talk to the controllers.
    Controller,
}

/// A row of the table: what the schemas say about a request.
struct Api {
    key: ApiKey,
    name: &'static str,
    versions: VersionRange,
    flexible: VersionRange,
    latest_unstable: bool,
    listeners: &'static [Listener],
}

const NEITHER: &[Listener] = &[];
const BROKER: &[Listener] = &[Listener::Broker];
const CONTROLLER: &[Listener] = &[Listener::Controller];
const BOTH: &[Listener] = &[Listener::Broker, Listener::Controller];

const fn api(
    key: ApiKey,
    name: &'static str,
    versions: VersionRange,
    flexible: VersionRange,
    latest_unstable: bool,
    listeners: &'static [Listener],
) -> Api {
    Api {
        key,
        name,
        versions,
        flexible,
        latest_unstable,
        listeners,
    }
}

impl ApiKey {
    /// All keys in the order of their numbers, removed ones included.
    pub fn all() -> impl ExactSizeIterator<Item = ApiKey> {
        table::APIS.iter().map(|api| api.key)
    }

    fn api(self) -> &'static Api {
        // The table has a row for every key, at the place of its number.
        &table::APIS[self as usize]
    }

    /// The key with this number.
    pub fn from_code(code: i16) -> Option<ApiKey> {
        let api = table::APIS.get(usize::try_from(code).ok()?)?;
        Some(api.key)
    }

    /// The number on the wire.
    pub const fn code(self) -> i16 {
        self as i16
    }

    /// Kafka's name, as in `CreateTopics`.
    pub fn name(self) -> &'static str {
        self.api().name
    }

    /// The versions there are, an unstable one included; none for a request that was removed.
    pub fn valid_versions(self) -> VersionRange {
        self.api().versions
    }

    /// Whether the highest version may still change and is hidden by default.
    pub fn latest_unstable(self) -> bool {
        self.api().latest_unstable
    }

    /// The versions without an unstable one.
    pub fn stable_versions(self) -> VersionRange {
        let VersionRange { min, max } = self.valid_versions();
        let range = VersionRange::new(min, max - i16::from(self.latest_unstable()));
        if range.is_empty() {
            VersionRange::NONE
        } else {
            range
        }
    }

    /// The versions to name in an ApiVersions response; `None` if the request is not to be named.
    ///
    /// Not the same as those that are accepted: old releases of librdkafka take a broker without
    /// Produce 0 for one that lacks later features, so Kafka lists Produce from 0 to clients and
    /// refuses 0 to 2 (KAFKA-18659).
    pub fn advertised_versions(
        self,
        listener: Listener,
        with_unstable: bool,
    ) -> Option<VersionRange> {
        if !self.listeners().contains(&listener) {
            return None;
        }
        let mut range = if with_unstable {
            self.valid_versions()
        } else {
            self.stable_versions()
        };
        if range.is_empty() {
            return None;
        }
        if self == ApiKey::Produce && listener == Listener::Broker {
            range.min = 0;
        }
        Some(range)
    }

    /// The listeners that take the request; none for a request that was removed.
    pub fn listeners(self) -> &'static [Listener] {
        self.api().listeners
    }

    /// Whether `version` is in the flexible encoding.
    pub fn is_flexible(self, version: i16) -> bool {
        self.api().flexible.contains(version)
    }

    /// Version of the header in front of the request in `version`.
    pub fn request_header_version(self, version: i16) -> i16 {
        if self.is_flexible(version) { 2 } else { 1 }
    }

    /// Version of the header in front of the response in `version`.
    ///
    /// Always 0 for ApiVersions: a client that reads the answer cannot know yet whether its
    /// version was understood (KIP-511).
    pub fn response_header_version(self, version: i16) -> i16 {
        i16::from(self != ApiKey::ApiVersions && self.is_flexible(version))
    }
}

/// A number that is not the key of any request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown API key {0}")]
pub struct UnknownApiKey(pub i16);

impl TryFrom<i16> for ApiKey {
    type Error = UnknownApiKey;

    fn try_from(code: i16) -> Result<ApiKey, UnknownApiKey> {
        ApiKey::from_code(code).ok_or(UnknownApiKey(code))
    }
}

impl From<ApiKey> for i16 {
    fn from(key: ApiKey) -> i16 {
        key.code()
    }
}

impl fmt::Display for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_at_its_place_in_the_table() {
        assert_eq!(ApiKey::all().len(), 93);
        for (index, key) in ApiKey::all().enumerate() {
            assert_eq!(key as usize, index);
            assert_eq!(ApiKey::try_from(key.code()), Ok(key));
        }
        assert_eq!(ApiKey::try_from(93), Err(UnknownApiKey(93)));
        assert_eq!(ApiKey::try_from(-1), Err(UnknownApiKey(-1)));
    }

    #[test]
    fn produce_is_advertised_from_0_to_clients_but_taken_from_3() {
        let advertised = ApiKey::Produce.advertised_versions(Listener::Broker, false);
        assert_eq!(advertised, Some(VersionRange::new(0, 13)));
        assert_eq!(ApiKey::Produce.valid_versions(), VersionRange::new(3, 13));
        assert_eq!(
            ApiKey::Produce.advertised_versions(Listener::Controller, false),
            None
        );
    }

    #[test]
    fn an_unstable_version_is_hidden_by_default() {
        let key = ApiKey::InitProducerId;
        assert!(key.latest_unstable());
        assert_eq!(
            key.advertised_versions(Listener::Broker, false),
            Some(VersionRange::new(0, 5))
        );
        assert_eq!(
            key.advertised_versions(Listener::Broker, true),
            Some(VersionRange::new(0, 6))
        );
    }

    #[test]
    fn a_removed_request_has_no_version_and_no_listener() {
        for key in [
            ApiKey::LeaderAndIsr,
            ApiKey::StopReplica,
            ApiKey::UpdateMetadata,
            ApiKey::ControlledShutdown,
        ] {
            assert!(key.valid_versions().is_empty());
            assert_eq!(key.advertised_versions(Listener::Broker, true), None);
        }
    }

    #[test]
    fn headers_follow_the_encoding_except_for_api_versions() {
        assert_eq!(ApiKey::Metadata.request_header_version(8), 1);
        assert_eq!(ApiKey::Metadata.request_header_version(9), 2);
        assert_eq!(ApiKey::Metadata.response_header_version(9), 1);
        assert_eq!(ApiKey::ApiVersions.request_header_version(3), 2);
        assert_eq!(ApiKey::ApiVersions.response_header_version(3), 0);
        assert_eq!(ApiKey::SaslHandshake.request_header_version(1), 1);
    }
}
