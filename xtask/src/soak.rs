//! `cargo xtask soak`: trains for a long time and watches memory and file handles.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::program::ProgramArgs;

/// Options of `cargo xtask soak`.
#[derive(Debug, clap::Args)]
pub(crate) struct SoakArgs {
    /// How long to train
    #[arg(long, default_value_t = 120.0)]
    minutes: f64,
    /// Seconds between two looks
    #[arg(long, default_value_t = 15.0)]
    every: f64,
    /// Where to write the table of all looks, as CSV
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    #[command(flatten)]
    program: ProgramArgs,
}

/// The default run with many epochs and checkpoints.
const RUN: &str =
    "train --epochs 1000000 --checkpoint-every 10s --set schedule.kind=constant --out soak";

/// What one look saw.
struct Look {
    minutes: f64,
    resident_mib: f64,
    handles: usize,
    threads: usize,
}

pub(crate) fn run(root: &Path, args: &SoakArgs) -> Result<()> {
    let program = args.program.path(root)?;
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let mut child = Command::new(&program)
        .args(RUN.split_whitespace())
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))?;
    let started = Instant::now();
    let mut looks = Vec::new();
    while started.elapsed().as_secs_f64() < 60.0 * args.minutes {
        std::thread::sleep(Duration::from_secs_f64(args.every));
        if let Some(status) = child.try_wait()? {
            bail!("the run ended by itself: {status}");
        }
        looks.push(look(child.id(), started)?);
        if let Some(path) = &args.csv {
            std::fs::write(path, csv(&looks))
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    child.kill()?;
    child.wait()?;
    let metrics =
        std::fs::read_to_string(folder.path().join("soak/metrics.jsonl")).unwrap_or_default();
    println!(
        "{:.0} minutes, {} epochs, {} looks",
        args.minutes,
        metrics.lines().count(),
        looks.len()
    );
    // The first quarter warms up allocator and caches; what grows after it would go on growing.
    let quarters: Vec<&[Look]> = looks.chunks(looks.len().div_ceil(4).max(1)).collect();
    println!(
        "| quarter | resident MiB, mean | most | file handles, most | threads, most |\n|---|---|---|---|---|"
    );
    for (k, quarter) in quarters.iter().enumerate() {
        let mean = quarter.iter().map(|look| look.resident_mib).sum::<f64>() / quarter.len() as f64;
        let most = quarter
            .iter()
            .map(|look| look.resident_mib)
            .fold(0.0, f64::max);
        let handles = quarter.iter().map(|look| look.handles).max().unwrap_or(0);
        let threads = quarter.iter().map(|look| look.threads).max().unwrap_or(0);
        println!(
            "| {} | {mean:.1} | {most:.1} | {handles} | {threads} |",
            k + 1
        );
    }
    Ok(())
}

fn look(process: u32, started: Instant) -> Result<Look> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))
        .context("memory can be read on Linux only")?;
    let number = |key: &str| -> f64 {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok())
            .unwrap_or(0.0)
    };
    Ok(Look {
        minutes: started.elapsed().as_secs_f64() / 60.0,
        resident_mib: number("VmRSS:") / 1024.0,
        handles: std::fs::read_dir(format!("/proc/{process}/fd"))?.count(),
        threads: number("Threads:") as usize,
    })
}

fn csv(looks: &[Look]) -> String {
    let mut text = String::from("minutes,resident_mib,file_handles,threads\n");
    for look in looks {
        let _ = writeln!(
            text,
            "{:.2},{:.1},{},{}",
            look.minutes, look.resident_mib, look.handles, look.threads
        );
    }
    text
}
