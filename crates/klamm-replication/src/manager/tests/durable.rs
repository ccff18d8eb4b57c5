//! What is acknowledged, and shown to consumers, where only what is on disk counts.

use super::*;

fn with_settings(change: impl Fn(&mut TopicSettings)) -> Broker {
    let mut broker = Broker::new();
    change(&mut broker.settings);
    broker.create("t", &[partition(0, &[NODE])]);
    broker
}

fn grouped() -> Broker {
    with_settings(|settings| settings.log.group_sync = true)
}

/// Does all background work there is.
fn sync(broker: &Broker) {
    while broker.manager.logs().run_sync() {}
}

#[test]
fn acks_all_waits_for_the_disk_and_consumers_see_nothing_before() {
    let broker = grouped();
    let first = broker.produce_acks(&["a"], -1);
    let second = broker.produce_acks(&["b", "c"], -1);
    assert!(!first.is_ready() && !second.is_ready());
    assert_eq!(broker.offsets().high_watermark, 0);
    // The leader alone answers from the page cache.
    assert_eq!(broker.produce(&["d"]).error, ErrorCode::None);
    sync(&broker);
    assert!(first.is_ready() && second.is_ready());
    assert_eq!(ready(second.wait())[0].base_offset, 1);
    assert_eq!(ready(first.wait())[0].error, ErrorCode::None);
    assert_eq!(broker.offsets().high_watermark, 4);
}

#[test]
fn followers_count_too() {
    let mut broker = grouped();
    broker.create("u", &[]);
    broker.change(
        "t",
        PartitionRecord {
            partition_epoch: 4,
            ..partition(0, &[NODE, OTHER])
        },
    );
    let pending = broker.produce_acks(&["a"], -1);
    broker.register(OTHER, 9);
    broker.follow(0);
    broker.follow(1);
    assert!(
        !pending.is_ready(),
        "the follower has it, but this disk does not"
    );
    sync(&broker);
    assert!(pending.is_ready());
}

#[test]
fn a_failed_sync_acknowledges_nothing() {
    let broker = grouped();
    let pending = broker.produce_acks(&["a"], -1);
    let log = broker.manager.logs().logs().remove(0);
    log.set_offline();
    sync(&broker);
    assert!(!pending.is_ready());
    assert_eq!(broker.offsets().high_watermark, 0);
    // The next round of upkeep takes the directory offline and tells who waits.
    assert_eq!(broker.manager.tick().len(), 1);
    assert!(pending.is_ready());
    assert_ne!(ready(pending.wait())[0].error, ErrorCode::None);
}

#[test]
fn the_setting_holds_from_the_moment_it_is_changed() {
    let mut broker = Broker::with_topic();
    assert!(broker.produce_acks(&["a"], -1).is_ready());
    broker.settings.log.group_sync = true;
    broker.change(
        "t",
        PartitionRecord {
            partition_epoch: 4,
            ..partition(0, &[NODE])
        },
    );
    let partition = broker.manager.find("t", 0).unwrap();
    partition.configure(&broker.settings, START_MS);
    let pending = broker.produce_acks(&["b"], -1);
    assert!(!pending.is_ready());
    assert_eq!(broker.offsets().high_watermark, 1, "it never goes back");
    broker.settings.log.group_sync = false;
    partition.configure(&broker.settings, START_MS);
    assert!(pending.is_ready(), "the page cache is good enough again");
}

#[test]
fn what_a_killed_process_left_is_synced_before_it_counts() {
    let broker = grouped();
    broker.produce(&["a", "b"]);
    let Broker {
        dir,
        clock,
        sink,
        image,
        settings,
        manager,
        ..
    } = broker;
    drop(manager);
    let manager = start(NODE, vec![dir.path().join("data")], &clock, &sink);
    let delta = MetadataDelta::from_nothing(&image);
    manager.apply_metadata(&delta, &image, &|_| settings.clone());
    let offsets = manager.offsets("t", 0).unwrap();
    assert_eq!((offsets.high_watermark, offsets.log_end_offset), (0, 2));
    while manager.logs().run_sync() {}
    assert_eq!(manager.offsets("t", 0).unwrap().high_watermark, 2);
}

#[test]
fn flush_messages_holds_back_the_requests_that_the_count_falls_on() {
    let broker = with_settings(|settings| settings.log.flush_messages = 3);
    assert!(broker.produce_acks(&["a"], 1).is_ready());
    assert!(broker.produce_acks(&["b"], -1).is_ready());
    let one = broker.produce_acks(&["c"], 1);
    let all = broker.produce_acks(&["d"], -1);
    assert!(broker.produce_acks(&["e"], 0).is_ready());
    assert!(!one.is_ready() && !all.is_ready());
    assert_eq!(broker.offsets().high_watermark, 5);
    sync(&broker);
    assert!(one.is_ready() && all.is_ready());
    assert_eq!(ready(all.wait())[0].error, ErrorCode::None);
}

#[test]
fn with_flush_messages_1_nothing_is_seen_before_it_is_on_disk() {
    let broker = with_settings(|settings| settings.log.flush_messages = 1);
    let one = broker.produce_acks(&["a"], 1);
    assert!(!one.is_ready());
    assert_eq!(broker.offsets().high_watermark, 0);
    sync(&broker);
    assert!(one.is_ready());
    assert_eq!(broker.offsets().high_watermark, 1);
}

#[test]
fn those_who_wait_for_the_disk_hear_that_the_leader_is_another() {
    let mut broker = with_settings(|settings| settings.log.flush_messages = 1);
    let pending = broker.produce_acks(&["a"], 1);
    broker.change(
        "t",
        PartitionRecord {
            leader: OTHER,
            leader_epoch: 4,
            partition_epoch: 4,
            ..partition(0, &[NODE, OTHER])
        },
    );
    assert!(pending.is_ready());
    assert_eq!(
        ready(pending.wait())[0].error,
        ErrorCode::NotLeaderOrFollower
    );
}
