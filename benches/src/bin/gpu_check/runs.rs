//! Whole runs on the GPU: beside the CPU's, with and without a captured graph, interrupted and resumed, and in other arithmetic.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use candle_core::Device;
use mixskd_kernels::set_cudnn_benchmark;
use mixskd_train::method;
use mixskd_train::{Control, Observer, RunDir, StepEvent, TrainConfig, Trainer};
use serde_json::{Value, json};

use crate::child::output_of;
use crate::table::Table;
use crate::{LATE, OnGpu, Options, Usage, guarded, poisoned, worse};

/// What a run leaves.
struct Ran {
    losses: Vec<f64>,
    weights: Vec<u8>,
    captured: bool,
    /// That graph has branches that run side by side.
    branches: bool,
    /// What it told besides: why a step was not captured, for one.
    notices: Vec<String>,
}

/// Keeps what a run tells.
#[derive(Default)]
struct Notices(Vec<String>);

impl Observer for Notices {
    fn notice(&mut self, text: &str) {
        self.0.push(text.into());
    }
}

/// The same where every thread of a GPU is taken in turn.
const TINY: [&str; 5] = [
    "model.width=0.03125",
    "run.batch=8",
    "run.eval_batch=8",
    "run.max_batches=5",
    "run.epochs=2",
];

/// Methods that are run there: one that is captured, one with boxes, one that remembers. The others' steps are tested by themselves.
const FEW: [&str; 3] = ["mixskd", "cutmix", "ps-kd"];

/// Methods whose steps are captured.
const CAPTURED: [&str; 10] = [
    "ce",
    "label-smoothing",
    "focal",
    "max-entropy",
    "virtual-softmax",
    "mixup",
    "cutmix",
    "byot",
    "dks",
    "mixskd",
];

/// Runs of a few steps on a small network.
const SMALL: [&str; 5] = [
    "model.width=0.125",
    "run.batch=16",
    "run.eval_batch=50",
    "run.max_batches=6",
    "run.epochs=2",
];

struct Runner<'a> {
    options: &'a Options,
    folder: tempfile::TempDir,
    made: std::cell::Cell<usize>,
}

impl Runner<'_> {
    fn config(&self, settings: &[&str], on_gpu: bool) -> Result<TrainConfig> {
        if self.options.checks_late() {
            bail!(LATE);
        }
        let mut config = TrainConfig::default();
        if let Some(data) = &self.options.data {
            config.data.source = data.display().to_string();
        }
        let device = if on_gpu && !self.options.emulate {
            "run.device=cuda"
        } else {
            "run.device=cpu"
        };
        for setting in settings.iter().chain([&device]) {
            config = config.with(setting)?;
        }
        Ok(config)
    }

    fn folder(&self) -> PathBuf {
        self.made.set(self.made.get() + 1);
        self.folder.path().join(format!("run-{}", self.made.get()))
    }

    /// A run to its end.
    fn run(&self, settings: &[&str], on_gpu: bool) -> Result<Ran> {
        guarded(|| {
            let config = self.config(settings, on_gpu)?;
            let _on_gpu = on_gpu.then(|| OnGpu::new(&Device::Cpu));
            let out = self.folder();
            let mut trainer = Trainer::new(&config)?;
            let run = RunDir::create(&out, trainer.config())?;
            let mut notices = Notices::default();
            trainer.run(&run, &mut notices)?;
            read(&out, Some(&trainer), notices)
        })
    }

    /// A run to its end, by a process that a launcher has called the only one.
    fn launched(&self, settings: &[&str]) -> Result<Ran> {
        // Made here, so that what is asked wrongly is told here.
        self.config(settings, true)?;
        let out = self.folder();
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("run").arg(&out).args(settings);
        if let Some(data) = &self.options.data {
            command.arg(format!("data.source={}", data.display()));
        }
        if self.options.emulate {
            command.arg("--emulate");
        }
        let place = [("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0")];
        // Whoever waits for other processes may wait for ever.
        let late = || self.options.checks_late().then(|| LATE.into());
        output_of(command.envs(place), late)?;
        read(&out, None, Notices::default())
    }

    /// The same, stopped in the middle of an epoch and taken up again.
    fn interrupted(&self, settings: &[&str]) -> Result<Ran> {
        guarded(|| Self::go_on(&self.stopped(settings)?))
    }

    /// Where a run lies that was stopped in the middle of an epoch.
    fn stopped(&self, settings: &[&str]) -> Result<PathBuf> {
        let config = self.config(settings, true)?;
        let _on_gpu = OnGpu::new(&Device::Cpu);
        let out = self.folder();
        let mut trainer = Trainer::new(&config)?;
        let run = RunDir::create(&out, trainer.config())?;
        let mut stop = StopAt {
            control: trainer.control(),
            step: 3,
        };
        trainer
            .run(&run, &mut stop)
            .err()
            .context("the run was not stopped")?;
        Ok(out)
    }

    /// Takes a run up again.
    fn go_on(out: &Path) -> Result<Ran> {
        let _on_gpu = OnGpu::new(&Device::Cpu);
        // The processor in a GPU's place is one for all runs: it forgets what it chose, as a new process would.
        set_cudnn_benchmark(&Device::Cpu, false)?;
        let (run, config) = RunDir::open(out)?;
        let mut trainer = Trainer::for_resume(&config)?;
        let mut notices = Notices::default();
        trainer.resume(&run, &mut notices)?;
        trainer.run(&run, &mut notices)?;
        read(out, Some(&trainer), notices)
    }
}

