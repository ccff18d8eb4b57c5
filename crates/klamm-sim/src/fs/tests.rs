use klamm_env::{FileExt, FsExt};

use super::*;

fn fs(seed: u64) -> SimFs {
    SimFs::new(SimRng::new(seed), SimClock::new(1000), Trace::new())
}

fn p(path: &str) -> &Path {
    Path::new(path)
}

#[test]
fn behaves_as_a_file_system_while_nothing_goes_wrong() {
    let fs = fs(1);
    fs.create_dir_all(p("/a/b")).unwrap();
    let file = fs.open(p("/a/b/f"), OpenMode::CreateNew).unwrap();
    file.write_all_at(b"hello", 3).unwrap();
    assert_eq!(fs.read(p("/a/b/f")).unwrap(), b"\0\0\0hello");
    file.set_len(4).unwrap();
    fs.rename(p("/a/b/f"), p("/a/g")).unwrap();
    assert_eq!(fs.read(p("/a/g")).unwrap(), b"\0\0\0h");
    assert_eq!(file.len().unwrap(), 4);
    fs.hard_link(p("/a/g"), p("/a/h")).unwrap();
    assert_eq!(fs.read_dir(p("/a")).unwrap().len(), 3);
    fs.remove_dir_all(p("/a")).unwrap();
    assert!(!fs.exists(p("/a")).unwrap());
    let error = fs.open(p("/a/g"), OpenMode::Create).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    let lock = fs.lock(p("/lock")).unwrap();
    assert_eq!(
        fs.lock(p("/lock")).unwrap_err().kind(),
        io::ErrorKind::WouldBlock
    );
    drop(lock);
    fs.lock(p("/lock")).unwrap();
}

#[test]
fn what_was_synced_survives_every_crash() {
    for seed in 0..200 {
        let fs = fs(seed);
        fs.create_dir_all(p("/d")).unwrap();
        fs.sync_dir(p("/")).unwrap();
        let file = fs.open(p("/d/f"), OpenMode::Create).unwrap();
        file.write_all_at(&[7; 3000], 0).unwrap();
        file.sync_data().unwrap();
        fs.sync_dir(p("/d")).unwrap();
        file.write_all_at(&[9; 3000], 3000).unwrap();
        fs.crash();
        assert_eq!(fs.read(p("/d/f")).unwrap()[..3000], [7; 3000]);
        assert!(file.read_at(&mut [0], 0).is_err(), "the open file died");
    }
}

/// What may be lost is lost for some seed, and kept for another, and torn for a third.
#[test]
fn what_was_not_synced_may_be_lost_kept_or_torn() {
    let (mut lost, mut kept, mut torn, mut unnamed, mut garbage) = (0, 0, 0, 0, 0);
    for seed in 0..300 {
        let fs = fs(seed);
        let file = fs.open(p("/f"), OpenMode::Create).unwrap();
        if seed % 2 == 0 {
            fs.sync_dir(p("/")).unwrap();
        }
        file.write_all_at(&[7; 2000], 100).unwrap();
        fs.crash();
        match fs.read(p("/f")) {
            Err(_) => unnamed += 1,
            Ok(content) if content.is_empty() => lost += 1,
            Ok(content) if content.len() == 2100 && content[100..] == [7; 2000] => kept += 1,
            Ok(content) if content.iter().any(|byte| ![0, 7].contains(byte)) => garbage += 1,
            Ok(content) => {
                torn += 1;
                let sectors: Vec<&[u8]> = content.chunks(512).collect();
                assert!(
                    sectors[1..]
                        .iter()
                        .all(|sector| sector.iter().all(|&byte| byte == sector[0]))
                );
            }
        }
    }
    assert!(lost > 10 && kept > 10 && torn > 10 && unnamed > 10 && garbage > 3);
}

