//! Results as Markdown.

use super::results::{Goal, Results, Row, Spread};
use crate::Result;
use std::fmt::Write;
use std::fs;
use std::path::Path;

/// What the page holds between these lines is the last run's.
const BEGIN: &str = "<!-- measured: begin -->\n";
const END: &str = "<!-- measured: end -->\n";

/// Puts the tables into the page.
pub fn write(page: &Path, tables: &str) -> Result<()> {
    let text = fs::read_to_string(page)?;
    Ok(fs::write(
        page,
        replaced(&text, tables).ok_or("the page lacks its marks")?,
    )?)
}

fn replaced(page: &str, tables: &str) -> Option<String> {
    let (head, rest) = page.split_once(BEGIN)?;
    let (_, tail) = rest.split_once(END)?;
    Some(format!("{head}{BEGIN}{tables}{END}{tail}"))
}

/// All tables, in the order in which their first rows were measured.
pub fn markdown(results: &Results) -> String {
    let mut out = format!(
        "{}\n\nCommand: `cargo xtask {}`, {} rounds. Median (least–most); the ratio is that of the \
         medians (least–most of a round).\n",
        results.machine, results.command, results.rounds
    );
    let mut tables: Vec<&str> = Vec::new();
    for row in &results.rows {
        if !tables.contains(&row.table.as_str()) {
            tables.push(&row.table);
        }
    }
    for table in tables {
        let rows = results.rows.iter().filter(|r| r.table == table);
        let _ = writeln!(
            out,
            "\n| {table} | Klamm | Kafka | Klamm / Kafka | goal |\n|---|---:|---:|---:|---:|"
        );
        let mut case = "";
        for row in rows {
            // A case's further rows need not repeat its name.
            let name = if row.case == case { "…" } else { &row.case };
            case = &row.case;
            let _ = writeln!(out, "{}", line(name, row));
        }
    }
    derived(results, &mut out);
    if !results.failures.is_empty() {
        out.push_str("\nNot measured:\n\n");
        for failure in &results.failures {
            let _ = writeln!(out, "- {}", failure.lines().next().unwrap_or_default());
        }
    }
    out
}

fn line(name: &str, row: &Row) -> String {
    let cell = |broker: &str| {
        Spread::of(row.of(broker)).map_or("–".into(), |s| format!("{} {}", s.text(), row.unit))
    };
    let ratio = row.ratio("klamm", "kafka");
    let ratio_text = ratio.map_or("–".into(), |r| r.text());
    let ours = Spread::of(row.of("klamm"));
    let goal = match row.goal {
        None => String::new(),
        Some(Goal::OfKafka(most)) => reached(ratio.map(|r| r.median), most, ""),
        Some(Goal::AtMost(most)) => reached(ours.map(|o| o.median), most, &row.unit),
    };
    let (klamm, kafka) = (cell("klamm"), cell("kafka"));
    format!(
        "| {name}: {} | {klamm} | {kafka} | {ratio_text} | {goal} |",
        row.metric
    )
}

fn reached(value: Option<f64>, most: f64, unit: &str) -> String {
    let verdict = match value {
        Some(value) if value <= most => "",
        Some(_) => ", missed",
        None => ", unknown",
    };
    format!("{}{verdict}", format!("≤ {most} {unit}").trim_end())
}

/// What compares Klamm with something else than Kafka: the floor, and itself.
fn derived(results: &Results, out: &mut String) {
    let floors: Vec<&Row> = results
        .rows
        .iter()
        .filter(|r| !r.of("floor").is_empty() && !r.of("klamm").is_empty())
        .collect();
    if !floors.is_empty() {
        out.push_str(
            "\n| Beside the floor (one thread that does nothing else) | Klamm | floor | Klamm / floor | goal |\n\
             |---|---:|---:|---:|---:|\n",
        );
    }
    for row in floors {
        let text = |broker| Spread::of(row.of(broker)).map_or(String::new(), |s| s.text());
        let ratio = row.ratio("klamm", "floor");
        let _ = writeln!(
            out,
            "| {}: {} | {} {u} | {} {u} | {} | {} |",
            row.case,
            row.metric,
            text("klamm"),
            text("floor"),
            ratio.map_or("–".into(), |r| r.text()),
            reached(ratio.map(|r| r.median), 1.25, ""),
            u = row.unit
        );
    }
    let mut durable = String::new();
    for (case, beside) in super::DURABLE_BESIDE {
        for metric in ["produce", "broker CPU in", "produce p50", "produce p99"] {
            let (Some(row), Some(other)) =
                (results.find(case, metric), results.find(beside, metric))
            else {
                continue;
            };
            let (Some(synced), Some(cached)) =
                (Spread::of(row.of("klamm")), Spread::of(other.of("klamm")))
            else {
                continue;
            };
            let _ = writeln!(
                durable,
                "| {case}: {metric} | {} {u} | {} {u} | {:.2} |",
                synced.text(),
                cached.text(),
                synced.median / cached.median,
                u = row.unit
            );
        }
    }
    if !durable.is_empty() {
        out.push_str(
            "\n| Klamm's durable acks | durable | page cache | durable / page cache |\n\
             |---|---:|---:|---:|\n",
        );
        out.push_str(&durable);
    }
}

#[cfg(test)]
mod tests {
    use super::super::results::Metric;
    use super::*;

    #[test]
    fn a_page_keeps_what_is_around_the_tables() {
        let page = format!("before\n{BEGIN}old\n{END}after\n");
        let expected = format!("before\n{BEGIN}new\n{END}after\n");
        assert_eq!(replaced(&page, "new\n"), Some(expected));
        assert_eq!(replaced("no marks", "new"), None);
    }

    #[test]
    fn a_row_tells_ratio_and_goal() {
        let mut results = Results::default();
        let cpu = Metric::less("broker CPU in", "s/GB");
        for (broker, value) in [("klamm", 0.5), ("kafka", 2.0), ("floor", 0.45)] {
            results.add(
                broker,
                ("Load", "1 KB"),
                cpu,
                Some(Goal::OfKafka(0.2)),
                value,
            );
        }
        let text = markdown(&results);
        assert!(
            text.contains("| 1 KB: broker CPU in | 0.50 s/GB | 2.00 s/GB | 0.25 | ≤ 0.2, missed |"),
            "{text}"
        );
        assert!(
            text.contains("| 0.50 s/GB | 0.45 s/GB | 1.11 | ≤ 1.25 |"),
            "{text}"
        );
    }
}
