//! Share groups on a broker of their own, which is killed in between: what a group is done with is
//! kept, and what was out with a member comes again.

use super::Run;
use crate::Result;
use crate::broker::{Broker, Spec};
use crate::report::Outcome;
use crate::runtimes::Java;

impl Run {
    pub(super) fn share_groups(&mut self) -> Result<()> {
        let java = Java::prepare();
        let spec = Spec::new(self.folder.join("share-groups"))?
            .with("share.coordinator.state.topic.replication.factor", 1)
            .with("share.coordinator.state.topic.min.isr", 1)
            .with("share.coordinator.state.topic.num.partitions", 5);
        let mut broker = match Broker::start(self.against, spec) {
            Ok(broker) => broker,
            Err(e) => {
                let outcome = Outcome::Fail(e.to_string());
                self.report.tell("share-groups.start", outcome, None);
                return Ok(());
            }
        };
        self.java(&java, "share-groups", &broker, &[]);
        if self.only_of("share-groups").is_none() {
            self.report.test("share-groups.restarts", || {
                broker.kill()?;
                broker.start_again().map(drop)
            });
            self.java(&java, "share-restarted", &broker, &[]);
        }
        self.report
            .test("share-groups.ends-cleanly", || broker.stop().map(drop));
        Ok(())
    }
}
