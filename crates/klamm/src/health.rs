//! `klamm health`: what a container's health check runs, where there is no shell and no curl.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use crate::failure::Failure;

/// How long the broker may take to connect or to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Succeeds if the broker says that it is ready.
pub(crate) fn ask(address: &str) -> Result<(), Failure> {
    let failed = |source| Failure::NoHealth {
        address: address.to_owned(),
        source,
    };
    let answer = get(address).map_err(failed)?;
    if answer.starts_with("HTTP/1.1 200 ") {
        return Ok(());
    }
    let body = answer
        .split("\r\n\r\n")
        .nth(1)
        .unwrap_or(&answer)
        .trim()
        .to_owned();
    Err(Failure::NotReady {
        address: address.to_owned(),
        answer: body,
    })
}

fn get(address: &str) -> io::Result<String> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for resolved in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&resolved, PATIENCE) {
            Ok(mut stream) => {
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                stream.write_all(b"GET /health HTTP/1.1\r\nhost: klamm\r\n\r\n")?;
                let mut answer = String::new();
                // An answer is a few hundred bytes.
                stream.take(64 * 1024).read_to_string(&mut answer)?;
                return Ok(answer);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}
