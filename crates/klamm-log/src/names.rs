//! Names of the files and directories of Kafka's layout.

use klamm_records::{TopicPartition, Uuid};

use crate::error::LogError;

/// Suffix of a file that waits for its removal.
pub const DELETED_SUFFIX: &str = ".deleted";
/// Suffix of a file that compaction is still writing.
pub const CLEANED_SUFFIX: &str = ".cleaned";
/// Suffix of a file that compaction has finished and that replaces others.
pub const SWAP_SUFFIX: &str = ".swap";
/// Name of the file of leader epochs and their start offsets, in a partition's directory.
pub const LEADER_EPOCH_CHECKPOINT: &str = "leader-epoch-checkpoint";
/// Name of the file that holds the topic's id, in a partition's directory.
pub const PARTITION_METADATA: &str = "partition.metadata";
/// Longest file name the usual file systems take.
const NAME_BYTES_MAX: usize = 255;

/// What a file of a partition's directory is, by the end of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileKind {
    /// Record batches.
    Log,
    /// Offset index.
    Index,
    /// Time index.
    TimeIndex,
    /// Index of aborted transactions.
    TxnIndex,
    /// Producer state.
    Snapshot,
}

impl FileKind {
    /// The end of the file's name, with its dot.
    pub fn suffix(self) -> &'static str {
        match self {
            FileKind::Log => ".log",
            FileKind::Index => ".index",
            FileKind::TimeIndex => ".timeindex",
            FileKind::TxnIndex => ".txnindex",
            FileKind::Snapshot => ".snapshot",
        }
    }
}

/// The name of a file that starts at an offset: twenty digits and a suffix.
pub fn file_name(offset: i64, kind: FileKind) -> String {
    format!("{offset:020}{}", kind.suffix())
}

/// Reads the offset and kind out of a file's name; none if it is another file. The second string
/// is what follows the kind's suffix, such as `.deleted`.
pub fn parse_file_name(name: &str) -> Option<(i64, FileKind, &str)> {
    let dot = name.find('.')?;
    let (digits, rest) = name.split_at(dot);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let offset = digits.parse().ok()?;
    let kinds = [
        FileKind::Log,
        FileKind::Index,
        FileKind::TimeIndex,
        FileKind::TxnIndex,
        FileKind::Snapshot,
    ];
    kinds.into_iter().find_map(|kind| {
        let tail = rest.strip_prefix(kind.suffix())?;
        (tail.is_empty() || tail.starts_with('.')).then_some((offset, kind, tail))
    })
}

/// What a directory below a log directory is, by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartitionDir {
    /// `topic-N`: a partition in use.
    Current(TopicPartition),
    /// `topic-N.<id>-delete`: waits for its removal.
    Deleted,
    /// `topic-N.<id>-future`: a replica that is moving here from another log directory.
    Future(TopicPartition),
    /// `topic-N.<id>-stray`: a partition that the cluster's metadata does not know.
    Stray(TopicPartition),
}

impl PartitionDir {
    /// Reads a directory's name.
    ///
    /// # Errors
    /// [`LogError::NotAPartition`] if it has none of the four forms.
    pub fn parse(name: &str) -> Result<PartitionDir, LogError> {
        let not_a_partition = || LogError::NotAPartition { name: name.into() };
        // The unique part has no dot, so the last dot starts it; topic names may have dots too.
        let marked = name.rsplit_once('.').and_then(|(base, mark)| {
            let (unique, state) = mark.split_once('-')?;
            (!unique.is_empty() && matches!(state, "delete" | "future" | "stray"))
                .then_some((base, state))
        });
        match marked {
            // Long topic names are cut in these, so the partition may be unreadable: no matter.
            Some((_, "delete")) => Ok(PartitionDir::Deleted),
            Some((base, "future")) => parse_partition(base)
                .map(PartitionDir::Future)
                .ok_or_else(not_a_partition),
            Some((base, _)) => parse_partition(base)
                .map(PartitionDir::Stray)
                .ok_or_else(not_a_partition),
            None => parse_partition(name)
                .map(PartitionDir::Current)
                .ok_or_else(not_a_partition),
        }
    }
}

