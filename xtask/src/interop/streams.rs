//! Kafka Streams with `group.protocol=streams`, on a broker of its own whose groups are told to be
//! quick about it, and then on three.

use super::Run;
use crate::broker::{Broker, Spec};
use crate::report::Outcome;
use crate::runtimes::Java;
use crate::{Result, exactly_once};

impl Run {
    pub(super) fn streams_groups(&mut self) -> Result<()> {
        let three = "streams-groups.three-brokers";
        let only = self.only_of("streams-groups");
        if only.as_ref().is_none_or(|only| !only.starts_with(three)) {
            self.streams_on_one()?;
        }
        if only.is_none_or(|only| only.starts_with(three)) {
            exactly_once::streams_group(self.against, &self.folder, &mut self.report);
        }
        Ok(())
    }

    fn streams_on_one(&mut self) -> Result<()> {
        let java = Java::prepare();
        let spec = Spec::new(self.folder.join("streams-groups"))?
            .with("group.streams.min.heartbeat.interval.ms", 500)
            .with("group.streams.heartbeat.interval.ms", 500)
            .with("group.streams.initial.rebalance.delay.ms", 500)
            .with("group.streams.assignment.interval.ms", 200);
        let mut broker = match Broker::start(self.against, spec) {
            Ok(broker) => broker,
            Err(e) => {
                let outcome = Outcome::Fail(e.to_string());
                self.report.tell("streams-groups.start", outcome, None);
                return Ok(());
            }
        };
        self.java(&java, "streams-groups", &broker, &[]);
        self.report
            .test("streams-groups.ends-cleanly", || broker.stop().map(drop));
        Ok(())
    }
}
