//! `mixskd import` and `mixskd export`, and what their files are good for.

use std::path::Path;

use crate::support::{mixskd, run, save_image};

/// A weights file of a small network, made by importing a PyTorch-like file of nothing but its tensors.
fn trained(dir: &Path) -> String {
    crate::support::image_folder(dir, 4);
    let flags = format!("{} --epochs 1 --out run", crate::support::TINY);
    run(dir, &flags).ok();
    "run/model.safetensors".into()
}

#[test]
fn weights_go_out_and_come_back_in() {
    let dir = tempfile::tempdir().unwrap();
    let weights = trained(dir.path());
    let export = format!("export --weights {weights} -o net.onnx --softmax --normalize --json");
    let exported = run(dir.path(), &export).ok().json();
    assert_eq!(exported["output"], "probabilities");
    assert_eq!(exported["input"][0], "batch");
    let length = std::fs::metadata(dir.path().join("net.onnx"))
        .unwrap()
        .len();
    assert_eq!(exported["bytes"], length);

    // Our own file is as good a source as any; class names and normalisation are kept.
    let model = "--model cifar_resnet18 --width 0.03125";
    let import = format!("import {weights} {model} -o again.safetensors");
    let said = run(dir.path(), &import).ok().stdout;
    assert!(said.contains("tensors taken"), "{said}");
    save_image(&dir.path().join("a.png"), 13, 40);
    let predict = |weights: &str| {
        let args = [
            "predict",
            "--weights",
            weights,
            "--logits",
            "--json",
            "a.png",
        ];
        mixskd(dir.path(), args).ok().json()
    };
    assert_eq!(predict(&weights), predict("again.safetensors"));

    let fresh = format!("import {weights} {model} --classes 5 -o five.safetensors --json");
    let said = run(dir.path(), &fresh).ok().json();
    assert_eq!(
        (&said["classes"], &said["dropped_head"]),
        (&5.into(), &2.into())
    );
}

#[test]
fn weights_go_out_under_timms_names() {
    let dir = tempfile::tempdir().unwrap();
    let weights = trained(dir.path());
    let refused = format!("export --weights {weights} --format timm -o out.safetensors");
    run(dir.path(), &refused).refused(
        2,
        "timm has no such network as cifar_resnet18",
        "mobilenet_v2",
    );
    let model = "--model mobilenet_v2 --width 0.125 --classes 2 --partial";
    let head = "classifier.weight";
    // Any file with one tensor that fits will do.
    let tensor = candle_core::Tensor::zeros(
        (2, 1280),
        candle_core::DType::F32,
        &candle_core::Device::Cpu,
    );
    let tensors = std::collections::HashMap::from([(head, tensor.unwrap())]);
    candle_core::safetensors::save(&tensors, dir.path().join("head.safetensors")).unwrap();
    run(
        dir.path(),
        &format!("import head.safetensors {model} -o mobile.safetensors"),
    )
    .ok();
    let export = "export --weights mobile.safetensors --format timm -o timm.safetensors";
    let said = run(dir.path(), &format!("{export} --json")).ok().json();
    assert_eq!(said["format"], "timm");
    run(dir.path(), &format!("{export} --softmax")).refused(2, "--format timm", "--softmax");
    let again = "import timm.safetensors --model mobilenet_v2 --width 0.125 -o again.safetensors";
    run(dir.path(), again).ok();
    let bytes = |file: &str| std::fs::read(dir.path().join(file)).unwrap();
    assert!(bytes("again.safetensors") == bytes("mobile.safetensors"));
}

#[test]
fn what_cannot_be_imported_is_told_and_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let weights = trained(dir.path());
    let other = format!("import {weights} --model cifar_resnet18 --width 1 -o out.safetensors");
    run(dir.path(), &other).refused(2, "of another shape", "--partial");
    run(
        dir.path(),
        "import none.pth --model resnet18 -o out.safetensors",
    )
    .refused(2, "none.pth", ".pth");
    std::fs::write(dir.path().join("evil.pth"), b"\x80\x02cos\nsystem\n.").unwrap();
    run(
        dir.path(),
        "import evil.pth --model resnet18 -o out.safetensors",
    )
    .refused(1, "not written by torch.save", "state_dict");
    let unknown = format!("import {weights} --model resnet81 -o out.safetensors");
    run(dir.path(), &unknown).refused(2, "resnet81", "resnet18");
    assert!(!dir.path().join("out.safetensors").exists());
}

#[test]
fn a_file_is_not_written_onto_itself() {
    let dir = tempfile::tempdir().unwrap();
    let weights = trained(dir.path());
    let before = std::fs::read(dir.path().join(&weights)).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink(&weights, dir.path().join("link.safetensors")).unwrap();
    let to = if cfg!(unix) {
        "link.safetensors"
    } else {
        weights.as_str()
    };
    for command in [
        format!("export --weights {weights} -o {to}"),
        format!("export --weights {weights} --format timm -o run/../{weights}"),
        format!("import {weights} --model cifar_resnet18 --width 0.03125 -o {to}"),
    ] {
        run(dir.path(), &command).refused(2, "is the file that is read", "another file");
    }
    assert!(std::fs::read(dir.path().join(&weights)).unwrap() == before);
}