/// `run OUT SETTING… [--emulate]`: a run to its end.
pub(crate) fn alone(args: &[String]) -> Result<()> {
    let Some((out, settings)) = args.split_first() else {
        bail!(Usage(
            "run wants a folder\nhint: gpu-check run FOLDER KEY=VALUE ... [--emulate]".into()
        ));
    };
    let emulate = settings.iter().any(|setting| setting == "--emulate");
    let device = if emulate { "cpu" } else { "cuda" };
    let mut config = TrainConfig::default().with(&format!("run.device={device}"))?;
    for setting in settings.iter().filter(|setting| *setting != "--emulate") {
        config = config.with(setting)?;
    }
    let _on_gpu = OnGpu::new(&Device::Cpu);
    let mut trainer = Trainer::new(&config)?;
    let run = RunDir::create(Path::new(out), trainer.config())?;
    trainer.run(&run, &mut ())?;
    Ok(())
}

/// A run directory with its checkpoints, copied.
fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            std::fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

/// Stops a run after a step of its first epoch.
struct StopAt {
    control: Control,
    step: usize,
}

impl Observer for StopAt {
    fn step(&mut self, event: &StepEvent) {
        if event.step == self.step {
            self.control.stop();
        }
    }
}

fn read(out: &Path, trainer: Option<&Trainer>, notices: Notices) -> Result<Ran> {
    let text = std::fs::read_to_string(out.join("metrics.jsonl"))?;
    let loss = |line: &str| -> Result<f64> {
        let record: serde_json::Value = serde_json::from_str(line)?;
        record["loss"].as_f64().context("a record without a loss")
    };
    Ok(Ran {
        losses: text.lines().map(loss).collect::<Result<_>>()?,
        weights: std::fs::read(out.join("model.safetensors"))?,
        captured: trainer.is_some_and(Trainer::has_captured_step),
        branches: trainer.is_some_and(Trainer::has_captured_branches),
        notices: notices.0,
    })
}

/// The greatest relative difference of two curves; no number where one of them is longer.
fn far(a: &Ran, b: &Ran) -> f64 {
    if a.losses.len() != b.losses.len() || a.losses.is_empty() {
        return f64::NAN;
    }
    let errors = a
        .losses
        .iter()
        .zip(&b.losses)
        .map(|(a, b)| (a - b).abs() / b.abs());
    errors.fold(0.0, worse)
}

