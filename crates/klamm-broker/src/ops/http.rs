//! As much of HTTP/1.1 as probes and scrapers need: a GET or HEAD without a body, answered once.
//!
//! Written by hand because that is all there is to it: a full HTTP crate would take longer to
//! compile than the rest of this folder several times over.

/// The most that a request's head may take.
pub(super) const HEAD_MAX: usize = 8 * 1024;

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Response {
    status: &'static str,
    content_type: &'static str,
    body: String,
}

impl Response {
    pub(super) fn new(status: &'static str, content_type: &'static str, body: String) -> Self {
        Response {
            status,
            content_type,
            body,
        }
    }

    pub(super) fn text(status: &'static str, body: &str) -> Self {
        Response::new(status, "text/plain; charset=utf-8", format!("{body}\n"))
    }

    /// The bytes to send; the body stays out of the answer to a HEAD.
    pub(super) fn into_bytes(self, head_only: bool) -> Vec<u8> {
        let Response {
            status,
            content_type,
            body,
        } = self;
        let length = body.len();
        let mut out = format!(
            "HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\
             cache-control: no-store\r\nconnection: close\r\n\r\n"
        );
        if !head_only {
            out.push_str(&body);
        }
        out.into_bytes()
    }
}

/// What a client asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request<'a> {
    /// The path without its query.
    pub(super) path: &'a str,
    /// Whether only the head of the answer is wanted.
    pub(super) head_only: bool,
}

/// How far a request has come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed<'a> {
    /// The head is not complete.
    Incomplete,
    /// Here it is.
    Request(Request<'a>),
    /// This will never be a request we answer; say so instead.
    Refused(Response),
}

/// Reads a request's head out of what has arrived so far.
pub(super) fn parse(received: &[u8]) -> Parsed<'_> {
    let bad = || Parsed::Refused(Response::text("400 Bad Request", "bad request"));
    let ended =
        received.windows(4).any(|w| w == b"\r\n\r\n") || received.windows(2).any(|w| w == b"\n\n");
    if !ended {
        if received.len() >= HEAD_MAX {
            let status = "431 Request Header Fields Too Large";
            return Parsed::Refused(Response::text(status, "request too large"));
        }
        return Parsed::Incomplete;
    }
    let Some(line) = received.split(|b| *b == b'\n').next() else {
        return bad();
    };
    let Ok(line) = std::str::from_utf8(line) else {
        return bad();
    };
    let [method, target, version] = line.trim_end().split(' ').collect::<Vec<_>>()[..] else {
        return bad();
    };
    if !version.starts_with("HTTP/1.") || !target.starts_with('/') {
        return bad();
    }
    let head_only = match method {
        "GET" => false,
        "HEAD" => true,
        _ => {
            let status = "405 Method Not Allowed";
            return Parsed::Refused(Response::text(status, "only GET and HEAD"));
        }
    };
    let path = target.split(['?', '#']).next().unwrap_or(target);
    Parsed::Request(Request { path, head_only })
}
