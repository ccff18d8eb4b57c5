//! Share sessions.

use klamm_protocol::ErrorCode;
use klamm_records::Uuid;

use crate::share_partition::sessions::{
    FINAL_EPOCH, SessionFetch, SessionKey, SessionPartition, SessionStep, ShareSessions,
};

fn key(member: &str) -> SessionKey {
    ("g".into(), member.into())
}

fn fetch<'a>(epoch: i32, partitions: &'a [SessionPartition]) -> SessionFetch<'a> {
    SessionFetch {
        epoch,
        partitions,
        forgotten: &[],
        acknowledges: false,
        connection: 1,
    }
}

#[test]
fn a_session_goes_from_epoch_to_epoch() {
    let mut sessions = ShareSessions::new(10);
    let (one, two) = ((Uuid::ONE, 0), (Uuid::ONE, 1));
    let begun = sessions.fetch(&key("a"), &fetch(0, &[one, two]));
    let partitions = vec![one, two];
    assert_eq!(
        begun,
        Ok(SessionStep::Fetch {
            partitions,
            is_new: true
        })
    );
    // The next begins with another partition.
    let next = sessions.fetch(&key("a"), &fetch(1, &[]));
    let partitions = vec![two, one];
    assert_eq!(
        next,
        Ok(SessionStep::Fetch {
            partitions,
            is_new: false
        })
    );
    let wrong = sessions.fetch(&key("a"), &fetch(1, &[]));
    assert_eq!(wrong, Err(ErrorCode::InvalidShareSessionEpoch));
    assert_eq!(sessions.acknowledge(&key("a"), 2), Ok(()));
    let wrong = sessions.acknowledge(&key("a"), 0);
    assert_eq!(wrong, Err(ErrorCode::InvalidShareSessionEpoch));
    let forgetting = SessionFetch {
        forgotten: &[two],
        ..fetch(3, &[])
    };
    let partitions = vec![one];
    let next = sessions.fetch(&key("a"), &forgetting);
    assert_eq!(
        next,
        Ok(SessionStep::Fetch {
            partitions,
            is_new: false
        })
    );
    let last = sessions.fetch(&key("a"), &fetch(FINAL_EPOCH, &[]));
    assert_eq!(last, Ok(SessionStep::Final));
    assert!(sessions.has_group("g"));
    assert_eq!(sessions.end(&key("a")), Some(vec![one]));
    assert!(!sessions.has_group("g"));
    let gone = sessions.fetch(&key("a"), &fetch(4, &[]));
    assert_eq!(gone, Err(ErrorCode::ShareSessionNotFound));
    assert_eq!(
        sessions.acknowledge(&key("a"), 4),
        Err(ErrorCode::ShareSessionNotFound)
    );
}

#[test]
fn sessions_are_limited_and_end_with_their_connection() {
    let mut sessions = ShareSessions::new(1);
    let partitions = [(Uuid::ONE, 0)];
    assert!(sessions.fetch(&key("a"), &fetch(0, &partitions)).is_ok());
    // A new one of the same member takes the place of the old one.
    assert!(sessions.fetch(&key("a"), &fetch(0, &partitions)).is_ok());
    let refused = sessions.fetch(&key("b"), &fetch(0, &partitions));
    assert_eq!(refused, Err(ErrorCode::ShareSessionLimitReached));
    let with_acknowledgements = SessionFetch {
        acknowledges: true,
        ..fetch(0, &partitions)
    };
    let refused = sessions.fetch(&key("a"), &with_acknowledgements);
    assert_eq!(refused, Err(ErrorCode::InvalidRequest));
    assert!(sessions.disconnected(2).is_empty());
    let ended = sessions.disconnected(1);
    assert_eq!(ended, [(key("a"), partitions.to_vec())]);
    assert!(sessions.is_empty());
}
