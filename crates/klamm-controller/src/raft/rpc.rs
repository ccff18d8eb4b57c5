//! What controllers say to each other, as bytes.
//!
//! A call names the cluster, the node and the directory it is meant for, so that one that went astray
//! (a port that another cluster listens on by now, a node that lost its disk) does no harm. These
//! bytes are private to Klamm: a quorum is of Klamm's controllers only.

use std::io;

use klamm_records::Uuid;
use openraft::impls::leader_id_std::LeaderId;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    VoteRequest, VoteResponse,
};

use super::codec::{
    Reader, SnapshotNote, corrupt, decode_entry, decode_note, encode_entry, encode_note, put_bytes,
    put_len, put_log_id, put_voter,
};
use super::types::{NodeId, TypeConfig, Vote, Voter};
use super::voters::Admission;

const FORMAT: u8 = 2;
const APPEND: u8 = 0;
const VOTE: u8 = 1;
const PRE_VOTE: u8 = 2;
const SNAPSHOT: u8 = 3;
const TRANSFER: u8 = 4;
const JOIN: u8 = 5;

const ANSWERED: u8 = 0;
const REFUSED: u8 = 1;

/// A call from one controller to another.
#[derive(Debug)]
pub(super) enum Call {
    Append(AppendEntriesRequest<TypeConfig>),
    Vote(VoteRequest<TypeConfig>),
    PreVote(VoteRequest<TypeConfig>),
    /// A piece of a snapshot: where that stands, and what is at `position` of the `.checkpoint` file.
    Snapshot {
        vote: Vote,
        note: SnapshotNote,
        /// Which sending of it this is a piece of.
        serial: u64,
        position: u64,
        /// Whether that is all.
        last: bool,
        content: Vec<u8>,
    },
    Transfer(TransferLeaderRequest<TypeConfig>),
    /// A controller that asks for the log, and to vote if it may by itself.
    Join {
        id: NodeId,
        voter: Voter,
        auto_join: bool,
    },
}

/// Whom a call is meant for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Address<'a> {
    pub(super) cluster_id: &'a str,
    pub(super) node: NodeId,
    /// Its metadata directory; zero where voters go by their ids alone.
    pub(super) directory_id: Uuid,
}

impl<'a> Address<'a> {
    /// Whoever listens there, as long as it is of the cluster.
    pub(super) fn of_anybody(cluster_id: &'a str) -> Self {
        Address {
            cluster_id,
            node: NodeId::ANYBODY,
            directory_id: Uuid::ZERO,
        }
    }

    /// Whether what is meant for this address is meant for the node that `me` is.
    fn is_of(&self, me: &Address<'_>) -> bool {
        let any = |id: Uuid| id == Uuid::ZERO;
        self.cluster_id == me.cluster_id
            && (self.node == me.node || self.node == NodeId::ANYBODY)
            && (self.directory_id == me.directory_id || any(self.directory_id))
    }
}

pub(super) fn encode_call(to: Address<'_>, call: &Call) -> io::Result<Vec<u8>> {
    let mut out = vec![FORMAT];
    put_bytes(&mut out, to.cluster_id.as_bytes())?;
    out.extend(to.node.0.to_be_bytes());
    out.extend(to.directory_id.as_bytes());
    match call {
        Call::Append(append) => {
            out.push(APPEND);
            put_vote(&mut out, &append.vote);
            put_log_id(&mut out, append.prev_log_id);
            put_log_id(&mut out, append.leader_commit);
            put_len(&mut out, append.entries.len())?;
            for entry in &append.entries {
                out.extend(entry.log_id.index.to_be_bytes());
                put_bytes(&mut out, &encode_entry(entry)?)?;
            }
        }
        Call::Vote(vote) => put_ballot(&mut out, VOTE, vote),
        Call::PreVote(vote) => put_ballot(&mut out, PRE_VOTE, vote),
        Call::Snapshot {
            vote,
            note,
            serial,
            position,
            last,
            content,
        } => {
            out.push(SNAPSHOT);
            put_vote(&mut out, vote);
            put_bytes(&mut out, &encode_note(note)?)?;
            out.extend(serial.to_be_bytes());
            out.extend(position.to_be_bytes());
            out.push(u8::from(*last));
            put_bytes(&mut out, content)?;
        }
        Call::Transfer(transfer) => {
            out.push(TRANSFER);
            put_vote(&mut out, transfer.from_leader());
            out.extend(transfer.to_node_id().0.to_be_bytes());
            put_log_id(&mut out, transfer.last_log_id().copied());
        }
        Call::Join {
            id,
            voter,
            auto_join,
        } => {
            out.push(JOIN);
            out.extend(id.0.to_be_bytes());
            put_voter(&mut out, voter)?;
            out.push(u8::from(*auto_join));
        }
    }
    Ok(out)
}

