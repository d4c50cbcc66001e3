//! Feeds damaged files to everything that reads files: `cargo xtask fuzz`.
//!
//! A target has a corpus of good inputs; each execution damages one (bits, bytes, numbers of the format, cuts, repeats, pieces of another) and reads it.
//! A refusal is as good as a success. A panic, a read of more than two seconds, or more than 1 GiB of memory is a finding: the input is kept and the
//! program ends with status 1.
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, missing_docs)]

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use candle_core::Device;
use mixskd_data::{DataConfig, read_image};
use mixskd_models::weights::{self, StateDict};
use mixskd_train::method::MethodConfig;
use mixskd_train::{RunDir, TrainConfig, Trainer, verify_checkpoint};

/// One thing that reads files.
struct Target {
    name: &'static str,
    /// Share of all executions.
    share: u64,
    /// Good inputs.
    corpus: fn(&Path) -> Vec<Vec<u8>>,
    /// Longest input.
    longest: usize,
    /// Reads the file at the first path, which lies alone in the folder at the second.
    read: fn(&Path, &Path),
    /// Name of the file.
    file: &'static str,
}

const TARGETS: &[Target] = &[
    Target {
        name: "config",
        share: 30,
        corpus: configs,
        longest: 4096,
        read: read_config,
        file: "c.toml",
    },
    Target {
        name: "cifar",
        share: 15,
        corpus: cifar,
        longest: 10_000,
        read: read_folder,
        file: "train.bin",
    },
    Target {
        name: "idx",
        share: 10,
        corpus: idx,
        longest: 6000,
        read: read_folder,
        file: "train-images-idx3-ubyte",
    },
    Target {
        name: "idx-labels",
        share: 5,
        corpus: idx_label_files,
        longest: 6000,
        read: read_folder,
        file: "train-labels-idx1-ubyte",
    },
    Target {
        name: "image",
        share: 15,
        corpus: images,
        longest: 4096,
        read: read_picture,
        file: "a.png",
    },
    Target {
        name: "safetensors",
        share: 10,
        corpus: safetensors,
        longest: 60_000,
        read: read_weights,
        file: "w.safetensors",
    },
    Target {
        name: "pickle",
        share: 10,
        corpus: pickles,
        longest: 20_000,
        read: read_state,
        file: "w.pt",
    },
    Target {
        name: "checkpoint",
        share: 5,
        corpus: checkpoints,
        longest: 400_000,
        read: read_checkpoint,
        file: "epoch-0001.safetensors",
    },
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default: u64| {
        arguments
            .get(at)
            .map_or(default, |text| text.parse().expect("a number"))
    };
    let (executions, seed) = (number(0, 10_000), number(1, 0));
    let only = arguments.get(2).cloned();
    let names = TARGETS.iter().map(|target| target.name);
    let names: Vec<_> = names.collect();
    if let Some(only) = only.as_deref().filter(|only| !names.contains(only)) {
        eprintln!(
            "error: no target is called {only}\nhint: {}",
            names.join(", ")
        );
        std::process::exit(2);
    }
    // On a file system in memory, where there is one.
    let root = Path::new("/dev/shm");
    let folder = if root.is_dir() {
        tempfile::tempdir_in(root)
    } else {
        tempfile::tempdir()
    }
    .unwrap();
    std::panic::set_hook(Box::new(|_| ()));
    let mut found = 0;
    for target in TARGETS {
        if only.as_ref().is_none_or(|only| only == target.name) {
            found += fuzz(target, executions * target.share / 100, seed, folder.path());
        }
    }
    std::process::exit(i32::from(found > 0));
}

/// Runs one target; how many findings there were.
fn fuzz(target: &Target, executions: u64, seed: u64, root: &Path) -> usize {
    let corpus = (target.corpus)(&root.join("corpus"));
    assert!(!corpus.is_empty(), "{}: no corpus", target.name);
    let folder = root.join(target.name);
    fs::create_dir_all(&folder).unwrap();
    beside(target.name, &folder);
    let path = folder.join(target.file);
    let mut random = Random(seed ^ target.name.len() as u64);
    let (started, mut slowest, mut findings) =
        (Instant::now(), Duration::ZERO, Vec::<PathBuf>::new());
    for execution in 0..executions {
        let input = random.damage(&corpus, target.longest);
        fs::write(&path, &input).unwrap();
        let begun = Instant::now();
        let ended = catch_unwind(AssertUnwindSafe(|| (target.read)(&path, &folder)));
        let took = begun.elapsed();
        slowest = slowest.max(took);
        let why = if ended.is_err() {
            "panic"
        } else if took > Duration::from_secs(2) {
            "slow"
        } else if execution % 1024 == 0 && peak_memory() > 1 << 30 {
            "memory"
        } else {
            continue;
        };
        let kept =
            std::env::temp_dir().join(format!("mixskd-fuzz-{}-{why}-{execution}", target.name));
        fs::write(&kept, &input).unwrap();
        eprintln!("{}: {why}: {}", target.name, kept.display());
        findings.push(kept);
        if findings.len() >= 5 || why == "memory" {
            break;
        }
    }
    println!(
        "| {} | {} | {executions} | {:.0} | {:.3} | {} | {} |",
        target.name,
        corpus.len(),
        started.elapsed().as_secs_f64(),
        slowest.as_secs_f64(),
        peak_memory() >> 20,
        findings.len()
    );
    findings.len()
}

