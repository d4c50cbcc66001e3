//! `cargo xtask bench --peer`: both sides in turn, A B A B.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;
use xshell::Shell;

use super::machine::Machine;
use super::programs::{Ours, peer};
use super::rows::{
    CONVOLUTIONS, Kind, NETWORKS, NetworkRow, PASSES, ZOO, loader_name, pass_name, wanted,
};
use super::sheet::Sheet;
use super::table::{Row, Spread, Turn, markdown, order};
use super::{BenchArgs, Failures};
use crate::python::TORCH;

/// What a row needs to be measured.
struct Sides<'a> {
    sh: &'a Shell,
    ours: &'a Ours,
    python: &'a Path,
    args: &'a BenchArgs,
    threads: usize,
}

pub(super) fn run(sh: &Shell, root: &Path, args: &BenchArgs) -> Result<()> {
    let mut sheet = Sheet::open(args.file(root, "peer.json"), markdown, order)?;
    let ours = Ours::build(sh)?;
    let python = args.python.interpreter(sh, root, &TORCH)?;
    let threads = args.threads();
    sheet.on(Machine::measure(sh, &ours, threads)?);
    let sides = Sides {
        sh,
        ours: &ours,
        python: &python,
        args,
        threads,
    };
    let mut failures = Failures::default();
    let asked = |kind: Kind, name: &str, sheet: &Sheet<Row>| {
        let asked = wanted(&args.only, kind, name) && !(args.resume && sheet.has(name));
        if asked {
            eprintln!("--- {name}");
        }
        asked
    };
    for row in NETWORKS {
        if asked(row.kind, row.name, &sheet)
            && let Some(row) = failures.note(row.name, sides.network(row))
        {
            sheet.put(row)?;
        }
    }
    for (name, shape) in CONVOLUTIONS {
        let done = PASSES
            .iter()
            .all(|(_, pass)| sheet.has(&pass_name(name, pass)));
        if (args.resume && done) || !asked(Kind::Conv, name, &sheet) {
            continue;
        }
        let rows = failures.note(name, sides.convolution(name, shape));
        for row in rows.into_iter().flatten() {
            sheet.put(row)?;
        }
    }
    for (name, side) in ZOO {
        if asked(Kind::Zoo, name, &sheet)
            && let Some(row) = failures.note(name, sides.zoo(name, *side))
        {
            sheet.put(row)?;
        }
    }
    let name = loader_name(args.data.as_deref());
    if asked(Kind::Loader, name, &sheet)
        && let Some(row) = failures.note(name, sides.loader(name))
    {
        sheet.put(row)?;
    }
    println!("{}", sheet.markdown());
    failures.into_result()
}

/// Images of a step of the networks' table.
const ZOO_BATCH: usize = 16;

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

/// What `mixskd bench --json` says of a turn.
fn own_turn(report: &Value) -> Option<Turn> {
    let rate = &report["samples_per_s"];
    Some(Turn {
        rate: Spread {
            min: rate["min"].as_f64()?,
            median: rate["median"].as_f64()?,
            max: rate["max"].as_f64()?,
        },
        peak_mib: report["peak_memory_bytes"]
            .as_f64()
            .map(|bytes| bytes / f64::from(1 << 20)),
    })
}

/// What a peer's script says of a turn of `amount` of work.
fn their_turn(report: &Value, amount: usize) -> Option<Turn> {
    Turn::of(
        &report["seconds"],
        amount as f64,
        report["peak_mib"].as_f64(),
    )
}

