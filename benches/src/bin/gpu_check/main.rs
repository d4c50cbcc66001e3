//! Everything that only a GPU can show, in one program: every kernel beside its CPU twin, whole steps, resuming, memory, and speed beside
//! PyTorch. `cargo xtask gpu-check` builds and runs it; the stripped binary alone does on a machine without Rust.
//!
//!     gpu-check [--data DIR] [--out FILE] [--python PROGRAM] [--seconds N] [--skip-speed | --only-speed] [--emulate]
//!
//! Prints one table and writes it as JSON. Exit status 1 where a check failed; a speed below its goal is a row, not a failure.

mod parity;
mod runs;
mod speed;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use candle_core::Device;
use table::Table;

#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Seconds that the whole may take, by default.
const SECONDS: u64 = 570;

/// What ends a check whose time has come; what it would have shown is left out.
pub(crate) const LATE: &str = "the time is up";

/// All options.
const USAGE: &str = "gpu-check [--data DIR] [--out FILE] [--python PROGRAM] [--seconds N] [--skip-speed | --only-speed] [--emulate]";

/// What was asked for.
pub(crate) struct Options {
    /// CIFAR-100's binary files, or the shipped set.
    pub(crate) data: Option<PathBuf>,
    out: PathBuf,
    pub(crate) python: String,
    skip_speed: bool,
    only_speed: bool,
    pub(crate) emulate: bool,
    /// When to begin nothing new any more.
    pub(crate) deadline: Instant,
}

impl Options {
    /// Whether nothing new is to begin.
    pub(crate) fn is_late(&self) -> bool {
        Instant::now() > self.deadline
    }
}

fn main() -> ExitCode {
    mixskd_benches::keep_freed_memory();
    let args: Vec<String> = std::env::args().skip(1).collect();
    // A row of speed, in a process of its own so that its memory is its own.
    let done = match args.first().map(String::as_str) {
        Some("--help" | "-h") => {
            println!("{USAGE}");
            Ok(true)
        }
        Some("step") => speed::step(&args[1..]).map(|()| true),
        _ => options(&args).and_then(|options| check(&options)),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn options(args: &[String]) -> Result<Options> {
    let mut options = Options {
        data: None,
        out: "gpu-check.json".into(),
        python: "python3".into(),
        skip_speed: false,
        only_speed: false,
        emulate: false,
        deadline: Instant::now(),
    };
    let mut seconds = SECONDS;
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().with_context(|| format!("{arg} wants a value"));
        match arg.as_str() {
            "--data" => options.data = Some(value()?.into()),
            "--out" => options.out = value()?.into(),
            "--python" => options.python.clone_from(value()?),
            "--seconds" => seconds = value()?.parse().context("--seconds wants a number")?,
            "--skip-speed" => options.skip_speed = true,
            "--only-speed" => options.only_speed = true,
            "--emulate" => options.emulate = true,
            other => bail!("{other} is no option\nhint: {USAGE}"),
        }
    }
    options.deadline += std::time::Duration::from_secs(seconds);
    Ok(options)
}

/// Every check; whether all passed.
fn check(options: &Options) -> Result<bool> {
    let gpu = open(options.emulate)?;
    let mut table = Table::in_file(&options.out);
    if options.only_speed {
        table.left_out("kernel", "--only-speed");
        table.left_out("run", "--only-speed");
    } else {
        parity::run(&gpu, &mut table);
        runs::run(options, &mut table);
    }
    if options.skip_speed {
        table.left_out("speed", "--skip-speed");
    } else {
        speed::run(options, &gpu, &mut table);
    }
    table.print();
    table.write()?;
    Ok(table.passed())
}

/// The GPU, or the processor in its place.
fn open(emulate: bool) -> Result<Device> {
    if emulate {
        #[cfg(feature = "emulator")]
        return Ok(Device::Cpu);
        #[cfg(not(feature = "emulator"))]
        bail!("--emulate needs a build with `--features emulator`");
    }
    #[cfg(feature = "cuda")]
    return mixskd_kernels::open_gpu(0).context("the GPU could not be opened\nhint: the driver, cuBLAS, cuRAND, the CUDA runtime, NVRTC and cuDNN 9 have to be on the loader's path");
    #[cfg(not(feature = "cuda"))]
    bail!(
        "this build knows no GPU\nhint: build with `--features cuda`, or try the checks with `--features emulator` and --emulate"
    )
}

/// Has the CPU's tensors treated as a GPU's while it lives, where the CPU stands in for one.
pub(crate) struct OnGpu;

impl OnGpu {
    pub(crate) fn new(device: &Device) -> Self {
        #[cfg(feature = "emulator")]
        mixskd_kernels::emulate_gpu(device.is_cpu());
        let _ = device;
        Self
    }
}

impl Drop for OnGpu {
    fn drop(&mut self) {
        #[cfg(feature = "emulator")]
        mixskd_kernels::emulate_gpu(false);
    }
}
