//! Whole training steps beside PyTorch's on the same GPU, one after the other, each in a process of its own.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use mixskd_models::ModelConfig;
use mixskd_train::Precision;
use mixskd_train::bench::StepBench;
use serde_json::{Value, json};

use crate::Options;
use crate::table::Table;

/// The peer, which runs from the standard input of the Python at hand.
const PEER: &str = include_str!("../../../peers/step_gpu.py");

/// What is timed: network, method, batch, pixels; and which ratio to PyTorch's best is asked for.
struct Row {
    model: &'static str,
    method: &'static str,
    batch: usize,
    size: usize,
    /// Of PyTorch's time, eager float32, over ours at best.
    eager: Option<f64>,
    /// Of PyTorch's best time over ours.
    best: f64,
}

const ROWS: [Row; 5] = [
    Row {
        model: "cifar_resnet18",
        method: "mixskd",
        batch: 64,
        size: 32,
        eager: Some(4.0),
        best: 1.2,
    },
    Row {
        model: "cifar_resnet18",
        method: "mixskd",
        batch: 512,
        size: 32,
        eager: None,
        best: 1.0,
    },
    Row {
        model: "cifar_resnet18",
        method: "ce",
        batch: 64,
        size: 32,
        eager: None,
        best: 1.0,
    },
    Row {
        model: "resnet50",
        method: "ce",
        batch: 64,
        size: 224,
        eager: None,
        best: 1.0,
    },
    Row {
        model: "resnet50",
        method: "mixskd",
        batch: 32,
        size: 224,
        eager: None,
        best: 1.0,
    },
];

/// Steps that are timed.
const STEPS: usize = 30;

/// `step MODEL METHOD BATCH SIZE CLASSES PRECISION`: one row of ours, as JSON.
pub(crate) fn step(args: &[String]) -> Result<()> {
    let [model, method, batch, size, classes, precision] = args else {
        bail!("usage: gpu-check step MODEL METHOD BATCH SIZE CLASSES PRECISION");
    };
    let model = ModelConfig {
        input: size.parse()?,
        ..ModelConfig::new(model, classes.parse()?)?
    };
    let report = StepBench {
        batch: batch.parse()?,
        steps: STEPS,
        precision: precision.parse::<Precision>().map_err(anyhow::Error::msg)?,
        ..StepBench::new(model, method)?
    }
    .run()?;
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

/// What a child printed last, as JSON.
fn json_of(command: &mut Command) -> Result<Value> {
    let output = command
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<_> = errors.lines().collect();
        bail!(
            "{}: {}",
            output.status,
            lines[lines.len().saturating_sub(3)..].join(" / ")
        );
    }
    serde_json::from_str(text.lines().last().unwrap_or_default()).context("it printed no JSON")
}

fn milliseconds(report: &Value) -> Option<f64> {
    let seconds = &report["seconds_per_step"];
    Some(seconds.as_f64().or_else(|| seconds["median"].as_f64())? * 1e3)
}

/// Every row, as far as the time allows.
pub(crate) fn run(options: &Options, table: &mut Table) {
    for row in &ROWS {
        let name = format!("{} {}, batch {}", row.model, row.method, row.batch);
        if Instant::now() > options.deadline {
            table.left_out("speed", &format!("{name}: the time is up"));
            continue;
        }
        let classes = if row.size == 32 { "100" } else { "1000" };
        let ours = |precision: &str| {
            let mut command = Command::new(std::env::current_exe()?);
            let numbers = [row.batch.to_string(), row.size.to_string()];
            command.args([
                "step",
                row.model,
                row.method,
                &numbers[0],
                &numbers[1],
                classes,
                precision,
            ]);
            json_of(&mut command)
        };
        let theirs = |mode: &str| {
            let mut command = Command::new(&options.python);
            let numbers = [
                row.batch.to_string(),
                row.size.to_string(),
                STEPS.to_string(),
            ];
            command.args([
                "-c", PEER, "--model", row.model, "--method", row.method, "--mode", mode,
            ]);
            command.args([
                "--batch",
                &numbers[0],
                "--size",
                &numbers[1],
                "--classes",
                classes,
                "--steps",
                &numbers[2],
            ]);
            json_of(&mut command)
        };
        // Ours, theirs, and ours again, so that a GPU that grows warm is seen.
        let sides = [
            ("bf16", ours("bf16")),
            ("PyTorch best", theirs("best")),
            ("bf16 again", ours("bf16")),
            ("f32", ours("f32")),
            ("tf32", ours("tf32")),
            ("PyTorch eager f32", theirs("eager")),
        ];
        let mut times = Vec::new();
        for (side, report) in &sides {
            match report {
                Ok(report) => times.push((*side, milliseconds(report), report.clone())),
                Err(error) => table.broken(
                    "speed",
                    &format!("{name}, {side}"),
                    &anyhow::anyhow!("{error:#}"),
                ),
            }
        }
        let time = |side: &str| {
            times
                .iter()
                .find(|(name, ..)| *name == side)
                .and_then(|(_, ms, _)| *ms)
        };
        for (side, ms, report) in &times {
            let memory = report["gpu_memory_bytes"]
                .as_f64()
                .map_or(String::new(), |b| {
                    format!(", {:.0} MiB of the GPU in use", b / f64::from(1 << 20))
                });
            let captured = if report["captured"] == json!(false) {
                ", not captured"
            } else {
                ""
            };
            let text = ms.map_or("no time".into(), |ms| {
                format!("{ms:.2} ms{memory}{captured}")
            });
            table.figure("speed", &format!("{name}, {side}"), text, report.clone());
        }
        let mut ratio = |what: &str, theirs: Option<f64>, goal: f64| {
            if let (Some(theirs), Some(ours)) = (theirs, time("bf16")) {
                let text = format!("{:.2} (goal {goal})", theirs / ours);
                table.figure(
                    "ratio",
                    &format!("{name}, {what}"),
                    text,
                    json!({ "ratio": theirs / ours, "goal": goal }),
                );
            }
        };
        ratio("PyTorch's best over ours", time("PyTorch best"), row.best);
        if let Some(goal) = row.eager {
            ratio(
                "PyTorch eager f32 over ours",
                time("PyTorch eager f32"),
                goal,
            );
        }
    }
}
