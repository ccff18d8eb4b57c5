use std::io::{self, IoSlice};
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use klamm_env::{File, FileExt};
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::Part;

/// The most that one `sendfile` call is asked for, so that one connection cannot keep a runtime
/// thread for long.
const SENDFILE_BYTES_MAX: u64 = 1024 * 1024;
/// Cold ranges are read ahead in pieces of this size, on a blocking thread.
const READ_AHEAD_BYTES: u64 = 1024 * 1024;
/// Slices per `writev`.
const GATHER_MAX: usize = 64;

/// Sends `parts` in order and clears the list.
pub(crate) async fn send(stream: &TcpStream, parts: &mut Vec<Part>) -> io::Result<()> {
    let mut gathered: Vec<Bytes> = Vec::new();
    for part in parts.drain(..) {
        match part {
            Part::Bytes(bytes) => gathered.push(bytes),
            Part::File {
                file,
                position,
                len,
            } => {
                send_bytes(stream, &mut gathered).await?;
                send_file(stream, &file, position, len).await?;
            }
        }
    }
    send_bytes(stream, &mut gathered).await
}

async fn send_bytes(stream: &TcpStream, buffers: &mut Vec<Bytes>) -> io::Result<()> {
    let mut first = 0;
    while first < buffers.len() {
        if buffers[first].is_empty() {
            first += 1;
            continue;
        }
        let mut slices = [IoSlice::new(&[]); GATHER_MAX];
        let count = (buffers.len() - first).min(GATHER_MAX);
        for (slice, buffer) in slices.iter_mut().zip(&buffers[first..]) {
            *slice = IoSlice::new(buffer);
        }
        match stream.try_write_vectored(&slices[..count]) {
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
            Err(error) => return Err(error),
        }
    }
    buffers.clear();
    Ok(())
}

async fn send_file(
    stream: &TcpStream,
    file: &Arc<dyn File>,
    mut position: u64,
    mut len: u64,
) -> io::Result<()> {
    while len > 0 {
        let chunk = len.min(READ_AHEAD_BYTES);
        // A page fault inside sendfile would stop every connection of this runtime thread
        // (KAFKA-7504), so a range that is not in memory is first read elsewhere.
        if !file.is_resident(position, chunk)? {
            warm(file.clone(), position, chunk).await?;
        }
        if file.as_fd().is_some() {
            sendfile_range(stream, file, position, chunk).await?;
        } else {
            copy_range(stream, file, position, chunk).await?;
        }
        position += chunk;
        len -= chunk;
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
            let count = usize::try_from(len.min(SENDFILE_BYTES_MAX)).unwrap_or(usize::MAX);
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
    send_bytes(stream, &mut vec![buffer.freeze()]).await
}

/// Brings a range into the page cache on a thread that may wait for the device.
async fn warm(file: Arc<dyn File>, position: u64, len: u64) -> io::Result<()> {
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
    read.await.map_err(io::Error::other)?
}
