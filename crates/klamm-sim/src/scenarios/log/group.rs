//! **Group commit.** A batch below the durable offset is what `acks=all` acknowledges in a topic
//! with `klamm.flush=group`: it must survive a power cut. What the log says of it goes into the
//! model as if a flush had said so, and [`super::durability`] holds the log to it.

use klamm_log::Log;

use super::driver::Driver;

impl Driver<'_> {
    /// Lets the manager's flusher do some of what was asked of it, and notes what is durable.
    pub(super) fn sync_in_the_background(&mut self) {
        let turns = self.rng.index(3);
        let (Some(log), Some(manager)) = (&self.log, &self.manager) else {
            return;
        };
        for _ in 0..turns {
            if !manager.run_sync() {
                break;
            }
        }
        let durable = Log::durable_offset(log);
        let trace = &self.run.trace;
        trace.note(format_args!(
            "durable to {durable} of {}",
            log.log_end_offset()
        ));
        self.model.flushed_to = self.model.flushed_to.max(durable);
    }
}
