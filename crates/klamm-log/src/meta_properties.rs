//! `meta.properties`: which cluster, node and directory a log directory is.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::Path;

use klamm_env::{Fs, FsExt};
use klamm_records::Uuid;

use crate::error::{FileProblem, IoContext, LogError};

/// Name of the file, in a log or metadata directory.
pub const META_PROPERTIES_FILE: &str = "meta.properties";

/// The content of `meta.properties`, version 1 (version 0 is read: it has `broker.id` for
/// `node.id`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetaProperties {
    /// The cluster the directory belongs to.
    pub cluster_id: Option<String>,
    /// The node the directory belongs to.
    pub node_id: Option<i32>,
    /// Identity of the directory itself (KIP-858).
    pub directory_id: Option<Uuid>,
    /// Keys this version does not know; kept on a rewrite.
    pub others: BTreeMap<String, String>,
}

impl MetaProperties {
    /// Reads the file of a directory; none if there is none.
    ///
    /// # Errors
    /// [`LogError::MalformedFile`] or [`LogError::Io`].
    pub fn read(fs: &dyn Fs, dir: &Path) -> Result<Option<MetaProperties>, LogError> {
        let path = dir.join(META_PROPERTIES_FILE);
        match fs.read(&path) {
            Ok(content) => Self::parse(&String::from_utf8_lossy(&content))
                .map(Some)
                .map_err(|problem| LogError::MalformedFile {
                    file: path,
                    problem,
                }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).at("read", &path),
        }
    }

    /// Replaces the file of a directory, atomically and durably.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn write(&self, fs: &dyn Fs, dir: &Path) -> Result<(), LogError> {
        let path = dir.join(META_PROPERTIES_FILE);
        fs.write_atomically(&path, self.to_text().as_bytes())
            .at("write", &path)
    }

    /// All keys with their values, as version 1 has them.
    pub fn values(&self) -> BTreeMap<String, String> {
        let mut values = self.others.clone();
        let mut set = |key: &str, value: Option<String>| {
            if let Some(value) = value {
                values.insert(key.to_owned(), value);
            }
        };
        set("version", Some("1".to_owned()));
        set("cluster.id", self.cluster_id.clone());
        set("node.id", self.node_id.map(|id| id.to_string()));
        set("directory.id", self.directory_id.map(|id| id.to_string()));
        values
    }

    fn to_text(&self) -> String {
        let mut text = String::from("#\n");
        for (key, value) in self.values() {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{}={}", escape(&key), escape(&value));
        }
        text
    }

    fn parse(text: &str) -> Result<MetaProperties, FileProblem> {
        let mut values: BTreeMap<String, String> = BTreeMap::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim_start();
            if line.is_empty() || line.starts_with(['#', '!']) {
                continue;
            }
            let (key, value) = split_pair(line).ok_or(FileProblem::Line(index + 1))?;
            values.insert(key, value);
        }
        let invalid = |key, value: String| FileProblem::Value { key, value };
        let version = values
            .remove("version")
            .ok_or(FileProblem::MissingKey("version"))?;
        let node_key = match version.parse::<i64>() {
            Ok(0) => "broker.id",
            Ok(1) => "node.id",
            Ok(other) => return Err(FileProblem::Version(other)),
            Err(_) => return Err(invalid("version", version)),
        };
        let node_id = match values.remove(node_key) {
            Some(text) => Some(text.parse().map_err(|_| invalid(node_key, text))?),
            None => None,
        };
        let directory_id = match values.remove("directory.id") {
            Some(text) => Some(text.parse().map_err(|_| invalid("directory.id", text))?),
            None => None,
        };
        if version == "1" {
            node_id.ok_or(FileProblem::MissingKey("node.id"))?;
            if !values.contains_key("cluster.id") {
                return Err(FileProblem::MissingKey("cluster.id"));
            }
        }
        Ok(MetaProperties {
            cluster_id: values.remove("cluster.id"),
            node_id,
            directory_id,
            others: values,
        })
    }
}

/// Splits a line of a Java properties file at its first unescaped `=` or `:` and removes escapes.
/// Continued lines do not occur in this file.
fn split_pair(line: &str) -> Option<(String, String)> {
    let mut key = String::new();
    let mut chars = line.chars();
    loop {
        match chars.next()? {
            '\\' => key.push(chars.next()?),
            '=' | ':' => break,
            other => key.push(other),
        }
    }
    let mut value = String::new();
    let rest = chars.as_str().trim_start();
    let mut chars = rest.chars();
    while let Some(c) = chars.next() {
        value.push(if c == '\\' { chars.next()? } else { c });
    }
    Some((key.trim_end().to_owned(), value))
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '=' | ':' | '#' | '!' | '\\') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::TestDir;

    #[test]
    fn reads_what_kafka_writes() {
        let text = "#\n#Sun Nov 22 16:00:00 UTC 2026\nnode.id=0\ndirectory.id=e6_mrwpPRuNhP22Xf6qLrw\nversion=1\ncluster.id=XJyaMk8XTNyqFBbnUcGaoA\n";
        let properties = MetaProperties::parse(text).unwrap();
        assert_eq!(
            properties.cluster_id.as_deref(),
            Some("XJyaMk8XTNyqFBbnUcGaoA")
        );
        assert_eq!(properties.node_id, Some(0));
        assert_eq!(
            properties.directory_id,
            Some("e6_mrwpPRuNhP22Xf6qLrw".parse().unwrap())
        );
        assert!(properties.others.is_empty());
    }

    #[test]
    fn round_trips_with_unknown_keys() {
        let dir = TestDir::new();
        assert_eq!(
            MetaProperties::read(&*dir.env.fs, dir.path()).unwrap(),
            None
        );
        let properties = MetaProperties {
            cluster_id: Some("a:b=c".into()),
            node_id: Some(7),
            directory_id: Some(Uuid::from_bytes([3; 16])),
            others: [("x".to_owned(), "y".to_owned())].into(),
        };
        properties.write(&*dir.env.fs, dir.path()).unwrap();
        let read = MetaProperties::read(&*dir.env.fs, dir.path()).unwrap();
        assert_eq!(read, Some(properties));
    }

    #[test]
    fn reads_version_zero() {
        let properties = MetaProperties::parse("version=0\nbroker.id=3\n").unwrap();
        assert_eq!(properties.node_id, Some(3));
        assert_eq!(properties.cluster_id, None);
    }

    #[test]
    fn rejects_malformed_files() {
        let problem = |text: &str| MetaProperties::parse(text).unwrap_err();
        assert_eq!(problem(""), FileProblem::MissingKey("version"));
        assert_eq!(problem("version=2\n"), FileProblem::Version(2));
        assert_eq!(problem("version=1\n"), FileProblem::MissingKey("node.id"));
        assert_eq!(
            problem("version=1\nnode.id=1\n"),
            FileProblem::MissingKey("cluster.id")
        );
        assert_eq!(problem("nonsense\n"), FileProblem::Line(1));
        assert!(matches!(
            problem("version=1\nnode.id=x\n"),
            FileProblem::Value { key: "node.id", .. }
        ));
    }
}
