//! What the members of a group told, and whether it may be: a partition has one owner at a time, each
//! record is read, and read again only where nobody could know that it was.
//!
//! A member owns a partition from the moment it is told of it until it agreed to give it up, was told
//! that it lost it, ended or was killed: a [`Tenure`]. The tenures of a partition, one after the other:
//! - do not overlap, unless the earlier one ended with a loss, of which the owner hears late;
//! - begin where the last commit before them was, or behind it: what was committed does not come again;
//! - begin no later than where reading had come: nothing is left out;
//! - begin exactly there, unless an owner of what comes again was killed, lost the partition, or had
//!   its last commit refused.

use crate::Result;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Assigned(Vec<i32>),
    Revoked(Vec<i32>),
    Lost(Vec<i32>),
    /// Of a partition, from an offset up to and with another.
    Read(i32, i64, i64),
    /// The next offset of each partition.
    Committed(Vec<(i32, i64)>),
    Refused,
    Ended,
    Killed,
}

/// A line of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// By the clock of all of them, in milliseconds.
    pub at: i64,
    pub kind: Kind,
}

impl Event {
    pub fn parse(line: &str) -> Result<Event> {
        let (event, rest) = line.split_once(' ').ok_or("one word only")?;
        let (kind, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        let kind = match kind {
            "assigned" => Kind::Assigned(numbers(rest)?),
            "revoked" => Kind::Revoked(numbers(rest)?),
            "lost" => Kind::Lost(numbers(rest)?),
            "read" => match rest.split(' ').collect::<Vec<_>>()[..] {
                [partition, first, last] => {
                    Kind::Read(partition.parse()?, first.parse()?, last.parse()?)
                }
                _ => return Err(format!("read '{rest}'").into()),
            },
            "committed" => Kind::Committed(offsets(rest)?),
            "refused" => Kind::Refused,
            "ended" => Kind::Ended,
            _ => return Err(format!("'{line}'").into()),
        };
        let at = event.parse()?;
        Ok(Event { at, kind })
    }
}

fn numbers(text: &str) -> Result<Vec<i32>> {
    Ok(text
        .split(',')
        .map(str::parse)
        .collect::<std::result::Result<_, _>>()?)
}

fn offsets(text: &str) -> Result<Vec<(i32, i64)>> {
    let each = text.split(',').map(|pair| {
        let (partition, offset) = pair.split_once(':').ok_or("no offset")?;
        Ok((partition.parse()?, offset.parse()?))
    });
    each.collect()
}

/// How a member came to own a partition no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Close {
    Open,
    GivenUp,
    Lost,
    Killed,
}

/// One member's time with a partition.
#[derive(Debug, Clone)]
struct Tenure {
    member: String,
    from: i64,
    until: i64,
    close: Close,
    /// The first offset it read, and the one behind the last.
    read: Option<(i64, i64)>,
    committed: i64,
    /// Its last commit was refused.
    refused: bool,
}

impl Tenure {
    fn name(&self) -> String {
        let (from, until) = (self.from, self.until);
        let (how, read, committed) = (self.close, self.read, self.committed);
        let member = &self.member;
        format!("{member} ({from} to {until}, {how:?}, read {read:?}, committed {committed})")
    }

    /// Whether what it read last may come to another one, too.
    fn may_repeat(&self) -> bool {
        self.close != Close::GivenUp || self.refused
    }
}

/// What a history amounts to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    pub records: i64,
    /// Times that a partition got an owner.
    pub tenures: usize,
    pub read_again: i64,
    pub refused: usize,
    pub lost: usize,
}

/// Checks the lines of all members of a group, each with its name, against where the partitions end.
pub fn check(members: &[(String, Vec<Event>)], ends: &[i64]) -> Result<Summary> {
    let mut summary = Summary::default();
    let mut of = vec![Vec::new(); ends.len()];
    for (name, events) in members {
        let count = |kind: &dyn Fn(&Kind) -> bool| events.iter().filter(|e| kind(&e.kind)).count();
        summary.refused += count(&|kind| *kind == Kind::Refused);
        summary.lost += count(&|kind| matches!(kind, Kind::Lost(_)));
        live(name, events, &mut of).map_err(|e| format!("{name}: {e}"))?;
    }
    for (partition, (tenures, end)) in of.iter_mut().zip(ends).enumerate() {
        tenures.sort_by_key(|tenure| (tenure.from, tenure.until));
        let again = succeed(tenures, *end).map_err(|e| format!("partition {partition}: {e}"))?;
        summary.read_again += again;
        summary.tenures += tenures.len();
        summary.records += end;
    }
    Ok(summary)
}