#[test]
fn an_atomic_replacement_leaves_the_old_or_the_new() {
    let (mut old, mut new) = (0, 0);
    for seed in 0..100 {
        let fs = fs(seed);
        fs.write_atomically(p("/f"), b"old").unwrap();
        fs.power_off_after(seed % 7);
        let done = fs.write_atomically(p("/f"), b"new").is_ok();
        fs.crash();
        match &*fs.read(p("/f")).unwrap() {
            b"old" if !done => old += 1,
            b"new" => new += 1,
            other => panic!("seed {seed}: {other:?}, done {done}"),
        }
    }
    assert!(old > 10 && new > 10);
}

/// The same without the sync before the rename: the checker of a test must be able to fail.
#[test]
fn a_replacement_without_a_sync_is_caught() {
    let broken = |seed| {
        let fs = fs(seed);
        fs.write_atomically(p("/f"), b"old").unwrap();
        let file = fs.open(p("/t"), OpenMode::Truncate).unwrap();
        file.write_all_at(b"new", 0).unwrap();
        fs.rename(p("/t"), p("/f")).unwrap();
        fs.sync_dir(p("/")).unwrap();
        fs.crash();
        fs.read(p("/f")).unwrap() != b"new"
    };
    assert!((0..50).any(broken));
}

#[test]
fn names_that_were_removed_do_not_come_back_once_synced() {
    for seed in 0..100 {
        let fs = fs(seed);
        fs.create_dir_all(p("/a")).unwrap();
        fs.create_dir_all(p("/b")).unwrap();
        fs.sync_dir(p("/")).unwrap();
        fs.open(p("/a/x"), OpenMode::Create).unwrap();
        fs.rename(p("/a/x"), p("/b/y")).unwrap();
        fs.sync_dir(p("/b")).unwrap();
        fs.open(p("/b/z"), OpenMode::Create).unwrap();
        fs.remove_file(p("/b/z")).unwrap();
        fs.sync_dir(p("/b")).unwrap();
        fs.crash();
        assert!(!fs.exists(p("/a/x")).unwrap());
        assert!(fs.exists(p("/b/y")).unwrap());
        assert!(!fs.exists(p("/b/z")).unwrap());
    }
}

#[test]
fn a_failed_sync_loses_what_it_should_have_kept() {
    let fs = fs(3);
    let file = fs.open(p("/f"), OpenMode::Create).unwrap();
    fs.sync_dir(p("/")).unwrap();
    file.write_all_at(b"x", 0).unwrap();
    fs.set_faults(Faults {
        sync_errors: 1_000_000,
        ..Faults::default()
    });
    assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(5));
    fs.set_faults(Faults::default());
    file.sync_data().unwrap();
    assert_eq!(fs.read(p("/f")).unwrap(), b"x");
    fs.crash();
    assert_eq!(fs.read(p("/f")).unwrap(), b"");
}

#[test]
fn faults_fall_short_and_fill_up() {
    let fs = fs(4);
    let file = fs.open(p("/f"), OpenMode::Create).unwrap();
    fs.set_faults(Faults {
        short_writes: 500_000,
        short_reads: 500_000,
        space_bytes: Some(5000),
        ..Faults::default()
    });
    file.write_all_at(&[1; 5000], 0).unwrap();
    let mut content = vec![0; 5000];
    file.read_exact_at(&mut content, 0).unwrap();
    assert_eq!(content, vec![1; 5000]);
    file.write_all_at(&[2; 10], 100).unwrap();
    let error = file.write_all_at(&[1; 10], 5000).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert_eq!(fs.space(p("/")).unwrap().usable_bytes, 0);
}

#[test]
fn rot_and_kill() {
    let fs = fs(5);
    let file = fs.open(p("/f"), OpenMode::Create).unwrap();
    let _lock = fs.lock(p("/lock")).unwrap();
    file.write_all_at(&[0; 10], 0).unwrap();
    fs.rot(p("/f"), 4, 0x80).unwrap();
    fs.kill();
    assert_eq!(fs.read(p("/f")).unwrap()[4], 0x80, "a kill loses nothing");
    fs.lock(p("/lock")).unwrap();
    file.sync_data().unwrap_err();
}

