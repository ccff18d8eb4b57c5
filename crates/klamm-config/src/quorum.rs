//! `controller.quorum.voters` and `controller.quorum.bootstrap.servers`.

use crate::rules::BrokenRule;

/// One voter of the controller quorum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Voter {
    /// Its node id.
    pub id: i32,
    /// Where it listens. The name need not resolve: a sole voter never dials itself.
    pub host: String,
    /// The port there.
    pub port: u16,
}

/// Reads `id@host:port` entries; a later entry of the same id replaces the earlier.
///
/// # Errors
/// With Kafka's text for an entry of another form.
pub(crate) fn parse_voters(entries: &[String]) -> Result<Vec<Voter>, BrokenRule> {
    let mut voters: Vec<Voter> = Vec::new();
    for entry in entries {
        let [id, address] = entry.split('@').collect::<Vec<_>>()[..] else {
            return Err(BrokenRule::VoterForm);
        };
        let id: i32 = id.parse().map_err(|_| BrokenRule::VoterId(id.to_owned()))?;
        let (host, port) =
            host_and_port(address).ok_or_else(|| BrokenRule::VoterAddress(entry.clone()))?;
        voters.retain(|v| v.id != id);
        voters.push(Voter { id, host, port });
    }
    voters.sort_by_key(|v| v.id);
    Ok(voters)
}

/// Checks `host:port` entries.
pub(crate) fn check_bootstrap(entries: &[String]) -> Result<(), BrokenRule> {
    match entries.iter().find(|e| host_and_port(e).is_none()) {
        Some(bad) => Err(BrokenRule::BootstrapAddress(bad.clone())),
        None => Ok(()),
    }
}

/// `host:port` or `[v6]:port`, after an optional `PROTOCOL://`.
pub(crate) fn host_and_port(text: &str) -> Option<(String, u16)> {
    let address = match text.split_once("://") {
        Some((scheme, rest))
            if scheme
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '_') =>
        {
            rest
        }
        Some(_) => return None,
        None => text,
    };
    let (host, port) = address.rsplit_once(':')?;
    let host = host
        .strip_prefix('[')
        .and_then(|h| h.strip_suffix(']'))
        .unwrap_or(host);
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
    if host.is_empty() || !host.chars().all(valid) || !port.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some((host.to_owned(), port.parse().ok()?))
}
