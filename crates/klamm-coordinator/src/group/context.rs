use std::net::IpAddr;

use klamm_protocol::ByteStr;
use klamm_records::Uuid;

use super::java;

/// What a request's connection and header say that its body does not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestContext {
    /// Version of the request.
    pub api_version: i16,
    /// Client id of the header; empty if the client gave none.
    pub client_id: ByteStr,
    /// Address of the client, as Java writes it: `/127.0.0.1`.
    pub client_host: ByteStr,
}

impl RequestContext {
    /// The context of a request from `address`.
    pub fn new(api_version: i16, client_id: Option<&str>, address: IpAddr) -> Self {
        RequestContext {
            api_version,
            client_id: client_id.unwrap_or_default().into(),
            client_host: java::client_host(address).into(),
        }
    }
}

/// What the coordinator needs to know of the cluster's topics.
pub trait TopicLookup: Send + Sync {
    /// The name of the topic with this id.
    fn topic_name(&self, id: Uuid) -> Option<ByteStr>;

    /// The id of the topic of this name.
    fn topic_id(&self, name: &str) -> Option<Uuid>;

    /// Whether the topic has this partition.
    fn has_partition(&self, name: &str, partition: i32) -> bool;
}