/// Largest resident memory so far, in bytes, where the system tells.
fn peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    /// A place in `len` bytes; often near the beginning, where formats have their headers.
    fn place(&mut self, len: usize) -> usize {
        let reach = [16, 64, 256, len][self.below(4)].min(len);
        self.below(reach)
    }

    /// One of the corpus with one to eight damages.
    fn damage(&mut self, corpus: &[Vec<u8>], longest: usize) -> Vec<u8> {
        let mut bytes = corpus[self.below(corpus.len())].clone();
        for _ in 0..=self.below(8) {
            if bytes.is_empty() {
                bytes.push(self.next() as u8);
            }
            let at = self.place(bytes.len());
            match self.below(9) {
                0 => bytes[at] ^= 1 << self.below(8),
                1 => bytes[at] = self.next() as u8,
                2 => {
                    let telling = [0, 1, 0x7F, 0x80, 0xFF, b'0', b'9', b'"', b'{', b'.'];
                    bytes[at] = telling[self.below(telling.len())];
                }
                3 => {
                    let number = [0, 1, u64::MAX, 1 << 31, 1 << 32, u64::MAX >> 1, self.next()]
                        [self.below(7)];
                    let size = [2, 4, 8][self.below(3)];
                    let number = if self.below(2) == 0 {
                        number.to_le_bytes()
                    } else {
                        number.to_be_bytes()
                    };
                    for (slot, byte) in bytes[at..].iter_mut().zip(&number[..size]) {
                        *slot = *byte;
                    }
                }
                4 => bytes.truncate(at),
                5 => {
                    let end = (at + 1 + self.below(32)).min(bytes.len());
                    bytes.drain(at..end);
                }
                6 => {
                    let end = (at + 1 + self.below(64)).min(bytes.len());
                    let piece = bytes[at..end].to_vec();
                    let to = self.below(bytes.len());
                    bytes.splice(to..to, piece);
                }
                7 => {
                    let other = &corpus[self.below(corpus.len())];
                    let from = self.below(other.len());
                    let end = (from + 1 + self.below(64)).min(other.len());
                    bytes.splice(at..at, other[from..end].iter().copied());
                }
                _ => bytes.insert(at, self.next() as u8),
            }
        }
        bytes.truncate(longest);
        bytes
    }
}

/// What a folder of the target holds beside the file that is damaged.
fn beside(target: &str, folder: &Path) {
    match target {
        "cifar" => {
            fs::write(folder.join("test.bin"), cifar_records(2)).unwrap();
            fs::write(folder.join("fine_label_names.txt"), "a\nb\nc\n").unwrap();
        }
        "idx" | "idx-labels" => {
            fs::write(folder.join("train-images-idx3-ubyte"), idx_images(4)).unwrap();
            fs::write(folder.join("train-labels-idx1-ubyte"), idx_labels(4)).unwrap();
            fs::write(folder.join("t10k-images-idx3-ubyte"), idx_images(4)).unwrap();
            fs::write(folder.join("t10k-labels-idx1-ubyte"), idx_labels(4)).unwrap();
        }
        _ => {}
    }
}

fn read_config(path: &Path, _: &Path) {
    if let Ok(config) = TrainConfig::from_file(path) {
        let checked = config.validate();
        // What is accepted can be written and read again.
        if checked.is_ok() {
            let text = config.to_toml().unwrap();
            assert_eq!(toml::from_str::<TrainConfig>(&text).unwrap(), config);
        }
    }
}

fn configs(_: &Path) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
    let mut texts: Vec<Vec<u8>> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| fs::read(entry.unwrap().path()).unwrap())
        .collect();
    texts.sort();
    texts.push(TrainConfig::default().to_toml().unwrap().into_bytes());
    for spec in mixskd_train::method::ALL {
        let config = TrainConfig {
            method: MethodConfig::new(spec.name).unwrap(),
            ..TrainConfig::default()
        };
        texts.push(config.to_toml().unwrap().into_bytes());
    }
    texts.push(b"[data]\naugment = [\"autoaugment\", { op = \"cutout\", size = 16 }]\n[run]\ncheckpoint_every = 30\n".to_vec());
    texts
}

