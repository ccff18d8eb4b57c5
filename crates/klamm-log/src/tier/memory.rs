//! A tier in memory.

use std::collections::BTreeMap;
use std::io;
use std::sync::Mutex;

use klamm_env::FileExt as _;
use klamm_records::Uuid;

use crate::storage::lock;
use crate::tier::{
    IndexKind, RemoteMetadata, RemoteSegment, RemoteSegmentState, RemoteStorage, SegmentData,
    TierError,
};

/// Remote storage and its metadata in memory, for tests; can be made to fail.
#[derive(Debug, Default)]
pub struct MemoryTier {
    content: Mutex<Content>,
}

#[derive(Debug, Default)]
struct Content {
    logs: BTreeMap<[u8; 16], Vec<u8>>,
    indexes: BTreeMap<([u8; 16], IndexKind), Vec<u8>>,
    metadata: BTreeMap<[u8; 16], RemoteSegment>,
    /// Calls that change something and may still succeed before one fails.
    fails_after: Option<u64>,
}

impl Content {
    fn may_change(&mut self) -> Result<(), TierError> {
        match &mut self.fails_after {
            Some(0) => {
                self.fails_after = None;
                let refused = io::Error::other("the tier was told to fail");
                Err(TierError::Failed(Box::new(refused)))
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl MemoryTier {
    /// Lets one call fail: the one after the next `calls` of those that change something. A copy
    /// that fails leaves a part behind.
    pub fn fail_after(&self, calls: u64) {
        lock(&self.content).fails_after = Some(calls);
    }

    /// Segments of which there is data.
    pub fn stored(&self) -> Vec<Uuid> {
        let content = lock(&self.content);
        content
            .logs
            .keys()
            .map(|id| Uuid::from_bytes(*id))
            .collect()
    }
}

impl RemoteStorage for MemoryTier {
    fn copy_segment(&self, segment: &RemoteSegment, data: &SegmentData) -> Result<(), TierError> {
        let mut bytes = vec![0; data.log.len];
        let read = data.log.file.read_exact_at(&mut bytes, data.log.position);
        read.map_err(|error| TierError::Failed(Box::new(error)))?;
        let mut content = lock(&self.content);
        let id = *segment.id.as_bytes();
        if let Err(error) = content.may_change() {
            bytes.truncate(bytes.len() / 2);
            content.logs.insert(id, bytes);
            return Err(error);
        }
        content.logs.insert(id, bytes);
        for (kind, bytes) in &data.indexes {
            content.indexes.insert((id, *kind), bytes.clone());
        }
        Ok(())
    }

    fn fetch_segment(
        &self,
        segment: &RemoteSegment,
        from: u64,
        to: u64,
    ) -> Result<Vec<u8>, TierError> {
        let content = lock(&self.content);
        let log = content.logs.get(segment.id.as_bytes());
        let log = log.ok_or(TierError::NotFound(segment.id))?;
        let at = |position: u64| {
            usize::try_from(position)
                .unwrap_or(usize::MAX)
                .min(log.len())
        };
        Ok(log[at(from)..at(to.max(from))].to_vec())
    }

    fn fetch_index(&self, segment: &RemoteSegment, kind: IndexKind) -> Result<Vec<u8>, TierError> {
        let content = lock(&self.content);
        let index = content.indexes.get(&(*segment.id.as_bytes(), kind));
        index.cloned().ok_or(TierError::NotFound(segment.id))
    }

    fn delete_segment(&self, segment: &RemoteSegment) -> Result<(), TierError> {
        let mut content = lock(&self.content);
        content.may_change()?;
        let id = *segment.id.as_bytes();
        content.logs.remove(&id);
        content.indexes.retain(|(of, _), _| *of != id);
        Ok(())
    }
}

impl RemoteMetadata for MemoryTier {
    fn put(&self, segment: &RemoteSegment) -> Result<(), TierError> {
        let mut content = lock(&self.content);
        content.may_change()?;
        let id = *segment.id.as_bytes();
        if segment.state == RemoteSegmentState::DeleteFinished {
            content.metadata.remove(&id);
        } else {
            content.metadata.insert(id, segment.clone());
        }
        Ok(())
    }

    fn list(&self) -> Result<Vec<RemoteSegment>, TierError> {
        Ok(lock(&self.content).metadata.values().cloned().collect())
    }
}
