//! Sending answers: memory by `writev`, file ranges by whichever way costs less.
//!
//! A short answer is put together in memory, its file ranges read out of the page cache, and sent
//! by one call: one packet, one wake-up of the client. A long one goes by `sendfile`, the bytes
//! before each range held back until it follows.

use std::io::{self, IoSlice};
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use klamm_env::{File, FileExt};
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::Part;

/// Answers up to this size are put together in memory. Above it, the copy costs more than the
/// calls that it spares.
const ASSEMBLED_BYTES_MAX: u64 = 32 * 1024;
/// Ranges are looked at, and read ahead if they are cold, in pieces of this size. Also the most
/// that one `sendfile` is asked for, so that one connection cannot keep a runtime thread for long.
const PIECE_BYTES: u64 = 1024 * 1024;
/// Slices per call.
const GATHER_MAX: usize = 64;

/// The threads that may read ranges which are not in the page cache; shared by cloning. Whoever
/// finds none free waits without holding a runtime thread.
#[derive(Clone, Debug)]
pub(crate) struct ColdReads(Arc<Semaphore>);

impl ColdReads {
    pub(crate) fn new(threads: usize) -> Self {
        ColdReads(Arc::new(Semaphore::new(threads)))
    }

    /// Brings a range into the page cache on a thread that may wait for the device.
    async fn warm(&self, file: Arc<dyn File>, position: u64, len: u64) -> io::Result<()> {
        let permit = self.0.acquire().await.map_err(io::Error::other)?;
        let read = tokio::task::spawn_blocking(move || {
            let mut buffer = [0; 64 * 1024];
            let end = position + len;
            let mut at = position;
            while at < end {
                let wanted = usize::try_from(end - at)
                    .unwrap_or(usize::MAX)
                    .min(buffer.len());
                match file.read_at(&mut buffer[..wanted], at)? {
                    0 => break,
                    read => at += read as u64,
                }
            }
            Ok(())
        });
        let read = read.await.map_err(io::Error::other)?;
        drop(permit);
        read
    }
}

/// Sends `parts` in order and clears the list.
pub(crate) async fn send(
    stream: &TcpStream,
    parts: &mut Vec<Part>,
    cold: &ColdReads,
) -> io::Result<()> {
    let has_file = parts.iter().any(|part| matches!(part, Part::File { .. }));
    if has_file && parts.iter().map(Part::len).sum::<u64>() <= ASSEMBLED_BYTES_MAX {
        let assembled = assemble(parts, cold).await?;
        return send_bytes(stream, &mut [assembled], SendFlags::empty()).await;
    }
    if let [Part::Bytes(only)] = &mut parts[..] {
        let only = std::mem::take(only);
        parts.clear();
        return send_bytes(stream, &mut [only], SendFlags::empty()).await;
    }
    let mut gathered: Vec<Bytes> = Vec::with_capacity(parts.len());
    for part in parts.drain(..) {
        match part {
            Part::Bytes(bytes) => gathered.push(bytes),
            Part::File {
                file,
                position,
                len,
            } => {
                send_bytes(stream, &mut gathered, SendFlags::MORE).await?;
                gathered.clear();
                send_file(stream, &file, position, len, cold).await?;
            }
        }
    }
    send_bytes(stream, &mut gathered, SendFlags::empty()).await
}

/// Copies everything into one buffer.
async fn assemble(parts: &mut Vec<Part>, cold: &ColdReads) -> io::Result<Bytes> {
    let len = parts.iter().map(Part::len).sum::<u64>() as usize;
    let mut buffer = BytesMut::with_capacity(len);
    for part in parts.drain(..) {
        match part {
            Part::Bytes(bytes) => buffer.extend_from_slice(&bytes),
            Part::File {
                file,
                position,
                len,
            } => {
                let start = buffer.len();
                buffer.resize(start + len as usize, 0);
                let room = &mut buffer[start..];
                if file.read_resident_at(room, position)? != Some(room.len()) {
                    cold.warm(file.clone(), position, len).await?;
                    file.read_exact_at(&mut buffer[start..], position)?;
                }
            }
        }
    }
    Ok(buffer.freeze())
}

/// Sends all of `buffers`, which are used up by it.
async fn send_bytes(stream: &TcpStream, buffers: &mut [Bytes], flags: SendFlags) -> io::Result<()> {
    let mut first = 0;
    while first < buffers.len() {
        if buffers[first].is_empty() {
            first += 1;
            continue;
        }
        match try_send(stream, &buffers[first..], flags) {
            Ok(mut written) => {
                while written > 0 {
                    let step = written.min(buffers[first].len());
                    buffers[first].advance(step);
                    written -= step;
                    if buffers[first].is_empty() {
                        first += 1;
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => stream.writable().await?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn try_send(stream: &TcpStream, buffers: &[Bytes], flags: SendFlags) -> io::Result<usize> {
    let flags = flags | SendFlags::NOSIGNAL;
    stream.try_io(Interest::WRITABLE, || {
        if let [only] = buffers {
            return Ok(rustix::net::send(stream, only, flags)?);
        }
        let mut slices = [IoSlice::new(&[]); GATHER_MAX];
        let count = buffers.len().min(GATHER_MAX);
        for (slice, buffer) in slices.iter_mut().zip(buffers) {
            *slice = IoSlice::new(buffer);
        }
        let mut control = SendAncillaryBuffer::default();
        Ok(sendmsg(stream, &slices[..count], &mut control, flags)?)
    })
}

async fn send_file(
    stream: &TcpStream,
    file: &Arc<dyn File>,
    mut position: u64,
    mut len: u64,
    cold: &ColdReads,
) -> io::Result<()> {
    while len > 0 {
        let piece = len.min(PIECE_BYTES);
        // A page fault inside sendfile would stop every connection of this runtime thread
        // (KAFKA-7504), so a range that is not in memory is first read elsewhere.
        if !file.is_resident(position, piece)? {
            cold.warm(file.clone(), position, piece).await?;
        }
        if file.as_fd().is_some() {
            sendfile_range(stream, file, position, piece).await?;
        } else {
            copy_range(stream, file, position, piece).await?;
        }
        position += piece;
        len -= piece;
    }
    Ok(())
}

async fn sendfile_range(
    stream: &TcpStream,
    file: &Arc<dyn File>,
    mut position: u64,
    mut len: u64,
) -> io::Result<()> {
    while len > 0 {
        let sent = stream.try_io(Interest::WRITABLE, || {
            let fd = file.as_fd().ok_or(io::ErrorKind::Unsupported)?;
            let count = usize::try_from(len).unwrap_or(usize::MAX);
            Ok(rustix::fs::sendfile(
                stream,
                fd,
                Some(&mut { position }),
                count,
            )?)
        });
        match sent {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(sent) => {
                position += sent as u64;
                len -= sent as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => stream.writable().await?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// For files without a descriptor: through a buffer.
async fn copy_range(
    stream: &TcpStream,
    file: &Arc<dyn File>,
    position: u64,
    len: u64,
) -> io::Result<()> {
    let mut buffer =
        BytesMut::zeroed(usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?);
    file.read_exact_at(&mut buffer, position)?;
    send_bytes(stream, &mut [buffer.freeze()], SendFlags::empty()).await
}
