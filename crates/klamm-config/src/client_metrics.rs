//! Client metrics subscriptions (KIP-714).

use std::collections::BTreeMap;

use crate::def;
use crate::error::ConfigError;
use crate::table::CLIENT_METRICS_CONFIGS;
use crate::value::Value;

/// What a match pattern may look at.
const MATCH_PARAMETERS: [&str; 6] = [
    "client_id",
    "client_instance_id",
    "client_software_name",
    "client_software_version",
    "client_source_address",
    "client_source_port",
];

/// Checks all the values a subscription would have.
///
/// # Errors
/// The first unknown name or refused value, with Kafka's text.
pub fn validate_client_metrics_configs(
    wanted: &BTreeMap<String, String>,
) -> Result<(), ConfigError> {
    let find = |name: &String| def::find(CLIENT_METRICS_CONFIGS, name);
    if let Some(name) = wanted.keys().find(|name| find(name).is_none()) {
        return Err(ConfigError::UnknownClientMetricsConfig(name.clone()));
    }
    for (name, text) in wanted {
        let Some(def) = find(name) else { continue };
        match (def.parse(text)?, name.as_str()) {
            (Value::Int(n), "interval.ms") if !(100..=3_600_000).contains(&n) => {
                return Err(ConfigError::PushInterval(n));
            }
            (Value::List(patterns), "match") => {
                patterns.iter().try_for_each(|p| check_pattern(p))?
            }
            _ => {}
        }
    }
    Ok(())
}

/// `parameter=regex`.
fn check_pattern(pattern: &str) -> Result<(), ConfigError> {
    let refuse = || ConfigError::MatchPattern(pattern.to_owned());
    // As Java splits: empty parts at the end do not count.
    let parts: Vec<&str> = pattern.trim_end_matches('=').split('=').collect();
    let &[parameter, regex] = parts.as_slice() else {
        return Err(refuse());
    };
    if !MATCH_PARAMETERS.contains(&parameter.trim()) {
        return Err(refuse());
    }
    regex_syntax::Parser::new()
        .parse(regex.trim())
        .map(drop)
        .map_err(|_| refuse())
}
