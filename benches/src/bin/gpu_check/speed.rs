//! Whole training steps beside PyTorch's on the same GPU, one after the other, each in a process of its own.

use std::io::{Read, Seek};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use candle_core::Device;
use mixskd_kernels::gpu_memory_in_use;
use mixskd_models::ModelConfig;
use mixskd_train::bench::StepBench;
use mixskd_train::{DeviceKind, OptimizerConfig, Precision};
use serde_json::{Value, json};

use crate::Options;
use crate::table::Table;

/// The peer, which runs from the standard input of the Python at hand.
const PEER: &str = concat!(
    include_str!("../../../peers/network.py"),
    include_str!("../../../peers/step_gpu.py")
);

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

/// How a row is taken: `as-guessed` by cuDNN, with the `fastest` of its algorithms, or that with the times of single `kernels`.
const WAYS: [&str; 3] = ["as-guessed", "fastest", "kernels"];

/// `step MODEL METHOD BATCH SIZE CLASSES PRECISION WAY`: one row of ours, as JSON.
pub(crate) fn step(args: &[String]) -> Result<()> {
    let [model, method, batch, size, classes, precision, way] = args else {
        bail!("usage: gpu-check step MODEL METHOD BATCH SIZE CLASSES PRECISION WAY");
    };
    if !WAYS.contains(&way.as_str()) {
        bail!("WAY is none of {}", WAYS.join(", "));
    }
    let model = ModelConfig {
        input: size.parse()?,
        ..ModelConfig::new(model, classes.parse()?)?
    };
    let report = StepBench {
        batch: batch.parse()?,
        steps: STEPS,
        precision: precision.parse::<Precision>().map_err(anyhow::Error::msg)?,
        device: DeviceKind::Cuda,
        cudnn_benchmark: way != WAYS[0],
        kernels: way == WAYS[2],
        optimizer: OptimizerConfig {
            lr: 0.01,
            ..OptimizerConfig::default()
        },
        ..StepBench::new(model, method)?
    }
    .run()?;
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

/// What a child printed last, as JSON. It is ended at the deadline.
fn json_of(command: &mut Command, options: &Options) -> Result<Value> {
    let mut errors = tempfile::tempfile()?;
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(errors.try_clone()?)
        .spawn()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if options.is_late() {
            child.kill()?;
            child.wait()?;
            bail!("the time is up");
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let mut text = String::new();
    if let Some(mut output) = child.stdout.take() {
        output.read_to_string(&mut text)?;
    }
    if !status.success() {
        let mut said = Vec::new();
        errors.rewind()?;
        errors.read_to_end(&mut said)?;
        let said = String::from_utf8_lossy(&said);
        let lines: Vec<_> = said.lines().collect();
        bail!(
            "{status}: {}",
            lines[lines.len().saturating_sub(3)..].join(" / ")
        );
    }
    serde_json::from_str(text.lines().last().unwrap_or_default()).context("it printed no JSON")
}

/// Whether Python has a PyTorch that sees the GPU.
fn has_peer(options: &Options) -> bool {
    let script = "import sys, torch; sys.exit(not torch.cuda.is_available())";
    let mut command = Command::new(&options.python);
    command
        .args(["-c", script])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn milliseconds(report: &Value) -> Option<f64> {
    let seconds = &report["seconds_per_step"];
    Some(seconds.as_f64().or_else(|| seconds["median"].as_f64())? * 1e3)
}

/// Ours with cuDNN's algorithms tried out.
const FASTEST: &str = "bf16, cuDNN's fastest";

/// Kernels that are told by name.
const KERNELS: usize = 12;

/// Where a step's time goes.
fn tell_kernels(table: &mut Table, row: &str, times: &Value) {
    let ms = |value: &Value| format!("{:.3} ms", value.as_f64().unwrap_or(f64::NAN));
    let whole = format!(
        "{}, {} between kernels",
        ms(&times["total_ms"]),
        ms(&times["between_ms"])
    );
    table.figure("kernels", row, whole, times.clone());
    let kernels = times["kernels"].as_array().map_or(&[][..], Vec::as_slice);
    for kernel in kernels.iter().take(KERNELS) {
        let name = kernel["name"].as_str().unwrap_or_default();
        let text = format!("{}, {} launches", ms(&kernel["ms"]), kernel["launches"]);
        table.figure("kernels", &format!("  {name}"), text, kernel.clone());
    }
}

/// Every row, as far as the time allows.
pub(crate) fn run(options: &Options, gpu: &Device, table: &mut Table) {
    let peer = has_peer(options);
    if !peer {
        table.left_out(
            "speed",
            "PyTorch's side: this Python has none that sees a GPU",
        );
    }
    // What this process holds is nobody's row.
    let held = gpu_memory_in_use(gpu).ok().flatten().unwrap_or(0) as f64;
    for row in &ROWS {
        let name = format!("{} {}, batch {}", row.model, row.method, row.batch);
        if options.is_late() {
            table.left_out("speed", &format!("{name}: the time is up"));
            continue;
        }
        let classes = if row.size == 32 { "100" } else { "1000" };
        let ours = |precision: &str, way: &str| {
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
                way,
            ]);
            json_of(&mut command, options)
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
            json_of(&mut command, options)
        };
        // Ours, theirs, and ours again, so that a GPU that grows warm is seen.
        let [guessed, fastest, kernels] = WAYS;
        let mut sides = vec![
            ("bf16", ours("bf16", guessed)),
            (FASTEST, ours("bf16", fastest)),
        ];
        if peer {
            sides.push(("PyTorch best", theirs("best")));
            sides.push(("bf16 again", ours("bf16", guessed)));
            if row.eager.is_some() {
                sides.push(("PyTorch eager f32", theirs("eager")));
            }
        }
        sides.push(("tf32", ours("tf32", fastest)));
        sides.push(("f32", ours("f32", fastest)));
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
                    format!(", {:.0} MiB of the GPU", (b - held) / f64::from(1 << 20))
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
        let compiled = times
            .iter()
            .any(|(side, _, report)| *side == "PyTorch best" && report["compiled"] == json!(true));
        let ratio = |table: &mut Table, what: &str, theirs: Option<f64>, goal: f64| {
            for side in ["bf16", FASTEST] {
                if let (Some(theirs), Some(ours)) = (theirs, time(side)) {
                    let text = format!("{:.2} (goal {goal})", theirs / ours);
                    let data = json!({ "ratio": theirs / ours, "goal": goal });
                    table.figure("ratio", &format!("{name}, {what} {side}"), text, data);
                }
            }
        };
        if compiled {
            let theirs = time("PyTorch best");
            ratio(table, "PyTorch's best over", theirs, row.best);
        } else if peer {
            let why = format!("{name}, PyTorch's best: it did not compile");
            table.left_out("ratio", &why);
        }
        if let Some(goal) = row.eager {
            let theirs = time("PyTorch eager f32");
            ratio(table, "PyTorch eager f32 over", theirs, goal);
        }
        match ours("bf16", kernels) {
            Ok(report) => tell_kernels(table, &name, &report["gpu_kernels"]),
            Err(error) => table.broken("kernels", &name, &error),
        }
    }
}
