use bytes::buf::Limit;
use bytes::{Buf, BufMut as _, Bytes, BytesMut};

/// Bytes reserved for a frame on the word of its length field. Once as many have come, room is made
/// for all of it at once: what is not touched yet takes no memory, and a buffer that grew bit by bit
/// would be copied time and again, with two of them in memory each time.
const TRUSTED_BYTES: usize = 1024 * 1024;
/// What a connection reads with when it does not know what comes.
const FIRST_READ_BYTES: usize = 4 * 1024;
/// Frames from this size on are read up to their last byte and no further: what came along of the
/// next one would have to be copied to where that one is gathered.
const LARGE_FRAME_BYTES: usize = 64 * 1024;
/// Most that is read in the hope of further small frames.
const AHEAD_BYTES_MAX: usize = 64 * 1024;
/// Most that one read takes, so that one connection cannot keep a thread for long.
const READ_BYTES_MAX: usize = 1024 * 1024;
const LENGTH_BYTES: usize = 4;

/// Why a byte stream cannot be cut into frames. The connection has to be closed: there is no way
/// to find the next frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length field is negative.
    #[error("invalid receive (size = {0})")]
    Negative(i32),
    /// The frame is longer than `socket.request.max.bytes`.
    #[error("invalid receive (size = {len} larger than {max})")]
    TooLong {
        /// What the length field says.
        len: usize,
        /// What is allowed.
        max: usize,
    },
}

/// Cuts a stream of bytes into frames: a big-endian 32-bit length and that many bytes.
#[derive(Debug)]
pub struct FrameReader {
    buffer: BytesMut,
    frame_bytes_max: usize,
    /// Size of the last frame: the next one is likely to be alike.
    last_frame_bytes: usize,
    /// What the next read asks for at least: more than a frame where the client sends one after the
    /// other without waiting, so that one call brings several and one call answers them.
    ahead_bytes: usize,
}

impl FrameReader {
    /// A reader that refuses frames longer than `frame_bytes_max`.
    pub fn new(frame_bytes_max: usize) -> Self {
        FrameReader {
            buffer: BytesMut::new(),
            frame_bytes_max,
            last_frame_bytes: 0,
            ahead_bytes: 0,
        }
    }

    /// The length of the frame whose beginning is buffered, if its length field has arrived.
    ///
    /// # Errors
    /// The length field is negative or above the limit.
    pub fn pending_frame_bytes(&self) -> Result<Option<usize>, FrameError> {
        let Some(prefix) = self.buffer.first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let len = i32::from_be_bytes(*prefix);
        let Ok(len) = usize::try_from(len) else {
            return Err(FrameError::Negative(len));
        };
        if len > self.frame_bytes_max {
            return Err(FrameError::TooLong {
                len,
                max: self.frame_bytes_max,
            });
        }
        Ok(Some(len))
    }

    /// The next frame, if all of it is buffered. It shares the buffer's memory.
    ///
    /// # Errors
    /// As [`FrameReader::pending_frame_bytes`].
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, FrameError> {
        match self.pending_frame_bytes()? {
            Some(len) if self.buffer.len() - LENGTH_BYTES >= len => {
                self.buffer.advance(LENGTH_BYTES);
                self.last_frame_bytes = len;
                Ok(Some(self.buffer.split_to(len).freeze()))
            }
            _ => Ok(None),
        }
    }

    /// The buffer to read into, with room for at least one byte.
    ///
    /// # Errors
    /// As [`FrameReader::pending_frame_bytes`].
    pub fn spare(&mut self) -> Result<Limit<&mut BytesMut>, FrameError> {
        let likely = self.last_frame_bytes;
        let (room, read) = match self.pending_frame_bytes()? {
            Some(len) => {
                let missing = (LENGTH_BYTES + len).saturating_sub(self.buffer.len());
                // A client that has sent as much before is trusted to do so again.
                let proven = self.buffer.len() >= TRUSTED_BYTES;
                let trusted = if proven { len } else { likely };
                let trusted = LENGTH_BYTES + trusted.max(TRUSTED_BYTES);
                let room = trusted.saturating_sub(self.buffer.len());
                let missing = missing.min(room).max(1);
                if len < LARGE_FRAME_BYTES {
                    let wanted = missing.max(FIRST_READ_BYTES).max(self.ahead_bytes);
                    (wanted, wanted)
                } else {
                    (missing, missing.min(READ_BYTES_MAX))
                }
            }
            // The first piece of a large frame tells its length; room for all of it is made at
            // once, and a little more because the next is not exactly like the last.
            None if likely >= LARGE_FRAME_BYTES => (likely + likely / 8, FIRST_READ_BYTES),
            None => {
                let wanted = (LENGTH_BYTES + likely).max(FIRST_READ_BYTES);
                let wanted = wanted.max(self.ahead_bytes);
                (wanted, wanted)
            }
        };
        self.buffer.reserve(room);
        Ok((&mut self.buffer).limit(read))
    }

    /// Notes that a read brought `read` bytes where [`FrameReader::spare`] had room for `room`. One
    /// that fills its room has probably left some, and the next asks for twice as much.
    pub fn note_read(&mut self, read: usize, room: usize) {
        if self.last_frame_bytes >= LARGE_FRAME_BYTES || read <= room / 4 {
            self.ahead_bytes = 0;
        } else if read == room {
            self.ahead_bytes = room.saturating_mul(2).min(AHEAD_BYTES_MAX);
        }
    }

