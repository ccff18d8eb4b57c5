//! The command lines of the chores: `--name value` pairs.

use crate::Result;

/// Parsed flags, in order; a name may come more than once.
pub struct Flags(Vec<(String, String)>);

impl Flags {
    /// Refuses every name that is not among the known.
    pub fn parse(args: &[String], known: &[&str]) -> Result<Flags> {
        Flags::with_switches(args, known, &[])
    }

    /// The same, where some names stand alone: present means "true".
    pub fn with_switches(args: &[String], known: &[&str], switches: &[&str]) -> Result<Flags> {
        let mut found = Vec::new();
        let mut rest = args.iter();
        while let Some(arg) = rest.next() {
            let name = arg.strip_prefix("--").unwrap_or_default();
            if switches.contains(&name) {
                found.push((name.to_string(), "true".to_string()));
                continue;
            }
            if !known.contains(&name) {
                let known = [known, switches].concat().join(", --");
                return Err(format!("unknown argument '{arg}'; known: --{known}").into());
            }
            let value = rest
                .next()
                .ok_or_else(|| format!("--{name} needs a value"))?;
            found.push((name.to_string(), value.clone()));
        }
        Ok(Flags(found))
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .rev()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }

    /// Whether a switch was given.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }

    pub fn number<T: std::str::FromStr>(&self, name: &str, otherwise: T) -> Result<T> {
        match self.get(name) {
            None => Ok(otherwise),
            Some(text) => text
                .parse()
                .map_err(|_| format!("--{name}: '{text}' is not a number").into()),
        }
    }
}
