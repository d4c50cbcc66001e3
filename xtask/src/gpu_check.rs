//! `cargo xtask gpu-check`: builds the program that checks and times a GPU, and runs it, or packs it for a machine without Rust.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use xshell::{Shell, cmd};

/// Options of `cargo xtask gpu-check`.
#[derive(Debug, clap::Args)]
pub(crate) struct GpuCheckArgs {
    /// Build, strip, and put the program, and `mixskd` beside it, into this folder instead of running it: there they need no Rust
    #[arg(long, value_name = "DIR")]
    pack: Option<PathBuf>,
    /// Build with NCCL, which is then needed wherever the program runs: a sum over one process is checked too
    #[arg(long, conflicts_with = "emulate")]
    nccl: bool,
    /// The same checks with the processor in the GPU's place, without the speed: shows that they can pass
    #[arg(long, conflicts_with = "pack")]
    emulate: bool,
    /// Handed to the program: --data DIR, --out FILE, --python PROGRAM, --seconds N, --skip-speed
    #[arg(last = true)]
    rest: Vec<String>,
}

pub(crate) fn run(root: &Path, args: &GpuCheckArgs) -> Result<()> {
    let sh = Shell::new()?;
    sh.change_dir(root);
    let rest = &args.rest;
    if args.emulate {
        return emulated(&sh, root, rest);
    }
    // candle's own kernels are compiled for one architecture, which a machine without a GPU cannot ask for. Newer GPUs run the oldest that
    // knows bfloat16.
    let _capability = std::env::var_os("CUDA_COMPUTE_CAP")
        .is_none()
        .then(|| sh.push_env("CUDA_COMPUTE_CAP", "80"));
    let features = if args.nccl { "nccl" } else { "cuda" };
    let mut wanted = vec![
        "--package=mixskd-benches".to_string(),
        format!("--features=mixskd-benches/{features}"),
        "--bin=gpu-check".into(),
    ];
    if args.pack.is_some() {
        // What trains there.
        wanted.extend([
            "--package=mixskd-cli".into(),
            format!("--features=mixskd-cli/{features}"),
            "--bin=mixskd".into(),
        ]);
    }
    cmd!(sh, "cargo build --release {wanted...}")
        .run()
        .context("hint: it needs nvcc 13.0 or older, see docs/cuda.md")?;
    let Some(folder) = &args.pack else {
        let built = built(root, "release", "gpu-check");
        return Ok(cmd!(sh, "{built} {rest...}").run()?);
    };
    sh.create_dir(folder)?;
    for name in ["gpu-check", "mixskd"] {
        let packed = folder.join(name);
        sh.copy_file(built(root, "release", name), &packed)?;
        cmd!(sh, "strip {packed}").run()?;
    }
    eprintln!(
        "{}: carry gpu-check and mixskd to the machine with the GPU and run them there; --help says how",
        folder.display()
    );
    Ok(())
}

/// Everything but the speed, with the processor in the GPU's place.
///
/// The command line's package is named beside the benches' so that cargo chooses the features that the tests were built with; what is built
/// from two packages cannot be run with `cargo run`.
pub(crate) fn emulated(sh: &Shell, root: &Path, rest: &[String]) -> Result<()> {
    cmd!(
        sh,
        "cargo build --quiet --package mixskd-benches --package mixskd-cli --features mixskd-benches/emulator --bin gpu-check"
    )
    .run()?;
    let built = built(root, "debug", "gpu-check");
    Ok(cmd!(sh, "{built} --emulate --skip-speed {rest...}").run()?)
}

/// Where cargo puts the program.
fn built(root: &Path, profile: &str, name: &str) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || root.join("target"),
        |target| root.join(PathBuf::from(target)),
    );
    target.join(profile).join(name)
}
