//! `java.util.PriorityQueue`, as far as the order goes in which it gives equal elements.

/// A binary heap with the least first. Keys are asked for when elements move, as they may have
/// changed in between, which Kafka's assignor takes care not to let matter.
#[derive(Debug)]
pub(super) struct Heap<T> {
    items: Vec<T>,
}

impl<T> Default for Heap<T> {
    fn default() -> Self {
        Heap { items: Vec::new() }
    }
}

impl<T: Copy> Heap<T> {
    /// Adds an element.
    pub(super) fn push<K: PartialOrd>(&mut self, item: T, key: impl Fn(&T) -> K) {
        self.items.push(item);
        let mut at = self.items.len() - 1;
        while at > 0 {
            let parent = (at - 1) / 2;
            if key(&item) >= key(&self.items[parent]) {
                break;
            }
            self.items[at] = self.items[parent];
            at = parent;
        }
        self.items[at] = item;
    }

    /// Takes the least element.
    pub(super) fn pop<K: PartialOrd>(&mut self, key: impl Fn(&T) -> K) -> Option<T> {
        let least = *self.items.first()?;
        let last = self.items.pop()?;
        let len = self.items.len();
        if len == 0 {
            return Some(least);
        }
        let mut at = 0;
        while at < len / 2 {
            let mut child = 2 * at + 1;
            let right = child + 1;
            if right < len && key(&self.items[child]) > key(&self.items[right]) {
                child = right;
            }
            if key(&last) <= key(&self.items[child]) {
                break;
            }
            self.items[at] = self.items[child];
            at = child;
        }
        self.items[at] = last;
        Some(least)
    }
}
