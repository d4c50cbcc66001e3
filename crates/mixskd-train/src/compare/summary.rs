//! The result of a comparison as data.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::statistics::{MeanSd, PairedDifference};
use super::{CompareConfig, Done, Entry};
use crate::Report;
use crate::metrics::own_balanced;

/// A run that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Name of the entry.
    pub entry: String,
    /// Its seed.
    pub seed: u64,
    /// Its epochs.
    pub epochs: usize,
    /// Its run directory.
    pub dir: PathBuf,
    /// What went wrong.
    pub cause: String,
}

/// A run that is done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Name of the entry.
    pub entry: String,
    /// Its seed.
    pub seed: u64,
    /// Its epochs.
    pub epochs: usize,
    /// The backbone's top-1 after the last epoch, a fraction.
    pub top1: f64,
    /// The backbone's top-5 after the last epoch, a fraction.
    pub top5: f64,
    /// The backbone's balanced accuracy after the last epoch, a fraction; `None` where that was not recorded.
    #[serde(default)]
    pub balanced: Option<f64>,
    /// The backbone's test loss after the last epoch, in nats.
    pub test_loss: f64,
    /// Original images trained on per second, evaluation excluded.
    pub samples_per_s: f64,
    /// Seconds of training and evaluation.
    pub seconds: f64,
    /// Largest resident memory of the processes that worked on the run in bytes, where the system tells.
    pub peak_memory_bytes: Option<u64>,
    /// Processes that worked on it: more than 1 where it was interrupted; `None` where that was not recorded.
    pub sessions: Option<usize>,
    /// Processor, instruction set and threads that its costs belong to; `None` where that was not recorded.
    pub conditions: Option<String>,
    /// The builds of mixskd that did it, by the SHA-256 of the program's file; `None` where that was not recorded.
    #[serde(default)]
    pub builds: Option<String>,
    /// Its run directory.
    pub dir: PathBuf,
}

/// One line of a table: an entry over its seeds. Means are over the runs that are done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Name of the entry.
    pub entry: String,
    /// Epochs of each run.
    pub epochs: usize,
    /// Runs that are done.
    pub runs: usize,
    /// The backbone's top-1 after the last epoch, a fraction.
    pub top1: MeanSd,
    /// Its paired difference to the baseline's, seed by seed; `None` for the baseline itself, and without a common seed.
    pub gain: Option<PairedDifference>,
    /// The backbone's top-5 after the last epoch, a fraction.
    pub top5: MeanSd,
    /// The backbone's balanced accuracy after the last epoch, a fraction; `None` where a run did not record it.
    #[serde(default)]
    pub balanced: Option<MeanSd>,
    /// The backbone's test loss after the last epoch, in nats.
    pub test_loss: MeanSd,
    /// Mean of original images trained on per second, evaluation excluded.
    pub samples_per_s: f64,
    /// Largest resident memory of any of the runs' processes in bytes, where the system tells.
    pub peak_memory_bytes: Option<u64>,
    /// Mean seconds of a run, training and evaluation.
    pub seconds: f64,
    /// Parameters in training; the kept ones are the same for all.
    pub parameters_training: usize,
}

/// What `compare.json` holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The comparison's directory.
    pub dir: PathBuf,
    /// Name of the data set.
    pub data: String,
    /// Its classes; 0 before a run is done.
    #[serde(default)]
    pub classes: usize,
    /// Name of the network.
    pub model: String,
    /// Width multiplier.
    pub width: f64,
    /// Original images per step.
    pub batch: usize,
    /// Epochs of the first table.
    pub epochs: usize,
    /// Seeds.
    pub seeds: Vec<u64>,
    /// Name of the entry that the others are compared with.
    pub baseline: String,
    /// What is compared.
    pub entries: Vec<Entry>,
    /// The first table: the same epochs for all, in the order of `entries`. Entries without a finished run are missing.
    pub equal_epochs: Vec<Row>,
    /// The second table: the same training time for all. Empty where it was not asked for.
    pub equal_time: Vec<Row>,
    /// Every finished run of both tables.
    pub runs: Vec<RunRecord>,
    /// Runs that failed.
    pub failures: Vec<Failure>,
    /// Runs of the first table that are neither done nor failed.
    pub missing: usize,
    /// The same of the second table, once the epochs of some of its runs are settled; those of entries that are yet to be timed count.
    pub equal_time_missing: usize,
    /// The entry whose steps took times that repeated worst when epochs were given out, and by how much its two least times were apart, as a share; `None` where all
    /// repeated, and without a second table.
    #[serde(default)]
    pub equal_time_unsteady: Option<(String, f64)>,
    /// Whether a second table is to come.
    #[serde(skip)]
    pub(super) equal_time_asked: bool,
}

