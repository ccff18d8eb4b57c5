//! What a configuration says in several values together: listeners, their protocols, the quorum.

use crate::broker::BrokerConfig;
use crate::listeners::{self, Endpoint, ProtocolMap, SecurityProtocol};
use crate::quorum::{self, Voter};
use crate::rules::BrokenRule;
use crate::value::Value;

/// What is read out of several values, once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Derived {
    protocol_map: ProtocolMap,
    listeners: Vec<Endpoint>,
    advertised: Vec<Endpoint>,
    controller_advertised: Vec<Endpoint>,
    controller_names: Vec<String>,
    inter_broker: Option<(String, SecurityProtocol)>,
    voters: Vec<Voter>,
}

impl Derived {
    pub(crate) fn of(config: &BrokerConfig) -> Result<Self, BrokenRule> {
        config.derive()
    }
}

impl BrokerConfig {
    fn derive(&self) -> Result<Derived, BrokenRule> {
        let controller_names = self.list("controller.listener.names").to_vec();
        let protocol_map = self.derive_protocol_map(&controller_names)?;
        let listeners = listeners::endpoints(self.list("listeners"), &protocol_map, true)?;
        let is_controller = |e: &Endpoint| controller_names.contains(&e.name);
        let all_advertised = match self.value("advertised.listeners") {
            Value::List(entries) => listeners::endpoints(entries, &protocol_map, false)?,
            _ => listeners.clone(),
        };
        let advertised = all_advertised
            .iter()
            .filter(|e| !is_controller(e))
            .cloned()
            .collect();
        let controller_advertised = controller_names
            .iter()
            .filter_map(|name| {
                all_advertised
                    .iter()
                    .chain(&listeners)
                    .find(|e| e.name == name.to_uppercase())
            })
            .cloned()
            .collect();
        let inter_broker = Some(self.derive_inter_broker(&protocol_map)?);
        let voters = quorum::parse_voters(self.list("controller.quorum.voters"))?;
        Ok(Derived {
            protocol_map,
            listeners,
            advertised,
            controller_advertised,
            controller_names,
            inter_broker,
            voters,
        })
    }

    /// The map as given, or the default with PLAINTEXT for controller listeners unless TLS or SASL is about.
    fn derive_protocol_map(&self, controller_names: &[String]) -> Result<ProtocolMap, BrokenRule> {
        let name = "listener.security.protocol.map";
        let mut map = listeners::protocol_map(self.text(name).unwrap_or_default())?;
        if self.is_set(name) {
            return Ok(map);
        }
        let mut names = controller_names.to_vec();
        for entry in self.list("listeners") {
            names.push(listeners::listener_name(entry)?);
        }
        if !names
            .iter()
            .any(|n| matches!(n.as_str(), "SSL" | "SASL_SSL" | "SASL_PLAINTEXT"))
        {
            for name in controller_names.iter().filter(|n| *n != "PLAINTEXT") {
                map.insert(name.to_uppercase(), SecurityProtocol::Plaintext);
            }
        }
        Ok(map)
    }

    fn derive_inter_broker(
        &self,
        map: &ProtocolMap,
    ) -> Result<(String, SecurityProtocol), BrokenRule> {
        match self.text("inter.broker.listener.name") {
            Some(_) if self.is_set("security.inter.broker.protocol") => {
                Err(BrokenRule::TwoInterBroker)
            }
            Some(name) => match map.get(&name.to_uppercase()) {
                Some(&protocol) => Ok((name.to_uppercase(), protocol)),
                None => Err(BrokenRule::InterBrokerUnmapped(name.to_uppercase())),
            },
            None => {
                let name = self
                    .text("security.inter.broker.protocol")
                    .unwrap_or_default();
                let known = SecurityProtocol::from_name(name);
                let protocol =
                    known.ok_or_else(|| BrokenRule::SecurityProtocol(name.to_owned()))?;
                Ok((protocol.name().to_owned(), protocol))
            }
        }
    }

    /// All listeners of this node.
    pub fn listeners(&self) -> &[Endpoint] {
        &self.derived.listeners
    }

    /// The listeners that serve clients and brokers.
    pub fn broker_listeners(&self) -> impl Iterator<Item = &Endpoint> {
        self.listeners()
            .iter()
            .filter(|e| !self.derived.controller_names.contains(&e.name))
    }

    /// The listeners that serve the controller quorum.
    pub fn controller_listeners(&self) -> Vec<&Endpoint> {
        self.listeners()
            .iter()
            .filter(|e| self.derived.controller_names.contains(&e.name))
            .collect()
    }

    /// Where clients and brokers are told to come. An empty host stands for this machine's name, and a listener bound
    /// to port 0 advertises the port it got.
    pub fn advertised_listeners(&self) -> &[Endpoint] {
        &self.derived.advertised
    }

    /// Where other nodes are told to find this controller.
    pub fn advertised_controller_listeners(&self) -> &[Endpoint] {
        &self.derived.controller_advertised
    }

    /// The names of controller listeners.
    pub fn controller_listener_names(&self) -> &[String] {
        &self.derived.controller_names
    }

    /// The security protocol of every listener name.
    pub fn protocol_map(&self) -> &ProtocolMap {
        &self.derived.protocol_map
    }

    /// The listener that brokers use among themselves.
    pub fn inter_broker_listener_name(&self) -> &str {
        self.derived
            .inter_broker
            .as_ref()
            .map_or("", |(name, _)| name)
    }

    /// Its protocol.
    pub fn inter_broker_security_protocol(&self) -> SecurityProtocol {
        self.derived
            .inter_broker
            .as_ref()
            .map_or(SecurityProtocol::Plaintext, |(_, protocol)| *protocol)
    }

    /// Host and port of each of `controller.quorum.bootstrap.servers`.
    pub fn quorum_bootstrap_servers(&self) -> Vec<(String, u16)> {
        let servers = self.list("controller.quorum.bootstrap.servers").iter();
        // They were checked when the configuration was loaded.
        servers
            .filter_map(|server| quorum::host_and_port(server))
            .collect()
    }

    /// The voters of `controller.quorum.voters`; empty if there is only this node (or bootstrap servers are given).
    pub fn quorum_voters(&self) -> &[Voter] {
        &self.derived.voters
    }
}
