//! `cargo xtask bench --compare OLD NEW`: what became faster or slower between two runs.
//!
//! A row counts as changed if its median moved by more than a twentieth and the two runs' values
//! don't overlap; with few rounds on a shared machine nothing less can be told from noise.

use super::results::{Results, Spread};
use crate::Result;

const LEAST: f64 = 0.05;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Same,
    Better,
    Worse,
}

fn verdict(old: &Spread, new: &Spread, more_is_better: bool) -> Verdict {
    let apart = new.min > old.max || new.max < old.min;
    let change = new.median / old.median - 1.0;
    if !apart || change.abs() <= LEAST {
        return Verdict::Same;
    }
    if (change > 0.0) == more_is_better {
        Verdict::Better
    } else {
        Verdict::Worse
    }
}

/// Prints Klamm's rows side by side; an error if any became worse.
pub fn run(old: &str, new: &str) -> Result<()> {
    let (old, new) = (Results::load(old)?, Results::load(new)?);
    println!("| Klamm | before | after | change | |\n|---|---:|---:|---:|---|");
    let mut worse = 0;
    for row in &new.rows {
        let before = old
            .rows
            .iter()
            .find(|r| r.table == row.table && r.case == row.case && r.metric == row.metric);
        let Some(before) = before.and_then(|r| Spread::of(r.of("klamm"))) else {
            continue;
        };
        let Some(after) = Spread::of(row.of("klamm")) else {
            continue;
        };
        let verdict = verdict(&before, &after, row.more_is_better);
        worse += usize::from(verdict == Verdict::Worse);
        let word = match verdict {
            Verdict::Same => "",
            Verdict::Better => "better",
            Verdict::Worse => "**worse**",
        };
        println!(
            "| {}: {} ({}) | {} | {} | {:+.0} % | {word} |",
            row.case,
            row.metric,
            row.unit,
            before.text(),
            after.text(),
            (after.median / before.median - 1.0) * 100.0
        );
    }
    if worse == 0 {
        return Ok(());
    }
    Err(format!("{worse} figures became worse by more than their spread").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_clear_of_the_noise_counts() {
        let spread = |values: &[f64]| Spread::of(values).unwrap();
        let old = spread(&[100.0, 110.0, 105.0]);
        for (new, more, expected) in [
            ([90.0, 80.0, 85.0], true, Verdict::Worse),
            ([90.0, 80.0, 85.0], false, Verdict::Better),
            ([90.0, 101.0, 85.0], true, Verdict::Same),
            ([111.0, 111.0, 110.1], false, Verdict::Worse),
        ] {
            assert_eq!(verdict(&old, &spread(&new), more), expected, "{new:?}");
        }
        let close = spread(&[110.1, 110.2, 109.0]);
        assert_eq!(verdict(&spread(&[108.0]), &close, true), Verdict::Same);
    }
}