/// Reads `topic-N`; none if it has no such form.
fn parse_partition(name: &str) -> Option<TopicPartition> {
    let (topic, partition) = name.rsplit_once('-')?;
    if topic.is_empty() || !partition.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(TopicPartition::new(topic, partition.parse().ok()?))
}

/// `topic-N.<unique>-delete`, cut to what a file system takes.
pub fn delete_dir_name(partition: &TopicPartition, unique: Uuid) -> String {
    capped(partition, unique, "delete")
}

/// `topic-N.<unique>-stray`, cut to what a file system takes.
pub fn stray_dir_name(partition: &TopicPartition, unique: Uuid) -> String {
    capped(partition, unique, "stray")
}

/// `topic-N.<unique>-future`. Not cut: the name must tell the partition at the next start.
pub fn future_dir_name(partition: &TopicPartition, unique: Uuid) -> String {
    format!("{partition}.{}-future", hex(unique))
}

fn capped(partition: &TopicPartition, unique: Uuid, state: &str) -> String {
    let tail = format!("-{}.{}-{state}", partition.partition, hex(unique));
    let room = NAME_BYTES_MAX.saturating_sub(tail.len());
    let topic: &str = &partition.topic;
    let mut cut = topic.len().min(room);
    while !topic.is_char_boundary(cut) {
        cut -= 1;
    }
    format!("{}{tail}", &topic[..cut])
}

fn hex(unique: Uuid) -> String {
    unique
        .as_bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_round_trip() {
        assert_eq!(file_name(42, FileKind::Log), "00000000000000000042.log");
        for kind in [
            FileKind::Log,
            FileKind::Index,
            FileKind::TimeIndex,
            FileKind::TxnIndex,
            FileKind::Snapshot,
        ] {
            let name = file_name(i64::MAX, kind);
            assert_eq!(parse_file_name(&name), Some((i64::MAX, kind, "")));
            let deleted = name + DELETED_SUFFIX;
            assert_eq!(
                parse_file_name(&deleted),
                Some((i64::MAX, kind, ".deleted"))
            );
        }
    }

    #[test]
    fn rejects_other_file_names() {
        for name in [
            "partition.metadata",
            "leader-epoch-checkpoint",
            "00.logs",
            ".log",
            "-1.log",
            "99999999999999999999.log",
            "00000000000000000000-0000000000.checkpoint",
        ] {
            assert_eq!(parse_file_name(name), None, "{name}");
        }
    }

    #[test]
    fn directory_names_tell_their_state() {
        let partition = TopicPartition::new("a.b-c", 7);
        let unique = Uuid::from_bytes([0xab; 16]);
        assert_eq!(
            PartitionDir::parse("a.b-c-7").unwrap(),
            PartitionDir::Current(partition.clone())
        );
        assert_eq!(
            delete_dir_name(&partition, unique),
            format!("a.b-c-7.{}-delete", "ab".repeat(16))
        );
        assert_eq!(
            PartitionDir::parse(&delete_dir_name(&partition, unique)).unwrap(),
            PartitionDir::Deleted
        );
        assert_eq!(
            PartitionDir::parse(&future_dir_name(&partition, unique)).unwrap(),
            PartitionDir::Future(partition.clone())
        );
        assert_eq!(
            PartitionDir::parse(&stray_dir_name(&partition, unique)).unwrap(),
            PartitionDir::Stray(partition)
        );
    }

    #[test]
    fn long_topics_are_cut_in_delete_names() {
        let partition = TopicPartition::new("t".repeat(249), 12);
        let name = delete_dir_name(&partition, Uuid::from_bytes([1; 16]));
        assert_eq!(name.len(), NAME_BYTES_MAX);
        assert_eq!(PartitionDir::parse(&name).unwrap(), PartitionDir::Deleted);
    }

    #[test]
    fn rejects_directories_of_others() {
        for name in [
            "lost+found",
            "topic",
            "topic-",
            "-1",
            "topic-x",
            "t-99999999999",
        ] {
            assert!(PartitionDir::parse(name).is_err(), "{name}");
        }
    }
}