/// Goes through one member's lines and adds its tenures to those of each partition.
fn live(name: &str, events: &[Event], of: &mut [Vec<Tenure>]) -> Result<()> {
    let mut open: Vec<Option<Tenure>> = vec![None; of.len()];
    fn slot(open: &mut [Option<Tenure>], partition: i32) -> Result<&mut Option<Tenure>> {
        let place = usize::try_from(partition)
            .ok()
            .and_then(|p| open.get_mut(p));
        place.ok_or_else(|| format!("there is no partition {partition}").into())
    }
    let mut close = |open: &mut [Option<Tenure>], partition, at, close| -> Result<()> {
        let mut tenure = slot(open, partition)?
            .take()
            .ok_or_else(|| format!("{partition} ends at {at}, but was not its own"))?;
        (tenure.until, tenure.close) = (at, close);
        of[partition as usize].push(tenure);
        Ok(())
    };
    for Event { at, kind } in events {
        let end = match kind {
            Kind::Ended => Some(Close::GivenUp),
            Kind::Killed => Some(Close::Killed),
            _ => None,
        };
        if let Some(how) = end {
            for partition in 0..open.len() as i32 {
                if slot(&mut open, partition)?.is_some() {
                    close(&mut open, partition, *at, how)?;
                }
            }
            continue;
        }
        match kind {
            Kind::Assigned(partitions) => {
                for partition in partitions {
                    let own = slot(&mut open, *partition)?;
                    if own.is_some() {
                        return Err(format!("{partition} is assigned twice, at {at}").into());
                    }
                    *own = Some(Tenure {
                        member: name.into(),
                        from: *at,
                        until: i64::MAX,
                        close: Close::Open,
                        read: None,
                        committed: 0,
                        refused: false,
                    });
                }
            }
            Kind::Revoked(partitions) | Kind::Lost(partitions) => {
                let lost = matches!(kind, Kind::Lost(_));
                let how = if lost { Close::Lost } else { Close::GivenUp };
                for partition in partitions {
                    close(&mut open, *partition, *at, how)?;
                }
            }
            Kind::Read(partition, first, last) => {
                let own = slot(&mut open, *partition)?.as_mut();
                let own = own.ok_or_else(|| format!("reads {partition} at {at}, not its own"))?;
                let (begun, next) = own.read.unwrap_or((*first, *first));
                if *first != next {
                    return Err(
                        format!("reads {first} of {partition} at {at}, {next} is due").into(),
                    );
                }
                own.read = Some((begun, last + 1));
            }
            Kind::Committed(offsets) => {
                for (partition, offset) in offsets {
                    // What it no longer owns counts as well, but then it should not have been taken.
                    let own = slot(&mut open, *partition)?.as_mut();
                    let own =
                        own.ok_or_else(|| format!("commits {partition} at {at}, not its own"))?;
                    own.committed = own.committed.max(*offset);
                    own.refused = false;
                }
            }
            Kind::Refused => {
                for own in open.iter_mut().flatten() {
                    own.refused = true;
                }
            }
            Kind::Ended | Kind::Killed => {}
        }
    }
    for (tenures, own) in of.iter_mut().zip(open) {
        tenures.extend(own);
    }
    Ok(())
}

/// Goes through the tenures of one partition, in order; how many records came again.
fn succeed(tenures: &[Tenure], end: i64) -> Result<i64> {
    let (mut committed, mut read, mut again) = (0, 0, 0);
    for (i, tenure) in tenures.iter().enumerate() {
        let before = &tenures[..i];
        let overlaps = |other: &&Tenure| other.until > tenure.from && other.close != Close::Lost;
        if let Some(other) = before.iter().find(overlaps) {
            return Err(format!("{} overlaps {}", other.name(), tenure.name()).into());
        }
        if let Some((first, next)) = tenure.read {
            let name = tenure.name();
            if first < committed {
                return Err(format!("{name} begins before {committed}, the last commit").into());
            }
            if first > read {
                return Err(format!("{name} leaves out what is between {read} and it").into());
            }
            let known = |other: &&Tenure| {
                !other.may_repeat() && other.read.is_some_and(|(_, next)| next > first)
            };
            if let Some(other) = before.iter().find(known) {
                return Err(format!("{name} reads again what {} had", other.name()).into());
            }
            again += (read - first).min(next - first);
            read = read.max(next);
        }
        committed = committed.max(tenure.committed);
    }
    if tenures.iter().any(|tenure| tenure.close == Close::Open) {
        return Err("a member has not ended".into());
    }
    if read != end || committed != end {
        return Err(
            format!("read up to {read}, committed up to {committed}, ends at {end}").into(),
        );
    }
    Ok(again)
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
