//! The timer task under tokio's virtual time.

use super::*;

/// Tokio's clock, which jumps ahead when every task sleeps.
#[derive(Debug)]
struct TokioClock(tokio::time::Instant);

impl klamm_env::Clock for TokioClock {
    fn wall_ms(&self) -> i64 {
        START_MS + self.monotonic().as_millis() as i64
    }

    fn monotonic(&self) -> Duration {
        tokio::time::Instant::now() - self.0
    }
}

fn manager(dir: &std::path::Path) -> ReplicaManager {
    let env = Env {
        clock: Arc::new(TokioClock(tokio::time::Instant::now())),
        rng: Arc::new(SplitMix64::new(7)),
        fs: Arc::new(OsFs),
    };
    let config = LogManagerConfig::new(vec![dir.to_owned()], "cluster", NODE);
    let logs = LogManager::open(config, env.clone(), |_| LogConfig::default()).unwrap();
    let sink = Arc::new(Sink::default());
    ReplicaManager::new(ReplicaManagerConfig::new(NODE), Arc::new(logs), sink, env)
}

#[tokio::test(start_paused = true)]
async fn the_timer_task_ends_waits_in_the_order_of_their_deadlines() {
    let dir = tempfile::tempdir().unwrap();
    let manager = manager(dir.path());
    let records: [MetadataRecord; 2] = [
        TopicRecord {
            name: "t".into(),
            topic_id: id("t"),
            ..TopicRecord::default()
        }
        .into(),
        PartitionRecord {
            topic_id: id("t"),
            ..partition(0, &[NODE])
        }
        .into(),
    ];
    let mut delta = MetadataDelta::new(Arc::default());
    for record in &records {
        delta.replay(record).unwrap();
    }
    let image = delta.finish(Provenance::EMPTY);
    manager.apply_metadata(&delta, &image, &|_| TopicSettings::default());

    let wait = async |max_wait_ms| {
        let params = FetchParams {
            max_wait_ms,
            ..CONSUMER
        };
        let began = tokio::time::Instant::now();
        manager.fetch(&params, &[(t(), wish(0))]).await;
        began.elapsed().as_millis()
    };
    let later_then_earlier = async {
        let later = wait(5_000);
        let earlier = async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            wait(100).await
        };
        tokio::join!(later, earlier)
    };
    let timer = manager.clone().run_timer();
    tokio::select! {
        () = timer => unreachable!("the timer never ends"),
        (later, earlier) = later_then_earlier => {
            assert!((100..110).contains(&earlier), "{earlier} ms");
            assert!((5_000..5_010).contains(&later), "{later} ms");
        }
    }
}
