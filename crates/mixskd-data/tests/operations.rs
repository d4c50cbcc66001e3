//! The operations of augmentation policies against torchvision's on Pillow images: stored results, and, when asked to, many more
//! with the real torchvision:
//! `MIXSKD_PYTORCH_TESTS=1 MIXSKD_PYTHON=/path/to/python cargo test -p mixskd-data --test operations`.
//! `MIXSKD_TEST_DATA=DIR` takes small images from a set of one's own, such as CIFAR-100, in place of the shipped one.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::{BTreeMap, HashMap};
use std::env;
use std::path::Path;
use std::process::Command;

use candle_core::{Device, Tensor};
use mixskd_data::augment::{Canvas, Op};
use mixskd_data::{DataConfig, Image, read_image};

/// Largest and mean difference by operation, over results named `image|operation|magnitude|fill`.
fn compare(tensors: &HashMap<String, Tensor>) -> BTreeMap<&'static str, (u8, usize)> {
    let mut worst = BTreeMap::new();
    for (name, expected) in tensors {
        let mut parts = name.split('|');
        let mut next = || parts.next();
        let (image, Some(op), Some(magnitude), Some(fill)) = (next(), next(), next(), next())
        else {
            continue;
        };
        let source = to_image(&tensors[image.unwrap()]);
        let op = Op::ALL.into_iter().find(|known| known.name() == op);
        let op = op.unwrap_or_else(|| panic!("{name}"));
        let mut canvas = Canvas::new(source.view());
        op.apply(
            &mut canvas,
            magnitude.parse().unwrap(),
            fill.parse().unwrap(),
        );
        let got = canvas.to_image();
        let expected = to_image(expected);
        assert_eq!(
            (got.height, got.width, got.channels),
            (expected.height, expected.width, expected.channels),
            "{name}"
        );
        let pairs = got.pixels.iter().zip(&expected.pixels);
        let apart = pairs.map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        assert!(apart <= 1, "{name}: {apart} grey levels apart");
        let (largest, count) = worst.entry(op.name()).or_insert((0, 0));
        *largest = apart.max(*largest);
        *count += 1;
    }
    worst
}

fn to_image(tensor: &Tensor) -> Image {
    let (height, width, channels) = tensor.dims3().unwrap();
    let pixels = tensor.flatten_all().unwrap().to_vec1().unwrap();
    Image {
        height,
        width,
        channels,
        pixels,
    }
}

#[test]
fn stored_results_are_met_to_one_grey_level() {
    let bytes = include_bytes!("golden/operations.safetensors");
    let tensors = candle_core::safetensors::load_buffer(bytes, &Device::Cpu).unwrap();
    let worst = compare(&tensors);
    assert_eq!(worst.len(), Op::ALL.len());
    // Four pictures at five angles, and at two more with another colour around them.
    assert_eq!(worst["Rotate"].1, 28);
}

#[test]
fn torchvision_itself_says_the_same() {
    if env::var_os("MIXSKD_PYTORCH_TESTS").is_none() {
        return;
    }
    let python = env::var("MIXSKD_PYTHON").unwrap_or_else(|_| "python3".into());
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut images = HashMap::new();
    let mut add = |name: String, image: &Image| {
        let shape = (image.height, image.width, image.channels);
        let tensor = Tensor::from_slice(&image.pixels, shape, &Device::Cpu).unwrap();
        images.insert(name, tensor);
    };
    for channels in [1, 3] {
        let photograph = read_image(&here.join("images/cat.jpg"), channels).unwrap();
        add(format!("photograph-{channels}"), &photograph);
    }
    let mut config = DataConfig::default();
    if let Ok(source) = env::var("MIXSKD_TEST_DATA") {
        config.source = source;
    }
    let samples = config.open().unwrap().test;
    for index in (0..samples.len()).step_by(samples.len().div_ceil(50)) {
        add(format!("small-{index}"), &samples.image(index).unwrap());
    }

    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("in"), folder.path().join("out"));
    candle_core::safetensors::save(&images, &input).unwrap();
    let script = here.join("torchvision/operations.py");
    let mut command = Command::new(&python);
    let run = command.arg("-B").arg(script).args([&input, &output]);
    let status = run
        .status()
        .unwrap_or_else(|error| panic!("{python}: {error}"));
    assert!(status.success());
    images.extend(candle_core::safetensors::load(&output, &Device::Cpu).unwrap());
    let worst = compare(&images);
    assert_eq!(worst.len(), Op::ALL.len());
    for (op, (apart, results)) in worst {
        println!("{op}: {apart} grey levels apart at most in {results} results");
    }
}