/// Reads a call; one that is meant for another node is an error.
pub(super) fn decode_call(me: Address<'_>, bytes: &[u8]) -> io::Result<Call> {
    let mut reader = Reader(bytes);
    if reader.u8()? != FORMAT {
        return Err(corrupt("a call in an unknown format"));
    }
    let cluster_id = reader.text()?;
    let node = NodeId(reader.i32()?);
    let directory_id = reader.uuid()?;
    let to = Address {
        cluster_id: &cluster_id,
        node,
        directory_id,
    };
    if !to.is_of(&me) {
        let message = format!(
            "the call is for node {node} with directory {directory_id} of cluster {cluster_id}"
        );
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    let kind = reader.u8()?;
    if node == NodeId::ANYBODY && kind != JOIN {
        return Err(corrupt("a call that is for nobody in particular"));
    }
    let call = match kind {
        APPEND => Call::Append(append(&mut reader)?),
        VOTE => Call::Vote(ballot(&mut reader)?),
        PRE_VOTE => Call::PreVote(ballot(&mut reader)?),
        SNAPSHOT => Call::Snapshot {
            vote: vote(&mut reader)?,
            note: decode_note(reader.bytes()?)?,
            serial: reader.u64()?,
            position: reader.u64()?,
            last: reader.u8()? != 0,
            content: reader.bytes()?.to_vec(),
        },
        TRANSFER => Call::Transfer(TransferLeaderRequest::new(
            vote(&mut reader)?,
            NodeId(reader.i32()?),
            reader.log_id()?,
        )),
        JOIN => Call::Join {
            id: NodeId(reader.i32()?),
            voter: reader.voter()?,
            auto_join: reader.u8()? != 0,
        },
        _ => return Err(corrupt("an unknown call")),
    };
    reader.end()?;
    Ok(call)
}

fn append(reader: &mut Reader<'_>) -> io::Result<AppendEntriesRequest<TypeConfig>> {
    let vote = vote(reader)?;
    let prev_log_id = reader.log_id()?;
    let leader_commit = reader.log_id()?;
    let mut entries = Vec::new();
    for _ in 0..reader.len()? {
        let index = reader.u64()?;
        entries.push(decode_entry(index, reader.bytes()?)?);
    }
    Ok(AppendEntriesRequest {
        vote,
        prev_log_id,
        entries,
        leader_commit,
    })
}

fn put_ballot(out: &mut Vec<u8>, kind: u8, request: &VoteRequest<TypeConfig>) {
    out.push(kind);
    put_vote(out, &request.vote);
    put_log_id(out, request.last_log_id);
    out.push(u8::from(request.leadership_transfer));
}

fn ballot(reader: &mut Reader<'_>) -> io::Result<VoteRequest<TypeConfig>> {
    let mut request = VoteRequest::new(vote(reader)?, reader.log_id()?);
    request.leadership_transfer = reader.u8()? != 0;
    Ok(request)
}

fn put_vote(out: &mut Vec<u8>, vote: &Vote) {
    out.extend(vote.leader_id.term.to_be_bytes());
    out.extend(vote.leader_id.voted_for.0.to_be_bytes());
    out.push(u8::from(vote.committed));
}

fn vote(reader: &mut Reader<'_>) -> io::Result<Vote> {
    let (term, node) = (reader.u64()?, NodeId(reader.i32()?));
    Ok(Vote {
        leader_id: LeaderId {
            term,
            voted_for: node,
        },
        committed: reader.u8()? != 0,
    })
}

/// What a call is answered with.
pub(super) trait Answer: Sized {
    fn put(&self, out: &mut Vec<u8>);
    fn read(reader: &mut Reader<'_>) -> io::Result<Self>;
}

impl Answer for AppendEntriesResponse<TypeConfig> {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            AppendEntriesResponse::Success => out.push(0),
            AppendEntriesResponse::PartialSuccess(matching) => {
                out.push(1);
                put_log_id(out, *matching);
            }
            AppendEntriesResponse::Conflict => out.push(2),
            AppendEntriesResponse::HigherVote(vote) => {
                out.push(3);
                put_vote(out, vote);
            }
        }
    }

    fn read(reader: &mut Reader<'_>) -> io::Result<Self> {
        Ok(match reader.u8()? {
            0 => AppendEntriesResponse::Success,
            1 => AppendEntriesResponse::PartialSuccess(reader.log_id()?),
            2 => AppendEntriesResponse::Conflict,
            3 => AppendEntriesResponse::HigherVote(vote(reader)?),
            _ => return Err(corrupt("an unknown answer")),
        })
    }
}

