//! Help of every command, and the lists.

use crate::support::run;

const COMMANDS: [&str; 12] = [
    "train", "compare", "eval", "analyze", "report", "predict", "import", "export", "models",
    "methods", "datasets", "doctor",
];

#[test]
fn every_command_explains_itself() {
    let dir = tempfile::tempdir().unwrap();
    let help = run(dir.path(), "--help").ok().stdout;
    for command in COMMANDS {
        assert!(
            help.contains(&format!("\n  {command}")),
            "{command} is missing:\n{help}"
        );
        let own = run(dir.path(), &format!("{command} --help")).ok().stdout;
        assert!(own.contains(&format!("Usage: mixskd {command}")), "{own}");
        assert!(own.contains("--json"), "{own}");
    }
    for command in ["bench step", "bench infer"] {
        let own = run(dir.path(), &format!("{command} --help")).ok().stdout;
        assert!(own.contains(&format!("Usage: mixskd {command}")), "{own}");
        assert!(own.contains("--json"), "{own}");
    }
    assert!(
        run(dir.path(), "--version")
            .ok()
            .stdout
            .starts_with("mixskd 0.")
    );
}

#[test]
fn lists_are_the_same_in_text_and_json() {
    let dir = tempfile::tempdir().unwrap();
    for (command, table, known) in [
        ("models", "models", "cifar_resnet18"),
        ("methods", "methods", "mixskd"),
        ("methods", "objectives", "reference-cifar"),
        ("datasets", "datasets", "cifar-100"),
    ] {
        let text = run(dir.path(), command).ok().stdout;
        let json = run(dir.path(), &format!("{command} --json")).ok().json();
        let names = json[table]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["name"].as_str().unwrap())
            .collect::<Vec<_>>();
        assert!(names.contains(&known), "{names:?} lacks {known}");
        for name in names {
            assert!(text.contains(name), "{name} is missing:\n{text}");
        }
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    use std::process::{Command, Stdio};
    let mut child = Command::new(env!("CARGO_BIN_EXE_mixskd"))
        .args(["datasets", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let left = child.wait_with_output().unwrap();
    assert!(left.status.success());
    assert_eq!(String::from_utf8(left.stderr).unwrap(), "");
}

#[test]
fn the_doctor_names_version_processor_threads_and_memory() {
    let dir = tempfile::tempdir().unwrap();
    let text = run(dir.path(), "doctor").ok().stdout;
    for row in ["version", "kernels", "threads", "memory", "GPU"] {
        assert!(text.contains(row), "{row} is missing:\n{text}");
    }
    let json = run(dir.path(), "doctor --json").ok().json();
    assert_eq!(json["version"], env!("CARGO_PKG_VERSION"));
    assert!(json["machine"]["threads"].as_u64().unwrap() >= 1);
}

#[test]
fn shells_and_manual_readers_learn_every_command() {
    let dir = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = run(dir.path(), &format!("completions {shell}")).ok().stdout;
        assert!(script.contains("skip-unreadable"), "{shell}");
        for command in COMMANDS {
            assert!(script.contains(command), "{shell} lacks {command}");
        }
    }
    let page = run(dir.path(), "man").ok().stdout;
    assert!(page.contains(".TH mixskd 1"), "{page}");
    run(dir.path(), "man --out pages").ok();
    let inner = std::fs::read_to_string(dir.path().join("pages/mixskd-bench-step.1")).unwrap();
    assert!(inner.contains("\\-\\-batch"), "{inner}");
}