impl Summary {
    pub(super) fn new(dir: &Path, config: &CompareConfig) -> Self {
        let settings = &config.settings;
        Self {
            dir: dir.to_path_buf(),
            data: settings.data.source.clone(),
            classes: 0,
            model: settings.model.name.clone(),
            width: settings.model.width,
            batch: settings.run.batch,
            epochs: settings.run.epochs,
            seeds: config.seeds.clone(),
            baseline: config.baseline.clone(),
            entries: config.entries.clone(),
            equal_epochs: Vec::new(),
            equal_time: Vec::new(),
            runs: Vec::new(),
            failures: Vec::new(),
            missing: 0,
            equal_time_missing: 0,
            equal_time_unsteady: None,
            equal_time_asked: config.equal_time,
        }
    }

    /// The first table from its runs.
    pub(super) fn fill(&mut self, config: &CompareConfig, done: &[Done], failures: &[Failure]) {
        if let Some(run) = done.first() {
            self.data.clone_from(&run.report.data);
            self.classes = run.report.classes;
            self.model.clone_from(&run.report.model);
        }
        self.equal_epochs = rows(config, done);
        self.runs = records(config, done);
        self.failures = failures.to_vec();
        self.missing = missing(config.entries.len() * config.seeds.len(), done, failures);
    }

    /// The second table, after the first; it has `all` runs.
    pub(super) fn fill_equal_time(
        &mut self,
        config: &CompareConfig,
        done: &[Done],
        failures: &[Failure],
        all: usize,
    ) {
        self.equal_time = rows(config, done);
        self.equal_time_missing = missing(all, done, failures);
        let first = config.settings.run.epochs;
        self.runs.retain(|run| run.epochs == first);
        self.failures.retain(|failure| failure.epochs == first);
        let runs = records(config, done).into_iter();
        self.runs.extend(runs.filter(|run| run.epochs != first));
        self.failures.extend_from_slice(failures);
    }

    /// Whether some row's balanced accuracy says another thing than its top-1.
    pub(super) fn has_own_balanced(&self) -> bool {
        let mut runs = self.runs.iter();
        runs.any(|run| own_balanced(run.top1, run.balanced).is_some())
    }

    /// Every set of conditions that costs were measured under, with the number of runs; those that were not recorded are left out.
    pub(super) fn conditions(&self) -> Vec<(&str, usize)> {
        counts(self.runs.iter().filter_map(|run| run.conditions.as_deref()))
    }

    /// Every build that did runs, with their number; those of which it was not recorded stand under an empty name.
    pub(super) fn builds(&self) -> Vec<(&str, usize)> {
        counts(
            self.runs
                .iter()
                .map(|run| run.builds.as_deref().unwrap_or_default()),
        )
    }
}

/// How often each is there, in the order of their first.
fn counts<'a>(all: impl Iterator<Item = &'a str>) -> Vec<(&'a str, usize)> {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for one in all {
        match counts.iter_mut().find(|(known, _)| *known == one) {
            Some((_, count)) => *count += 1,
            None => counts.push((one, 1)),
        }
    }
    counts
}

/// Of `all` runs of a table those that are neither done nor failed.
fn missing(all: usize, done: &[Done], failures: &[Failure]) -> usize {
    all.saturating_sub(done.len() + failures.len())
}

