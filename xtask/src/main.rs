//! The project's own tools: `cargo xtask check | tidy | golden | bench | interop | cuda-check | gpu-check | crash | fuzz | soak`.

mod bench;
mod check;
mod crash;
mod cuda_check;
mod fuzz;
mod golden;
mod gpu_check;
mod interop;
mod program;
mod python;
mod soak;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

/// Checks, golden values and benches of the mixskd workspace.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Everything a change must pass, cheapest first: format, tidy, clippy, docs, tests
    Check(check::CheckArgs),
    /// The invariants of docs/architecture.md that a reading of the files can check
    Tidy,
    /// Regenerate the golden test data with PyTorch, or compare a fresh run with what is stored
    Golden(golden::GoldenArgs),
    /// Weights and networks to and from torchvision, timm, onnxruntime and tract, with the real packages
    Interop(interop::InteropArgs),
    /// Run the criterion benches, or whole rows of work beside PyTorch
    Bench(bench::BenchArgs),
    /// The cuda feature without a GPU: kernels to PTX, kernels on the processor, clippy
    CudaCheck(cuda_check::CudaCheckArgs),
    /// On a machine with a GPU: every kernel beside its CPU twin, whole runs, speed beside PyTorch
    GpuCheck(gpu_check::GpuCheckArgs),
    /// Kill a training run at random moments, resume it, and compare the bits at the end
    Crash(crash::CrashArgs),
    /// Feed damaged files to everything that reads files
    Fuzz(fuzz::FuzzArgs),
    /// Train for a long time and watch memory and file handles
    Soak(soak::SoakArgs),
}

fn main() -> ExitCode {
    match dispatch(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(args: Args) -> Result<()> {
    let root = root()?;
    match args.command {
        Command::Check(args) => check::run(&root, &args),
        Command::Tidy => tidy::run(&root),
        Command::Golden(args) => golden::run(&root, &args),
        Command::Interop(args) => interop::run(&root, &args),
        Command::Bench(args) => bench::run(&root, &args),
        Command::CudaCheck(args) => cuda_check::run(&root, &args),
        Command::GpuCheck(args) => gpu_check::run(&root, &args),
        Command::Crash(args) => crash::run(&root, &args),
        Command::Fuzz(args) => fuzz::run(&root, &args),
        Command::Soak(args) => soak::run(&root, &args),
    }
}

/// The workspace's folder.
fn root() -> Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = here.parent().context("xtask has no parent folder")?;
    Ok(root.to_path_buf())
}
