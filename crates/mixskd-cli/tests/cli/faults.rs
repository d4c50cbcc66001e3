//! Signals, locks, full and read-only file systems: what was written before stays whole, and the run goes on from it.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Run, TINY, image_folder, metrics, run};

/// `mixskd` in the background.
fn start(dir: &Path, args: &str) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mixskd"));
    // Who runs the tests may have begun them with nohup, which every child inherits.
    // SAFETY: between fork and exec one system call is made, with constants; it touches no memory.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGHUP, libc::SIG_DFL);
            Ok(())
        });
    }
    command
        .args(args.split_whitespace())
        .current_dir(dir)
        .env("NO_COLOR", "1")
        .env("TMPDIR", dir.join("tmp"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap()
}

fn end(child: Child) -> Run {
    let output = child.wait_with_output().unwrap();
    Run {
        status: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn signal(process: u32, name: &str) {
    send(name, &process.to_string());
}

/// As `kill %1` in a shell does it: every process of the group gets it at once.
fn signal_group(leader: u32, name: &str) {
    send(name, &format!("-{leader}"));
}

fn send(name: &str, to: &str) {
    let sent = Command::new("kill").args(["-s", name, "--", to]).status();
    assert!(sent.unwrap().success());
}

/// Waits until `done`; a test that waits for ever helps nobody.
fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < Duration::from_secs(60), "no {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn checkpoints(run: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(run.join("checkpoints"))
        .into_iter()
        .flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "safetensors"));
    paths
}

fn weights(run: &Path) -> Vec<u8> {
    std::fs::read(run.join("model.safetensors")).unwrap()
}

/// Long enough to be caught in its middle, short enough to be finished.
const RUN: &str = "--method ce --epochs 6 --checkpoint-every 1";

#[test]
fn a_signal_stops_after_the_step_and_the_run_goes_on_with_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    image_folder(dir.path(), 32);
    run(dir.path(), &format!("{TINY} {RUN} --out straight")).ok();
    for (name, status) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        let out = dir.path().join(name);
        let child = start(dir.path(), &format!("{TINY} {RUN} --out {name}"));
        wait_for("checkpoint", || !checkpoints(&out).is_empty());
        signal(child.id(), "USR1");
        signal(child.id(), name);
        let stopped = end(child);
        stopped.refused(
            status,
            "stopped after step",
            &format!("mixskd train --resume {name}"),
        );
        run(dir.path(), &format!("train --resume {name}")).ok();
        assert_eq!(metrics(&out), metrics(&dir.path().join("straight")));
        assert!(weights(&out) == weights(&dir.path().join("straight")));
    }
}

