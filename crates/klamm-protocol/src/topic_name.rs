//! What a topic may be called, and the topics that the broker keeps for itself.

/// Where the group coordinator keeps its records.
pub const CONSUMER_OFFSETS: &str = "__consumer_offsets";
/// Where the transaction coordinator keeps its records.
pub const TRANSACTION_STATE: &str = "__transaction_state";
/// Where the share coordinator keeps its records.
pub const SHARE_GROUP_STATE: &str = "__share_group_state";
/// The log of the controllers. Not a topic that clients see.
pub const CLUSTER_METADATA: &str = "__cluster_metadata";
/// Where tiered storage keeps what it knows of remote segments.
pub const REMOTE_LOG_METADATA: &str = "__remote_log_metadata";

/// The longest name. With `-` and a partition number it still fits a file name of 255 bytes.
pub const LEN_MAX: usize = 249;

/// Why a text cannot be the name of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicNameError {
    /// No character at all.
    #[error("a topic name cannot be empty")]
    Empty,
    /// `.` or `..`, which mean something to file systems.
    #[error("a topic name cannot be '.' or '..'")]
    Dots,
    /// Longer than [`LEN_MAX`].
    #[error("a topic name of {0} characters is longer than 249")]
    TooLong(usize),
    /// A character other than ASCII letters, digits, `.`, `_` and `-`.
    #[error("a topic name has only ASCII letters and digits, '.', '_' and '-'")]
    BadCharacter,
}

/// Checks that a topic may have this name.
pub fn validate(name: &str) -> Result<(), TopicNameError> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    match name {
        "" => Err(TopicNameError::Empty),
        "." | ".." => Err(TopicNameError::Dots),
        // Kafka counts UTF-16 units; anything where that differs fails the next test anyway.
        _ if name.len() > LEN_MAX => Err(TopicNameError::TooLong(name.chars().count())),
        _ if !name.bytes().all(legal) => Err(TopicNameError::BadCharacter),
        _ => Ok(()),
    }
}

/// Whether the name has a `.` or `_`, which are the same in the names of metrics.
pub fn has_collision_chars(name: &str) -> bool {
    name.contains(['.', '_'])
}

/// Whether two names differ at most in `.` against `_`.
pub fn collides(a: &str, b: &str) -> bool {
    let same = |a: u8, b: u8| a == b || matches!((a, b), (b'.', b'_') | (b'_', b'.'));
    a.len() == b.len() && a.bytes().zip(b.bytes()).all(|(a, b)| same(a, b))
}

/// Whether the topic is one that the broker keeps for itself and clients do not write to.
pub fn is_internal(name: &str) -> bool {
    matches!(
        name,
        CONSUMER_OFFSETS | TRANSACTION_STATE | SHARE_GROUP_STATE
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_every_legal_character_up_to_the_longest_name() {
        assert_eq!(validate("a-Z_0.9"), Ok(()));
        assert_eq!(validate("..."), Ok(()));
        assert_eq!(validate(&"x".repeat(249)), Ok(()));
    }

    #[test]
    fn rejects_what_kafka_rejects() {
        assert_eq!(validate(""), Err(TopicNameError::Empty));
        assert_eq!(validate("."), Err(TopicNameError::Dots));
        assert_eq!(validate(".."), Err(TopicNameError::Dots));
        assert_eq!(
            validate(&"x".repeat(250)),
            Err(TopicNameError::TooLong(250))
        );
        for name in ["a b", "a/b", "a\0b", "a\u{e4}b", "a,b", "a:b", "a\nb"] {
            assert_eq!(
                validate(name),
                Err(TopicNameError::BadCharacter),
                "{name:?}"
            );
        }
    }

    #[test]
    fn dots_and_underscores_collide() {
        assert!(collides("a.b", "a_b"));
        assert!(collides("a.b", "a.b"));
        assert!(!collides("a.b", "a-b"));
        assert!(!collides("a.b", "a.bc"));
        assert!(has_collision_chars("a.b") && has_collision_chars("a_b"));
        assert!(!has_collision_chars("a-b"));
    }
}
