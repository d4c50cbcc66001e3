//! `cargo xtask interop`: weights and networks on their way to and from other programs, with those programs themselves.
//!
//! The scripts are in `xtask/interop`, tract's test in `xtask/tract`. What they measure is printed as one table, and stored in
//! `docs/results/interop.md` when everything was measured.

mod rows;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use xshell::{Shell, cmd};

use crate::python::{Environment, PythonArgs};
use rows::Row;

/// What a check of ONNX files alone imports.
const ONNX: Environment = Environment {
    folder: "python-onnx",
    packages: &["numpy", "onnx", "onnxruntime", "safetensors"],
    bare_packages: &[],
};

/// What all the checks import, and two packages that bring photographs.
const ALL: Environment = Environment {
    folder: "python-interop",
    packages: &[
        "torch",
        "torchvision",
        "timm",
        "numpy",
        "pillow",
        "safetensors",
        "onnx",
        "onnxruntime",
    ],
    bare_packages: &["matplotlib", "scikit-learn"],
};

/// Where the measured table is stored.
const PAGE: &str = "docs/results/interop.md";

/// Options of `cargo xtask interop`.
#[derive(Debug, clap::Args)]
pub(crate) struct InteropArgs {
    /// Only the narrow networks' ONNX files, with onnx's checker and onnxruntime: no torch, no timm, a few minutes
    #[arg(long)]
    onnx_only: bool,
    /// Where no Python with the packages can be made, say so and call it no failure
    #[arg(long)]
    if_possible: bool,
    #[command(flatten)]
    python: PythonArgs,
}

pub(crate) fn run(root: &Path, args: &InteropArgs) -> Result<()> {
    let sh = Shell::new()?;
    sh.change_dir(root);
    let environment = if args.onnx_only { &ONNX } else { &ALL };
    let python = match args.python.interpreter(&sh, root, environment) {
        Err(error) if args.if_possible => {
            eprintln!("interop: NOT CHECKED, there is no Python for it: {error:#}");
            return Ok(());
        }
        python => python?,
    };
    let scratch = tempfile::tempdir().context("cannot make a temporary folder")?;
    let checks = Checks {
        sh: &sh,
        root,
        python: &python,
        scratch: scratch.path(),
    };
    let mut rows = Vec::new();
    let narrow = checks.samples("narrow", "0.25", "all")?;
    rows.extend(checks.onnx(&narrow, "onnxruntime, quarter width, 8 files")?);
    if !args.onnx_only {
        rows.extend(checks.tract(&narrow)?);
        let full = checks.samples("full", "1", "default")?;
        rows.extend(checks.onnx(&full, "onnxruntime, full width")?);
        rows.extend(checks.torch(&full)?);
        rows.extend(checks.gradients()?);
    }
    let table = rows::tables(&rows);
    println!("{table}");
    let failed: Vec<_> = rows.iter().filter(|row| !row.holds()).collect();
    if !failed.is_empty() {
        let list: Vec<_> = failed.iter().map(ToString::to_string).collect();
        bail!("{} checks failed:\n{}", failed.len(), list.join("\n"));
    }
    if !args.onnx_only {
        let versions = checks.versions(environment)?;
        fs::write(root.join(PAGE), page(&table, &versions))
            .with_context(|| format!("cannot write {PAGE}"))?;
        eprintln!("interop: {} checks hold; {PAGE} written", rows.len());
    }
    Ok(())
}

/// What every check works with.
struct Checks<'a> {
    sh: &'a Shell,
    root: &'a Path,
    python: &'a Path,
    scratch: &'a Path,
}

