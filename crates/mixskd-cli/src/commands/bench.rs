//! `mixskd bench`: how fast a configuration runs on this machine. The measuring is `mixskd_train::bench`.

use clap::{Parser, Subcommand};
use mixskd_models::ModelConfig;
use mixskd_train::Launching;
use mixskd_train::bench::{InferBench, InferReport, KernelTimes, Spread, StepBench, StepReport};

use super::shared::{GpuArgs, ThreadArgs};
use crate::failure::Result;
use crate::output;

/// Flags of `mixskd bench`.
#[derive(Debug, Parser)]
pub(crate) struct Args {
    #[command(subcommand)]
    work: Work,
}

/// What can be measured.
#[derive(Debug, Subcommand)]
enum Work {
    /// Time whole training steps on synthetic images: forward, all terms, backward, update
    Step(StepArgs),
    /// Time the classification of synthetic images
    Infer(InferArgs),
}

/// Which network.
#[derive(Debug, clap::Args)]
struct ModelArgs {
    /// Network, one of `mixskd models`
    #[arg(long, value_name = "NAME", default_value = "cifar_resnet18")]
    model: String,
    /// Width multiplier of every layer
    #[arg(long, value_name = "F", default_value_t = 1.0)]
    width: f64,
    /// Number of classes
    #[arg(long, value_name = "N", default_value_t = 100)]
    classes: usize,
    /// Side of the images in pixels [default: what the network is made for]
    #[arg(long, value_name = "PX")]
    input: Option<usize>,
    #[command(flatten)]
    threads: ThreadArgs,
    /// Print one JSON document on stdout and nothing else there
    #[arg(long)]
    json: bool,
}

/// Flags of `mixskd bench step`.
#[derive(Debug, clap::Args)]
struct StepArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Method, one of `mixskd methods`
    #[arg(long, value_name = "NAME", default_value = "mixskd")]
    method: String,
    /// Original images per step; methods that mix put as many mixes on top
    #[arg(long, value_name = "N", default_value_t = 32)]
    batch: usize,
    /// Steps to time, after two that do not count
    #[arg(long, value_name = "N", default_value_t = 5)]
    steps: usize,
    #[command(flatten)]
    gpu: GpuArgs,
    /// On a GPU, also time each kernel and convolution of a step
    #[arg(long)]
    kernels: bool,
}

/// Flags of `mixskd bench infer`.
#[derive(Debug, clap::Args)]
struct InferArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Images that go through the network at once
    #[arg(long, value_name = "N", default_value_t = 1)]
    batch: usize,
    /// Batches to time, after three that do not count
    #[arg(long, value_name = "N", default_value_t = 20)]
    steps: usize,
}

impl Args {
    /// Measures and prints.
    pub(crate) fn run(&self) -> Result<()> {
        match &self.work {
            Work::Step(args) => {
                let report = StepBench {
                    batch: args.batch,
                    steps: args.steps,
                    precision: args.gpu.precision.unwrap_or_default(),
                    launching: Launching::new(
                        args.gpu.cuda_graph.unwrap_or(true),
                        args.gpu.cuda_branches.unwrap_or(true),
                    ),
                    cudnn_benchmark: args.gpu.cudnn_benchmark.unwrap_or(false),
                    kernels: args.kernels,
                    ..StepBench::new(args.model.config()?, &args.method)?
                }
                .run()?;
                if args.model.json {
                    return output::json(&report);
                }
                output::line(&step_text(&report))
            }
            Work::Infer(args) => {
                let report = InferBench {
                    batch: args.batch,
                    steps: args.steps,
                    ..InferBench::new(args.model.config()?)
                }
                .run()?;
                if args.model.json {
                    return output::json(&report);
                }
                output::line(&infer_text(&report))
            }
        }
    }
}

impl ModelArgs {
    /// The network; makes the pool of threads, too.
    fn config(&self) -> Result<ModelConfig> {
        self.threads.apply()?;
        let config = ModelConfig::new(&self.model, self.classes)?;
        let config = ModelConfig {
            width: self.width,
            input: self.input.unwrap_or(config.input),
            ..config
        };
        config.validate()?;
        Ok(config)
    }
}

fn step_text(report: &StepReport) -> String {
    let mut rows = vec![
        (
            "network",
            network(&report.model, report.width, report.classes, report.input),
        ),
        (
            "step",
            format!(
                "{}, batch {} ({} images through the network), {}",
                report.method,
                report.batch,
                report.images_per_step,
                place(report)
            ),
        ),
        ("samples/s", spread(report.samples_per_s, 1.0)),
        ("ms per step", spread(report.seconds_per_step, 1e3)),
        (
            "GFLOP/s",
            format!(
                "{}; multiply-adds of the forward pass × 2 × 3",
                spread(report.gflop_per_s, 1.0)
            ),
        ),
        ("peak memory", memory(report.peak_memory_bytes)),
    ];
    if let Some(seconds) = report.seconds_per_step_ahead {
        rows.push(("ms in a run", format!("{:.2}", 1e3 * seconds)));
    }
    if report.gpu_memory_bytes.is_some() {
        rows.push(("GPU memory", memory(report.gpu_memory_bytes)));
    }
    rows.extend(report.notices.iter().map(|text| ("note", text.clone())));
    let mut text = output::columns(&rows);
    if let Some(times) = &report.gpu_kernels {
        text.push_str("\n\n");
        text.push_str(&kernels_text(times));
    }
    text
}

