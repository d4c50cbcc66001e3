//! `cargo xtask bench --growth`: the time of a sample against batch, width and threads.

use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use xshell::Shell;

use super::machine::Machine;
use super::programs::Ours;
use super::rows::named;
use super::sheet::{Named, Sheet};
use super::table::{aligned, digits};
use super::{BenchArgs, Failures};

const BATCHES: [usize; 4] = [16, 32, 64, 128];
const WIDTHS: [&str; 3] = ["0.25", "0.5", "1"];

/// One configuration's cost.
#[derive(Debug, Serialize, Deserialize)]
struct Cost {
    name: String,
    threads: usize,
    width: String,
    batch: usize,
    /// Milliseconds of a step, the median one's, for each original image.
    ms_per_sample: f64,
    /// The same of the fastest step.
    best_ms_per_sample: f64,
    peak_mib: Option<f64>,
}

impl Named for Cost {
    fn name(&self) -> &str {
        &self.name
    }
}

fn name(width: &str, threads: usize, batch: usize) -> String {
    format!("width {width}, threads {threads}, batch {batch}")
}

/// A MixSKD step of CIFAR's ResNet-18, on one thread and on all that were asked for.
pub(super) fn run(sh: &Shell, root: &Path, args: &BenchArgs) -> Result<()> {
    let mut sheet = Sheet::open(args.file(root, "growth.json"), markdown, order)?;
    let ours = Ours::build(sh)?;
    let all = args.threads();
    sheet.on(Machine::measure(sh, &ours, all)?);
    let mut failures = Failures::default();
    for threads in if all > 1 { vec![1, all] } else { vec![1] } {
        for width in WIDTHS {
            for batch in BATCHES {
                let name = name(width, threads, batch);
                if !named(&args.only, &name) || (args.resume && sheet.has(&name)) {
                    continue;
                }
                eprintln!("--- {name}");
                let cost = cost(sh, &ours, (width, threads, batch), name.clone());
                if let Some(cost) = failures.note(&name, cost) {
                    sheet.put(cost)?;
                }
            }
        }
    }
    println!("{}", sheet.markdown());
    failures.into_result()
}

fn cost(
    sh: &Shell,
    ours: &Ours,
    (width, threads, batch): (&str, usize, usize),
    name: String,
) -> Result<Cost> {
    let batch_text = batch.to_string();
    let words = [
        "step",
        "--method",
        "mixskd",
        "--width",
        width,
        "--batch",
        &batch_text,
        "--steps",
        "3",
    ];
    let report = ours.mixskd(sh, threads, &words.map(String::from))?;
    let per_sample = |part: &str| {
        let seconds = report["seconds_per_step"][part].as_f64();
        let seconds = seconds.context("mixskd bench left a figure out")?;
        Ok::<_, anyhow::Error>(1e3 * seconds / batch as f64)
    };
    Ok(Cost {
        name,
        threads,
        width: width.into(),
        batch,
        ms_per_sample: per_sample("median")?,
        best_ms_per_sample: per_sample("min")?,
        peak_mib: report["peak_memory_bytes"]
            .as_f64()
            .map(|bytes| bytes / f64::from(1 << 20)),
    })
}

fn order(cost: &Cost) -> usize {
    let width = WIDTHS.iter().position(|width| *width == cost.width);
    (cost.threads * 100 + width.unwrap_or(99)) * 10_000 + cost.batch
}

fn markdown(machine: Option<&Machine>, rows: &[Cost]) -> String {
    let mut text = String::from("# How the cost of a step grows\n\n");
    if let Some(machine) = machine {
        text.push_str(&machine.line());
        text.push_str(".\n");
    }
    text += "MixSKD step of ResNet-18 (CIFAR), n originals and n mixes, by `cargo xtask bench --growth`: milliseconds per original image\n\
             (median of three steps), and peak memory in MiB.\n\n";
    let mut head = vec!["threads".to_string(), "width".into()];
    head.extend(BATCHES.map(|batch| format!("batch {batch}")));
    let mut lines: Vec<Vec<String>> = vec![];
    for row in rows {
        let key = [row.threads.to_string(), row.width.clone()];
        if lines.last().is_none_or(|line| line[..2] != key) {
            let mut line = key.to_vec();
            line.extend(BATCHES.map(|_| "—".to_string()));
            lines.push(line);
        }
        let column = BATCHES.iter().position(|batch| *batch == row.batch);
        if let (Some(line), Some(column)) = (lines.last_mut(), column) {
            let memory = row.peak_mib.map_or("—".into(), |mib| format!("{mib:.0}"));
            line[2 + column] = format!("{} ({memory})", digits(row.ms_per_sample));
        }
    }
    text + &aligned(&head, &lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_stand_in_their_row_and_column() {
        let cost = |width: &str, batch, ms| Cost {
            name: name(width, 1, batch),
            threads: 1,
            width: width.into(),
            batch,
            ms_per_sample: ms,
            best_ms_per_sample: ms,
            peak_mib: Some(100.0),
        };
        let mut rows = vec![
            cost("1", 16, 4.0),
            cost("0.25", 128, 2.0),
            cost("0.25", 16, 3.0),
        ];
        rows.sort_by_key(order);
        let text = markdown(None, &rows);
        let lines = text.lines().collect::<Vec<_>>();
        let cells = |line: &str| {
            line.split('|')
                .map(|cell| cell.trim().to_string())
                .collect::<Vec<_>>()
        };
        let narrow = cells(lines[lines.len() - 2]);
        assert_eq!(
            narrow[2..7],
            ["0.25", "3.00 (100)", "—", "—", "2.00 (100)"].map(String::from)
        );
        assert_eq!(cells(lines[lines.len() - 1])[3], "4.00 (100)");
    }
}
