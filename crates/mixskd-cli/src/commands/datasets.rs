//! `mixskd datasets`: the known sets, and how one is fetched.

use std::io::IsTerminal;

use clap::{Parser, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use mixskd_data::{FetchEvent, Recipe, data_root, fetch, recipes};
use serde::Serialize;
use serde_json::json;

use crate::failure::{Failure, Result};
use crate::output;

/// Flags of `mixskd datasets`.
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// What to do with a set.
#[derive(Debug, Subcommand)]
enum Command {
    /// Download a set, verify its checksums and unpack it; a broken download goes on where it stopped
    Fetch(FetchArgs),
}

/// Flags of `mixskd datasets fetch`.
#[derive(Debug, Parser)]
struct FetchArgs {
    /// A set of `mixskd datasets`
    #[arg(value_name = "NAME")]
    name: String,
    /// Print one JSON document on stdout and nothing else there
    #[arg(long)]
    json: bool,
}

/// One set of the list.
#[derive(Serialize)]
pub(crate) struct Row<'a> {
    /// Name, as `--data` takes it.
    name: &'a str,
    /// Name in prose.
    title: &'a str,
    /// Number of classes.
    classes: usize,
    /// Training images.
    train: usize,
    /// Test images.
    test: usize,
    /// 1 (grey) or 3 (RGB).
    channels: usize,
    /// Height and width of the images, or of the recommended input.
    size: [usize; 2],
    /// Licence or terms.
    licence: &'a str,
    /// Where it is described.
    homepage: &'a str,
    /// `shipped`, `fetched`, or `remote`: still to be fetched.
    state: &'static str,
}

impl<'a> Row<'a> {
    pub(crate) fn of(recipe: &'a Recipe) -> Self {
        let state = match recipe {
            recipe if recipe.files.is_empty() => "shipped",
            recipe if data_root().join(&recipe.name).is_dir() => "fetched",
            _ => "remote",
        };
        Self {
            name: &recipe.name,
            title: &recipe.title,
            classes: recipe.classes,
            train: recipe.train,
            test: recipe.test,
            channels: recipe.channels,
            size: recipe.size,
            licence: &recipe.licence,
            homepage: &recipe.homepage,
            state,
        }
    }
}

impl Args {
    /// Lists, or fetches.
    pub(crate) fn run(&self) -> Result<()> {
        match &self.command {
            Some(Command::Fetch(args)) => args.run(),
            None => self.list(),
        }
    }

    fn list(&self) -> Result<()> {
        let sets = recipes().iter().map(Row::of).collect::<Vec<_>>();
        if self.json {
            return output::json(&json!({ "datasets": sets, "root": data_root() }));
        }
        let head = ["data set", "classes", "training", "test", "size", "state"];
        let mut rows = vec![head.map(String::from).to_vec()];
        rows.extend(sets.iter().map(|set| {
            let size = format!("{}×{}×{}", set.size[0], set.size[1], set.channels);
            let [classes, train, test] =
                [set.classes, set.train, set.test].map(|count| count.to_string());
            vec![
                set.name.into(),
                classes,
                train,
                test,
                size,
                set.state.into(),
            ]
        }));
        output::line(&output::table(&rows))?;
        output::line("\nlicences:")?;
        for set in &sets {
            output::line(&format!("  {}: {}", set.name, set.licence))?;
        }
        let root = data_root();
        output::line(&format!(
            "\n`mixskd datasets fetch NAME` puts a set into {}",
            root.display()
        ))
    }
}

impl FetchArgs {
    fn run(&self) -> Result<()> {
        let Some(recipe) = recipes().iter().find(|recipe| recipe.name == self.name) else {
            return Err(unknown(&self.name));
        };
        let mut display = Display::new();
        let dir = fetch(recipe, &data_root(), &mut |event| display.show(&event))?;
        if self.json {
            return output::json(&json!({ "name": recipe.name, "dir": dir }));
        }
        output::line(&format!(
            "{}\nnext: mixskd train --data {}",
            dir.display(),
            recipe.name
        ))
    }
}

/// A set that nobody knows; the data crate's own answer names the nearest.
fn unknown(name: &str) -> Failure {
    let config = mixskd_data::DataConfig {
        source: name.into(),
        ..Default::default()
    };
    match config.open() {
        Err(error) => error.into(),
        Ok(_) => Failure::usage(
            format!("{name} lies on this machine already"),
            "there is nothing to fetch",
        ),
    }
}

/// Shows a download on stderr: a bar on a terminal, a line for each stage elsewhere.
struct Display {
    bar: Option<ProgressBar>,
}

impl Display {
    fn new() -> Self {
        let style =
            ProgressStyle::with_template("{prefix} {bar:24} {bytes} of {total_bytes}, {eta} left")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
        let is_shown = std::io::stderr().is_terminal() && !output::is_quiet();
        let bar = is_shown.then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            bar.with_style(style)
        });
        Self { bar }
    }

    fn show(&mut self, event: &FetchEvent) {
        match event {
            FetchEvent::Present => self.say("already there"),
            FetchEvent::Started {
                file,
                resumed_from: 0,
            } => self.say(&format!("downloading {file}")),
            FetchEvent::Started { file, resumed_from } => {
                self.say(&format!("downloading {file}, from byte {resumed_from} on"));
            }
            FetchEvent::Progress { file, done, total } => {
                if let Some(bar) = &self.bar {
                    bar.set_prefix(file.clone());
                    bar.set_length(total.unwrap_or(*done));
                    bar.set_position(*done);
                }
            }
            FetchEvent::Verified { file } => self.say(&format!("{file}: the checksum is right")),
            FetchEvent::Unpacking { file } => self.say(&format!("unpacking {file}")),
            _ => {}
        }
    }

    fn say(&self, text: &str) {
        // A closed stderr is no reason to stop a download.
        let write = || output::progress(format_args!("{text}"));
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
