//! Text that shares its memory with the frame it came in.

use std::borrow::{Borrow, Cow};
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

use bytes::Bytes;

/// UTF-8 text in a [`Bytes`]: cloning and slicing a frame into strings copies nothing.
///
/// A `ByteStr` read from a frame keeps the whole frame in memory. State that outlives its request
/// should hold a copy: [`ByteStr::detached`], `String` or `Arc<str>`.
#[derive(Clone, Default)]
pub struct ByteStr(Bytes);

impl ByteStr {
    /// The empty text.
    pub const EMPTY: ByteStr = ByteStr(Bytes::new());

    /// Text that lives as long as the program.
    pub const fn from_static(text: &'static str) -> ByteStr {
        ByteStr(Bytes::from_static(text.as_bytes()))
    }

    /// Takes bytes as text. Like Java, which reads names so, it puts U+FFFD in the place of what
    /// is not UTF-8; only then it copies.
    pub fn from_utf8_lossy(bytes: Bytes) -> ByteStr {
        match String::from_utf8_lossy(&bytes) {
            Cow::Borrowed(_) => ByteStr(bytes),
            Cow::Owned(text) => ByteStr::from(text),
        }
    }

    /// The text.
    #[expect(
        unsafe_code,
        reason = "checked when built; checking again costs on every access"
    )]
    pub fn as_str(&self) -> &str {
        // SAFETY: every constructor takes a `str` or checks, and `Bytes` never changes.
        unsafe { std::str::from_utf8_unchecked(&self.0) }
    }

    /// The bytes of the text.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// The same text in memory of its own, no longer holding on to a frame.
    #[must_use]
    pub fn detached(&self) -> ByteStr {
        ByteStr(Bytes::copy_from_slice(&self.0))
    }
}

impl Deref for ByteStr {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for ByteStr {
    fn as_ref(&self) -> &str {
        self
    }
}

impl Borrow<str> for ByteStr {
    fn borrow(&self) -> &str {
        self
    }
}

impl From<&str> for ByteStr {
    fn from(text: &str) -> ByteStr {
        ByteStr(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<String> for ByteStr {
    fn from(text: String) -> ByteStr {
        ByteStr(Bytes::from(text))
    }
}

impl From<&String> for ByteStr {
    fn from(text: &String) -> ByteStr {
        ByteStr::from(text.as_str())
    }
}

impl From<ByteStr> for String {
    fn from(text: ByteStr) -> String {
        text.as_str().to_owned()
    }
}

impl From<ByteStr> for Bytes {
    fn from(text: ByteStr) -> Bytes {
        text.0
    }
}

impl PartialEq for ByteStr {
    fn eq(&self, other: &ByteStr) -> bool {
        self.0 == other.0
    }
}

impl Eq for ByteStr {}

impl PartialEq<str> for ByteStr {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for ByteStr {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl PartialEq<String> for ByteStr {
    fn eq(&self, other: &String) -> bool {
        self.as_str() == other
    }
}

impl PartialOrd for ByteStr {
    fn partial_cmp(&self, other: &ByteStr) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ByteStr {
    fn cmp(&self, other: &ByteStr) -> Ordering {
        self.0.cmp(&other.0)
    }
}

impl Hash for ByteStr {
    /// As `str` hashes, so that a map keyed by `ByteStr` can be asked with a `&str`.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl fmt::Debug for ByteStr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for ByteStr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.as_str(), f)
    }
}
