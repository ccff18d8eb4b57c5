//! One data folder through three brokers: Kafka writes it, Klamm takes it over and adds to it, and
//! Kafka takes it back. Each reads all that was written before it came.

use super::Run;
use crate::Result;
use crate::broker::{Against, Broker, Spec};
use crate::report::Outcome;
use crate::runtimes::Java;

/// Few: the point is that they are there, not how fast.
const RECORDS: usize = 5_000;

/// A stage of the folder's life.
struct Stage {
    name: &'static str,
    broker: Against,
    /// What this broker's clients write.
    client: Option<&'static str>,
}

const STAGES: [Stage; 3] = [
    Stage {
        name: "handover.kafka-begins",
        broker: Against::Kafka,
        client: Some("java"),
    },
    Stage {
        name: "handover.klamm-goes-on",
        broker: Against::Klamm,
        client: Some("librdkafka"),
    },
    Stage {
        name: "handover.kafka-ends",
        broker: Against::Kafka,
        client: None,
    },
];

impl Run {
    pub(super) fn handover(&mut self) -> Result<()> {
        let java = Java::prepare();
        let before = (self.records, std::mem::take(&mut self.wrote));
        self.records = RECORDS;
        // One after the other with the same ports and the same folder.
        let spec = Spec::new(self.folder.join("handover"))?;
        for stage in STAGES {
            self.prefix = Some(stage.name);
            let mut broker = match Broker::start(stage.broker, spec.clone()) {
                Ok(broker) => broker,
                Err(e) => {
                    let start = format!("{}.start", stage.name);
                    self.report.tell(&start, Outcome::Fail(e.to_string()), None);
                    break;
                }
            };
            if !self.wrote.is_empty() {
                let clients = self.wrote.join(",");
                self.java(&java, "cross", &broker, &["--clients", &clients]);
            }
            if let Some(client) = stage.client {
                self.client(client, &java, &broker);
            }
            self.report
                .test(&format!("{}.ends-cleanly", stage.name), || {
                    broker.stop().map(drop)
                });
        }
        self.prefix = None;
        (self.records, self.wrote) = before;
        Ok(())
    }
}
