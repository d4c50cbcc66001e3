//! The tables of ratios: what each side did in each of its turns, and how they compare.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::machine::Machine;
use super::rows::{Kind, place};
use super::sheet::Named;

/// Least, middle and greatest.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Spread {
    pub(super) min: f64,
    pub(super) median: f64,
    pub(super) max: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let upper = *values.get(values.len() / 2)?;
        let lower = *values.get((values.len() - 1) / 2)?;
        Some(Self {
            min: *values.first()?,
            median: f64::midpoint(lower, upper),
            max: *values.last()?,
        })
    }
}

/// One turn of one side: its rates, and the memory peak.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn {
    pub(super) rate: Spread,
    /// In MiB; nothing where it was not taken.
    pub(super) peak_mib: Option<f64>,
}

impl Turn {
    /// From the seconds of each repetition of `amount` of work.
    pub(super) fn of(seconds: &Value, amount: f64, peak_mib: Option<f64>) -> Option<Self> {
        let seconds = seconds.as_array()?.iter().map(Value::as_f64);
        let rates = seconds.map(|s| s.map(|s| amount / s));
        Some(Self {
            rate: Spread::of(rates.collect::<Option<Vec<_>>>()?)?,
            peak_mib,
        })
    }
}

/// One side over all its turns.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Side {
    #[serde(flatten)]
    pub(super) rate: Spread,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) peak_mib: Option<f64>,
}

impl Side {
    /// Least and greatest of all repetitions, and the median of the turns' medians.
    fn of(turns: &[Turn]) -> Option<Self> {
        let least = turns.iter().map(|t| t.rate.min).reduce(f64::min)?;
        let most = turns.iter().map(|t| t.rate.max).reduce(f64::max)?;
        let middle = Spread::of(turns.iter().map(|t| t.rate.median).collect())?;
        Some(Self {
            rate: Spread {
                min: least,
                median: middle.median,
                max: most,
            },
            peak_mib: turns.iter().filter_map(|t| t.peak_mib).reduce(f64::max),
        })
    }
}

/// The same work on both sides.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) kind: Kind,
    pub(super) name: String,
    /// Unit of the rates.
    pub(super) unit: String,
    pub(super) mixskd: Side,
    pub(super) pytorch: Side,
    /// Of the turns' medians, turn by turn.
    pub(super) ratio: Spread,
    /// The memory layout the peer was run in, the one in which it is faster; of the loader, its workers.
    pub(super) note: String,
}

impl Named for Row {
    fn name(&self) -> &str {
        &self.name
    }
}

impl Row {
    pub(super) fn new(
        kind: Kind,
        name: String,
        unit: &str,
        (ours, theirs): (&[Turn], &[Turn]),
        note: String,
    ) -> Result<Self> {
        const NOTHING: &str = "no turn was measured";
        let pairs = ours.iter().zip(theirs);
        let ratios = pairs.map(|(a, b)| a.rate.median / b.rate.median).collect();
        Ok(Self {
            kind,
            name,
            unit: unit.into(),
            mixskd: Side::of(ours).context(NOTHING)?,
            pytorch: Side::of(theirs).context(NOTHING)?,
            ratio: Spread::of(ratios).context(NOTHING)?,
            note,
        })
    }

    fn cells(&self) -> Vec<String> {
        let mut cells = vec![
            self.name.clone(),
            spread(self.mixskd.rate),
            spread(self.pytorch.rate),
            spread(self.ratio),
        ];
        let memory = |side: &Side| side.peak_mib.map_or("—".into(), |m| format!("{m:.0}"));
        if self.kind.has_memory() {
            cells.push(format!(
                "{} / {}",
                memory(&self.mixskd),
                memory(&self.pytorch)
            ));
        }
        cells.push(self.note.replace('_', " "));
        cells
    }
}

fn spread(s: Spread) -> String {
    format!("{} ({}–{})", digits(s.median), digits(s.min), digits(s.max))
}

/// Three digits of a rate or a ratio.
pub(super) fn digits(value: f64) -> String {
    let decimals = (2.0 - value.abs().max(1e-9).log10().floor()).clamp(0.0, 3.0);
    format!("{value:.*}", decimals as usize)
}