/// Kernels that are printed by themselves.
const KERNELS: usize = 30;

/// A line for each of the kernels that take longest, one for all others, and one for what lies between.
fn kernels_text(times: &KernelTimes) -> String {
    let (longest, others) = times.kernels.split_at(times.kernels.len().min(KERNELS));
    let line = |ms: f64, launches: Option<usize>, name: &str| {
        let share = 100.0 * ms / times.total_ms.max(f64::MIN_POSITIVE);
        let launches = launches.map_or(String::new(), |count| count.to_string());
        format!("{ms:>9.3} ms  {share:>4.1} %  {launches:>6}  {name}")
    };
    let mut lines = vec![
        format!("{:>9} ms  {:>4}    {:>6}  kernel", "", "", "count"),
        line(times.total_ms, None, "the whole step on the GPU"),
    ];
    lines.extend(
        longest
            .iter()
            .map(|k| line(k.ms, Some(k.launches), &k.name)),
    );
    if !others.is_empty() {
        let (ms, launches) = others
            .iter()
            .fold((0.0, 0), |(ms, n), k| (ms + k.ms, n + k.launches));
        let name = format!("{} other kernels", others.len());
        lines.push(line(ms, Some(launches), &name));
    }
    lines.push(line(
        times.between_ms,
        None,
        "between them: candle's kernels, copies, waiting",
    ));
    lines.join("\n")
}

/// What computed, and how.
fn place(report: &StepReport) -> String {
    if report.device == "cpu" {
        return format!("{} threads", report.threads);
    }
    let launched = if report.captured {
        "captured as a graph"
    } else {
        "kernel by kernel"
    };
    format!("GPU, {}, {launched}", report.precision)
}

fn infer_text(report: &InferReport) -> String {
    output::columns(&[
        (
            "network",
            network(&report.model, report.width, report.classes, report.input),
        ),
        (
            "batch",
            format!("{}, {} threads", report.batch, report.threads),
        ),
        ("samples/s", spread(report.samples_per_s, 1.0)),
        ("ms per batch", spread(report.seconds_per_batch, 1e3)),
        (
            "GFLOP/s",
            format!("{}; multiply-adds × 2", spread(report.gflop_per_s, 1.0)),
        ),
        ("peak memory", memory(report.peak_memory_bytes)),
    ])
}

fn network(name: &str, width: f64, classes: usize, input: usize) -> String {
    format!("{name}, width {width}, {classes} classes, {input} px")
}

/// The median, with least and greatest behind it.
fn spread(spread: Spread, unit: f64) -> String {
    let text = |value: f64| {
        let value = value * unit;
        // Four digits say enough of a measurement.
        let decimals = (3.0 - value.abs().max(1e-9).log10().floor()).clamp(0.0, 3.0);
        format!("{value:.*}", decimals as usize)
    };
    let [min, median, max] = [spread.min, spread.median, spread.max].map(text);
    format!("{median} ({min} to {max})")
}

fn memory(bytes: Option<u64>) -> String {
    match bytes {
        Some(bytes) => format!("{:.0} MiB", bytes as f64 / f64::from(1 << 20)),
        None => "not told by this system".into(),
    }
}

#[cfg(test)]
mod tests {
    use mixskd_train::bench::KernelTime;

    use super::*;

    #[test]
    fn kernels_add_up_to_the_step() {
        let kernels = (0..40).map(|i| KernelTime {
            name: format!("kernel {i}"),
            launches: 2,
            ms: 0.1,
        });
        let text = kernels_text(&KernelTimes {
            total_ms: 5.0,
            between_ms: 1.0,
            kernels: kernels.collect(),
        });
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 34);
        assert_eq!(
            lines[1].trim(),
            "5.000 ms  100.0 %          the whole step on the GPU"
        );
        assert_eq!(lines[2].trim(), "0.100 ms   2.0 %       2  kernel 0");
        assert_eq!(
            lines[32].trim(),
            "1.000 ms  20.0 %      20  10 other kernels"
        );
        assert!(lines[33].contains("1.000 ms  20.0 %"), "{}", lines[33]);
    }

    #[test]
    fn numbers_have_four_digits() {
        let of = |median| Spread {
            min: median / 2.0,
            median,
            max: median * 2.0,
        };
        assert_eq!(spread(of(0.0123456), 1e3), "12.35 (6.173 to 24.69)");
        assert_eq!(spread(of(12345.6), 1.0), "12346 (6173 to 24691)");
    }
}