fn rows(config: &CompareConfig, done: &[Done]) -> Vec<Row> {
    let of = |name: &str| -> Vec<&Report> {
        let at = config.entries.iter().position(|entry| entry.name == name);
        let own = done.iter().filter(|run| Some(run.entry) == at);
        own.map(|run| &run.report).collect()
    };
    let baseline = of(&config.baseline);
    let row = |entry: &Entry| -> Option<Row> {
        let reports = of(&entry.name);
        let first = reports.first()?;
        let values = |value: fn(&Report) -> f64| -> Vec<f64> {
            reports.iter().map(|report| value(report)).collect()
        };
        let mean = |value| MeanSd::of(&values(value)).map_or(f64::NAN, |spread| spread.mean);
        let differences: Vec<f64> = reports
            .iter()
            .filter_map(|report| {
                let pair = baseline.iter().find(|other| other.seed == report.seed)?;
                Some(report.top1 - pair.top1)
            })
            .collect();
        Some(Row {
            entry: entry.name.clone(),
            epochs: first.epochs,
            runs: reports.len(),
            top1: MeanSd::of(&values(|report| report.top1))?,
            gain: (entry.name != config.baseline)
                .then(|| PairedDifference::of(&differences))
                .flatten(),
            top5: MeanSd::of(&values(|report| report.top5))?,
            balanced: (reports.iter().map(|report| report.balanced))
                .collect::<Option<Vec<f64>>>()
                .and_then(|values| MeanSd::of(&values)),
            test_loss: MeanSd::of(&values(|report| report.test_loss))?,
            samples_per_s: mean(|report| report.samples_per_s),
            peak_memory_bytes: reports.iter().filter_map(|r| r.peak_memory_bytes).max(),
            seconds: mean(|report| report.seconds),
            parameters_training: first.parameters_training,
        })
    };
    config.entries.iter().filter_map(row).collect()
}

