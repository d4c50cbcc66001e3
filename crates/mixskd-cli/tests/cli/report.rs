//! `mixskd report`: its page, what it refuses.

use crate::support::{TINY, image_folder, run};

#[test]
fn every_run_has_a_page_and_several_share_one() {
    let dir = tempfile::tempdir().unwrap();
    image_folder(dir.path(), 4);
    for (name, method) in [("a", "ce"), ("b", "mixup")] {
        let line = format!("{TINY} --epochs 1 --method {method} --out {name}");
        run(dir.path(), &line).ok();
    }
    let page = |path: &str| std::fs::read_to_string(dir.path().join(path)).unwrap();
    let own = page("a/report.html");
    assert!(own.contains("its one epoch is done") && own.contains("--method ce"));
    std::fs::remove_file(dir.path().join("a/report.html")).unwrap();
    run(dir.path(), "report a").ok();
    assert_eq!(page("a/report.html"), own);
    let told = run(dir.path(), "report a b --out both.html --json")
        .ok()
        .json();
    assert_eq!(told["page"], "both.html");
    assert!(page("both.html").contains("Configuration of b"));

    run(dir.path(), "report a pets").refused(2, "pets: is no run directory", "mixskd train");
    std::fs::create_dir_all(dir.path().join("compared/runs")).unwrap();
    std::fs::write(dir.path().join("compared/compare.toml"), "").unwrap();
    run(dir.path(), "report compared").refused(2, "compared: is no run", "compared/runs");
    run(dir.path(), "report gone").refused(2, "gone: there is no such", "mixskd train");
    run(dir.path(), "report a --out no/where.html").refused(1, "no/where.html", "path");
    run(dir.path(), "report a/config.toml").refused(2, "a/config.toml", "directories");
    run(dir.path(), "report a --out pets").refused(1, "pets: cannot write", "path");

    // Data that are gone cost the pictures, and no more.
    std::fs::rename(dir.path().join("pets"), dir.path().join("elsewhere")).unwrap();
    let told = run(dir.path(), "report a").ok();
    assert!(
        told.stderr.contains("Something is missing"),
        "{}",
        told.stderr
    );
    let without = page("a/report.html");
    assert!(without.contains("Something is missing") && !without.contains("<img "));
    assert!(without.contains("Confusion matrix"));
    std::fs::rename(dir.path().join("elsewhere"), dir.path().join("pets")).unwrap();
    run(dir.path(), "report a").ok();
    assert_eq!(page("a/report.html"), own);

    // A damaged table is told, and the weights are asked in its place.
    let table = dir.path().join("a/predictions.csv");
    let kept = std::fs::read(&table).unwrap();
    std::fs::write(&table, "epoch,what\n").unwrap();
    let told = run(dir.path(), "report a").ok();
    assert!(told.stderr.contains("predictions.csv: does not begin"));
    assert!(page("a/report.html").contains("Confusion matrix"));
    std::fs::write(&table, kept).unwrap();
    for (file, damage, told) in [
        ("run.json", "[{}]", "run.json: "),
        ("metrics.jsonl", "{}\n", "metrics.jsonl: line 1"),
    ] {
        std::fs::write(dir.path().join("a").join(file), damage).unwrap();
        run(dir.path(), "report a").refused(1, told, "--resume");
        std::fs::remove_file(dir.path().join("a").join(file)).unwrap();
    }
    std::fs::write(dir.path().join("a/config.toml"), "").unwrap();
    run(dir.path(), "report a").refused(1, "config.toml: is empty", "leave the run out");
    std::fs::write(dir.path().join("a/config.toml"), "[runn]\n").unwrap();
    run(dir.path(), "report a").refused(2, "runn", "run");
}
