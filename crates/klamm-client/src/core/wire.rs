use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};
use klamm_protocol::frame::{RequestHeader, SIZE_LEN, encode_request};
use klamm_protocol::{EncodeError, Message, Request, Segment};

use crate::ClientError;

/// Room asked for before more of an answer has arrived; beyond this the buffer at most doubles
/// what has really come in, whatever the length field claims.
const TRUSTED_BYTES: usize = 1 << 20;
const FIRST_READ_BYTES: usize = 4 << 10;

/// An answer that has arrived, not decoded yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Correlation id of the request that it answers.
    pub correlation_id: i32,
    /// Header and body, without the length.
    pub frame: Bytes,
}

/// What is sent: correlation ids, and who waits for an answer.
///
/// # Invariants
/// Correlation ids ascend, wrapping; answers are accepted in the order of their requests only.
#[derive(Debug)]
pub struct Requests {
    client_id: Option<String>,
    next_correlation_id: i32,
    waiting: VecDeque<i32>,
}

impl Requests {
    /// A connection on which nothing was said yet.
    pub fn new(client_id: Option<String>) -> Self {
        Requests {
            client_id,
            next_correlation_id: 0,
            waiting: VecDeque::new(),
        }
    }

    /// The bytes of a request, to be sent before those of any later one, and its correlation id.
    /// `answered` is false for the one request that gets no answer: Produce with `acks=0`.
    ///
    /// # Errors
    /// [`ClientError::Encode`]; nothing has changed then.
    pub fn send<R: Request>(
        &mut self,
        version: i16,
        request: &R,
        answered: bool,
    ) -> Result<(i32, Vec<Segment>), ClientError> {
        let correlation_id = self.next_correlation_id;
        let client_id = self.client_id.as_deref();
        let segments = encode_request(correlation_id, client_id, version, request)?;
        self.sent(answered);
        Ok((correlation_id, segments))
    }

    /// As [`send`](Requests::send), for a request that Kafka does not have: `body` as it is, behind
    /// a header in version 1.
    ///
    /// # Errors
    /// [`ClientError::Encode`]; nothing has changed then.
    pub fn send_private(
        &mut self,
        api_key: i16,
        api_version: i16,
        body: Bytes,
    ) -> Result<(i32, Vec<Segment>), ClientError> {
        let correlation_id = self.next_correlation_id;
        let header = RequestHeader {
            api_key,
            api_version,
            correlation_id,
            client_id: self.client_id.as_deref().map(Into::into),
            unknown_tags: None,
        };
        let header = header.to_bytes(1)?;
        let length = header.len() + body.len();
        let size = i32::try_from(length).map_err(|_| EncodeError::TooLong { length })?;
        let mut front = BytesMut::with_capacity(SIZE_LEN + header.len());
        front.extend_from_slice(&size.to_be_bytes());
        front.extend_from_slice(&header);
        self.sent(true);
        let segments = vec![Segment::Bytes(front.freeze()), Segment::Bytes(body)];
        Ok((correlation_id, segments))
    }

    fn sent(&mut self, answered: bool) {
        let correlation_id = self.next_correlation_id;
        self.next_correlation_id = correlation_id.wrapping_add(1) & i32::MAX;
        if answered {
            self.waiting.push_back(correlation_id);
        }
    }

    /// Takes note of an answer. It belongs to the request that waits longest.
    ///
    /// # Errors
    /// [`ClientError::OutOfOrder`]: the connection is of no use any more.
    pub fn answered(&mut self, answer: &Answer) -> Result<(), ClientError> {
        let (found, expected) = (answer.correlation_id, self.waiting.front().copied());
        if expected != Some(found) {
            return Err(ClientError::OutOfOrder { found, expected });
        }
        self.waiting.pop_front();
        Ok(())
    }

    /// Requests that wait for their answers.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }
}

/// What is received: answers cut out of a stream of bytes.
#[derive(Debug)]
pub struct Answers {
    incoming: BytesMut,
    frame_bytes_max: usize,
}

impl Answers {
    /// A stream of which nothing was read yet. Answers longer than `frame_bytes_max` end it.
    pub fn new(frame_bytes_max: usize) -> Self {
        Answers {
            incoming: BytesMut::new(),
            frame_bytes_max,
        }
    }

    /// The buffer to read into, with room for at least one byte.
    ///
    /// # Errors
    /// [`ClientError::FrameLength`]: what comes next is no answer.
    pub fn spare(&mut self) -> Result<&mut BytesMut, ClientError> {
        let wanted = match self.pending_len()? {
            None => FIRST_READ_BYTES,
            Some(len) => {
                let missing = (SIZE_LEN + len).saturating_sub(self.incoming.len());
                missing.min(TRUSTED_BYTES.max(self.incoming.len())).max(1)
            }
        };
        self.incoming.reserve(wanted);
        Ok(&mut self.incoming)
    }

    /// The next answer, if all of it is there. It shares the buffer's memory.
    ///
    /// # Errors
    /// [`ClientError::FrameLength`] or [`ClientError::Decode`]: the connection is of no use any
    /// more.
    pub fn next_answer(&mut self) -> Result<Option<Answer>, ClientError> {
        let Some(len) = self.pending_len()? else {
            return Ok(None);
        };
        if self.incoming.len() - SIZE_LEN < len {
            return Ok(None);
        }
        self.incoming.advance(SIZE_LEN);
        let frame = self.incoming.split_to(len).freeze();
        let correlation_id = klamm_protocol::Decoder::new(frame.clone()).i32()?;
        Ok(Some(Answer {
            correlation_id,
            frame,
        }))
    }

    fn pending_len(&self) -> Result<Option<usize>, ClientError> {
        let Some(prefix) = self.incoming.first_chunk::<SIZE_LEN>() else {
            return Ok(None);
        };
        let len = i32::from_be_bytes(*prefix);
        match usize::try_from(len) {
            Ok(bytes) if bytes <= self.frame_bytes_max => Ok(Some(bytes)),
            _ => Err(ClientError::FrameLength {
                len,
                max: self.frame_bytes_max,
            }),
        }
    }
}