/// The rows as Markdown, a table for each kind of work.
pub(super) fn markdown(machine: Option<&Machine>, rows: &[Row]) -> String {
    let mut text = String::from("# Beside PyTorch\n\n");
    if let Some(machine) = machine {
        text.push_str(&machine.line());
        text.push_str(".\n");
    }
    text += "Written by `cargo xtask bench --peer`: both sides in turn, each turn a process of its own; median (least–greatest), the ratio's\n\
             of the turns' medians. Above 1, mixskd is faster.\n";
    for kind in Kind::ALL {
        let of_kind = rows.iter().filter(|row| row.kind == kind);
        let mut cells = of_kind.map(Row::cells).collect::<Vec<_>>();
        if cells.is_empty() {
            continue;
        }
        let mut head = vec![
            kind.noun().to_string(),
            "mixskd".into(),
            "PyTorch".into(),
            "ratio".into(),
        ];
        if kind.has_memory() {
            head.push("peak MiB, mixskd / PyTorch".into());
        }
        head.push(kind.note().into());
        if let (Kind::Conv, Some(machine)) = (kind, machine) {
            head.push("of the matrix product's rate".into());
            for (cells, row) in cells.iter_mut().zip(rows.iter().filter(|r| r.kind == kind)) {
                let share = |rate: f64| 100.0 * rate / machine.gemm_gflop_per_s;
                cells.push(format!(
                    "{:.0} % / {:.0} %",
                    share(row.mixskd.rate.median),
                    share(row.pytorch.rate.median)
                ));
            }
        }
        text.extend(["\n## ", kind.heading(), "\n\n", &aligned(&head, &cells)]);
    }
    text
}

/// A row's place in the tables.
pub(super) fn order(row: &Row) -> usize {
    place(row.kind, &row.name)
}

/// A Markdown table whose columns line up in plain text, too.
pub(super) fn aligned(head: &[String], rows: &[Vec<String>]) -> String {
    let lines = || std::iter::once(head).chain(rows.iter().map(Vec::as_slice));
    let width = |column: usize| {
        let cells = lines().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths = (0..head.len()).map(width).collect::<Vec<_>>();
    let line = |row: &[String]| {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:width$}"));
        format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
    };
    let rule = widths.iter().map(|width| "-".repeat(width + 2));
    let rule = rule.collect::<Vec<_>>().join("|");
    let body = rows.iter().map(|row| line(row)).collect::<String>();
    format!("{}|{rule}|\n{body}", line(head))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn turn(seconds: &[f64], amount: f64) -> Turn {
        Turn::of(&json!(seconds), amount, Some(100.0)).unwrap()
    }

    #[test]
    fn rates_and_ratios() {
        let ours = [turn(&[1.0, 2.0, 4.0], 8.0), turn(&[2.0], 8.0)];
        let theirs = [turn(&[4.0], 8.0), turn(&[8.0], 8.0)];
        let row = Row::new(
            Kind::Step,
            "row".into(),
            "samples/s",
            (&ours, &theirs),
            "channels_last".into(),
        )
        .unwrap();
        let is = |s: Spread| (s.min, s.median, s.max);
        assert_eq!(is(row.mixskd.rate), (2.0, 4.0, 8.0));
        assert_eq!(is(row.ratio), (2.0, 3.0, 4.0));
        assert_eq!(row.cells()[3], "3.00 (2.00–4.00)");
        assert_eq!(row.cells()[4], "100 / 100");
        let again: Row = serde_json::from_str(&serde_json::to_string(&row).unwrap()).unwrap();
        assert_eq!(again.mixskd, row.mixskd);
        assert!(markdown(None, &[again]).contains("| 3.00 (2.00–4.00) |"));
    }

    #[test]
    fn a_side_without_a_turn_is_an_error() {
        let ours = [turn(&[1.0], 1.0)];
        assert!(Row::new(Kind::Conv, "row".into(), "", (&ours, &[]), String::new()).is_err());
    }

    #[test]
    fn a_table_lines_up() {
        let head = ["a", "b"].map(String::from);
        let rows = [["×", "100"].map(String::from).to_vec()];
        assert_eq!(
            aligned(&head, &rows),
            "| a | b   |\n|---|-----|\n| × | 100 |\n"
        );
    }
}