/// Seed by seed, in the order of the entries.
fn records(config: &CompareConfig, done: &[Done]) -> Vec<RunRecord> {
    let record = |run: &&Done| RunRecord {
        entry: config.entries[run.entry].name.clone(),
        seed: run.report.seed,
        epochs: run.report.epochs,
        top1: run.report.top1,
        top5: run.report.top5,
        balanced: run.report.balanced,
        test_loss: run.report.test_loss,
        samples_per_s: run.report.samples_per_s,
        seconds: run.report.seconds,
        peak_memory_bytes: run.report.peak_memory_bytes,
        sessions: run.sessions,
        conditions: run.conditions.clone(),
        builds: run.builds.clone(),
        dir: run.report.dir.clone(),
    };
    let seed = |run: &Done| config.seeds.iter().position(|s| *s == run.report.seed);
    let mut done: Vec<&Done> = done.iter().collect();
    done.sort_by_key(|run| (seed(run), run.entry));
    done.iter().map(record).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Best;
    use crate::{TrainConfig, compare::output};

    /// A run of the entry at `entry`, of which only what tables show is told apart.
    fn done(entry: usize, seed: u64, top1: f64) -> Done {
        let best = Best {
            epoch: 1,
            head: "backbone".into(),
            top1,
            top5: 1.0,
        };
        Done {
            entry,
            report: Report {
                method: "ce".into(),
                model: "cifar_resnet18".into(),
                width: 0.25,
                data: "pets".into(),
                classes: 2,
                data_identity: None,
                start_sha256: None,
                epochs: 6,
                seed,
                top1,
                top5: 1.0,
                balanced: None,
                test_loss: 1.0 - top1,
                heads: Vec::new(),
                best_backbone: best.clone(),
                best_head: best,
                parameters_kept: 10,
                parameters_training: 12,
                seconds: 8.0 + seed as f64,
                samples_per_s: 100.0,
                peak_memory_bytes: Some(1000 + seed),
                dir: PathBuf::from("d"),
                weights: PathBuf::from("w"),
            },
            sessions: Some(1),
            conditions: Some("a machine".into()),
            builds: Some("a build".into()),
        }
    }

    #[test]
    fn runs_of_several_builds_are_told() {
        let told = |builds: [Option<&str>; 2]| {
            let all = [0, 1].map(|entry| Done {
                builds: builds[entry].map(Into::into),
                ..done(entry, 0, 0.5)
            });
            let summary = summary(&all);
            let told = summary.notes().join("\n");
            let line = told.lines().find(|line| line.contains("builds"));
            line.map(ToString::to_string)
        };
        assert_eq!(told([Some("a"), Some("a")]), None);
        assert_eq!(told([None, None]), None);
        let mixed = told([Some("a"), Some("b")]).unwrap();
        assert!(mixed.contains("1 run by a; 1 run by b"), "{mixed}");
        let partly = told([Some("a"), None]).unwrap();
        assert!(
            partly.contains("1 run by a; 1 run by one that was not recorded"),
            "{partly}"
        );
    }

    #[test]
    fn balanced_accuracies_are_a_column_where_they_say_something() {
        let with = |balanced: [Option<f64>; 2]| {
            let mut all = [done(0, 0, 0.5), done(0, 1, 0.5)];
            for (run, balanced) in all.iter_mut().zip(balanced) {
                run.report.balanced = balanced;
            }
            summary(&all)
        };
        for level in [[None, None], [Some(0.5), Some(0.5)]] {
            let summary = with(level);
            assert!(!summary.markdown().contains("balanced"));
        }
        let unequal = with([Some(0.25), Some(0.5)]);
        let table = unequal.equal_epochs_table();
        assert_eq!((&*table[0][5], &*table[0][6]), ("top-5 %", "balanced %"));
        assert_eq!(table[1][6], "37.50 ± 17.68");
        assert!(unequal.notes().join("\n").contains("counts classes"));
        // Of a mean without all its runs nothing is said.
        assert_eq!(with([Some(0.25), None]).equal_epochs_table()[1][6], "–");
    }

    fn summary(done: &[Done]) -> Summary {
        let entries = ["ce", "mixup"].map(|name| Entry::named(name).unwrap());
        let config = CompareConfig::new(TrainConfig::default(), entries.to_vec(), 3).unwrap();
        let mut summary = Summary::new(Path::new("c"), &config);
        summary.fill(&config, done, &[]);
        summary
    }

    #[test]
    fn differences_are_of_runs_with_one_seed_and_of_the_entry_from_the_baseline() {
        // The baseline lacks seed 1, and the runs are not in the order of seeds.
        let summary = summary(&[
            done(1, 2, 0.65),
            done(0, 2, 0.5),
            done(1, 0, 0.45),
            done(0, 0, 0.4),
            done(1, 1, 0.9),
        ]);
        let [ce, mixup] = &summary.equal_epochs[..] else {
            panic!("{summary:?}");
        };
        assert_eq!((ce.runs, mixup.runs, summary.missing), (2, 3, 1));
        assert_eq!(ce.gain, None);
        // 0.05 and 0.15: mean 0.1, sd 0.0707, t(1) 12.706, over the root of 2.
        let gain = mixup.gain.unwrap();
        assert_eq!(gain.pairs, 2);
        assert!((gain.mean - 0.1).abs() < 1e-12, "{gain:?}");
        assert!(
            (gain.half_width.unwrap() - 0.635_310).abs() < 1e-5,
            "{gain:?}"
        );
        assert!((mixup.top1.mean - 2.0 / 3.0).abs() < 1e-12);
        assert!((mixup.top1.sd.unwrap() - 0.225_462).abs() < 1e-6);
        assert_eq!((ce.peak_memory_bytes, ce.seconds), (Some(1002), 9.0));
        let seeds: Vec<_> = summary.runs.iter().map(|run| run.seed).collect();
        assert_eq!(seeds, [0, 0, 1, 2, 2]);
        assert_eq!(summary.runs[0].entry, "ce");
    }

    #[test]
    fn the_charts_bars_reach_a_deviation_up_and_down() {
        let dir = tempfile::tempdir().unwrap();
        // Means of 0.5 and 0.6.
        let (wide, narrow) = ([0.3, 0.7], [0.55, 0.65]);
        let runs = [(0, wide), (1, narrow)]
            .map(|(entry, top1)| [done(entry, 0, top1[0]), done(entry, 1, top1[1])]);
        output::write(dir.path(), &summary(&runs.concat())).unwrap();
        let svg = std::fs::read_to_string(dir.path().join("compare.svg")).unwrap();
        // `<path d="Mx highVlowM…h10…"`: only error bars end in strokes of ten pixels.
        let ends = |line: &str| {
            let (high, low) = line.split_once('V').unwrap();
            let high: f64 = high.rsplit_once(' ').unwrap().1.parse().unwrap();
            (high, low.split_once('M').unwrap().0.parse::<f64>().unwrap())
        };
        let bars = svg.lines().filter(|line| line.contains("h10M"));
        let bars: Vec<(f64, f64)> = bars.map(ends).collect();
        let [wide, narrow] = &bars[..] else {
            panic!("{svg}");
        };
        let pixels = |bar: &(f64, f64)| bar.1 - bar.0;
        let middle = |bar: &(f64, f64)| f64::midpoint(bar.0, bar.1);
        // What a tenth takes, drawn to a tenth of a pixel; deviations of 0.2 and 0.05 times the root of 2, up and down.
        let tenth = middle(wide) - middle(narrow);
        assert!(tenth > 10.0, "{bars:?}");
        let root = std::f64::consts::SQRT_2;
        assert!((pixels(wide) / tenth - 4.0 * root).abs() < 0.1, "{bars:?}");
        assert!((pixels(narrow) / tenth - root).abs() < 0.05, "{bars:?}");
    }

    #[test]
    fn files_hold_the_figures() {
        let dir = tempfile::tempdir().unwrap();
        let summary = summary(&[done(0, 0, 0.5), done(0, 1, 0.75), done(1, 0, 0.25)]);
        output::write(dir.path(), &summary).unwrap();
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        let csv = read("compare.csv");
        let rows: Vec<Vec<&str>> = csv.lines().map(|row| row.split(',').collect()).collect();
        assert!(rows.iter().all(|row| row.len() == rows[0].len()), "{csv}");
        let cell = |row: usize, name: &str| {
            let column = rows[0].iter().position(|head| *head == name).unwrap();
            rows[row][column]
        };
        assert_eq!((cell(1, "entry"), cell(1, "top1_mean")), ("ce", "0.625"));
        assert_eq!(
            (cell(1, "gain_mean"), cell(1, "peak_memory_bytes")),
            ("", "1001")
        );
        assert_eq!(
            (cell(2, "gain_mean"), cell(2, "gain_pairs")),
            ("-0.25", "1")
        );
        assert_eq!(
            (cell(2, "gain_half_width_95"), cell(2, "top1_sd")),
            ("", "")
        );
        assert_eq!(cell(2, "seconds"), "8");
        let page = read("compare.md");
        assert!(page.contains("--equal-time adds a table"), "{page}");
        let asked = Summary {
            equal_time_asked: true,
            ..summary.clone()
        };
        assert!(asked.markdown().contains("is still to come"));
        for part in [
            "| 62.50 ± 17.68 |",
            "| -25.00 (n = 1) |",
            "on pets (2 classes)",
        ] {
            assert!(page.contains(part), "`{part}` is missing:\n{page}");
        }
        assert_eq!(
            serde_json::from_str::<Summary>(&read("compare.json")).unwrap(),
            summary
        );
        let svg = read("compare.svg");
        assert!(svg.starts_with("<svg"));
        for name in ["ce", "mixup"] {
            assert!(svg.contains(&format!(">{name}<")), "{svg}");
        }
        assert!(
            std::fs::read(dir.path().join("compare.png"))
                .unwrap()
                .starts_with(b"\x89PNG")
        );
    }
}
