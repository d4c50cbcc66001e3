//! Everything that only a GPU can show, in one program: every kernel beside its CPU twin, whole steps, resuming, memory, and speed beside
//! PyTorch. `cargo xtask gpu-check` builds and runs it; the stripped binary alone does on a machine without Rust.
//!
//!     gpu-check [--data DIR] [--out FILE] [--python PROGRAM] [--seconds N] [--skip-speed | --only-speed] [--emulate]
//!
//! Prints one table and writes it as JSON. Exit status 1 where a check failed; a speed below its goal is a row, not a failure.

mod child;
mod inference;
mod maps;
mod parity;
mod poisoned;
mod runs;
mod single;
mod speed;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

#[cfg(feature = "cuda")]
use anyhow::Context;
use anyhow::{Result, bail};
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
    /// When to begin no further check: what is left belongs to the speed.
    pub(crate) checks_end: Instant,
    /// When to begin nothing new any more.
    pub(crate) deadline: Instant,
}

impl Options {
    /// Whether no further check is to begin.
    pub(crate) fn checks_late(&self) -> bool {
        Instant::now() > self.checks_end
    }

    /// Whether nothing new is to begin.
    pub(crate) fn is_late(&self) -> bool {
        Instant::now() > self.deadline
    }
}

/// The greater of two errors; what is no number is greater than any.
pub(crate) fn worse(a: f64, b: f64) -> f64 {
    if a.is_nan() || b <= a { a } else { b }
}

/// What `check` comes to; a panic in it, or in a library below, is an error like another, and the other checks go on.
pub(crate) fn guarded<T>(check: impl FnOnce() -> Result<T>) -> Result<T> {
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(check));
    outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        bail!("panicked: {}", text.unwrap_or_default())
    })
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
        // A run that a launcher's variables are said to.
        Some("run") => runs::alone(&args[1..]).map(|()| true),
        Some("step") => speed::step(&args[1..]).map(|()| true),
        _ => options(&args).and_then(|options| check(&options)),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(if error.is::<Usage>() { 2 } else { 1 })
        }
    }
}

/// The program was called in a way that it does not know.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

fn options(args: &[String]) -> Result<Options> {
    let mut options = Options {
        data: None,
        out: "gpu-check.json".into(),
        python: "python3".into(),
        skip_speed: false,
        only_speed: false,
        emulate: false,
        checks_end: Instant::now(),
        deadline: Instant::now(),
    };
    let mut seconds = SECONDS;
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || {
            let value = args.next();
            value.ok_or_else(|| Usage(format!("{arg} wants a value\nhint: {USAGE}")))
        };
        match arg.as_str() {
            "--data" => options.data = Some(value()?.into()),
            "--out" => options.out = value()?.into(),
            "--python" => options.python.clone_from(value()?),
            "--seconds" => {
                let text = value()?;
                let number = text.parse();
                seconds = number.map_err(|_| {
                    Usage(format!(
                        "--seconds wants a number, not {text}\nhint: {USAGE}"
                    ))
                })?;
            }
            "--skip-speed" => options.skip_speed = true,
            "--only-speed" => options.only_speed = true,
            "--emulate" => options.emulate = true,
            other => bail!(Usage(format!("{other} is no option\nhint: {USAGE}"))),
        }
    }
    options.deadline += Duration::from_secs(seconds);
    let checks = if options.skip_speed {
        seconds
    } else {
        seconds / 2
    };
    options.checks_end += Duration::from_secs(checks);
    Ok(options)
}

/// Every check; whether all passed.
fn check(options: &Options) -> Result<bool> {
    let gpu = open(options.emulate)?;
    let mut table = Table::in_file(&options.out);
    let compiling = if options.skip_speed {
        speed::Compiling::default()
    } else {
        speed::Compiling::begin(options)
    };
    if options.only_speed {
        table.left_out("kernel", "--only-speed");
        table.left_out("run", "--only-speed");
    } else {
        parity::run(&gpu, options, &mut table);
        runs::run(options, &mut table);
    }
    if options.skip_speed {
        table.left_out("speed", "--skip-speed");
    } else {
        compiling.end(options);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_is_the_worst() {
        let of = |errors: &[f64]| errors.iter().copied().fold(0.0, worse);
        assert_eq!(of(&[0.5, 0.25]), 0.5);
        for errors in [[f64::NAN, 0.5], [0.5, f64::NAN]] {
            assert!(of(&errors).is_nan());
        }
        assert!(of(&[f64::INFINITY, 1.0]).is_infinite());
    }

    #[test]
    fn what_is_asked_wrongly_is_a_matter_of_usage() {
        for args in [&["--foo"][..], &["--seconds"], &["--seconds", "soon"]] {
            let args: Vec<String> = args.iter().map(ToString::to_string).collect();
            let error = options(&args).err().unwrap();
            assert!(error.is::<Usage>(), "{error}");
            assert!(error.to_string().contains("hint: gpu-check"), "{error}");
            let step = speed::step(&args).unwrap_err();
            assert!(step.is::<Usage>(), "{step}");
        }
    }

    #[test]
    fn a_panic_is_an_error() {
        let error = guarded::<()>(|| panic!("of {}", "a library")).unwrap_err();
        assert_eq!(error.to_string(), "panicked: of a library");
        assert_eq!(guarded(|| Ok(1)).unwrap(), 1);
    }
}
