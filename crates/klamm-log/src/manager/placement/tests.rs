use super::*;
use crate::manager::tests::{Fixture, create, partition, topic_config};

fn places(manager: &LogManager, topics: &[&str]) -> Vec<usize> {
    let ids: Vec<Uuid> = manager.directories().iter().map(|d| d.id).collect();
    let index = |topic: &&str| {
        let id = manager.directory_of(&partition(topic)).unwrap();
        ids.iter().position(|known| *known == id).unwrap()
    };
    topics.iter().map(index).collect()
}

#[test]
fn new_logs_go_where_there_are_fewest() {
    let f = Fixture::new(3);
    let manager = f.open();
    for topic in ["a", "b", "c", "d"] {
        create(&manager, topic);
    }
    assert_eq!(places(&manager, &["a", "b", "c", "d"]), [0, 1, 2, 0]);
    manager.delete(&partition("c")).unwrap();
    create(&manager, "e");
    assert_eq!(places(&manager, &["e"]), [2]);
    // A log on its way counts, too.
    let ids: Vec<Uuid> = manager.directories().iter().map(|d| d.id).collect();
    manager
        .create_future(&partition("a"), topic_config(), ids[1])
        .unwrap();
    create(&manager, "f");
    assert_eq!(places(&manager, &["f"]), [2]);
    manager.delete_future(&partition("a")).unwrap();
    create(&manager, "g");
    assert_eq!(places(&manager, &["g"]), [1]);
    manager.shutdown(1).unwrap();
    drop(manager);
    // 2, 2, 2 again: the count is taken from what is there.
    let manager = f.open();
    create(&manager, "h");
    create(&manager, "i");
    assert_eq!(places(&manager, &["h", "i"]), [0, 1]);
}

#[test]
fn cordoned_directories_get_no_new_logs_unless_asked_for() {
    let f = Fixture::new(2);
    let manager = f.open();
    let ids: Vec<Uuid> = manager.directories().iter().map(|d| d.id).collect();
    assert!(manager.set_cordoned(|dir| dir == f.dirs[0]));
    assert!(!manager.set_cordoned(|dir| dir == f.dirs[0]), "no news");
    create(&manager, "a");
    create(&manager, "b");
    assert_eq!(places(&manager, &["a", "b"]), [1, 1]);
    manager
        .create(&partition("c"), None, topic_config(), Some(ids[0]))
        .unwrap();
    assert_eq!(places(&manager, &["c"]), [0]);
    let cordoned: Vec<bool> = manager.directories().iter().map(|d| d.cordoned).collect();
    assert_eq!(cordoned, [true, false]);
    // With all of them cordoned the first one takes what comes.
    assert!(manager.set_cordoned(|_| true));
    create(&manager, "d");
    create(&manager, "e");
    assert_eq!(places(&manager, &["d", "e"]), [0, 0]);
    assert!(manager.set_cordoned(|_| false));
    create(&manager, "f");
    assert_eq!(places(&manager, &["f"]), [1]);
}

#[test]
fn a_chosen_directory_goes_before_all_others() {
    let f = Fixture::new(2);
    let manager = f.open();
    let ids: Vec<Uuid> = manager.directories().iter().map(|d| d.id).collect();
    manager.set_preferred_directory(&partition("a"), ids[1]);
    manager
        .create(&partition("a"), None, topic_config(), Some(ids[0]))
        .unwrap();
    assert_eq!(places(&manager, &["a"]), [1]);
    // It was a choice for one log, not for all of that name.
    manager.delete(&partition("a")).unwrap();
    manager
        .create(&partition("a"), None, topic_config(), Some(ids[0]))
        .unwrap();
    assert_eq!(places(&manager, &["a"]), [0]);
}
