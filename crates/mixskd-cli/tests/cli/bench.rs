//! `mixskd bench`.

use crate::support::run;

const TINY: &str = "--width 0.03125 --classes 5 --batch 4 --steps 2";

#[test]
fn a_step_and_a_batch_are_measured() {
    let dir = tempfile::tempdir().unwrap();
    for (work, seconds) in [
        ("step --method ce", "seconds_per_step"),
        ("infer --input 24", "seconds_per_batch"),
    ] {
        let report = run(
            dir.path(),
            &format!("bench {work} {TINY} --threads 1 --json"),
        )
        .ok()
        .json();
        assert_eq!(report["model"], "cifar_resnet18");
        assert_eq!(
            (&report["threads"], &report["steps"]),
            (&1.into(), &2.into())
        );
        let field = |name: &str, part: &str| report[name][part].as_f64().unwrap();
        let product = field(seconds, "min") * field("samples_per_s", "max");
        assert!((product - 4.0).abs() < 1e-6, "{report}");
        // Every field is explained.
        let docs = include_str!("../../../../docs/cli.md");
        let docs = &docs[docs.find("## `mixskd bench`").unwrap()..];
        for name in report.as_object().unwrap().keys() {
            assert!(docs.contains(&format!("`{name}`")), "{name}");
        }
    }
    let text = run(dir.path(), &format!("bench step --method ce {TINY}"));
    let text = text.ok().stdout;
    assert!(
        text.contains("samples/s") && text.contains("peak memory"),
        "{text}"
    );
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |args: &str, cause: &str, hint: &str| {
        run(dir.path(), &format!("bench {args}")).refused(2, cause, hint);
    };
    refused("step --batch 0", "batch: must be at least 1", "--batch 1");
    refused("step --method mixsdk", "mixsdk", "mixskd");
    refused("infer --model resnet81", "resnet81", "resnet18");
    refused("infer --width 0", "width", "");
}
