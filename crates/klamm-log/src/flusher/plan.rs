use std::collections::{BTreeMap, VecDeque};

/// Which of several things have work to do, and which are being worked on: in the order of the
/// requests, each by one worker at a time. What is requested while a thing is worked on gets a
/// turn of its own afterwards, since the work at hand may have begun too early to cover it.
///
/// # Invariants
/// - After a request and before the thing is at rest again, a turn begins that began after it.
/// - After [`fail`](WorkPlan::fail) no turn begins.
#[derive(Debug)]
pub struct WorkPlan<K> {
    states: BTreeMap<K, State>,
    queue: VecDeque<K>,
    failed: bool,
}

/// What is not in the map is at rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Queued,
    Running,
    /// Running, and requested again.
    Again,
}

impl<K> Default for WorkPlan<K> {
    fn default() -> Self {
        WorkPlan {
            states: BTreeMap::new(),
            queue: VecDeque::new(),
            failed: false,
        }
    }
}

impl<K: Ord + Clone> WorkPlan<K> {
    /// Asks for work on `key`. Returns whether there is more to begin now than before.
    pub fn request(&mut self, key: K) -> bool {
        if self.failed {
            return false;
        }
        match self.states.get_mut(&key) {
            Some(State::Queued | State::Again) => false,
            Some(running) => {
                *running = State::Again;
                false
            }
            None => {
                self.states.insert(key.clone(), State::Queued);
                self.queue.push_back(key);
                true
            }
        }
    }

    /// The next thing to work on; [`done`](WorkPlan::done) ends its turn.
    pub fn begin(&mut self) -> Option<K> {
        let key = self.queue.pop_front()?;
        self.states.insert(key.clone(), State::Running);
        Some(key)
    }

    /// Ends a turn. Returns whether the thing is queued again.
    pub fn done(&mut self, key: &K) -> bool {
        match self.states.remove(key) {
            Some(State::Again) if !self.failed => {
                self.states.insert(key.clone(), State::Queued);
                self.queue.push_back(key.clone());
                true
            }
            _ => false,
        }
    }

    /// Drops all that is queued, and all requests from now on.
    pub fn fail(&mut self) {
        self.failed = true;
        for key in self.queue.drain(..) {
            self.states.remove(&key);
        }
    }

    /// Whether [`fail`](WorkPlan::fail) was called.
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    /// How many things wait for their turn.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_turn_covers_all_requests_before_it_and_none_after() {
        let mut plan = WorkPlan::default();
        assert!(plan.request('a'));
        assert!(!plan.request('a'));
        assert!(plan.request('b'));
        assert_eq!(plan.begin(), Some('a'));
        // This one may have come too late for the turn at hand.
        assert!(!plan.request('a'));
        assert_eq!(plan.begin(), Some('b'));
        assert_eq!(plan.begin(), None, "a is worked on");
        assert!(plan.done(&'a'));
        assert!(!plan.done(&'b'));
        assert_eq!(plan.begin(), Some('a'));
        assert!(!plan.done(&'a'));
        assert_eq!(plan.begin(), None);
    }

    #[test]
    fn nothing_begins_after_a_failure() {
        let mut plan = WorkPlan::default();
        for key in ['a', 'b'] {
            plan.request(key);
        }
        assert_eq!(plan.begin(), Some('a'));
        plan.request('a');
        plan.fail();
        assert!(!plan.done(&'a'));
        assert!(!plan.request('c'));
        assert_eq!((plan.begin(), plan.queued()), (None, 0));
        assert!(plan.has_failed());
    }
}
