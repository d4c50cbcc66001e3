//! `cargo xtask bench`: this project's benches; with `--peer`, the same work in PyTorch in turn, and tables of ratios; with
//! `--growth`, how the cost of a step grows.
//!
//! Every row is measured by itself and written at once: a row that fails costs no other, and `--resume` goes on where a run ended.

mod growth;
mod machine;
mod peer;
mod programs;
mod rows;
mod sheet;
mod table;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use xshell::{Shell, cmd};

use crate::python::PythonArgs;

/// Options of `cargo xtask bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct BenchArgs {
    /// Run the same work in PyTorch in turn (A B A B) and print tables of ratios, instead of the criterion benches
    #[arg(long, conflicts_with = "filter")]
    peer: bool,
    /// Print how the time per sample grows with batch, width and threads
    #[arg(long, conflicts_with = "filter")]
    growth: bool,
    /// Of --peer and --growth, only these rows: step, infer, conv, zoo, loader, or a part of a row's name; separated by semicolons
    #[arg(long, value_delimiter = ';', value_name = "ROWS")]
    only: Vec<String>,
    /// Leave out the rows that the file of results holds already
    #[arg(long)]
    resume: bool,
    /// Threads of both sides [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Turns of each side
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Images for the loader's row: a folder of CIFAR-100's binary files, or of image files in train/CLASS/ [default: the shipped set]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Folder of the results, peer.md and peer.json, growth.md and growth.json; rows that are there and not measured anew stay
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    out: PathBuf,
    /// Of the criterion benches, only those whose name contains this
    filter: Option<String>,
    /// Criterion's own options, after `--`, such as --quick
    #[arg(last = true)]
    criterion: Vec<String>,
    #[command(flatten)]
    python: PythonArgs,
}

pub(crate) fn run(root: &Path, args: &BenchArgs) -> Result<()> {
    let sh = Shell::new()?;
    sh.change_dir(root);
    if args.peer {
        peer::run(&sh, root, args)?;
    }
    if args.growth {
        growth::run(&sh, root, args)?;
    }
    if !args.peer && !args.growth {
        let (filter, criterion) = (&args.filter, &args.criterion);
        // As the command line sets it: candle's own threads off, freed memory kept.
        let _env = programs::settings()
            .map(|(name, value)| sh.push_env(name, value))
            .collect::<Vec<_>>();
        cmd!(
            sh,
            "cargo bench --package mixskd-benches --benches -- {filter...} {criterion...}"
        )
        .run()?;
    }
    Ok(())
}

impl BenchArgs {
    fn threads(&self) -> usize {
        self.threads.map_or_else(
            || std::thread::available_parallelism().map_or(1, usize::from),
            usize::from,
        )
    }

    /// The file of results called `name`.
    fn file(&self, root: &Path, name: &str) -> PathBuf {
        root.join(&self.out).join(name)
    }
}

/// Rows that could not be measured, with why. The others are measured and written all the same.
#[derive(Default)]
struct Failures(Vec<String>);

impl Failures {
    /// What was measured, or nothing, and the failure noted.
    fn note<T>(&mut self, name: &str, outcome: Result<T>) -> Option<T> {
        match outcome {
            Ok(value) => Some(value),
            Err(error) => {
                eprintln!("error: {name}: {error:#}");
                self.0.push(name.into());
                None
            }
        }
    }

    fn into_result(self) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        bail!(
            "{} rows were not measured: {}\nhint: --resume measures what is missing",
            self.0.len(),
            self.0.join("; ")
        )
    }
}

/// Writes `text`, making the folder where it is missing.
fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
    }
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