/// Compares a run's losses with those of the same run on the CPU; what it left on the GPU.
fn beside_the_cpus(
    runner: &Runner,
    table: &mut Table,
    name: &str,
    settings: &[&str],
) -> Option<Ran> {
    match (runner.run(settings, true), runner.run(settings, false)) {
        (Ok(on_gpu), Ok(on_cpu)) => {
            let losses = json!([on_gpu.losses, on_cpu.losses]);
            table.error_of("run", name, far(&on_gpu, &on_cpu), 3e-2, &losses);
            Some(on_gpu)
        }
        (Err(error), _) | (_, Err(error)) => {
            table.broken("run", name, &error);
            None
        }
    }
}

/// Every check of whole runs.
pub(crate) fn run(options: &Options, table: &mut Table) {
    let runner = match tempfile::tempdir() {
        Ok(folder) => Runner {
            options,
            folder,
            made: 0.into(),
        },
        Err(error) => return table.broken("run", "a folder for runs", &error.into()),
    };
    let small = if options.emulate { TINY } else { SMALL };
    let methods = method::ALL
        .iter()
        .filter(|spec| !options.emulate || FEW.contains(&spec.name));
    for spec in methods {
        let name = format!("method.name={}", spec.name);
        // What it said of an image it reads when it sees that image again.
        let epochs = match spec.name {
            "ps-kd" => "run.epochs=2",
            _ => "run.epochs=1",
        };
        let settings: Vec<&str> = small.into_iter().chain([name.as_str(), epochs]).collect();
        let name = format!("{}: loss beside the CPU's", spec.name);
        let Some(on_gpu) = beside_the_cpus(&runner, table, &name, &settings) else {
            continue;
        };
        for notice in &on_gpu.notices {
            table.figure("note", spec.name, notice.clone(), Value::Null);
        }
        if CAPTURED.contains(&spec.name) && !options.emulate {
            let name = format!("{}: its step", spec.name);
            table.fact("run", &name, "captured as a graph".into(), on_gpu.captured);
        }
    }
    // Images of another size are the loader's work: their batches are uploaded, through page-locked memory on a stream of their own.
    let uploaded: Vec<&str> = small
        .into_iter()
        .chain(["run.image_size=16", "run.epochs=1"])
        .collect();
    let name = "batches uploaded: loss beside the CPU's";
    beside_the_cpus(&runner, table, name, &uploaded);
    let with = |more: &[&'static str]| {
        small
            .into_iter()
            .chain(more.iter().copied())
            .collect::<Vec<&str>>()
    };
    let mut same = |name: &str, a: Result<Ran>, b: Result<Ran>| match (a, b) {
        (Ok(a), Ok(b)) => table.fact(
            "run",
            name,
            "weights byte for byte".into(),
            a.weights == b.weights,
        ),
        (Err(error), _) | (_, Err(error)) => table.broken("run", name, &error),
    };
    same(
        "captured as a graph in turn, and launched kernel by kernel",
        runner.run(&with(&["run.cuda_branches=false"]), true),
        runner.run(&with(&["run.cuda_graph=false"]), true),
    );
    let beside = runner.run(&with(&[]), true);
    let (has_branches, notices) = match &beside {
        Ok(ran) => (ran.branches, ran.notices.clone()),
        Err(_) => (false, Vec::new()),
    };
    same(
        "captured with branches beside the backbone, and launched kernel by kernel",
        beside,
        runner.run(&with(&["run.cuda_graph=false"]), true),
    );
    same(
        "branches beside the backbone, bf16, twice",
        runner.run(&with(&["run.precision=bf16"]), true),
        runner.run(&with(&["run.precision=bf16"]), true),
    );
    same(
        "twice",
        runner.run(&with(&[]), true),
        runner.run(&with(&[]), true),
    );
    same(
        "interrupted and resumed",
        runner.interrupted(&with(&[])),
        runner.run(&with(&[]), true),
    );
    same(
        "interrupted and resumed, bf16",
        runner.interrupted(&with(&["run.precision=bf16"])),
        runner.run(&with(&["run.precision=bf16"]), true),
    );
    // Timed anew, other algorithms may win: a run has to go on with its own.
    let stopped = guarded(|| runner.stopped(&with(&["run.cudnn_benchmark=true"])));
    let twice = stopped.and_then(|first| {
        let second = runner.folder();
        copy(&first, &second)?;
        let both = [&first, &second].map(|run| guarded(|| Runner::go_on(run)));
        Ok(both.into())
    });
    let (first, second) = match twice {
        Ok(both) => both,
        Err(error) => (Err(error), Err(anyhow::anyhow!("it was not begun"))),
    };
    same(
        "resumed twice from one checkpoint, cuDNN's algorithms tried out",
        first,
        second,
    );
    // Without NCCL in the build, or on the processor, there is no sum over one; what surrounds it is the same.
    let sums = if cfg!(feature = "nccl") && !options.emulate {
        "sums over one process by NCCL, and none"
    } else {
        "called the only process by a launcher, without NCCL, and by nobody"
    };
    same(
        sums,
        runner.launched(&with(&["distribution.enabled=true"])),
        runner.run(&with(&["run.cuda_graph=false"]), true),
    );
    same(
        "batches uploaded, captured as a graph, and launched kernel by kernel",
        runner.run(&with(&["run.image_size=16"]), true),
        runner.run(&with(&["run.image_size=16", "run.cuda_graph=false"]), true),
    );
    let poisoned = |graph: bool| {
        guarded(|| {
            let graph = format!("run.cuda_graph={graph}");
            let settings: Vec<&str> = small.into_iter().chain([graph.as_str()]).collect();
            poisoned::run(&runner.config(&settings, true)?, &runner.folder())
        })
    };
    let name =
        "a step that is not finite, with the next one under way, and launched kernel by kernel";
    match (poisoned(true), poisoned(false)) {
        (Ok(ahead), Ok(alone)) => table.fact(
            "run",
            name,
            "told as itself, parameters byte for byte".into(),
            ahead.is_by_its_step() && ahead == alone,
        ),
        (Err(error), _) | (_, Err(error)) => table.broken("run", name, &error),
    }
    let name = "a plan, its steps launched as training's are";
    let planned = guarded(|| {
        let _on_gpu = OnGpu::new(&Device::Cpu);
        let trainer = Trainer::new(&runner.config(&with(&[]), true)?)?;
        Ok(trainer.plan()?.seconds_per_step)
    });
    match planned {
        Ok(seconds) => {
            let value = format!("{:.2} ms a step", 1e3 * seconds);
            table.fact("run", name, value, seconds > 0.0 && seconds.is_finite());
        }
        Err(error) => table.broken("run", name, &error),
    }
    if !options.emulate {
        let name = "mixskd: its step with branches beside the backbone";
        table.fact("run", name, "captured as a graph".into(), has_branches);
        for notice in notices {
            table.figure("note", name, notice, Value::Null);
        }
    }
    // A real run: the same curve within noise, whatever the arithmetic.
    let real: Vec<&str> = if options.emulate {
        with(&[])
    } else {
        vec![
            "model.width=0.5",
            "run.batch=64",
            "run.epochs=3",
            "run.max_batches=90",
        ]
    };
    let float = runner.run(&real, true);
    // Three epochs make of the last bit what they make of another arithmetic: on an H100 tf32 was once farther from float than bf16, 0.032 and
    // 0.007. A network of two channels is another matter.
    let bounds = if options.emulate {
        [0.03, 0.3]
    } else {
        [0.06, 0.06]
    };
    for (name, bound) in ["tf32", "bf16"].into_iter().zip(bounds) {
        let precision = format!("run.precision={name}");
        let settings: Vec<&str> = real.iter().copied().chain([precision.as_str()]).collect();
        let label = format!("{name}: loss curve beside f32's");
        match (&float, runner.run(&settings, true)) {
            (Ok(float), Ok(other)) => {
                let curves = json!([other.losses, float.losses]);
                table.error_of("run", &label, far(&other, float), bound, &curves);
            }
            (Err(error), _) => table.broken("run", &label, &anyhow::anyhow!("{error:#}")),
            (_, Err(error)) => table.broken("run", &label, &error),
        }
    }
}
