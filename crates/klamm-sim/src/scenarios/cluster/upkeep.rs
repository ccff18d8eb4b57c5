//! What a broker does now and then: flushes, checkpoints, syncs, retention, compaction, and a look
//! for replicas that have fallen behind.

use std::collections::BTreeMap;

use klamm_env::Rng as _;
use klamm_log::{CleanError, Cleaner, CleanerConfig};

use super::node::{Broker, Node, failed};
use super::world::World;

/// Brokers here have little to compact.
const CLEANER: CleanerConfig = CleanerConfig {
    map_bytes: 1 << 12,
    map_load_factor: 0.9,
    io_buffer_bytes: 1 << 14,
};

/// Logs that are compacted at a time, at most.
const ROUNDS_MAX: usize = 20;

/// Goes on until the broker dies.
pub(super) async fn upkeep(world: World, broker: Broker) {
    let timing = world.plan.timing;
    let stretch = u64::from(timing.stretch);
    let lag_max_ms = timing.lag_max_ms.unsigned_abs();
    let [soonest_ms, latest_ms] = match (world.plan.is_durable(), world.plan.long) {
        (true, None) => [10, 10],
        (true, Some(_)) => [10, 100],
        (false, _) => [500, 500],
    };
    let tick_ms = 1_000 * stretch;
    let mut due: BTreeMap<&str, u64> = BTreeMap::from([("tick", tick_ms), ("lag", lag_max_ms / 2)]);
    if world.plan.long.is_some() {
        due.insert("clean", 15 * tick_ms);
    }
    let mut step_ms = soonest_ms;
    loop {
        world.sleep_ms(step_ms).await;
        let passed_ms = step_ms * stretch;
        // Who finds nothing to do looks less often.
        step_ms = latest_ms.min(2 * step_ms);
        while broker.replicas.logs().run_sync() {
            step_ms = soonest_ms;
        }
        for (what, left_ms) in &mut due {
            *left_ms = left_ms.saturating_sub(passed_ms);
            if *left_ms > 0 {
                continue;
            }
            let alive = match *what {
                "tick" => {
                    *left_ms = tick_ms;
                    let offline = !broker.replicas.tick().is_empty();
                    !offline || goes_on(&world, &broker)
                }
                "clean" => {
                    *left_ms = 15 * tick_ms;
                    clean(&world, &broker)
                }
                _ => {
                    *left_ms = lag_max_ms / 2;
                    broker.replicas.check_in_sync_replicas();
                    true
                }
            };
            if !alive {
                return;
            }
        }
    }
}

/// The directory is offline, and the broker with it.
fn goes_on(world: &World, broker: &Broker) -> bool {
    let Some(node) = world.nodes.get(&broker.id) else {
        return true;
    };
    let detail = format!("the directory of {} is offline", broker.id);
    failed(world, broker.id, detail);
    node.die(world, true);
    false
}

/// Compacts what is due; `false` if the broker is dead since.
fn clean(world: &World, broker: &Broker) -> bool {
    let logs = broker.replicas.logs();
    let mut cleaner = Cleaner::new(CLEANER, broker.rng.next_u64());
    for _ in 0..ROUNDS_MAX {
        let round = logs.clean_next(&mut cleaner, &());
        match &round.cleaned {
            Some((partition, Ok(report))) => {
                world.note(format_args!(
                    "{} compacts {partition}: {report:?}",
                    broker.id
                ));
            }
            Some((partition, Err(CleanError::Log(error)))) => {
                let detail = format!("{} cannot compact {partition}: {error}", broker.id);
                failed(world, broker.id, detail);
            }
            _ => {}
        }
        if !round.failed_directories.is_empty() {
            return world.nodes.get(&broker.id).is_none_or(|node: &Node| {
                node.die(world, true);
                false
            });
        }
        if round.cleaned.is_none() {
            break;
        }
    }
    true
}
