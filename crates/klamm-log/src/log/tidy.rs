//! Listing a directory and finishing what a crash interrupted in it.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use klamm_env::{FsExt, OpenMode};

use crate::error::{IoContext, LogError};
use crate::log::open::LogOpen;
use crate::names::{self, CLEANED_SUFFIX, DELETED_SUFFIX, FileKind, SWAP_SUFFIX};
use crate::segment::{BatchScan, scan};
use crate::storage::LogDir;

/// What lies in a log's directory.
#[derive(Default)]
pub(super) struct Found {
    pub(super) logs: BTreeSet<i64>,
    pub(super) indexes: BTreeSet<(i64, FileKind)>,
    pub(super) snapshots: BTreeSet<i64>,
}

/// Lists a directory and finishes what a crash interrupted: removes files that wait for removal
/// or were half written, and completes the replacement of segments by compacted ones.
pub(super) fn tidy(open: &LogOpen, dir: &Arc<LogDir>) -> Result<Found, LogError> {
    let names = list(dir)?;
    let cleaned_min = names
        .iter()
        .filter_map(|name| names::parse_file_name(name))
        .filter(|&(_, _, tail)| tail == CLEANED_SUFFIX)
        .map(|(offset, ..)| offset)
        .min();
    let (mut swapped, mut unfinished) = (Vec::new(), false);
    for name in &names {
        if let Some((offset, kind, SWAP_SUFFIX)) = names::parse_file_name(name) {
            if cleaned_min.is_some_and(|min| offset >= min) {
                // Part of what did not finish; the original is still there.
                dir.remove_if_exists(&open.dir.join(name))?;
                unfinished = true;
            } else {
                swapped.push((offset, kind));
            }
        }
    }
    if unfinished {
        // Before those by which that can be told.
        dir.fs.sync_dir(&open.dir).at("sync", &open.dir)?;
    }
    for name in &names {
        if let Some((_, _, DELETED_SUFFIX | CLEANED_SUFFIX)) = names::parse_file_name(name) {
            dir.remove_if_exists(&open.dir.join(name))?;
        }
    }
    if !swapped.is_empty() {
        finish_swap(open, dir, &swapped)?;
    }
    let deleted = |name: &String| {
        names::parse_file_name(name).is_some_and(|(_, _, tail)| tail == DELETED_SUFFIX)
    };
    if !open.clean && names.iter().any(deleted) {
        // Their renaming may not be durable, and they must not come back behind what is written
        // in their place.
        dir.fs.sync_dir(&open.dir).at("sync", &open.dir)?;
    }
    let mut found = Found::default();
    let changed = names
        .iter()
        .filter_map(|name| names::parse_file_name(name))
        .any(|(_, _, tail)| !tail.is_empty());
    let names = if changed { list(dir)? } else { names };
    for name in &names {
        match names::parse_file_name(name) {
            Some((offset, FileKind::Log, "")) => {
                found.logs.insert(offset);
            }
            Some((offset, FileKind::Snapshot, "")) => {
                found.snapshots.insert(offset);
            }
            Some((offset, kind, "")) => {
                found.indexes.insert((offset, kind));
            }
            _ => {}
        }
    }
    for &(offset, kind) in &found.indexes {
        if !found.logs.contains(&offset) {
            dir.remove_if_exists(&dir.file(offset, kind))?;
        }
    }
    Ok(found)
}

/// Removes the segments that compacted ones replace and gives these their names.
///
/// The `.log` of a replacement gets its name before its indexes do, together with the removal of
/// what it replaces. So it may have it already while some of the others are still there.
fn finish_swap(
    open: &LogOpen,
    dir: &Arc<LogDir>,
    swapped: &[(i64, FileKind)],
) -> Result<(), LogError> {
    let mut waiting: Option<(i64, i64)> = None;
    let mut replaced = Vec::new();
    for offset in swapped
        .iter()
        .map(|&(offset, _)| offset)
        .collect::<BTreeSet<_>>()
    {
        if swapped.contains(&(offset, FileKind::Log)) {
            let next = next_offset(dir, offset, SWAP_SUFFIX)?;
            let (min, max) = waiting.unwrap_or((offset, next));
            waiting = Some((min.min(offset), max.max(next)));
        } else if dir
            .fs
            .exists(&dir.file(offset, FileKind::Log))
            .at("inspect", &open.dir)?
        {
            replaced.push((offset + 1, next_offset(dir, offset, "")?));
        }
    }
    if let Some((min, _)) = &mut waiting {
        *min = overlapping(dir, *min)?.unwrap_or(*min);
    }
    replaced.extend(waiting);
    for name in list(dir)? {
        if let Some((offset, kind, "")) = names::parse_file_name(&name)
            && kind != FileKind::Snapshot
            && replaced
                .iter()
                .any(|&(min, max)| (min..max).contains(&offset))
        {
            dir.remove_if_exists(&dir.file(offset, kind))?;
        }
    }
    for &(offset, kind) in swapped {
        let from = dir.file_with(offset, kind, SWAP_SUFFIX);
        let to = dir.file(offset, kind);
        dir.fs.rename(&from, &to).at("rename", &from)?;
    }
    dir.fs.sync_dir(&open.dir).at("sync", &open.dir)
}

/// The base offset of a segment below `offset` that reaches beyond: what was split begins there,
/// though the first part need not.
fn overlapping(dir: &LogDir, offset: i64) -> Result<Option<i64>, LogError> {
    let bases = list(dir)?;
    let bases = bases
        .iter()
        .filter_map(|name| match names::parse_file_name(name) {
            Some((base, FileKind::Log, "")) if base < offset => Some(base),
            _ => None,
        });
    match bases.max() {
        Some(base) if next_offset(dir, base, "")? > offset => Ok(Some(base)),
        _ => Ok(None),
    }
}

/// The offset after the last batch of a segment's file.
fn next_offset(dir: &LogDir, offset: i64, suffix: &str) -> Result<i64, LogError> {
    let path = dir.file_with(offset, FileKind::Log, suffix);
    let file = dir.fs.open(&path, OpenMode::Read).at("open", &path)?;
    let len = file.len().at("inspect", &path)?;
    let mut next = offset;
    let mut scan = BatchScan::new(file, path, (0, len), offset, scan::HEADERS);
    while let Some(span) = scan.next_readable()? {
        next = span.meta.next_offset();
    }
    Ok(next)
}

fn list(dir: &LogDir) -> Result<Vec<String>, LogError> {
    let path = dir.path();
    let entries = match dir.fs.read_dir(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        result => result.at("list", &path)?,
    };
    Ok(entries
        .into_iter()
        .filter(|entry| !entry.is_dir)
        .map(|entry| entry.name)
        .collect())
}
