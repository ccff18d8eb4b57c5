//! **One history.** Wherever an image of the metadata is seen, at a controller or a broker that
//! follows, before or after a restart: up to the same offset it is the same image, to the byte, with
//! the same epoch. So all of them are of one history, which is only ever added to. Within the life
//! of a process an image never goes back.
//!
//! Source: Raft's state machine safety; KIP-500, KIP-595. Known false positives: none.

use std::collections::BTreeMap;
use std::sync::Arc;

use klamm_metadata::MetadataImage;

use super::super::Violation;

/// How far back images are remembered, in offsets; twice that before any are forgotten.
const REMEMBERED: i64 = 5_000;

/// All images that were ever seen, by offset, but for those that are long gone.
#[derive(Debug, Default)]
pub struct Images {
    seen: BTreeMap<i64, Arc<MetadataImage>>,
    /// How far each process has come.
    positions: BTreeMap<i32, i64>,
}

impl Images {
    /// A process began from nothing.
    pub fn began(&mut self, who: i32) {
        self.positions.remove(&who);
    }

    /// The image that reaches furthest.
    pub fn last(&self) -> Arc<MetadataImage> {
        let last = self.seen.last_key_value();
        last.map_or_else(Arc::default, |(_, image)| Arc::clone(image))
    }

    /// All images behind an offset, each with the one before it.
    pub fn steps_from(
        &self,
        offset: i64,
    ) -> impl Iterator<Item = (&Arc<MetadataImage>, &Arc<MetadataImage>)> {
        let images = self.seen.range(offset..).map(|(_, image)| image);
        images.clone().zip(images.skip(1))
    }

    /// Forgets images far behind an offset: nobody lives for so long that it could hold them all.
    pub fn forget_before(&mut self, offset: i64) {
        let least = offset - REMEMBERED;
        if self
            .seen
            .first_key_value()
            .is_some_and(|(first, _)| *first < 2 * least - offset)
        {
            self.seen = self.seen.split_off(&least);
        }
    }

    /// Checks the property for an image that `who` has got.
    pub fn check(&mut self, who: i32, image: &Arc<MetadataImage>) -> Result<(), Violation> {
        let offset = image.offset();
        if offset < 0 {
            return Ok(());
        }
        let before = self.positions.insert(who, offset);
        if before.is_some_and(|before| offset < before) {
            let detail = format!("{who} goes back from {before:?} to {offset}");
            return Err(Violation::new("history", detail));
        }
        let known = self.seen.entry(offset).or_insert_with(|| Arc::clone(image));
        if Arc::ptr_eq(known, image) || **known == **image {
            return Ok(());
        }
        let detail = format!(
            "{who} has another image at {offset}: {:?} instead of {:?}; {} instead of {} topics",
            image.provenance(),
            known.provenance(),
            image.topics().len(),
            known.topics().len(),
        );
        Err(Violation::new("history", detail))
    }
}
