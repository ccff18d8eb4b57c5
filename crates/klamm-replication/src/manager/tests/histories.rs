//! Random histories of one partition with a follower: no fetch and no produce sleeps while what it
//! waits for is there, and what consumers read is what was produced.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Event {
    /// Append this many records; wait for all replicas or not.
    Produce {
        count: usize,
        all: bool,
    },
    /// The follower catches up by at most this many records.
    Follow(i64),
    /// A consumer waits from this share of the log on for this many bytes.
    Fetch {
        at: u8,
        min_bytes: i32,
    },
    /// The broker is elected again, or the follower leaves or joins the ISR.
    Metadata {
        in_sync: bool,
    },
    Sleep(u32),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (1_usize..4, any::<bool>()).prop_map(|(count, all)| Event::Produce { count, all }),
        3 => (0_i64..6).prop_map(Event::Follow),
        3 => (any::<u8>(), 1_i32..400).prop_map(|(at, min_bytes)| Event::Fetch { at, min_bytes }),
        1 => any::<bool>().prop_map(|in_sync| Event::Metadata { in_sync }),
        1 => (1_u32..400).prop_map(Event::Sleep),
    ]
}

type Fetching = Pin<Box<dyn Future<Output = Vec<FetchedPartition>>>>;
type Producing = Pin<Box<dyn Future<Output = Vec<ProduceResult>>>>;

struct History {
    broker: Broker,
    follower_end: i64,
    epoch: i32,
    produced: Vec<String>,
    fetches: Vec<(Fetching, i64, i32)>,
    produces: Vec<(Producing, i64)>,
}

impl History {
    fn new() -> Self {
        let mut broker = Broker::new();
        broker.register(OTHER, 9);
        broker.create("t", &[partition(0, &[NODE, OTHER])]);
        broker.follow(0);
        History {
            broker,
            follower_end: 0,
            epoch: 3,
            produced: Vec::new(),
            fetches: Vec::new(),
            produces: Vec::new(),
        }
    }

    fn on(&mut self, event: &Event) {
        match *event {
            Event::Produce { count, all } => {
                let first = self.produced.len();
                let records: Vec<String> = (first..first + count)
                    .map(|number| format!("record {number}"))
                    .collect();
                let texts: Vec<&str> = records.iter().map(String::as_str).collect();
                let pending = self.broker.produce_acks(&texts, if all { -1 } else { 1 });
                self.produced.extend(records);
                let end = self.produced.len() as i64;
                self.produces
                    .push((Box::pin(pending.wait()), if all { end } else { 0 }));
            }
            Event::Follow(by) => {
                let end = self.produced.len() as i64;
                self.follower_end = (self.follower_end + by).min(end);
                self.broker.follow(self.follower_end);
            }
            Event::Fetch { at, min_bytes } => {
                let readable = self.broker.offsets().high_watermark;
                let offset = readable * i64::from(at) / 255;
                let params = FetchParams {
                    min_bytes,
                    ..CONSUMER
                };
                let manager = self.broker.manager.clone();
                let fetch = async move {
                    let wishes = [(t(), wish(offset))];
                    manager.fetch(&params, &wishes).await
                };
                self.fetches.push((Box::pin(fetch), offset, min_bytes));
            }
            Event::Metadata { in_sync } => {
                self.epoch += 1;
                let isr = if in_sync {
                    vec![NODE, OTHER]
                } else {
                    vec![NODE]
                };
                self.broker.change(
                    "t",
                    PartitionRecord {
                        isr,
                        leader_epoch: self.epoch,
                        partition_epoch: self.epoch,
                        ..partition(0, &[NODE, OTHER])
                    },
                );
            }
            Event::Sleep(ms) => self.broker.sleep_ms(ms),
        }
        // As the controller would: every proposal is accepted.
        let proposals = std::mem::take(&mut *lock(&self.broker.sink.0));
        for proposal in proposals {
            self.epoch += 1;
            let isr: Vec<i32> = proposal.isr.iter().map(|member| member.id).collect();
            self.broker.change(
                "t",
                PartitionRecord {
                    isr,
                    leader_epoch: self.epoch,
                    partition_epoch: self.epoch,
                    ..partition(0, &[NODE, OTHER])
                },
            );
        }
    }

    fn check(&mut self) {
        let high_watermark = self.broker.offsets().high_watermark;
        self.produces
            .retain_mut(|(produce, required)| match poll(&mut produce.as_mut()) {
                Poll::Ready(_) => false,
                Poll::Pending => {
                    assert!(*required > high_watermark, "an acknowledged produce sleeps");
                    true
                }
            });
        let mut fetches = std::mem::take(&mut self.fetches);
        fetches.retain_mut(
            |(fetch, offset, min_bytes)| match poll(&mut fetch.as_mut()) {
                Poll::Ready(answers) => {
                    let read = values(&answers[0], *offset);
                    let from = usize::try_from(*offset).unwrap();
                    assert_eq!(read, self.produced[from..from + read.len()]);
                    assert!(
                        *offset + read.len() as i64 <= high_watermark,
                        "uncommitted records"
                    );
                    false
                }
                Poll::Pending => {
                    let readable = self.readable_bytes(*offset);
                    assert!(
                        readable < *min_bytes as usize,
                        "{readable} of {min_bytes} are there"
                    );
                    true
                }
            },
        );
        self.fetches = fetches;
    }

    fn readable_bytes(&self, offset: i64) -> usize {
        let params = FetchParams {
            max_wait_ms: 0,
            ..CONSUMER
        };
        let answers = ready(self.broker.manager.fetch(&params, &[(t(), wish(offset))]));
        answers[0].records.len()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn nobody_sleeps_in_vain(events in prop::collection::vec(event(), 1..60)) {
        let mut history = History::new();
        for event in &events {
            history.on(event);
            history.check();
        }
        history.broker.sleep_ms(60_000);
        history.check();
        prop_assert!(history.fetches.is_empty() && history.produces.is_empty());
        prop_assert_eq!(history.broker.manager.expire(), None);
    }
}
