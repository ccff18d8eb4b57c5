//! What no broker on sockets and files can go below: one thread that receives and writes to the
//! page cache, and one that only calls `sendfile`. A process of its own, so that the same account
//! tells its CPU time.

use super::cases::{CPU_IN, CPU_OUT, LARGE, LOAD};
use super::results::Results;
use crate::{Result, cache};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};

const CHUNK: usize = 256 << 10;

/// Both directions, each with `bytes`; their CPU seconds a GB go to the rows of the plainest load.
pub fn measure(bytes: usize, results: &mut Results) -> Result<()> {
    let folder = cache::scratch("bench-floor")?;
    let file = folder.join("floor").display().to_string();
    for (verb, metric) in [("receive", CPU_IN), ("send", CPU_OUT)] {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["bench-floor", verb, &file])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut told = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
        let mut next = || -> Result<u64> { Ok(told.next().ok_or("it ended early")??.parse()?) };
        let mut stream = TcpStream::connect(("127.0.0.1", u16::try_from(next()?)?))?;
        let mut buffer = vec![b'x'; 1 << 20];
        if verb == "receive" {
            let mut left = bytes;
            while left > 0 {
                let n = left.min(buffer.len());
                stream.write_all(&buffer[..n])?;
                left -= n;
            }
            stream.shutdown(std::net::Shutdown::Write)?;
        } else {
            let mut read = 0;
            while let n @ 1.. = stream.read(&mut buffer)? {
                read += n;
            }
            if read != bytes {
                return Err(format!("the floor sent {read} of {bytes} bytes").into());
            }
        }
        let seconds = next()? as f64 / 1e9;
        child.wait()?;
        let per_gb = seconds / (bytes as f64 / 1e9);
        results.add("floor", (LOAD, LARGE), metric, None, per_gb);
    }
    fs::remove_dir_all(folder)?;
    Ok(())
}

/// The process: says its port, serves one connection, says the nanoseconds of CPU it took.
pub fn serve(args: &[String]) -> Result<()> {
    let [verb, path] = args else {
        return Err("bench-floor receive|send FILE".into());
    };
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    println!("{}", listener.local_addr()?.port());
    let (mut stream, _) = listener.accept()?;
    let before = own_nanos()?;
    if verb == "receive" {
        let mut file = File::create(path)?;
        let mut buffer = vec![0; CHUNK];
        while let n @ 1.. = stream.read(&mut buffer)? {
            file.write_all(&buffer[..n])?;
        }
    } else {
        let file = File::open(path)?;
        let (len, mut at) = (file.metadata()?.len(), 0);
        while at < len {
            rustix::fs::sendfile(&stream, &file, Some(&mut at), CHUNK)?;
        }
    }
    println!("{}", own_nanos()? - before);
    Ok(())
}

/// CPU time of the only thread.
fn own_nanos() -> Result<u64> {
    let stat = fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(stat.split(' ').next().unwrap_or_default().parse()?)
}
