//! The checks can fail: each mistake, of the log or of its disk, is found within a few seeds.

use std::sync::Arc;

use super::super::lying::{Lies, LyingFs};
use super::super::{Between, honest};
use super::driver::Driver;
use super::subject::Bug;
use super::*;

/// The first violation over some seeds.
fn caught(seeds: u64, between: Between, bug: Bug) -> Option<Violation> {
    (0..seeds).find_map(|seed| {
        let run = Run::new(seed);
        Driver::new(&run, between, bug).and_then(Driver::go).err()
    })
}

#[test]
fn every_bug_is_caught() {
    let bugs = [
        (Bug::FlushesNothing, "recovery"),
        // The producers whose batches were cut off are still known: that is looked at first.
        (Bug::TruncatesNothing, "producers"),
        (Bug::TruncatesTooLittle, "producers"),
        (Bug::ForgetsAborted, "transactions"),
        (Bug::IgnoresTransactions, "transactions"),
        (Bug::TimesAreLate, "times"),
        (Bug::EpochsNeverEnd, "epochs"),
        (Bug::IgnoresSequences, "producers"),
        (Bug::FollowersLoseTails, "follower"),
        (Bug::RetainsTooLittle, "retention"),
        (Bug::ReadsTooFar, "reads"),
        (Bug::NeverExpires, "producers"),
        (Bug::IgnoresConfig, "retention"),
        (Bug::CleansNothing, "compaction"),
        (Bug::TombstonesGoEarly, "compaction"),
    ];
    for (bug, property) in bugs {
        // Another property may see it first; the one that is about it must see it, too.
        let found = (0..120).find(|&seed| {
            let run = Run::new(seed);
            let result = Driver::new(&run, honest, bug).and_then(Driver::go);
            result.is_err_and(|violation| violation.property == property)
        });
        assert!(found.is_some(), "{bug:?} is not caught as {property}");
    }
}

#[test]
fn no_bug_is_found_where_there_is_none() {
    assert_eq!(caught(40, honest, Bug::None), None);
}

#[test]
fn every_lie_of_the_disk_is_caught() {
    fn lying(fs: crate::SimFs, lies: Lies) -> Arc<dyn klamm_env::Fs> {
        Arc::new(LyingFs { fs, lies })
    }
    let liars: [(&str, Between); 7] = [
        ("no sync of files", |fs| {
            let syncs = false;
            lying(
                fs,
                Lies {
                    syncs,
                    ..Lies::NONE
                },
            )
        }),
        ("no sync of names", |fs| {
            let syncs_dirs = false;
            lying(
                fs,
                Lies {
                    syncs_dirs,
                    ..Lies::NONE
                },
            )
        }),
        ("no cut", |fs| {
            let cuts = false;
            lying(fs, Lies { cuts, ..Lies::NONE })
        }),
        ("no transaction index", |fs| {
            let drops = Some(".txnindex");
            lying(
                fs,
                Lies {
                    drops,
                    ..Lies::NONE
                },
            )
        }),
        ("no leader epochs", |fs| {
            let drops = Some("leader-epoch-checkpoint.tmp");
            lying(
                fs,
                Lies {
                    drops,
                    ..Lies::NONE
                },
            )
        }),
        ("no time index", |fs| {
            let drops = Some(".timeindex");
            lying(
                fs,
                Lies {
                    drops,
                    ..Lies::NONE
                },
            )
        }),
        ("a marker of a clean shutdown that stays", |fs| {
            let keeps = Some(".kafka_cleanshutdown");
            lying(
                fs,
                Lies {
                    keeps,
                    ..Lies::NONE
                },
            )
        }),
    ];
    for (lie, between) in liars {
        assert!(
            caught(150, between, Bug::None).is_some(),
            "{lie} is not caught"
        );
    }
}
