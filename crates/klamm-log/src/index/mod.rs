//! The three indexes of a segment.
//!
//! - [`offset`]: from an offset to a position in the log file, one entry about every
//!   `index.interval.bytes`.
//! - [`time`]: from a timestamp to the last offset of the batch that first reached it.
//! - [`txn`]: aborted transactions.
//!
//! The first two are [`SparseIndex`]es: sorted entries of fixed size, of which the newest are in
//! memory until a page is full. They are read with positional reads, one page at a time; nothing
//! is mapped and no descriptor is kept, so that ten thousand idle partitions cost none.

pub(crate) mod offset;
pub(crate) mod sparse;
pub(crate) mod time;
pub(crate) mod txn;

pub(crate) use sparse::SparseIndex;