#[test]
fn weights_that_are_not_finite_are_refused_by_whoever_reads_them() {
    let dir = tempfile::tempdir().unwrap();
    let weights = dir.path().join(trained(dir.path()));
    let mut bytes = std::fs::read(&weights).unwrap();
    let end = bytes.len();
    // The last tensor of the file ends in floats.
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    let header = 8 + usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap();
    assert!(bytes[header..].len() > 4);
    std::fs::write(dir.path().join("nan.safetensors"), bytes).unwrap();
    for command in [
        "predict --weights nan.safetensors pets/val/cat/00.png",
        "eval --weights nan.safetensors --data pets",
        "export --weights nan.safetensors -o net.onnx",
        "import nan.safetensors --model cifar_resnet18 --width 0.03125 -o out.safetensors",
    ] {
        run(dir.path(), command).refused(1, "holds NaN", "another file");
    }
    assert!(!dir.path().join("net.onnx").exists() && !dir.path().join("out.safetensors").exists());
}

#[test]
fn weights_of_an_earlier_epoch_come_from_its_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    crate::support::image_folder(dir.path(), 8);
    for (name, flags) in [
        ("plain", "--method mixskd"),
        ("mean", "--method ce --set optimizer.ema_decay=0.9"),
    ] {
        let train = format!("{} {flags} --epochs 2 --out {name}", crate::support::TINY);
        run(dir.path(), &train).ok();
        let checkpoint = format!("{name}/checkpoints/epoch-0002.safetensors");
        let told = run(
            dir.path(),
            &format!("eval --weights {checkpoint} --data pets"),
        );
        told.refused(1, "a checkpoint of a run", "mixskd import CHECKPOINT");
        // The last epoch's are those that were kept; what the run says of its network need not be said again.
        run(
            dir.path(),
            &format!("import {checkpoint} -o {name}.safetensors"),
        )
        .ok();
        let logits = |weights: &str| {
            let predict = format!("predict --weights {weights} pets/val --logits --json");
            run(dir.path(), &predict).ok().json()
        };
        let kept = format!("{name}/model.safetensors");
        assert_eq!(logits(&format!("{name}.safetensors")), logits(&kept));

        // A checkpoint alone says nothing of its network, and is looked at as a whole.
        let away = dir.path().join("away.safetensors");
        std::fs::copy(dir.path().join(&checkpoint), &away).unwrap();
        let import = "import away.safetensors -o out.safetensors";
        run(dir.path(), import).refused(2, "which network", "--model NAME");
        let net = "--model cifar_resnet18 --width 0.03125 --input 8 --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225";
        std::fs::write(dir.path().join("names.txt"), "cat\ndog\n").unwrap();
        let import = format!("{import} {net} --class-names names.txt");
        run(dir.path(), &import).ok();
        assert_eq!(logits("out.safetensors"), logits(&kept));
        let mut bytes = std::fs::read(&away).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&away, bytes).unwrap();
        run(dir.path(), &import).refused(1, "checksum does not match", "");
    }

    // Beside another run's weights it is no checkpoint of that run's.
    let (from, to) = (dir.path().join("plain"), dir.path().join("archive"));
    std::fs::create_dir_all(to.join("kept")).unwrap();
    std::fs::copy(from.join("model.safetensors"), to.join("model.safetensors")).unwrap();
    let checkpoint = "checkpoints/epoch-0002.safetensors";
    std::fs::copy(from.join(checkpoint), to.join("kept/epoch.safetensors")).unwrap();
    let import = "import archive/kept/epoch.safetensors -o out.safetensors";
    run(dir.path(), import).refused(2, "which network", "--model NAME");

    // More pictures than are seen at once, and names that a table has to quote.
    crate::support::image_folder(dir.path(), 35);
    std::fs::write(dir.path().join("names.txt"), "cat, tame\ndog \"Rex\"\n").unwrap();
    let import = format!("import plain/{checkpoint} --class-names names.txt -o quoted.safetensors");
    run(dir.path(), &import).ok();
    let table = run(
        dir.path(),
        "predict --weights quoted.safetensors pets/train --csv",
    )
    .ok();
    let rows: Vec<_> = table.stdout.lines().skip(1).collect();
    assert_eq!(rows.len(), 70);
    let names = [",\"cat, tame\",", ",\"dog \"\"Rex\"\"\","];
    let quoted = |row: &&str| names.iter().any(|name| row.contains(name));
    assert!(rows.iter().all(quoted), "{}", rows[0]);
}
