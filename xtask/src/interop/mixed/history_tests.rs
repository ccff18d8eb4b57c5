use super::*;

/// The members' lines, told as they tell them; `killed` is what the runner adds.
fn history(members: &[(&str, &str)], ends: &[i64]) -> Result<Summary> {
    let members = members.iter().map(|(name, lines)| {
        let events =
            lines
                .split(';')
                .map(str::trim)
                .map(|line| match line.strip_suffix(" killed") {
                    Some(at) => Event {
                        at: at.parse().expect("a time"),
                        kind: Kind::Killed,
                    },
                    None => Event::parse(line).expect("a line"),
                });
        (name.to_string(), events.collect())
    });
    check(&members.collect::<Vec<_>>(), ends)
}

fn refused(members: &[(&str, &str)], ends: &[i64], why: &str) {
    let error = history(members, ends).expect_err("this must not pass");
    assert!(error.to_string().contains(why), "{error}");
}

const FIRST: &str =
    "1 assigned 0,1; 2 read 0 0 4; 2 read 1 0 3; 3 committed 0:5,1:4; 3 revoked 0,1";

#[test]
fn partitions_go_from_one_to_the_other() {
    let second = "4 assigned 0; 5 read 0 5 6; 6 committed 0:7; 7 revoked 0; 8 ended";
    let third = "3 assigned 1; 5 read 1 4 4; 5 read 1 5 8; 6 committed 1:9; 9 ended";
    let told = history(&[("a", FIRST), ("b", second), ("c", third)], &[7, 9]);
    let told = told.expect("all is well");
    assert_eq!((told.records, told.tenures, told.read_again), (16, 4, 0));
}

#[test]
fn two_owners_at_a_time_are_found() {
    let second = "2 assigned 1; 5 read 1 4 5; 6 committed 1:6; 9 ended";
    refused(&[("a", FIRST), ("b", second)], &[5, 6], "overlaps");
}

#[test]
fn a_killed_member_may_leave_records_to_be_read_again() {
    let first = "1 assigned 0; 2 read 0 0 4; 3 committed 0:5; 4 read 0 5 9; 5 killed";
    let again = "6 assigned 0; 7 read 0 5 11; 8 committed 0:12; 9 ended";
    let told = history(&[("a", first), ("b", again)], &[12]).expect("all is well");
    assert_eq!(told.read_again, 5);
    let too_many = "6 assigned 0; 7 read 0 4 11; 8 committed 0:12; 9 ended";
    refused(&[("a", first), ("b", too_many)], &[12], "last commit");
    let too_few = "6 assigned 0; 7 read 0 11 11; 8 committed 0:12; 9 ended";
    refused(&[("a", first), ("b", too_few)], &[12], "leaves out");
}

#[test]
fn nothing_comes_again_after_an_orderly_end() {
    let first = "1 assigned 0; 2 read 0 0 4; 3 revoked 0; 9 ended";
    let second = "6 assigned 0; 7 read 0 3 7; 8 committed 0:8; 9 ended";
    refused(&[("a", first), ("b", second)], &[8], "reads again");
    // Unless the last commit was refused.
    let first = "1 assigned 0; 2 read 0 0 4; 3 refused why; 3 revoked 0; 9 ended";
    history(&[("a", first), ("b", second)], &[8]).expect("all is well");
    let first = "1 assigned 0; 2 refused why; 2 read 0 0 4; 3 committed 0:3; 3 revoked 0; 9 ended";
    refused(&[("a", first), ("b", second)], &[8], "reads again");
}

#[test]
fn a_loss_is_heard_of_late() {
    let first = "1 assigned 0; 2 read 0 0 4; 8 lost 0; 9 ended";
    let second = "6 assigned 0; 7 read 0 0 7; 8 committed 0:8; 9 ended";
    let told = history(&[("a", first), ("b", second)], &[8]).expect("all is well");
    assert_eq!((told.lost, told.read_again), (1, 5));
}

#[test]
fn what_is_left_is_found() {
    refused(&[("a", FIRST)], &[5, 5], "ends at 5");
    let uncommitted = "1 assigned 0; 2 read 0 0 4; 3 ended";
    refused(&[("a", uncommitted)], &[5], "committed up to 0");
    refused(&[("a", "1 assigned 0; 2 read 0 0 4")], &[5], "not ended");
}

#[test]
fn a_member_must_own_what_it_reads() {
    refused(
        &[("a", "1 assigned 0; 2 read 1 0 4")],
        &[5, 5],
        "not its own",
    );
    let hole = "1 assigned 0; 2 read 0 0 4; 3 read 0 6 7";
    refused(&[("a", hole)], &[8], "5 is due");
    refused(&[("a", "1 assigned 0; 2 assigned 0")], &[0], "twice");
    refused(
        &[("a", "1 assigned 0; 2 revoked 1")],
        &[0, 0],
        "not its own",
    );
    assert!(Event::parse("5 wrong 0 5 six").is_err());
}