    /// Whether nothing is buffered.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Gives the buffer's memory back, if nothing is buffered.
    pub fn release(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
            self.last_frame_bytes = 0;
            self.ahead_bytes = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader_with(bytes: &[u8]) -> FrameReader {
        let mut reader = FrameReader::new(1000);
        reader.spare().unwrap().put_slice(bytes);
        reader
    }

    #[test]
    fn cuts_frames_wherever_the_reads_end() {
        let stream = [0, 0, 0, 2, b'a', b'b', 0, 0, 0, 0, 0, 0, 0, 1, b'c'];
        for cut in 0..stream.len() {
            let mut reader = FrameReader::new(1000);
            let mut frames = Vec::new();
            for piece in [&stream[..cut], &stream[cut..]] {
                reader.spare().unwrap().put_slice(piece);
                while let Some(frame) = reader.next_frame().unwrap() {
                    frames.push(frame);
                }
            }
            assert_eq!(frames, [&b"ab"[..], b"", b"c"]);
            assert!(reader.is_empty());
        }
    }

    #[test]
    fn a_large_frame_is_read_to_its_end_and_no_further() {
        let frame = vec![7; LARGE_FRAME_BYTES];
        let mut stream = (LARGE_FRAME_BYTES as u32).to_be_bytes().to_vec();
        stream.extend_from_slice(&frame);
        let stream = stream.repeat(3);
        let mut reader = FrameReader::new(1 << 20);
        let (mut sent, mut received) = (0, 0);
        while received < 3 {
            let mut spare = reader.spare().unwrap();
            let step = spare.remaining_mut().min(stream.len() - sent);
            spare.put_slice(&stream[sent..sent + step]);
            sent += step;
            if let Some(got) = reader.next_frame().unwrap() {
                assert_eq!(got, frame);
                assert!(received == 0 || reader.is_empty(), "frame {received}");
                received += 1;
            }
        }
        assert_eq!(sent, stream.len());
    }

    /// Reads once from what the client has sent; returns how many bytes came.
    fn read_once(reader: &mut FrameReader, sent: &mut &[u8]) -> usize {
        let mut spare = reader.spare().unwrap();
        let room = spare.remaining_mut();
        let read = room.min(sent.len());
        spare.put_slice(&sent[..read]);
        *sent = &sent[read..];
        reader.note_read(read, room);
        read
    }

    #[test]
    fn a_client_that_does_not_wait_is_read_ahead() {
        let frame = [&16_000_u32.to_be_bytes()[..], &[7; 16_000]].concat();
        let mut reader = FrameReader::new(1 << 20);
        let stream = frame.repeat(40);
        let (mut sent, mut reads, mut frames) = (&stream[..], 0, 0);
        while frames < 40 {
            assert!(read_once(&mut reader, &mut sent) <= AHEAD_BYTES_MAX);
            reads += 1;
            while let Some(got) = reader.next_frame().unwrap() {
                assert_eq!(got, frame[LENGTH_BYTES..]);
                frames += 1;
            }
        }
        assert!(reads <= 16, "{reads} reads");
        // One that waits for each answer sends less at a time, and its buffer shrinks.
        let ping = [0, 0, 0, 1, 7];
        for _ in 0..2 {
            read_once(&mut reader, &mut &ping[..]);
            assert_eq!(reader.next_frame().unwrap().unwrap(), &ping[LENGTH_BYTES..]);
        }
        assert_eq!(reader.ahead_bytes, 0);
    }

    #[test]
    fn rejects_a_negative_length() {
        assert_eq!(
            reader_with(&[0xff; 4]).next_frame(),
            Err(FrameError::Negative(-1))
        );
    }

    #[test]
    fn rejects_a_frame_over_the_limit() {
        let mut reader = reader_with(&[0, 0, 0x03, 0xe9]);
        assert_eq!(
            reader.next_frame(),
            Err(FrameError::TooLong {
                len: 1001,
                max: 1000
            })
        );
    }

    #[test]
    fn does_not_allocate_on_the_word_of_a_length_field() {
        let mut reader = FrameReader::new(100 << 20);
        let claim = (100_i32 << 20).to_be_bytes();
        reader.spare().unwrap().put_slice(&claim);
        assert!(reader.spare().unwrap().into_inner().capacity() <= 2 * TRUSTED_BYTES);
    }

    #[test]
    fn a_frame_that_is_really_coming_gets_its_room_at_once() {
        let len = 40 << 20;
        let mut reader = FrameReader::new(100 << 20);
        reader
            .spare()
            .unwrap()
            .put_slice(&(len as u32).to_be_bytes());
        let mut rooms = Vec::new();
        while reader.next_frame().unwrap().is_none() {
            let mut spare = reader.spare().unwrap();
            rooms.push(spare.get_ref().capacity());
            let step = spare.remaining_mut().min(256 * 1024);
            spare.put_bytes(7, step);
        }
        rooms.dedup();
        assert_eq!(rooms.len(), 2, "{rooms:?}");
        assert!(rooms[0] <= 2 * TRUSTED_BYTES && rooms[1] < len + 2 * TRUSTED_BYTES);
    }

    #[test]
    fn an_idle_reader_holds_no_memory() {
        let mut reader = reader_with(&[0, 0, 0, 1, 7]);
        reader.next_frame().unwrap();
        reader.release();
        assert_eq!(reader.buffer.capacity(), 0);
    }
}
