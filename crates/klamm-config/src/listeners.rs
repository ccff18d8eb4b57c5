//! Listeners: `NAME://host:port` entries and the security protocol of each name.

use std::collections::BTreeMap;
use std::fmt;

use crate::rules::BrokenRule;

/// How a listener protects and authenticates its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "Kafka's four protocols")]
pub enum SecurityProtocol {
    Plaintext,
    Ssl,
    SaslPlaintext,
    SaslSsl,
}

impl SecurityProtocol {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Plaintext,
        Self::Ssl,
        Self::SaslPlaintext,
        Self::SaslSsl,
    ];

    /// Kafka's name, such as `SASL_SSL`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plaintext => "PLAINTEXT",
            Self::Ssl => "SSL",
            Self::SaslPlaintext => "SASL_PLAINTEXT",
            Self::SaslSsl => "SASL_SSL",
        }
    }

    /// The number in registrations and metadata records.
    pub const fn id(self) -> i16 {
        self as i16
    }

    /// The protocol of a name, in any case.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|p| p.name().eq_ignore_ascii_case(name))
    }

    /// Whether clients authenticate by SASL.
    pub const fn is_sasl(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslSsl)
    }
}

impl fmt::Display for SecurityProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One listener, or one address a listener is advertised under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The listener's name in capitals.
    pub name: String,
    /// Its protocol.
    pub protocol: SecurityProtocol,
    /// The host; empty stands for all interfaces (bind) or for the machine's own name (advertised).
    pub host: String,
    /// The port; 0 lets the system choose.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name, host, port, ..
        } = self;
        if host.contains(':') {
            write!(f, "{name}://[{host}]:{port}")
        } else {
            write!(f, "{name}://{host}:{port}")
        }
    }
}

/// The protocol of each listener name (in capitals).
pub type ProtocolMap = BTreeMap<String, SecurityProtocol>;

/// Reads `listener.security.protocol.map`.
pub(crate) fn protocol_map(text: &str) -> Result<ProtocolMap, BrokenRule> {
    let mut map = ProtocolMap::new();
    for (name, protocol) in pairs("listener.security.protocol.map", text)? {
        let known =
            SecurityProtocol::from_name(&protocol).ok_or(BrokenRule::SecurityProtocol(protocol))?;
        map.insert(name.to_uppercase(), known);
    }
    Ok(map)
}

/// Reads `key:value` pairs separated by commas; the last colon separates.
pub(crate) fn pairs(config: &'static str, text: &str) -> Result<Vec<(String, String)>, BrokenRule> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let split = |pair: &str| match pair.rsplit_once(':') {
        Some((key, value)) => Ok((key.trim().to_owned(), value.trim().to_owned())),
        None => Err(BrokenRule::Pair {
            config,
            entry: pair.to_owned(),
        }),
    };
    text.split(',').map(|pair| split(pair.trim())).collect()
}

/// The listener name of an entry, in capitals.
pub(crate) fn listener_name(entry: &str) -> Result<String, BrokenRule> {
    match entry.split_once("://") {
        Some((name, _)) => Ok(name.to_uppercase()),
        None => Err(BrokenRule::ListenerName(entry.to_owned())),
    }
}

/// Reads the entries of `listeners` or `advertised.listeners`.
pub(crate) fn endpoints(
    entries: &[String],
    map: &ProtocolMap,
    distinct_ports: bool,
) -> Result<Vec<Endpoint>, BrokenRule> {
    let refuse = |problem| BrokenRule::Listeners {
        entries: entries.to_vec(),
        problem,
    };
    let mut endpoints = Vec::with_capacity(entries.len());
    for entry in entries {
        let (name, host, port) =
            split(entry).ok_or_else(|| refuse(ListenerProblem::Unreadable(entry.clone())))?;
        let name = name.to_uppercase();
        let Some(&protocol) = map.get(&name) else {
            return Err(refuse(ListenerProblem::NoProtocol(name)));
        };
        endpoints.push(Endpoint {
            name,
            protocol,
            host,
            port,
        });
    }
    for (i, one) in endpoints.iter().enumerate() {
        if endpoints[..i].iter().any(|other| other.name == one.name) {
            return Err(refuse(ListenerProblem::SameName));
        }
    }
    if distinct_ports {
        check_ports(&endpoints).map_err(refuse)?;
    }
    Ok(endpoints)
}

/// Two listeners may share a port only as one IPv4 and one IPv6 address.
fn check_ports(endpoints: &[Endpoint]) -> Result<(), ListenerProblem> {
    use std::net::IpAddr;
    for one in endpoints.iter().filter(|e| e.port != 0) {
        let same: Vec<Option<IpAddr>> = endpoints
            .iter()
            .filter(|e| e.port == one.port)
            .map(|e| e.host.parse().ok())
            .collect();
        match same.as_slice() {
            [_] => {}
            [Some(a), Some(b)] if a.is_ipv4() != b.is_ipv4() => {}
            [Some(_), Some(_)] => return Err(ListenerProblem::SamePortSameFamily(one.port)),
            _ => return Err(ListenerProblem::SamePort),
        }
    }
    Ok(())
}

/// `NAME://host:port`, where the host may be empty, in brackets, or a bare IPv6 address.
fn split(entry: &str) -> Option<(&str, String, u16)> {
    let (name, address) = entry.trim().split_once("://")?;
    let (host, port) = address.rsplit_once(':')?;
    let host = host
        .strip_prefix('[')
        .and_then(|h| h.strip_suffix(']'))
        .unwrap_or(host);
    let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
    if !host.chars().all(letter) || port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some((name, host.to_owned(), port.parse().ok()?))
}

/// What is wrong with a list of listeners.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the text of each is its documentation")]
pub enum ListenerProblem {
    Unreadable(String),
    NoProtocol(String),
    SameName,
    SamePort,
    SamePortSameFamily(u16),
}

impl ListenerProblem {
    /// The problem with the entries it was found in.
    pub(crate) fn text(&self, entries: &[String]) -> String {
        let entries = entries.join(", ");
        match self {
            Self::Unreadable(entry) => format!("Unable to parse {entry} to a broker endpoint"),
            Self::NoProtocol(name) => format!("No security protocol defined for listener {name}"),
            Self::SameName => {
                format!("Each listener must have a different name, listeners: [{entries}]")
            }
            Self::SamePort => {
                format!("Each listener must have a different port, listeners: [{entries}]")
            }
            Self::SamePortSameFamily(port) => format!(
                "If you have two listeners on the same port then one needs to be IPv4 and the other IPv6, listeners: \
                 [{entries}], port: {port}"
            ),
        }
    }
}