#[test]
fn a_seed_repeats_itself() {
    let run = |seed| {
        let trace = Trace::new();
        let fs = SimFs::new(SimRng::new(seed), SimClock::new(0), trace.clone());
        for round in 0..20 {
            let file = fs
                .open(p(&format!("/{}", round % 3)), OpenMode::Create)
                .unwrap();
            file.write_all_at(&[round; 1500], 0).unwrap();
            if round % 4 == 3 {
                fs.crash();
            }
        }
        trace.hash()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

/// Calls of every kind on two files.
fn many_calls(fs: &SimFs) -> io::Result<()> {
    fs.create_dir_all(p("/d"))?;
    let file = fs.open(p("/d/f"), OpenMode::Create)?;
    file.write_all_at(&[1; 100], 0)?;
    file.len()?;
    file.set_len(50)?;
    file.sync_all()?;
    file.read_exact_at(&mut [0; 50], 0)?;
    fs.metadata(p("/d/f"))?;
    fs.rename(p("/d/f"), p("/d/g"))?;
    fs.hard_link(p("/d/g"), p("/d/h"))?;
    fs.sync_dir(p("/d"))?;
    fs.read_dir(p("/d"))?;
    fs.open(p("/d/g"), OpenMode::Read)?;
    fs.remove_dir_all(p("/d"))
}

#[test]
fn any_call_can_fail() {
    let calls = {
        let fs = fs(6);
        many_calls(&fs).unwrap();
        fs.calls()
    };
    assert!(calls >= 15, "{calls}");
    for call in 0..calls {
        let fs = fs(6);
        fs.fail_after(call, Errno::Io);
        let error = many_calls(&fs).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(5), "call {call}");
        fs.calls();
        let _ = fs.remove_dir_all(p("/d"));
        many_calls(&fs).unwrap();
    }
    let full = (0..calls).filter(|&call| {
        let fs = fs(6);
        fs.fail_after(call, Errno::NoSpace);
        many_calls(&fs).is_err_and(|error| error.kind() == io::ErrorKind::StorageFull)
    });
    assert!(full.count() >= 8, "the next call that needs room fails");
}

#[test]
fn calls_on_names_fail_by_chance() {
    let fs = fs(7);
    fs.set_faults(Faults {
        name_errors: 300_000,
        space_errors: 300_000,
        ..Faults::default()
    });
    let (mut io, mut space) = (0, 0);
    for round in 0..100 {
        match fs.open(p(&format!("/{round}")), OpenMode::Create) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::StorageFull => space += 1,
            Err(_) => io += 1,
        }
    }
    assert!(io > 10 && space > 10, "{io} {space}");
}

#[test]
fn a_failing_write_may_leave_a_part() {
    let left = |seed| {
        let fs = fs(seed);
        let file = fs.open(p("/f"), OpenMode::Create).unwrap();
        fs.fail_after(0, Errno::Io);
        file.write_all_at(&[1; 1000], 0).unwrap_err();
        file.len().unwrap()
    };
    assert!((0..20).any(|seed| left(seed) > 0));
}

/// A file whose length reached the disk and whose content did not.
#[test]
fn a_crash_can_leave_zeros_and_garbage() {
    let (mut zeros, mut garbage) = (0, 0);
    for seed in 0..300 {
        let fs = fs(seed);
        let file = fs.open(p("/f"), OpenMode::Create).unwrap();
        fs.sync_dir(p("/")).unwrap();
        file.write_all_at(&[7; 400], 0).unwrap();
        fs.crash();
        let content = fs.read(p("/f")).unwrap();
        zeros += usize::from(content == [0; 400]);
        garbage += usize::from(content.len() == 400 && content.iter().any(|b| ![0, 7].contains(b)));
    }
    assert!(zeros > 10 && garbage > 3, "{zeros} {garbage}");
}
