//! What was measured: rows of values, one a round and broker, kept as JSON.

use crate::Result;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// A quantity, with its unit and which way is better.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    pub name: &'static str,
    pub unit: &'static str,
    pub more_is_better: bool,
}

impl Metric {
    pub const fn less(name: &'static str, unit: &'static str) -> Metric {
        Metric {
            name,
            unit,
            more_is_better: false,
        }
    }

    pub const fn more(name: &'static str, unit: &'static str) -> Metric {
        Metric {
            name,
            unit,
            more_is_better: true,
        }
    }
}

/// What a row should reach.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Goal {
    /// At most this part of Kafka's value.
    OfKafka(f64),
    /// At most this, in the row's unit.
    AtMost(f64),
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Row {
    /// The table that the row belongs to.
    pub table: String,
    pub case: String,
    pub metric: String,
    pub unit: String,
    pub more_is_better: bool,
    pub goal: Option<Goal>,
    /// By broker, in the order of the rounds.
    pub values: BTreeMap<String, Vec<f64>>,
}

impl Row {
    pub fn of(&self, broker: &str) -> &[f64] {
        self.values.get(broker).map_or(&[], Vec::as_slice)
    }

    /// Klamm's value through another's: of the medians, and of each round.
    pub fn ratio(&self, klamm: &str, other: &str) -> Option<Spread> {
        let (ours, theirs) = (self.of(klamm), self.of(other));
        let each: Vec<f64> = ours.iter().zip(theirs).map(|(a, b)| a / b).collect();
        let whole = Spread::of(ours)?.median / Spread::of(theirs)?.median;
        let spread = Spread::of(&each)?;
        whole.is_finite().then_some(Spread {
            median: whole,
            ..spread
        })
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Results {
    pub machine: String,
    pub command: String,
    /// Rounds that were finished.
    pub rounds: usize,
    pub rows: Vec<Row>,
    /// What could not be measured, and why.
    pub failures: Vec<String>,
}

impl Results {
    pub fn add(
        &mut self,
        broker: &str,
        (table, case): (&str, &str),
        metric: Metric,
        goal: Option<Goal>,
        value: f64,
    ) {
        let known = self
            .rows
            .iter()
            .position(|r| r.table == table && r.case == case && r.metric == metric.name);
        let row = known.unwrap_or_else(|| {
            self.rows.push(Row {
                table: table.into(),
                case: case.into(),
                metric: metric.name.into(),
                unit: metric.unit.into(),
                more_is_better: metric.more_is_better,
                goal,
                values: BTreeMap::new(),
            });
            self.rows.len() - 1
        });
        let values = &mut self.rows[row].values;
        values.entry(broker.into()).or_default().push(value);
    }

    pub fn find(&self, case: &str, metric: &str) -> Option<&Row> {
        self.rows
            .iter()
            .find(|r| r.case == case && r.metric == metric)
    }

    pub fn save(&self, path: &Path) -> Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        Ok(fs::write(path, serde_json::to_string_pretty(self)? + "\n")?)
    }

    pub fn load(path: &str) -> Result<Results> {
        let text = fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))?;
        serde_json::from_str(&text).map_err(|e| format!("{path}: {e}").into())
    }
}

/// The middle and the ends of some values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
    pub count: usize,
}

impl Spread {
    /// Of what is finite among the values; none of nothing.
    pub fn of(values: &[f64]) -> Option<Spread> {
        let mut sorted: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        };
        Some(Spread {
            median,
            min,
            max,
            count: sorted.len(),
        })
    }

    /// "12.3", or "12.3 (11.9–14.0)" of several, with the digits that the size calls for.
    pub fn text(&self) -> String {
        let digits = digits(self.median);
        if self.count == 1 {
            return format!("{:.digits$}", self.median);
        }
        format!(
            "{:.digits$} ({:.digits$}–{:.digits$})",
            self.median, self.min, self.max
        )
    }
}

/// Digits behind the point that three significant ones need.
pub fn digits(value: f64) -> usize {
    match value.abs() {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 0.1 => 2,
        _ => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_is_that_of_the_finite_values() {
        let spread = Spread::of(&[3.0, f64::NAN, 1.0, 8.0, 2.0]).unwrap();
        assert_eq!((spread.min, spread.median, spread.max), (1.0, 2.5, 8.0));
        assert_eq!(spread.text(), "2.50 (1.00–8.00)");
        assert!(Spread::of(&[f64::NAN]).is_none());
    }

    #[test]
    fn rows_gather_values_by_round_and_survive_the_file() {
        let mut results = Results::default();
        for (klamm, kafka) in [(1.0, 4.0), (2.0, 4.0), (3.0, 4.0)] {
            let cpu = Metric::less("cpu", "s/GB");
            results.add("klamm", ("t", "c"), cpu, None, klamm);
            results.add("kafka", ("t", "c"), cpu, None, kafka);
        }
        assert_eq!(results.rows.len(), 1);
        let ratio = results.rows[0].ratio("klamm", "kafka").unwrap();
        assert_eq!((ratio.min, ratio.median, ratio.max), (0.25, 0.5, 0.75));
        let text = serde_json::to_string(&results).unwrap();
        let again: Results = serde_json::from_str(&text).unwrap();
        assert_eq!(again.rows[0].of("klamm"), [1.0, 2.0, 3.0]);
    }
}
