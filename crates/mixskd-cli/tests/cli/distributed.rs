//! `mixskd train --distributed`: processes that find each other by a launcher's variables, over the loopback interface.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Run, TINY, image_folder, metrics, run, slashes};

/// Every variable that says a place.
const VARIABLES: [&str; 9] = [
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "OMPI_COMM_WORLD_RANK",
    "OMPI_COMM_WORLD_SIZE",
    "PMI_RANK",
    "PMI_SIZE",
    "SLURM_PROCID",
    "SLURM_NTASKS",
];

/// `mixskd` in the background, with `variables` (`NAME=VALUE …`) and no others of a launcher.
fn start(dir: &Path, variables: &str, args: &str) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mixskd"));
    for name in VARIABLES {
        command.env_remove(name);
    }
    let pairs = variables
        .split_whitespace()
        .map(|v| v.split_once('=').unwrap());
    command
        .args(args.split_whitespace())
        .current_dir(dir)
        .env("NO_COLOR", "1")
        .envs(pairs)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn end(child: Child) -> Run {
    let output = child.wait_with_output().unwrap();
    Run {
        status: output.status.code().unwrap_or(-1),
        stdout: slashes(&String::from_utf8(output.stdout).unwrap()),
        stderr: slashes(&String::from_utf8(output.stderr).unwrap()),
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// Two processes, by torchrun's variables.
fn two(dir: &Path, args: &str) -> [Child; 2] {
    let port = free_port();
    [0, 1].map(|rank| {
        let variables = format!("RANK={rank} WORLD_SIZE=2 MASTER_PORT={port}");
        start(dir, &variables, args)
    })
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < Duration::from_secs(60), "no {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn has_checkpoint(run: &Path) -> bool {
    let entries = std::fs::read_dir(run.join("checkpoints"));
    let mut names = entries.into_iter().flatten().flatten();
    names.any(|entry| entry.file_name().to_string_lossy().starts_with("epoch-"))
}

fn weights(run: &Path) -> Vec<u8> {
    std::fs::read(run.join("model.safetensors")).unwrap()
}

const RUN: &str = "--method ce --epochs 6 --checkpoint-every 1 --distributed --threads 1 --set distribution.timeout_s=30";

#[test]
fn one_process_with_the_switch_is_a_plain_run_and_stray_variables_change_none() {
    let dir = tempfile::tempdir().unwrap();
    image_folder(dir.path(), 8);
    let args = format!("{TINY} --epochs 2 --out");
    let stray = "RANK=7 WORLD_SIZE=3 SLURM_PROCID=x";
    end(start(dir.path(), stray, &format!("{args} plain"))).ok();
    let one = "OMPI_COMM_WORLD_RANK=0 OMPI_COMM_WORLD_SIZE=1";
    end(start(
        dir.path(),
        one,
        &format!("{args} shared --distributed"),
    ))
    .ok();
    let (plain, shared) = (dir.path().join("plain"), dir.path().join("shared"));
    assert_eq!(metrics(&shared), metrics(&plain));
    assert!(weights(&shared) == weights(&plain));
}

#[test]
fn wrong_variables_are_named() {
    let dir = tempfile::tempdir().unwrap();
    image_folder(dir.path(), 8);
    for (variables, args, cause, hint) in [
        ("", "", "RANK: is not set", "docs/distributed.md"),
        (
            "RANK=1",
            "",
            "WORLD_SIZE: is not set, but RANK is",
            "set both",
        ),
        (
            "PMI_RANK=2 PMI_SIZE=2",
            "",
            "PMI_RANK: must be below",
            "from 0",
        ),
        (
            "RANK=0 WORLD_SIZE=2 MASTER_PORT=http",
            "",
            "MASTER_PORT: must be from 1 to 65535",
            "free port",
        ),
        (
            "RANK=0 WORLD_SIZE=2",
            "--set distribution.processes=4",
            "distribution.processes: the run is made for 4, and there are 2",
            "start 4 processes",
        ),
    ] {
        let refused = end(start(
            dir.path(),
            variables,
            &format!("{TINY} --distributed {args}"),
        ));
        refused.refused(2, cause, hint);
    }
    assert!(!dir.path().join("runs").exists());
    let compared = run(
        dir.path(),
        "compare --data pets --batch 4 --methods ce --set distribution.enabled=true",
    );
    compared.refused(
        2,
        "a comparison trains each of its runs in one process",
        "--distributed",
    );
}

#[test]
fn a_process_that_is_killed_ends_the_other_and_the_run_goes_on_with_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    image_folder(dir.path(), 32);
    let [first, second] = two(dir.path(), &format!("{TINY} {RUN} --out straight"));
    let (first, second) = (end(first).ok(), end(second).ok());
    assert!(
        first.stderr.contains("8 images each of 8 × 8 pixels"),
        "{}",
        first.stderr
    );
    assert_eq!((second.stdout.as_str(), second.stderr.as_str()), ("", ""));
    let straight = dir.path().join("straight");

    for killed in [0, 1] {
        let name = format!("killed-{killed}");
        let out = dir.path().join(&name);
        let mut both = two(dir.path(), &format!("{TINY} {RUN} --out {name}"));
        wait_for("checkpoint", || has_checkpoint(&out));
        both[killed].kill().unwrap();
        let [first, second] = both.map(end);
        let left = if killed == 0 { second } else { first };
        let cause = format!("rank {killed} has ended, or was killed");
        left.refused(1, &cause, "--resume");
        let [first, second] =
            two(dir.path(), &format!("train --resume {name} --threads 1")).map(end);
        first.ok();
        second.ok();
        assert_eq!(metrics(&out), metrics(&straight));
        assert!(weights(&out) == weights(&straight), "rank {killed} killed");
    }

    // As many processes as before, or none at all.
    let other = "RANK=0 WORLD_SIZE=3";
    end(start(dir.path(), other, "train --resume straight")).refused(
        2,
        "the run is made for 2, and there are 3",
        "start 2 processes",
    );
    end(start(dir.path(), "", "train --resume straight")).refused(2, "RANK: is not set", "RANK=0");
    // What is made of the run afterwards takes one process.
    end(start(dir.path(), "", "report straight")).ok();
}

#[test]
fn who_fails_before_the_others_are_met_tells_them() {
    let dir = tempfile::tempdir().unwrap();
    image_folder(dir.path(), 32);
    let run = format!("{TINY} {RUN} --set distribution.timeout_s=300");
    let again = "start every rank again";
    std::fs::create_dir_all(dir.path().join("taken")).unwrap();
    std::fs::write(dir.path().join("taken/notes"), "mine").unwrap();
    let [first, second] = two(dir.path(), &format!("{run} --out taken")).map(end);
    first.refused(2, "taken: ", "--out");
    let cause = "on rank 1: rank 0 failed: taken: ";
    second.refused(1, cause, again);

    // The second's data are not there; the first waits for it.
    let port = free_port();
    let start_at = |rank: usize, args: &str| {
        let variables = format!("RANK={rank} WORLD_SIZE=2 MASTER_PORT={port}");
        start(dir.path(), &variables, args)
    };
    let first = start_at(0, &format!("{run} --out r"));
    let second = start_at(1, &format!("{} --out r", run.replace("pets", "nowhere")));
    end(second).refused(2, "nowhere", "");
    end(first).refused(1, "rank 1 failed: nowhere", again);
}

#[test]
fn an_image_that_cannot_be_read_costs_no_process_the_steps_before() {
    let dir = tempfile::tempdir().unwrap();
    image_folder(dir.path(), 32);
    let run = format!("{TINY} {RUN}").replace("--checkpoint-every 1", "");
    let [first, second] = two(dir.path(), &format!("{run} --out straight")).map(end);
    first.ok();
    second.ok();
    let straight = dir.path().join("straight");

    // Where in an epoch a training image comes up its number decides; an image of the test set comes up after the first epoch.
    let mut kept = [0, 0];
    let images = [3, 5, 9, 14, 20, 27].map(|n| format!("pets/train/cat/{n:02}.png"));
    for (k, image) in images
        .iter()
        .map(String::as_str)
        .chain(["pets/val/dog/03.png"])
        .enumerate()
    {
        let path = dir.path().join(image);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        let out = format!("r{k}");
        let [first, second] = two(dir.path(), &format!("{run} --out {out}")).map(end);
        let (first_said, second_said) = (&first.stderr, &second.stderr);
        assert_eq!(
            (first.status, second.status),
            (1, 1),
            "{first_said}{second_said}"
        );
        let own = first_said.contains("the steps before are in ");
        assert!(first_said.contains(image) && second_said.contains(image));
        let name = dir.path().join(&out);
        assert!(
            has_checkpoint(&name) || !image.contains("val"),
            "{first_said}"
        );
        if has_checkpoint(&name) {
            kept[usize::from(own)] += 1;
            assert!(
                first_said.contains(&format!("--resume {out}")),
                "{first_said}"
            );
            let step = std::fs::read_dir(name.join("checkpoints")).unwrap().count();
            assert_eq!(step, 1);
        }
        std::fs::write(&path, &whole).unwrap();
        let [first, second] =
            two(dir.path(), &format!("train --resume {out} --threads 1")).map(end);
        first.ok();
        second.ok();
        assert_eq!(metrics(&name), metrics(&straight), "{image}");
        assert!(weights(&name) == weights(&straight), "{image}");
    }
    assert!(kept[0] > 0 && kept[1] > 1, "{kept:?}");
}

#[cfg(unix)]
#[test]
fn a_signal_to_one_stops_both() {
    let dir = tempfile::tempdir().unwrap();
    image_folder(dir.path(), 32);
    let out = dir.path().join("r");
    let [first, second] = two(
        dir.path(),
        &format!("{TINY} {RUN} --set run.epochs=50 --out r"),
    );
    wait_for("checkpoint", || has_checkpoint(&out));
    let sent = Command::new("kill")
        .args(["-s", "TERM", &second.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
    let (first, second) = (end(first), end(second));
    first.refused(130, "stopped after step", "mixskd train --resume r");
    second.refused(
        143,
        "on rank 1: stopped after step",
        "mixskd train --resume r",
    );

    // Before the others have come there is nothing to go on with.
    let out = dir.path().join("alone");
    let variables = format!("RANK=0 WORLD_SIZE=2 MASTER_PORT={}", free_port());
    let waiting = start(dir.path(), &variables, &format!("{TINY} {RUN} --out alone"));
    wait_for("run", || out.join("config.toml").exists());
    std::thread::sleep(Duration::from_millis(300));
    let sent = Command::new("kill")
        .args(["-s", "INT", &waiting.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
    let stopped = end(waiting);
    assert_eq!(stopped.status, 130, "{}", stopped.stderr);
    assert!(
        stopped.stderr.contains("error: stopped"),
        "{}",
        stopped.stderr
    );
}
