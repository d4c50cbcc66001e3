//! `mixskd analyze`: its files, its table, what it refuses.

use crate::support::{TINY, image_folder, run};

#[test]
fn two_networks_are_analysed_on_the_same_images() {
    let dir = tempfile::tempdir().unwrap();
    image_folder(dir.path(), 4);
    run(
        dir.path(),
        &format!("{TINY} --epochs 1 --method ce --out a"),
    )
    .ok();
    let weights = "analyze --data pets --weights a/model.safetensors";
    let both = format!("{weights} --weights a/model.safetensors --out out --batch 3 --worst 2");
    let text = run(dir.path(), &both).ok().stdout;
    for row in [
        "top-1",
        "ECE, 15 bins",
        "FGSM",
        "λ = 0.5",
        "both wrong",
        "out/analysis.html",
    ] {
        assert!(text.contains(row), "{row} is missing:\n{text}");
    }
    let json = std::fs::read_to_string(dir.path().join("out/analysis.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (&json["images"], &json["networks"][1]["name"]),
        (&8.into(), &"B".into())
    );
    let input = json["pictures"][1]["input"]["file"].as_str().unwrap();
    for file in [
        input,
        "analysis.html",
        "fgsm.svg",
        "reliability-B.svg",
        "per-class.svg",
    ] {
        assert!(dir.path().join("out").join(file).is_file(), "{file}");
    }
    let page = std::fs::read_to_string(dir.path().join("out/analysis.html")).unwrap();
    assert!(page.contains("data:image/png;base64,iVBORw0KGgo") && !page.contains("<script"));

    run(dir.path(), &both).refused(2, "out: already exists", "--out");
    let only = format!("{weights} --only calibration --json");
    let json = run(dir.path(), &only).ok().json();
    assert!(json["networks"][0]["calibration"]["all"]["ece"].is_f64());
    assert!(json["networks"][0].get("fgsm").is_none() && json.get("pictures").is_none());
    run(dir.path(), &format!("{weights} --only ece")).refused(2, "no measure `ece`", "calibration");
    run(dir.path(), &format!("{weights} --images 8")).refused(2, "no test image 8", "0 to 7");
    run(
        dir.path(),
        "analyze --weights a/model.safetensors --data fashion-mnist-mini",
    )
    .refused(2, "knows 2 classes", "--data");
}