impl Answer for VoteResponse<TypeConfig> {
    fn put(&self, out: &mut Vec<u8>) {
        put_vote(out, &self.vote);
        out.push(u8::from(self.vote_granted));
        put_log_id(out, self.last_log_id);
    }

    fn read(reader: &mut Reader<'_>) -> io::Result<Self> {
        Ok(VoteResponse {
            vote: vote(reader)?,
            vote_granted: reader.u8()? != 0,
            last_log_id: reader.log_id()?,
        })
    }
}

/// What a piece of a snapshot is answered with: the last one with what came of the whole.
#[derive(Debug)]
pub(super) struct PieceTaken(pub(super) Option<SnapshotResponse<TypeConfig>>);

impl Answer for PieceTaken {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.0.is_some()));
        if let Some(response) = &self.0 {
            put_vote(out, &response.vote);
        }
    }

    fn read(reader: &mut Reader<'_>) -> io::Result<Self> {
        let whole = reader.u8()? != 0;
        let response = |vote| SnapshotResponse { vote };
        Ok(PieceTaken(match whole {
            true => Some(response(vote(reader)?)),
            false => None,
        }))
    }
}

/// Whether a node takes over the lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken(pub(super) bool);

impl Answer for Taken {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.0));
    }

    fn read(reader: &mut Reader<'_>) -> io::Result<Self> {
        Ok(Taken(reader.u8()? != 0))
    }
}

impl Answer for Admission {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Admission::Elsewhere(None) => out.push(0),
            Admission::Elsewhere(Some((id, leader))) => {
                out.push(1);
                out.extend(id.0.to_be_bytes());
                // What is too long for a length is not where anybody listens.
                let mut bytes = Vec::new();
                if put_voter(&mut bytes, leader).is_err() {
                    bytes.clear();
                }
                out.extend(bytes);
            }
            Admission::Learner => out.push(2),
            Admission::Voter => out.push(3),
            Admission::Taken(directory_id) => {
                out.push(4);
                out.extend(directory_id.as_bytes());
            }
        }
    }

    fn read(reader: &mut Reader<'_>) -> io::Result<Self> {
        Ok(match reader.u8()? {
            0 => Admission::Elsewhere(None),
            1 => Admission::Elsewhere(Some((NodeId(reader.i32()?), reader.voter()?))),
            2 => Admission::Learner,
            3 => Admission::Voter,
            4 => Admission::Taken(reader.uuid()?),
            _ => return Err(corrupt("an unknown answer")),
        })
    }
}

pub(super) fn encode_answer<A: Answer>(answer: &A) -> Vec<u8> {
    let mut out = vec![FORMAT, ANSWERED];
    answer.put(&mut out);
    out
}

/// The answer to a call that could not be followed.
pub(super) fn encode_refusal(error: &io::Error) -> Vec<u8> {
    let mut out = vec![FORMAT, REFUSED];
    out.extend(error.to_string().into_bytes());
    out
}