impl Sides<'_> {
    /// Runs both sides in turn.
    fn turns<A, B>(
        &self,
        mut ours: impl FnMut() -> Result<A>,
        mut theirs: impl FnMut() -> Result<B>,
    ) -> Result<(Vec<A>, Vec<B>)> {
        let (mut a, mut b) = (vec![], vec![]);
        for _ in 0..self.args.rounds {
            a.push(ours()?);
            b.push(theirs()?);
        }
        Ok((a, b))
    }

    fn network(&self, row: &NetworkRow) -> Result<Row> {
        let (batch, size, steps) = (
            row.batch.to_string(),
            row.size.to_string(),
            row.steps.to_string(),
        );
        let mut own = strings(&[
            if row.kind == Kind::Infer {
                "infer"
            } else {
                "step"
            },
            "--model",
            row.model,
            "--width",
            row.width,
            "--batch",
            &batch,
            "--input",
            &size,
            "--steps",
            &steps,
        ]);
        let threads = self.threads.to_string();
        let mut other = strings(&[
            "--model",
            row.model,
            "--width",
            row.width,
            "--batch",
            &batch,
            "--size",
            &size,
            "--threads",
            &threads,
        ]);
        if row.kind == Kind::Infer {
            // Without the branches that a MixSKD step would have.
            other.extend(strings(&["--eval", "--method", "ce"]));
        } else {
            own.extend(strings(&["--method", row.method]));
            other.extend(strings(&["--method", row.method]));
        }
        let layout = self.faster_layout(&other, (row.steps / 4).max(2))?;
        let steps = (row.steps / 2).max(2).to_string();
        other.extend(strings(&["--layout", &layout, "--steps", &steps]));
        let (ours, theirs) = self.turns(
            || self.ours.mixskd(self.sh, self.threads, &own),
            || peer(self.sh, self.python, "step.py", &other),
        )?;
        Row::new(
            row.kind,
            row.name.into(),
            "samples/s",
            (
                &every(&ours, own_turn)?,
                &every(&theirs, |report| their_turn(report, row.batch))?,
            ),
            layout,
        )
    }

    /// The memory layout in which PyTorch is faster at this work.
    fn faster_layout(&self, args: &[String], steps: usize) -> Result<String> {
        let steps = steps.to_string();
        let mut best: Option<(f64, String)> = None;
        for layout in ["channels_last", "contiguous"] {
            let mut args = args.to_vec();
            args.extend(strings(&[
                "--layout",
                layout,
                "--steps",
                &steps,
                "--warm-up",
                "1",
            ]));
            let report = peer(self.sh, self.python, "step.py", &args)?;
            let seconds = report["seconds"].as_array().into_iter().flatten();
            let least = seconds.filter_map(Value::as_f64).fold(f64::NAN, f64::min);
            if best.as_ref().is_none_or(|(other, _)| least < *other) {
                best = Some((least, layout.into()));
            }
        }
        best.map(|(_, layout)| layout)
            .context("no layout was measured")
    }

    fn convolution(&self, name: &str, shape: &str) -> Result<Vec<Row>> {
        let own = strings(&["conv", shape]);
        let other = strings(&["--threads", &self.threads.to_string(), shape]);
        let (ours, theirs) = self.turns(
            || self.ours.row(self.sh, self.threads, &own),
            || peer(self.sh, self.python, "conv.py", &other),
        )?;
        let row = |(pass, title): &(&str, &str)| {
            let key = format!("{shape} {pass}");
            let figures = |report: &Value| report["rows"][&key].clone();
            let first = ours.first().map(figures).unwrap_or_default();
            let amount = first["amount"].as_f64();
            let amount = amount.with_context(|| format!("{key} was not measured"))? / 1e9;
            let turn = |report: &Value| Turn::of(&figures(report)["seconds"], amount, None);
            let layout = theirs.first().map(figures).unwrap_or_default();
            Row::new(
                Kind::Conv,
                pass_name(name, title),
                "GFLOP/s",
                (&every(&ours, turn)?, &every(&theirs, turn)?),
                layout["layout"].as_str().unwrap_or_default().into(),
            )
        };
        PASSES.iter().map(row).collect()
    }

    fn zoo(&self, name: &str, side: usize) -> Result<Row> {
        let (batch, threads) = (ZOO_BATCH.to_string(), self.threads.to_string());
        let classes = if side == 32 { "100" } else { "1000" };
        let own = strings(&[
            "step",
            "--method",
            "ce",
            "--model",
            name,
            "--classes",
            classes,
            "--batch",
            &batch,
            "--steps",
            "3",
        ]);
        let other = strings(&[
            name,
            "--batch",
            &batch,
            "--threads",
            &threads,
            "--steps",
            "3",
        ]);
        let (ours, theirs) = self.turns(
            || self.ours.mixskd(self.sh, self.threads, &own),
            || peer(self.sh, self.python, "zoo_step.py", &other),
        )?;
        let layout = theirs.first().and_then(|report| report["layout"].as_str());
        Row::new(
            Kind::Zoo,
            name.into(),
            "images/s",
            (
                &every(&ours, own_turn)?,
                &every(&theirs, |report| their_turn(report, ZOO_BATCH))?,
            ),
            layout.unwrap_or_default().into(),
        )
    }

    fn loader(&self, name: &str) -> Result<Row> {
        let workers = self.threads.to_string();
        let mut other = strings(&["--workers", &workers, "--json"]);
        let data = self.args.data.as_ref().map(|d| d.display().to_string());
        other.extend(data.clone());
        let _env = data.map(|data| self.sh.push_env("MIXSKD_BENCH_DATA", data));
        let (ours, theirs) = self.turns(
            || self.ours.row(self.sh, self.threads, &strings(&["loader"])),
            || peer(self.sh, self.python, "loader.py", &other),
        )?;
        let turn = |report: &Value| {
            let row = &report["rows"]["loader"];
            Turn::of(&row["seconds"], row["amount"].as_f64()?, None)
        };
        Row::new(
            Kind::Loader,
            name.into(),
            "images/s",
            (&every(&ours, turn)?, &every(&theirs, turn)?),
            workers,
        )
    }
}

/// Every report's turn, or an error where one lacks a figure.
fn every(reports: &[Value], turn: impl Fn(&Value) -> Option<Turn>) -> Result<Vec<Turn>> {
    let turns = reports.iter().map(turn).collect::<Option<Vec<_>>>();
    turns.context("a measured program left a figure out")
}