#[test]
fn a_terminal_that_is_gone_ends_a_run_once_and_not_one_that_was_begun_with_nohup() {
    let dir = tempfile::tempdir().unwrap();
    image_folder(dir.path(), 32);
    let out = dir.path().join("twice");
    let child = start(dir.path(), &format!("{TINY} {RUN} --out twice"));
    wait_for("checkpoint", || !checkpoints(&out).is_empty());
    // As a shell and the system may both say it.
    signal(child.id(), "HUP");
    signal(child.id(), "HUP");
    end(child).refused(129, "stopped after step", "mixskd train --resume twice");

    let out = dir.path().join("nohup");
    let command = format!(
        "trap '' HUP; exec {} {TINY} {RUN} --out nohup",
        env!("CARGO_BIN_EXE_mixskd")
    );
    let mut child = Command::new("sh");
    child
        .args(["-c", &command])
        .current_dir(dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child = child.spawn().unwrap();
    wait_for("checkpoint", || !checkpoints(&out).is_empty());
    signal(child.id(), "HUP");
    assert!(child.wait().unwrap().success());
}

/// Steps of a second or so: time to signal twice within one.
const SLOW: &str = "train --data pets --method ce --width 1 --batch 16 --set run.image_size=64 --set schedule.warmup_epochs=0";

#[test]
fn the_same_signal_again_stops_at_once() {
    let dir = tempfile::tempdir().unwrap();
    image_folder(dir.path(), 16);
    let out = dir.path().join("it's slow");
    let mut command = Command::new(env!("CARGO_BIN_EXE_mixskd"));
    command.args(SLOW.split_whitespace()).arg("--out").arg(&out);
    let piped = command.current_dir(dir.path()).env("NO_COLOR", "1");
    let child = piped
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for("first step", || out.join("run.json").exists());
    signal(child.id(), "INT");
    std::thread::sleep(Duration::from_millis(50));
    signal(child.id(), "INT");
    let stopped = end(child);
    stopped.refused(130, "stopped at once", "it'\\''s slow'");
    assert!(stopped.stderr.contains("stopping after this step"));
    assert!(checkpoints(&out).is_empty(), "the step was waited for");
    // What is left is a run that can be gone on with.
    assert!(out.join("config.toml").is_file());
    run(dir.path(), &format!("{TINY} --out other --epochs 1")).ok();
}

#[test]
fn a_stderr_that_nobody_reads_keeps_no_signal_from_being_heard() {
    let dir = tempfile::tempdir().unwrap();
    image_folder(dir.path(), 16);
    let (reader, mut writer) = std::io::pipe().unwrap();
    let stderr = writer.try_clone().unwrap();
    // Fills the pipe, and then waits as the program will.
    let full = std::thread::spawn(move || {
        let _ = std::io::Write::write_all(&mut writer, &vec![b'x'; 1 << 22]);
    });
    std::thread::sleep(Duration::from_millis(100));
    let mut child = Command::new(env!("CARGO_BIN_EXE_mixskd"))
        .args(SLOW.split_whitespace())
        .args(["--out", "r"])
        .current_dir(dir.path())
        .stdout(Stdio::null())
        .stderr(stderr)
        .spawn()
        .unwrap();
    wait_for("run", || dir.path().join("r/config.toml").exists());
    for _ in 0..2 {
        std::thread::sleep(Duration::from_millis(400));
        signal(child.id(), "INT");
    }
    let mut ended = None;
    for _ in 0..1000 {
        ended = child.try_wait().unwrap();
        if ended.is_some() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let _ = child.kill();
    drop(reader);
    full.join().unwrap();
    let status = ended.expect("the process hangs");
    assert_eq!(status.code(), Some(130));
}

#[test]
fn the_command_that_goes_on_can_be_pasted_into_a_shell() {
    let dir = tempfile::tempdir().unwrap();
    image_folder(dir.path(), 32);
    let (program, folder) = (env!("CARGO_BIN_EXE_mixskd"), "my runs/it's $1 & `more`");
    let child = Command::new(program)
        .args(TINY.split_whitespace())
        .args(RUN.split_whitespace())
        .args(["--out", folder])
        .current_dir(dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for("checkpoint", || {
        !checkpoints(&dir.path().join(folder)).is_empty()
    });
    signal(child.id(), "INT");
    let stopped = end(child);
    let hint = stopped
        .stderr
        .lines()
        .find(|line| line.starts_with("hint: "));
    let command = hint.unwrap().split_once("`mixskd ").unwrap().1;
    let command = command.strip_suffix('`').unwrap();
    let pasted = Command::new("sh")
        .args(["-c", &format!("\"$0\" {command}"), program])
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert!(pasted.status.success(), "{command}: {pasted:?}");
    assert_eq!(metrics(&dir.path().join(folder)).len(), 6);
}

#[test]
fn a_fast_dev_run_that_is_stopped_leaves_nothing_either() {
    let dir = tempfile::tempdir().unwrap();
    image_folder(dir.path(), 16);
    let temporary = dir.path().join("tmp");
    std::fs::create_dir(&temporary).unwrap();
    let entries = || std::fs::read_dir(&temporary).unwrap().count();
    let child = start(dir.path(), &format!("{SLOW} --fast-dev-run"));
    wait_for("temporary folder", || entries() > 0);
    signal(child.id(), "TERM");
    let stopped = end(child);
    assert_eq!(stopped.status, 143, "{}", stopped.stderr);
    assert!(
        stopped.stderr.contains("nothing was kept"),
        "{}",
        stopped.stderr
    );
    assert!(!stopped.stderr.contains("hint:"), "{}", stopped.stderr);
    assert_eq!(entries(), 0);
}

/// A few moments; `cargo xtask crash` takes 200.
#[test]
fn a_run_that_is_killed_again_and_again_ends_with_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    image_folder(dir.path(), 32);
    run(dir.path(), &format!("{TINY} {RUN} --out straight")).ok();
    let out = dir.path().join("killed");
    for milliseconds in [20, 140, 90, 200, 60, 170] {
        let begun = out.join("config.toml").exists();
        let mut child = if begun {
            start(dir.path(), "train --resume killed")
        } else {
            start(dir.path(), &format!("{TINY} {RUN} --out killed"))
        };
        std::thread::sleep(Duration::from_millis(milliseconds));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let last = if out.join("config.toml").exists() {
        run(dir.path(), "train --resume killed")
    } else {
        run(dir.path(), &format!("{TINY} {RUN} --out killed"))
    };
    let last = last.ok();
    assert!(!last.stderr.contains("passed over"), "{}", last.stderr);
    assert_eq!(metrics(&out), metrics(&dir.path().join("straight")));
    assert!(weights(&out) == weights(&dir.path().join("straight")));
}

#[test]
fn a_second_process_on_one_run_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    image_folder(dir.path(), 32);
    let out = dir.path().join("r");
    let mut child = start(dir.path(), &format!("{TINY} {RUN} --out r"));
    wait_for("checkpoint", || !checkpoints(&out).is_empty());
    run(dir.path(), "train --resume r").refused(2, "another process is training here", "wait");
    child.kill().unwrap();
    child.wait().unwrap();
    run(dir.path(), "train --resume r").ok();
}

#[test]
fn compare_passes_a_signal_on_and_leaves_no_process_behind() {
    stop_a_comparison(signal);
}

#[test]
fn the_same_signal_again_stops_a_comparison_at_once() {
    let dir = tempfile::tempdir().unwrap();
    image_folder(dir.path(), 16);
    let slow = "--data pets --methods ce --seeds 1 --width 1 --batch 16 --set run.image_size=64 --set schedule.warmup_epochs=0";
    let child = start(dir.path(), &format!("compare {slow} --threads 1 --out c"));
    let first = dir.path().join("c/runs/ce-seed-0/run.json");
    wait_for("first step", || first.exists());
    signal(child.id(), "INT");
    std::thread::sleep(Duration::from_millis(50));
    signal(child.id(), "INT");
    end(child).refused(130, "stopped at once", "`mixskd compare --out c --resume`");
}

#[test]
fn a_signal_to_the_whole_group_stops_a_comparison_in_order() {
    stop_a_comparison(signal_group);
}

/// Sends SIGTERM to a comparison in its first run, which has to end with a checkpoint and to be taken up.
fn stop_a_comparison(send: fn(u32, &str)) {
    let dir = tempfile::tempdir().unwrap();
    image_folder(dir.path(), 32);
    let flags = "--data pets --width 0.03125 --batch 4 --epochs 30 --seeds 1 --set schedule.warmup_epochs=0";
    let parent = start(
        dir.path(),
        &format!("compare --methods ce,mixup --out c {flags}"),
    );
    let first = dir.path().join("c/runs/ce-seed-0");
    wait_for("checkpoint", || !checkpoints(&first).is_empty());
    send(parent.id(), "TERM");
    let stopped = end(parent);
    assert_eq!(stopped.status, 143, "{}", stopped.stderr);
    assert!(
        !stopped.stderr.contains("stopped at once"),
        "{}",
        stopped.stderr
    );
    let how = "go on with `mixskd compare --resume --out c`";
    assert!(stopped.stderr.contains(how), "{}", stopped.stderr);
    // The child is gone: its lock is free, and the second run never began.
    assert!(!dir.path().join("c/runs/mixup-seed-0").exists());
    let epochs = metrics(&first).len();
    assert!((1..30).contains(&epochs), "{epochs}");
    let gone_on = run(dir.path(), "train --resume c/runs/ce-seed-0").ok();
    assert!(
        gone_on.stderr.contains("on from epoch"),
        "{}",
        gone_on.stderr
    );
}

/// A file system of its own in memory, gone with the value.
struct Small(PathBuf);

impl Small {
    /// `None`, with a word about it, where this process may not mount one.
    fn mount(dir: &Path, size: &str) -> Option<Self> {
        let path = dir.join("small");
        std::fs::create_dir(&path).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(&path)
            .stderr(Stdio::null())
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(path));
        }
        eprintln!("skipped: this process may not mount a file system");
        None
    }

    fn remount(&self, how: &str) {
        let mut command = Command::new("mount");
        let status = command
            .args(["-o", &format!("remount,{how}")])
            .arg(&self.0)
            .status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_stops_the_run_and_leaves_what_was_there() {
    let dir = tempfile::tempdir().unwrap();
    image_folder(dir.path(), 8);
    run(
        dir.path(),
        &format!("{TINY} --method ce --set schedule.kind=constant --epochs 3 --out straight"),
    )
    .ok();
    let Some(small) = Small::mount(dir.path(), "16m") else {
        return;
    };
    run(
        dir.path(),
        &format!("{TINY} --method ce --set schedule.kind=constant --epochs 1 --out small/r"),
    )
    .ok();
    let config = small.0.join("r/config.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("epochs = 1", "epochs = 3")).unwrap();
    let before = (metrics(&small.0.join("r")), weights(&small.0.join("r")));
    // Fill it to the last byte.
    let filler = small.0.join("filler");
    let full = std::fs::write(&filler, vec![1u8; 32 << 20]);
    assert!(full.is_err());
    run(dir.path(), "train --resume small/r").refused(1, "small/r", "free some space");
    assert_eq!(metrics(&small.0.join("r")), before.0);
    assert!(weights(&small.0.join("r")) == before.1);
    assert_eq!(checkpoints(&small.0.join("r")).len(), 1);
    std::fs::remove_file(&filler).unwrap();
    run(dir.path(), "train --resume small/r").ok();
    assert!(weights(&small.0.join("r")) == weights(&dir.path().join("straight")));
}

/// Wherever the disk is full, in the middle of whichever file, the run can be gone on with.
#[test]
fn a_disk_that_fills_up_at_any_file_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    image_folder(dir.path(), 8);
    let flags = format!("{TINY} --method ce --epochs 3 --checkpoint-every");
    run(dir.path(), &format!("{flags} epoch --out straight")).ok();
    let straight = dir.path().join("straight");
    let Some(small) = Small::mount(dir.path(), "8m") else {
        return;
    };
    let (out, filler) = (small.0.join("r"), small.0.join("filler"));
    let mut told = Vec::new();
    let places = [
        (0u64, "epoch"),
        (28, "epoch"),
        (64, "epoch"),
        (100, "epoch"),
        (100, "1"),
        (300, "1"),
        (420, "1"),
    ];
    for (kibibytes, every) in places {
        let _ = std::fs::remove_dir_all(&out);
        let full = std::fs::write(&filler, vec![1u8; 16 << 20]);
        assert!(full.is_err());
        let file = std::fs::OpenOptions::new()
            .write(true)
            .open(&filler)
            .unwrap();
        let length = file.metadata().unwrap().len();
        file.set_len(length - kibibytes * 1024).unwrap();
        drop(file);
        let stopped = run(dir.path(), &format!("{flags} {every} --out small/r"));
        std::fs::remove_file(&filler).unwrap();
        if stopped.status != 0 {
            stopped.refused(1, "No space left on device", "free some space");
            let error = stopped
                .stderr
                .lines()
                .find(|line| line.starts_with("error: "));
            told.push(error.unwrap().to_string());
        }
        // The command again, or with --resume: one of the two, as the hint says.
        let again = run(dir.path(), &format!("{flags} {every} --out small/r"));
        if again.status != 0 {
            again.refused(2, "already exists", "--resume small/r");
            run(dir.path(), "train --resume small/r").ok();
        }
        assert_eq!(metrics(&out), metrics(&straight), "{kibibytes} KiB");
        assert!(weights(&out) == weights(&straight), "{kibibytes} KiB");
    }
    for file in ["config.toml: ", "checkpoints/epoch-", "model.safetensors: "] {
        let named = told.iter().any(|error| error.contains(file));
        assert!(named, "the disk was never full at {file}: {told:#?}");
    }
}

#[test]
fn a_read_only_directory_is_told_before_anything_is_trained() {
    let dir = tempfile::tempdir().unwrap();
    image_folder(dir.path(), 8);
    let Some(small) = Small::mount(dir.path(), "16m") else {
        return;
    };
    run(
        dir.path(),
        &format!("{TINY} --method ce --epochs 1 --out small/r"),
    )
    .ok();
    small.remount("ro");
    run(dir.path(), "train --resume small/r").refused(1, "small/r", "write there");
    run(dir.path(), &format!("{TINY} --out small/new")).refused(1, "small/new", "write there");
    small.remount("rw");
    run(dir.path(), "train --resume small/r").ok();
}

#[test]
fn a_fast_dev_run_goes_through_everything_and_keeps_nothing() {
    let dir = tempfile::tempdir().unwrap();
    image_folder(dir.path(), 32);
    let tried = run(dir.path(), &format!("{TINY} --fast-dev-run")).ok();
    assert!(tried.stdout.contains("two batches"), "{}", tried.stdout);
    let report = run(dir.path(), &format!("{TINY} --fast-dev-run --json")).json();
    assert!(report["dir"].is_null() && report["weights"].is_null());
    assert!(report["top1"].is_f64());
    assert!(!dir.path().join("runs").exists());
}