pub(super) fn decode_answer<A: Answer>(bytes: &[u8]) -> io::Result<A> {
    let mut reader = Reader(bytes);
    if reader.u8()? != FORMAT {
        return Err(corrupt("an answer in an unknown format"));
    }
    match reader.u8()? {
        ANSWERED => {
            let answer = A::read(&mut reader)?;
            reader.end()?;
            Ok(answer)
        }
        _ => {
            let why = String::from_utf8_lossy(reader.0).into_owned();
            Err(io::Error::other(format!("refused: {why}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use openraft::EntryPayload;
    use openraft::entry::RaftEntry;

    use super::super::types::{Entry, Membership, StoredMembership, log_id};
    use super::*;

    const ME: Address<'static> = Address {
        cluster_id: "cluster",
        node: NodeId(2),
        directory_id: Uuid::ONE,
    };

    fn a_voter() -> Voter {
        Voter {
            directory_id: Uuid::from_bytes([7; 16]),
            endpoints: vec![super::super::types::VoterEndpoint {
                name: "CONTROLLER".to_owned(),
                host: "localhost".to_owned(),
                port: 9093,
            }],
        }
    }

    fn a_vote() -> Vote {
        Vote {
            leader_id: LeaderId {
                term: 7,
                voted_for: NodeId(3),
            },
            committed: true,
        }
    }

    fn calls() -> Vec<Call> {
        let append = AppendEntriesRequest {
            vote: a_vote(),
            prev_log_id: Some(log_id(6, 8)),
            entries: vec![Entry::new(log_id(7, 9), EntryPayload::Blank)],
            leader_commit: None,
        };
        let note = SnapshotNote {
            last: Some(log_id(6, 8)),
            membership: StoredMembership::new(None, Membership::default()),
            end_offset: 40,
            epoch: 6,
        };
        vec![
            Call::Append(append),
            Call::Vote(VoteRequest::new(a_vote(), Some(log_id(1, 2)))),
            Call::PreVote(VoteRequest::new(a_vote(), None)),
            Call::Snapshot {
                vote: a_vote(),
                note,
                serial: 9,
                position: 4096,
                last: true,
                content: vec![1, 2, 3],
            },
            Call::Transfer(TransferLeaderRequest::new(
                a_vote(),
                NodeId(2),
                Some(log_id(6, 8)),
            )),
            Call::Join {
                id: NodeId(4),
                voter: a_voter(),
                auto_join: true,
            },
        ]
    }

    #[test]
    fn calls_come_back_as_they_were() {
        for call in calls() {
            let bytes = encode_call(ME, &call).unwrap();
            let back = decode_call(ME, &bytes).unwrap();
            assert_eq!(format!("{back:?}"), format!("{call:?}"));
        }
    }

    #[test]
    fn refuses_every_call_that_is_cut_short_or_too_long() {
        for call in calls() {
            let mut bytes = encode_call(ME, &call).unwrap();
            for len in 0..bytes.len() {
                assert!(decode_call(ME, &bytes[..len]).is_err());
            }
            bytes.push(0);
            assert!(decode_call(ME, &bytes).is_err());
        }
    }

    #[test]
    fn refuses_calls_for_others() {
        let bytes = encode_call(ME, &calls()[1]).unwrap();
        for other in [
            Address {
                cluster_id: "other",
                ..ME
            },
            Address {
                node: NodeId(1),
                ..ME
            },
            Address {
                directory_id: Uuid::from_bytes([9; 16]),
                ..ME
            },
        ] {
            let error = decode_call(other, &bytes).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        }
    }

    #[test]
    fn answers_come_back_as_they_were() {
        let granted = VoteResponse {
            vote: a_vote(),
            vote_granted: true,
            last_log_id: Some(log_id(1, 2)),
        };
        let back: VoteResponse<TypeConfig> = decode_answer(&encode_answer(&granted)).unwrap();
        assert_eq!(back, granted);
        for answer in [
            AppendEntriesResponse::Success,
            AppendEntriesResponse::PartialSuccess(Some(log_id(1, 2))),
            AppendEntriesResponse::Conflict,
            AppendEntriesResponse::HigherVote(a_vote()),
        ] {
            let back: AppendEntriesResponse<TypeConfig> =
                decode_answer(&encode_answer(&answer)).unwrap();
            assert_eq!(back, answer);
        }
        let refused = encode_refusal(&io::Error::other("no"));
        let error = decode_answer::<VoteResponse<TypeConfig>>(&refused).unwrap_err();
        assert!(error.to_string().contains("no"), "{error}");
    }
}
