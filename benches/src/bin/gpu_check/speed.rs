//! Whole training steps beside PyTorch's on the same GPU, one after the other, each in a process of its own.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use candle_core::Device;
use mixskd_kernels::gpu_memory_in_use;
use mixskd_models::ModelConfig;
use mixskd_train::bench::StepBench;
use mixskd_train::{DeviceKind, Launching, OptimizerConfig, Precision};
use serde_json::{Value, json};

use crate::child::output_of;
use crate::table::Table;
use crate::{LATE, Options, Usage};

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

/// The main one first, and last what takes PyTorch longest to compile.
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

/// How a row is taken: `as-guessed` by cuDNN, with the `fastest` of its ways, that with the times of single `kernels`, or without branches beside the
/// backbone, `in-turn`.
const WAYS: [&str; 4] = ["as-guessed", "fastest", "kernels", "in-turn"];

/// How one row of ours is asked for.
const STEP: &str = "gpu-check step MODEL METHOD BATCH SIZE CLASSES PRECISION WAY";

/// `step MODEL METHOD BATCH SIZE CLASSES PRECISION WAY`: one row of ours, as JSON.
pub(crate) fn step(args: &[String]) -> Result<()> {
    let [model, method, batch, size, classes, precision, way] = args else {
        bail!(Usage(format!("step wants seven words\nhint: {STEP}")));
    };
    if !WAYS.contains(&way.as_str()) {
        let ways = WAYS.join(", ");
        bail!(Usage(format!("{way} is none of {ways}\nhint: {STEP}")));
    }
    let number = |text: &str| {
        let number = text.parse::<usize>();
        number.map_err(|_| Usage(format!("{text} is no number\nhint: {STEP}")))
    };
    let model = ModelConfig {
        input: number(size)?,
        ..ModelConfig::new(model, number(classes)?)?
    };
    let precision = precision.parse::<Precision>();
    let report = StepBench {
        batch: number(batch)?,
        steps: STEPS,
        precision: precision
            .map_err(|error| Usage(format!("the precision {error}\nhint: {STEP}")))?,
        device: DeviceKind::Cuda,
        cudnn_benchmark: way != WAYS[0],
        kernels: way == WAYS[2],
        launching: Launching::new(true, way != WAYS[3]),
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

/// The most that a side may take, for one that hangs not to take the others' time. PyTorch spends most of it compiling.
const MOST: Duration = Duration::from_secs(150);

/// What a child printed last, as JSON. It is ended at the deadline, or when it has had [`MOST`].
fn json_of(command: &mut Command, options: &Options) -> Result<Value> {
    let begun = Instant::now();
    let text = output_of(command, || {
        if options.is_late() {
            return Some(LATE.into());
        }
        (begun.elapsed() > MOST).then(|| format!("it was ended after {} s", MOST.as_secs()))
    })?;
    serde_json::from_str(text.lines().last().unwrap_or_default()).context("it printed no JSON")
}

/// Whether Python has a PyTorch that sees the GPU.
fn has_peer(options: &Options) -> Result<bool> {
    let mut command = Command::new(&options.python);
    command.args([
        "-c",
        "import torch; print(str(torch.cuda.is_available()).lower())",
    ]);
    Ok(json_of(&mut command, options)? == json!(true))
}

fn milliseconds(report: &Value) -> Option<f64> {
    let seconds = &report["seconds_per_step"];
    Some(seconds.as_f64().or_else(|| seconds["median"].as_f64())? * 1e3)
}

/// Ours with cuDNN's ways tried out.
const FASTEST: &str = "bf16, cuDNN's fastest";

/// That without branches beside the backbone, and with the times of single kernels, which are then launched in turn too.
const IN_TURN: &str = "bf16, cuDNN's fastest, in turn";
const KERNEL_BY_KERNEL: &str = "bf16, cuDNN's fastest, kernels timed";

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

/// One way to time a row.
#[derive(Clone, Copy)]
enum Side {
    Ours {
        precision: &'static str,
        way: &'static str,
    },
    Theirs {
        mode: &'static str,
    },
}

impl Row {
    fn name(&self) -> String {
        format!("{} {}, batch {}", self.model, self.method, self.batch)
    }

    /// What takes a side's time.
    fn command(&self, side: Side, steps: usize, options: &Options) -> Result<Command> {
        let classes = if self.size == 32 { "100" } else { "1000" };
        let [batch, size, steps] = [self.batch, self.size, steps].map(|n| n.to_string());
        let (model, method) = (self.model, self.method);
        let mut command;
        match side {
            Side::Ours { precision, way } => {
                command = Command::new(std::env::current_exe()?);
                command.args([
                    "step", model, method, &batch, &size, classes, precision, way,
                ]);
            }
            Side::Theirs { mode } => {
                command = Command::new(&options.python);
                command.args(["-c", PEER, "--model", model, "--method", method]);
                command.args(["--mode", mode, "--batch", &batch, "--size", &size]);
                command.args(["--classes", classes, "--steps", &steps]);
            }
        }
        Ok(command)
    }

    /// One side's report, from a process of its own.
    fn time(&self, side: Side, options: &Options) -> Result<Value> {
        ensure!(!options.is_late(), LATE);
        json_of(&mut self.command(side, STEPS, options)?, options)
    }
}

/// PyTorch compiling the rows, two at a time, while checks are made that nobody times. It keeps what it compiled: its sides find that when they
/// are timed, and do not take minutes each.
#[derive(Default)]
pub(crate) struct Compiling {
    is_over: Arc<AtomicBool>,
    worker: Option<JoinHandle<()>>,
}

/// Processes that compile side by side: each has threads of its own, and memory of the GPU.
const COMPILERS: usize = 2;

impl Compiling {
    pub(crate) fn begin(options: &Options) -> Self {
        if !has_peer(options).unwrap_or(false) {
            return Self::default();
        }
        let side = Side::Theirs { mode: "best" };
        let commands = ROWS.iter().map(|row| row.command(side, 1, options));
        let commands: Vec<Command> = commands.filter_map(Result::ok).collect();
        let is_over = Arc::new(AtomicBool::new(false));
        let told = is_over.clone();
        Self {
            is_over,
            worker: Some(std::thread::spawn(move || compile(commands, &told))),
        }
    }

    /// Waits for it, for a third of the time that is left at most; what has not come to its end by then is ended.
    pub(crate) fn end(self, options: &Options) {
        let now = Instant::now();
        let until = now + options.deadline.saturating_duration_since(now) / 3;
        let is_running = || self.worker.as_ref().is_some_and(|w| !w.is_finished());
        while is_running() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Compiling {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(worker) = self.worker.take() {
            // What it did is not looked at.
            let _ = worker.join();
        }
    }
}

fn compile(commands: Vec<Command>, is_over: &AtomicBool) {
    let mut commands = commands.into_iter();
    let mut running: Vec<Child> = Vec::new();
    while !is_over.load(Ordering::Relaxed) {
        running.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
        if running.len() < COMPILERS
            && let Some(mut command) = commands.next()
        {
            command.env("TORCHINDUCTOR_COMPILE_THREADS", "4");
            command.stdout(Stdio::null()).stderr(Stdio::null());
            running.extend(command.spawn());
            continue;
        }
        if running.is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    for child in &mut running {
        // One that has ended cannot be.
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// What the sides of a row came to.
struct Timed<'a> {
    row: &'a Row,
    options: &'a Options,
    /// Bytes that this process holds, which are nobody's row.
    held: f64,
    reports: Vec<(&'static str, Value)>,
}

impl Timed<'_> {
    /// Takes a side, unless the time is up.
    fn take(&mut self, table: &mut Table, name: &'static str, side: Side) {
        let place = format!("{}, {name}", self.row.name());
        // What there was no time for, and what goes wrong with PyTorch, is no failure of ours.
        let missing = |error: &anyhow::Error| {
            matches!(side, Side::Theirs { .. }) || error.to_string() == LATE
        };
        let report = match self.row.time(side, self.options) {
            Ok(report) => report,
            Err(error) if missing(&error) => {
                return table.left_out("speed", &format!("{place}: {error:#}"));
            }
            Err(error) => return table.broken("speed", &place, &error),
        };
        let bytes = report["gpu_memory_bytes"].as_f64();
        let memory = bytes.map_or(String::new(), |bytes| {
            let mebibytes = (bytes - self.held) / f64::from(1 << 20);
            format!(", {mebibytes:.0} MiB of the GPU")
        });
        let captured = if report["captured"] == json!(false) {
            ", not captured"
        } else {
            ""
        };
        let text = milliseconds(&report).map_or("no time".into(), |ms| {
            // As in a run, where the next step is launched before this one is read.
            let ahead = report["seconds_per_step_ahead"].as_f64();
            let ahead = ahead.map_or(String::new(), |s| format!(", {:.2} ms in a run", 1e3 * s));
            format!("{ms:.2} ms{ahead}{memory}{captured}")
        });
        table.figure("speed", &place, text, report.clone());
        let notices = report["notices"].as_array();
        for notice in notices.into_iter().flatten().filter_map(Value::as_str) {
            table.figure("note", &place, notice.into(), Value::Null);
        }
        self.reports.push((name, report));
    }

    fn report(&self, side: &str) -> Option<&Value> {
        let found = self.reports.iter().find(|(name, _)| *name == side);
        found.map(|(_, report)| report)
    }

    /// Our sides.
    fn take_ours(&mut self, table: &mut Table) {
        let [guessed, fastest, kernels, in_turn] = WAYS;
        self.take(table, GUESSED, ours("bf16", guessed));
        self.take(table, FASTEST, ours("bf16", fastest));
        self.take(table, IN_TURN, ours("bf16", in_turn));
        self.take(table, KERNEL_BY_KERNEL, ours("bf16", kernels));
        let kernels = self
            .report(KERNEL_BY_KERNEL)
            .map(|report| report["gpu_kernels"].clone());
        if let Some(kernels) = kernels.filter(|kernels| !kernels.is_null()) {
            tell_kernels(table, &self.row.name(), &kernels);
        }
    }

    /// PyTorch's sides, ours once more right beside them, so that a GPU that grows warm is seen, and the ratios.
    fn take_theirs(&mut self, table: &mut Table) {
        self.take(table, AGAIN, ours("bf16", WAYS[0]));
        self.take(table, BEST, Side::Theirs { mode: "best" });
        if let Some(report) = self.report(BEST) {
            let place = format!("{}, {BEST}", self.row.name());
            let mut note = |text: String| table.figure("note", &place, text, Value::Null);
            if report["compiled"] != json!(true) {
                note("it did not compile".into());
            }
            match report["graph_skips"].as_u64() {
                None | Some(0) => {}
                Some(skips) => note(format!("kept out of CUDA graphs {skips} times")),
            }
            self.ratio(table, BEST, self.row.best);
        }
        if let Some(goal) = self.row.eager {
            self.take(table, EAGER, Side::Theirs { mode: "eager" });
            self.ratio(table, EAGER, goal);
        }
    }

    /// PyTorch's time over ours, with cuDNN as it guesses and tried out.
    fn ratio(&self, table: &mut Table, theirs: &'static str, goal: f64) {
        for ours in [GUESSED, AGAIN, FASTEST, IN_TURN] {
            let ms = |side| self.report(side).and_then(milliseconds);
            if let (Some(theirs_ms), Some(ours_ms)) = (ms(theirs), ms(ours)) {
                let ratio = theirs_ms / ours_ms;
                let name = format!("{}, {theirs} over {ours}", self.row.name());
                let of = self
                    .report(theirs)
                    .map(|of| (&of["compiled"], &of["graph_skips"]));
                let data = json!({ "ratio": ratio, "goal": goal, "compiled_and_skips": of });
                table.figure("ratio", &name, format!("{ratio:.2} (goal {goal})"), data);
            }
        }
    }
}

const GUESSED: &str = "bf16";
const AGAIN: &str = "bf16 again";
const BEST: &str = "PyTorch best";
const EAGER: &str = "PyTorch eager f32";

fn ours(precision: &'static str, way: &'static str) -> Side {
    Side::Ours { precision, way }
}

/// Every row, as far as the time allows: the main one, what the other goals are about, ours before PyTorch's, which takes longer, and the
/// other arithmetics.
pub(crate) fn run(options: &Options, gpu: &Device, table: &mut Table) {
    let peer = has_peer(options);
    match &peer {
        Ok(true) => {}
        Ok(false) => table.left_out("speed", "PyTorch's side: this one sees no GPU"),
        Err(error) => table.left_out("speed", &format!("PyTorch's side: {error:#}")),
    }
    let peer = peer.unwrap_or(false);
    let held = gpu_memory_in_use(gpu).ok().flatten().unwrap_or(0) as f64;
    let timed = |row| Timed {
        row,
        options,
        held,
        reports: Vec::new(),
    };
    let mut rows: Vec<Timed> = ROWS.iter().map(timed).collect();
    let Some((main, others)) = rows.split_first_mut() else {
        return;
    };
    main.take_ours(table);
    if peer {
        main.take_theirs(table);
    }
    for row in &mut *others {
        row.take_ours(table);
    }
    if peer {
        for row in others {
            row.take_theirs(table);
        }
    }
    for row in &ROWS {
        for precision in ["tf32", "f32"] {
            timed(row).take(table, precision, ours(precision, WAYS[1]));
        }
    }
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::*;
    use crate::child::tests::turn;

    /// A Python whose PyTorch sees a GPU, which notes that it was called and then does `work`.
    fn python(folder: &Path, work: &str) -> Options {
        let file = folder.join("python");
        let noted = folder.join("noted").display().to_string();
        let text = format!(
            "#!/bin/sh\ncase \"$*\" in *is_available*) echo true; exit;; esac\necho x >> '{noted}'\n{work}\n"
        );
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        let args = ["--python", &file.display().to_string()].map(str::to_string);
        crate::options(&args).unwrap()
    }

    fn called(folder: &Path) -> usize {
        let noted = std::fs::read_to_string(folder.join("noted"));
        noted.unwrap_or_default().lines().count()
    }

    #[test]
    fn every_row_is_compiled() {
        let _turn = turn();
        let folder = tempfile::tempdir().unwrap();
        let options = python(folder.path(), "");
        Compiling::begin(&options).end(&options);
        assert_eq!(called(folder.path()), ROWS.len());
    }

    #[test]
    fn what_compiles_too_long_is_ended_and_no_more_than_two_do() {
        let _turn = turn();
        let folder = tempfile::tempdir().unwrap();
        let mut options = python(folder.path(), "exec sleep 1000");
        let compiling = Compiling::begin(&options);
        while called(folder.path()) < COMPILERS {
            std::thread::sleep(Duration::from_millis(5));
        }
        // No time is left. That this comes back at all shows that they were ended.
        options.deadline = Instant::now();
        compiling.end(&options);
        assert_eq!(called(folder.path()), COMPILERS);
    }
}
