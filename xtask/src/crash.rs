//! `cargo xtask crash`: kills a training run at random moments, resumes it each time, and compares what comes out with a run that was
//! left alone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::program::ProgramArgs;

/// Options of `cargo xtask crash`.
#[derive(Debug, clap::Args)]
pub(crate) struct CrashArgs {
    /// Processes to kill
    #[arg(long, default_value_t = 200)]
    kills: usize,
    /// Longest life of a process, in milliseconds
    #[arg(long, default_value_t = 1500)]
    longest: u64,
    /// Seed of the moments
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    program: ProgramArgs,
}

/// A run of a few seconds that has everything a checkpoint can hold: velocities, a moving average, a method's memory.
const RUN: &str = "train --method ps-kd --width 0.03125 --batch 32 --epochs 5 --checkpoint-every 2 --threads 1 \
    --set run.max_batches=12 --set run.keep_checkpoints=3 --set optimizer.ema_decay=0.9 --set optimizer.clip_norm=1";

/// What was seen of the killed processes.
#[derive(Default)]
struct Seen {
    rounds: usize,
    kills: usize,
    before_config: usize,
    before_checkpoint: usize,
    in_the_middle_of_writing: usize,
    steps_kept: usize,
}

pub(crate) fn run(root: &Path, args: &CrashArgs) -> Result<()> {
    let program = args.program.path(root)?;
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let straight = folder.path().join("straight");
    let started = Instant::now();
    let finished = start(&program, folder.path(), &straight)?.wait()?;
    ensure!(
        finished.success(),
        "the run that is left alone failed: {finished}"
    );
    let alone = started.elapsed().as_secs_f64();
    let wanted = results(&straight)?;

    let mut random = args.seed;
    let mut seen = Seen::default();
    while seen.kills < args.kills {
        let out = folder.path().join(format!("round-{}", seen.rounds));
        one_round(&program, &out, args, &mut random, &mut seen)?;
        let got = results(&out)?;
        for (name, value) in &wanted {
            ensure!(
                got.get(name) == Some(value),
                "round {}: {name} differs",
                seen.rounds
            );
        }
        std::fs::remove_dir_all(&out)?;
        seen.rounds += 1;
        eprintln!(
            "round {}: {} killed so far, the same bits at the end",
            seen.rounds, seen.kills
        );
    }
    println!("run left alone: {alone:.1} s");
    println!(
        "processes killed: {}, in {} rounds, each of which ended with the same bits",
        seen.kills, seen.rounds
    );
    println!(
        "killed before config.toml was written: {}",
        seen.before_config
    );
    println!(
        "killed later, before the first checkpoint: {}",
        seen.before_checkpoint
    );
    println!(
        "killed in the middle of writing a file: {}",
        seen.in_the_middle_of_writing
    );
    println!(
        "steps found in checkpoints after the kills: {}; none was ever lost again",
        seen.steps_kept
    );
    Ok(())
}

/// Kills and resumes one run until it comes to its end.
fn one_round(
    program: &Path,
    out: &Path,
    args: &CrashArgs,
    random: &mut u64,
    seen: &mut Seen,
) -> Result<()> {
    let folder = out.parent().context("no parent")?;
    let mut newest: Option<(usize, usize)> = None;
    loop {
        let mut child = start(program, folder, out)?;
        let life = if seen.kills < args.kills {
            Duration::from_micros(next(random) % (args.longest * 1000))
        } else {
            Duration::MAX
        };
        let born = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break Some(status);
            }
            if born.elapsed() >= life {
                break None;
            }
            std::thread::sleep(Duration::from_micros(200).min(life.saturating_sub(born.elapsed())));
        };
        if let Some(status) = status {
            ensure!(status.success(), "a resumed run failed: {status}");
            return Ok(());
        }
        // SIGKILL: nothing in the process gets to run.
        child.kill()?;
        child.wait()?;
        seen.kills += 1;
        let place = places(out)?.pop();
        ensure!(
            place >= newest,
            "a checkpoint is gone: {newest:?} before, {place:?} after the kill"
        );
        if let Some((epochs, steps)) = place {
            ensure!(
                steps % 2 == 0,
                "a checkpoint at a place where none is due: {epochs}, {steps}"
            );
            let before = newest.map_or(0, |(e, s)| 12 * e + s);
            seen.steps_kept += 12 * epochs + steps - before;
        }
        newest = place;
        if !out.join("config.toml").exists() {
            seen.before_config += 1;
        } else if place.is_none() {
            seen.before_checkpoint += 1;
        }
        seen.in_the_middle_of_writing += usize::from(unfinished(out));
    }
}

/// Begins the run in `out`, or goes on with it.
fn start(program: &Path, folder: &Path, out: &Path) -> Result<Child> {
    let mut command = Command::new(program);
    if out.join("config.toml").exists() {
        command.arg("train").arg("--resume").arg(out);
    } else {
        command.args(RUN.split_whitespace()).arg("--out").arg(out);
    }
    command
        .current_dir(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    // What it says is short; a pipe nobody reads holds it.
    command
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))
}

/// Places of the checkpoints: epochs done, steps of the next; oldest first.
fn places(out: &Path) -> Result<Vec<(usize, usize)>> {
    let mut places = Vec::new();
    for path in list(&out.join("checkpoints")) {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let Some(place) = name
            .strip_prefix("epoch-")
            .and_then(|name| name.strip_suffix(".safetensors"))
        else {
            continue;
        };
        let (epochs, steps) = place.split_once("-step-").unwrap_or((place, "0"));
        places.push((epochs.parse()?, steps.parse()?));
    }
    places.sort_unstable();
    Ok(places)
}

/// Whether a file that was being written is left.
fn unfinished(out: &Path) -> bool {
    let hidden = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with('.'))
    };
    list(out).iter().any(hidden) || list(&out.join("checkpoints")).iter().any(hidden)
}

fn list(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// What must agree at the end: weights, the last checkpoint, and the metrics without times and memory.
fn results(out: &Path) -> Result<BTreeMap<&'static str, Vec<u8>>> {
    let read = |path: PathBuf| {
        std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let metrics = String::from_utf8(read(out.join("metrics.jsonl"))?)?;
    let mut lines = String::new();
    for line in metrics.lines() {
        let mut record: serde_json::Value = serde_json::from_str(line)?;
        let Some(fields) = record.as_object_mut() else {
            bail!("a line of metrics.jsonl is no object");
        };
        fields.remove("seconds");
        fields.remove("samples_per_s");
        fields.remove("peak_memory_bytes");
        lines.push_str(&record.to_string());
    }
    Ok(BTreeMap::from([
        ("model.safetensors", read(out.join("model.safetensors"))?),
        (
            "the last checkpoint",
            read(out.join("checkpoints/epoch-0005.safetensors"))?,
        ),
        ("metrics.jsonl", lines.into_bytes()),
    ]))
}

/// The next of a sequence of numbers that looks random (SplitMix64).
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