/// Opens the folder and looks at the first and the last image.
fn read_folder(_: &Path, folder: &Path) {
    let config = DataConfig {
        source: folder.display().to_string(),
        ..DataConfig::default()
    };
    if let Ok(dataset) = config.open() {
        for samples in [&dataset.train, &dataset.test] {
            for index in [0, samples.len().saturating_sub(1)] {
                if index < samples.len() {
                    let _ = samples.image(index);
                    assert!((samples.label(index) as usize) < dataset.classes.len());
                }
            }
        }
    }
}

fn cifar_records(count: usize) -> Vec<u8> {
    (0..count)
        .flat_map(|k| {
            [0, (k % 3) as u8]
                .into_iter()
                .chain((0..3072).map(move |p| (p * 7 + k) as u8))
        })
        .collect()
}

fn cifar(_: &Path) -> Vec<Vec<u8>> {
    vec![cifar_records(1), cifar_records(2), cifar_records(3)]
}

fn idx_images(count: u32) -> Vec<u8> {
    let header = [0x0803, count, 28, 28]
        .into_iter()
        .flat_map(u32::to_be_bytes);
    header.chain((0..count * 784).map(|k| k as u8)).collect()
}

fn idx_labels(count: u32) -> Vec<u8> {
    [0x0801, count]
        .into_iter()
        .flat_map(u32::to_be_bytes)
        .chain((0..count).map(|k| (k % 3) as u8))
        .collect()
}

fn idx(_: &Path) -> Vec<Vec<u8>> {
    vec![idx_images(4), idx_images(1), idx_labels(4)]
}

fn idx_label_files(_: &Path) -> Vec<Vec<u8>> {
    vec![idx_labels(4), idx_labels(3)]
}

fn read_picture(path: &Path, _: &Path) {
    let _ = read_image(path, 3);
    let _ = read_image(path, 1);
}

fn images(root: &Path) -> Vec<Vec<u8>> {
    fs::create_dir_all(root).unwrap();
    let picture =
        image::RgbImage::from_fn(9, 7, |x, y| image::Rgb([(x * 20) as u8, (y * 30) as u8, 7]));
    let mut corpus = Vec::new();
    for name in ["a.png", "a.jpg", "a.bmp", "a.webp", "a.tiff", "a.ppm"] {
        let path = root.join(name);
        picture.save(&path).unwrap();
        corpus.push(fs::read(&path).unwrap());
    }
    let grey = image::GrayImage::from_fn(5, 5, |x, y| image::Luma([(x * y) as u8]));
    let path = root.join("grey.png");
    grey.save(&path).unwrap();
    corpus.push(fs::read(&path).unwrap());
    corpus
}

/// A finished run of one epoch on almost nothing.
fn tiny_run(root: &Path) -> PathBuf {
    let out = root.join("run");
    if !out.join("report.json").exists() {
        let data = root.join("data");
        fs::create_dir_all(&data).unwrap();
        fs::write(data.join("train.bin"), cifar_records(6)).unwrap();
        fs::write(data.join("test.bin"), cifar_records(3)).unwrap();
        fs::write(data.join("fine_label_names.txt"), "a\nb\nc\n").unwrap();
        let mut config = TrainConfig {
            method: MethodConfig::new("ce").unwrap(),
            ..TrainConfig::default()
        };
        config.data.source = data.display().to_string();
        config.model.width = 0.015_625;
        config.run.epochs = 1;
        config.run.batch = 3;
        config.run.image_size = 8;
        config.schedule.warmup_epochs = 0;
        let mut trainer = Trainer::new(&config).unwrap();
        let run = RunDir::create(&out, trainer.config()).unwrap();
        trainer.run(&run, &mut ()).unwrap();
    }
    out
}

fn safetensors(root: &Path) -> Vec<Vec<u8>> {
    vec![fs::read(tiny_run(root).join("model.safetensors")).unwrap()]
}

fn read_weights(path: &Path, _: &Path) {
    let _ = weights::load(path);
    let _ = weights::build_from_file(path, &Device::Cpu);
    let _ = StateDict::read(path);
}

fn checkpoints(root: &Path) -> Vec<Vec<u8>> {
    vec![fs::read(tiny_run(root).join("checkpoints/epoch-0001.safetensors")).unwrap()]
}

fn read_checkpoint(path: &Path, _: &Path) {
    let _ = verify_checkpoint(path);
}

fn read_state(path: &Path, _: &Path) {
    let _ = StateDict::read(path);
}

/// State dicts that PyTorch wrote, as the tests of the import have them.
fn pickles(_: &Path) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/pickle");
    let mut files: Vec<Vec<u8>> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| fs::read(entry.unwrap().path()).unwrap())
        .collect();
    files.sort();
    files
}
