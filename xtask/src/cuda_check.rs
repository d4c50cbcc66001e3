//! `cargo xtask cuda-check`: what can be said of the `cuda` feature on a machine without a GPU.
//!
//! Three things: the kernels through nvcc to PTX; the same text through a C++ compiler and, thread by thread on the processor,
//! against the CPU's kernels, by itself and in whole steps and runs; and clippy over the workspace with the feature on. nvcc is the machine's own or comes from PyPI.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use xshell::{Shell, cmd};

use crate::gpu_check;
use crate::python::{Environment, PythonArgs};

/// NVIDIA's compiler without the rest of the toolkit. A driver of the 580 line runs what CUDA 13.0 makes.
const NVCC: Environment = Environment {
    folder: "python-nvcc",
    packages: &[
        "nvidia-cuda-nvcc==13.0.88",
        "nvidia-cuda-crt==13.0.88",
        "nvidia-nvvm==13.0.88",
        "nvidia-cuda-runtime==13.0.96",
        "nvidia-cuda-cccl==13.0.85",
    ],
    bare_packages: &[],
};

/// Options of `cargo xtask cuda-check`.
#[derive(Debug, clap::Args)]
pub(crate) struct CudaCheckArgs {
    /// Where no nvcc or C++ compiler can be had, say so, leave out what needs it, and call it no failure
    #[arg(long)]
    if_possible: bool,
    #[command(flatten)]
    python: PythonArgs,
}

pub(crate) fn run(root: &Path, args: &CudaCheckArgs) -> Result<()> {
    let sh = Shell::new()?;
    sh.change_dir(root);
    if cfg!(windows) {
        eprintln!("cuda-check: NOT CHECKED, it needs a Unix shell");
        return Ok(());
    }
    let nvcc = match nvcc(&sh, root, &args.python) {
        Ok(nvcc) => Some(nvcc),
        Err(error) if args.if_possible => {
            eprintln!("cuda-check: kernels NOT COMPILED, there is no nvcc: {error:#}");
            None
        }
        Err(error) => return Err(error),
    };
    clippy(&sh, root, nvcc.as_deref())?;
    emulate(&sh, root, args.if_possible)
}

/// Clippy with the feature on, and `nccl` besides. A target folder of its own: what is built here holds empty kernels of candle's.
fn clippy(sh: &Shell, root: &Path, nvcc: Option<&Path>) -> Result<()> {
    eprintln!("--- clippy with features cuda and nccl");
    let target = root.join("target").join("cuda-check");
    let _stand_in = sh.push_env("NVCC", root.join("xtask/cuda/nvcc.sh"));
    let _real = nvcc.map(|nvcc| sh.push_env("MIXSKD_NVCC", nvcc));
    let _capability = sh.push_env("CUDA_COMPUTE_CAP", "80");
    let _version = sh.push_env("CUDARC_CUDA_VERSION", "13000");
    cmd!(
        sh,
        "cargo clippy --target-dir {target} --package mixskd-cli --package mixskd-train --package mixskd-models --package mixskd-losses --package mixskd-kernels --package mixskd-cuda --package mixskd-benches --features mixskd-cli/nccl,mixskd-benches/nccl -- --deny warnings"
    )
    .run()?;
    let compiled = if nvcc.is_some() {
        ""
    } else {
        ", kernels not compiled"
    };
    eprintln!("cuda-check: the cuda and nccl features hold{compiled}; nothing has run on a GPU");
    Ok(())
}

/// The kernels on the processor, beside the CPU's own.
fn emulate(sh: &Shell, root: &Path, if_possible: bool) -> Result<()> {
    eprintln!("--- kernels on the processor");
    let compiler = env::var("CXX").unwrap_or_else(|_| "c++".into());
    let found = cmd!(sh, "{compiler} --version")
        .quiet()
        .ignore_stdout()
        .run();
    match found {
        Err(error) if if_possible => {
            eprintln!("cuda-check: kernels NOT EMULATED, there is no C++ compiler: {error}");
            Ok(())
        }
        found => {
            found.context("hint: install a C++ compiler, or name one in CXX")?;
            let features = "mixskd-train/emulator,mixskd-benches/emulator";
            let kernels = cmd!(
                sh,
                "cargo test --quiet --package mixskd-cuda --package mixskd-kernels --package mixskd-benches --features {features} --lib --test emulated --test stand_in --test prepared_stand_in --test maps_stand_in --test lanes"
            );
            kernels.env("MIXSKD_RACECHECK", "1").run()?;
            let steps = cmd!(
                sh,
                "cargo test --quiet --package mixskd-train --package mixskd-benches --features {features} --test emulated --bin gpu-check"
            );
            steps.run()?;
            let out = ["--out", "target/gpu-check-emulated.json"].map(String::from);
            gpu_check::emulated(sh, root, &out)
        }
    }
}

/// The machine's nvcc, or PyPI's.
fn nvcc(sh: &Shell, root: &Path, python: &PythonArgs) -> Result<PathBuf> {
    let named = env::var_os("NVCC").map(PathBuf::from);
    let homes = ["CUDA_HOME", "CUDA_PATH"].map(|name| {
        let home = PathBuf::from(env::var_os(name)?);
        Some(home.join("bin").join("nvcc"))
    });
    let search = env::var_os("PATH").unwrap_or_default();
    let on_path = env::split_paths(&search).map(|folder| folder.join("nvcc"));
    let own = named
        .into_iter()
        .chain(homes.into_iter().flatten())
        .chain(on_path);
    if let Some(nvcc) = own.into_iter().find(|path| path.is_file()) {
        return Ok(nvcc);
    }
    let python = python.interpreter(sh, root, &NVCC)?;
    let script = "import nvidia, pathlib; print(pathlib.Path(list(nvidia.__path__)[0]) / 'cu13')";
    let home = PathBuf::from(cmd!(sh, "{python} -c {script}").read()?);
    Ok(home.join("bin").join("nvcc"))
}