impl Checks<'_> {
    /// Every network at `width`, with the ONNX files that `which` says.
    fn samples(&self, name: &str, width: &str, which: &str) -> Result<PathBuf> {
        let (sh, folder) = (self.sh, self.scratch.join(name));
        let samples = self.built("mixskd-models", "--example", "samples")?;
        cmd!(sh, "{samples} {folder} {width} {which}").run()?;
        Ok(folder)
    }

    /// onnx's checker and onnxruntime.
    fn onnx(&self, samples: &Path, what: &str) -> Result<Vec<Row>> {
        let (sh, python, rows) = (self.sh, self.python, self.scratch.join("onnx.json"));
        cmd!(
            sh,
            "{python} -B xtask/interop/onnx_check.py {samples} {rows}"
        )
        .run()?;
        let rows = rows::read(&rows)?.into_iter();
        Ok(rows
            .map(|row| Row {
                check: what.into(),
                ..row
            })
            .collect())
    }

    fn tract(&self, samples: &Path) -> Result<Vec<Row>> {
        let sh = self.sh;
        let _samples = sh.push_env("MIXSKD_SAMPLES", samples);
        // A target folder of its own below the project's: tract's dependencies are others than the workspace's.
        let target = self.root.join("target").join("tract");
        let said = cmd!(
            sh,
            "cargo test --quiet --target-dir {target} --manifest-path xtask/tract/Cargo.toml -- --nocapture"
        )
        .read()?;
        let rows = rows::told(&said, "tract", 1e-4);
        if rows.is_empty() {
            bail!("tract's test told nothing:\n{said}");
        }
        Ok(rows)
    }

    /// The real torchvision and timm, and photographs.
    fn torch(&self, samples: &Path) -> Result<Vec<Row>> {
        let (sh, python) = (self.sh, self.python);
        let mixskd = self.built("mixskd-cli", "--bin", "mixskd")?;
        let prepare = self.built("mixskd-data", "--example", "prepare")?;
        let (scratch, rows) = (self.scratch.join("torch"), self.scratch.join("torch.json"));
        sh.create_dir(&scratch)?;
        cmd!(
            sh,
            "{python} -B xtask/interop/torch_check.py {samples} {mixskd} {prepare} {scratch} {rows}"
        )
        .run()?;
        rows::read(&rows)
    }

    /// Gradients in float64 beside torchvision's: a test of mixskd-models.
    fn gradients(&self) -> Result<Vec<Row>> {
        let sh = self.sh;
        let _wanted = sh.push_env("MIXSKD_PYTORCH_TESTS", "1");
        let _python = sh.push_env("MIXSKD_PYTHON", self.python);
        let said = cmd!(
            sh,
            "cargo test --quiet --package mixskd-models --package mixskd-cli --test torchvision every_network_takes -- --nocapture"
        )
        .read()?;
        let rows = rows::told(&said, "gradients", 1e-3);
        if rows.is_empty() {
            bail!("the test of gradients told nothing:\n{said}");
        }
        Ok(rows)
    }

    /// Builds a program of the workspace, and tells where cargo put it.
    ///
    /// The command line's package is named beside its own, so that cargo chooses the features of `cargo test --workspace` and builds
    /// candle no second time.
    fn built(&self, package: &str, kind: &str, name: &str) -> Result<PathBuf> {
        let sh = self.sh;
        let said = cmd!(
            sh,
            "cargo build --quiet --package {package} --package mixskd-cli {kind} {name} --message-format json"
        )
        .read()?;
        said.lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .filter(|message| message["target"]["name"] == name)
            .find_map(|message| Some(PathBuf::from(message["executable"].as_str()?)))
            .with_context(|| format!("cargo built no {name}"))
    }

    /// Name and version of the packages that were measured with.
    fn versions(&self, environment: &Environment) -> Result<String> {
        let (sh, python) = (self.sh, self.python);
        let script = "import sys, importlib.metadata as m\n\
            print(', '.join(f'{p} {m.version(p).split(\"+\")[0]}' for p in sys.argv[1:]))";
        let packages = environment.packages;
        Ok(cmd!(sh, "{python} -c {script} {packages...}")
            .quiet()
            .read()?)
    }
}

/// The page that stores the tables.
fn page(table: &str, versions: &str) -> String {
    format!(
        "# Weights and networks beside other programs\n\n\
         Written by `cargo xtask interop`, with {versions}.\n\n\
         An error is the largest difference divided by the largest expected value; of gradients, the length of the difference divided by the \
         gradient's. Weights are random, running statistics those of a batch. What each column is:\n\n\
         - onnxruntime: exported files pass onnx's checker and give our output, for a batch of three and of one. At quarter width \
         every way of writing them (batch norms folded or not, logits or probabilities, normalisation outside or inside), at full width the \
         default. tract: folded and unfolded files at quarter width.\n\
         - strict: our weights file, or for timm what `mixskd export --format timm` writes of it, loads with `strict=True` and gives our logits.\n\
         - import: a state dict of theirs, through `mixskd import`, gives their logits in `mixskd predict`.\n\
         - photographs: `mixskd predict` on three JPEG files beside torchvision's model with the same weights: for how many of the three \
         the five most probable classes are others, or stand in another order, and how far the logits are apart. Random weights answer to a change of one grey level, so there torchvision sees the pixels that \
         mixskd prepared; two networks trained for a minute see the files through torchvision's own transforms.\n\
         - gradients: of every parameter, in training, in float64, the largest over all of them.\n\n{table}"
    )
}
