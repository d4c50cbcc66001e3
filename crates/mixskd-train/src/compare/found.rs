//! What lies in a run's directory before it is run: nothing, a part, or the whole of it; perhaps brought from another machine.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::path::Path;

use mixskd_data::Identity;
use serde::Deserialize;

use crate::{Error, Report, Result, TrainConfig, difference, files};

const CONFIG: &str = "config.toml";
const REPORT: &str = "report.json";
/// Which processes worked on the run, and where; the command line's recorder writes it.
const SESSIONS: &str = "run.json";

/// A run that is done.
#[derive(Debug, Clone)]
pub(super) struct Done {
    /// Place of its entry.
    pub(super) entry: usize,
    /// Its result; its directory is where it lies now, and not where it was run.
    pub(super) report: Report,
    /// Processes that worked on it; `None` where that was not recorded.
    pub(super) sessions: Option<usize>,
    /// Where they ran; `None` where that was not recorded. Several where it was taken to another machine.
    pub(super) conditions: Option<String>,
    /// The builds that did them; `None` where that was not recorded of all.
    pub(super) builds: Option<String>,
}

/// The run of `entry` in `dir`, where it is done, and was run with `expected` from weights whose file has `start_sha256`, where that is known.
///
/// # Errors
/// When something else lies there.
pub(super) fn done(
    entry: usize,
    dir: &Path,
    expected: &TrainConfig,
    start_sha256: Option<&str>,
) -> Result<Option<Done>> {
    if dir.join(CONFIG).is_file() {
        let config = TrainConfig::from_file(&dir.join(CONFIG))?;
        check(dir, &config, expected)?;
    } else if dir.join(REPORT).is_file() {
        return Err(foreign(
            dir,
            &format!("holds no {CONFIG}, so that nobody knows what it is"),
        ));
    }
    let Some(mut report) = report(dir)? else {
        return Ok(None);
    };
    let run = &expected.run;
    if (report.seed, report.epochs) != (run.seed, run.epochs)
        || report.method != expected.method.name()
    {
        let of = format!(
            "{REPORT} is of {}, seed {}, {} epoch{}",
            report.method,
            report.seed,
            report.epochs,
            if report.epochs == 1 { "" } else { "s" }
        );
        return Err(foreign(dir, &of));
    }
    if let Some((name, value)) = impossible(&report) {
        return Err(foreign(
            dir,
            &format!("{REPORT} has {name} = {value}, which is no such figure"),
        ));
    }
    if let (Some(own), Some(wanted)) = (report.start_sha256.as_deref(), start_sha256)
        && own != wanted
    {
        let message = "began with other weights than the comparison";
        return Err(foreign(dir, message));
    }
    report.weights = dir.join(report.weights.file_name().unwrap_or_default());
    report.dir = dir.to_path_buf();
    let sessions = sessions(dir);
    Ok(Some(Done {
        entry,
        report,
        sessions: sessions.as_ref().map(Vec::len),
        conditions: sessions.as_deref().and_then(conditions),
        builds: sessions.as_deref().and_then(builds),
    }))
}

/// Makes an unfinished run that was brought from elsewhere look for its files where this comparison has them.
///
/// # Errors
/// When its configuration cannot be read or written.
pub(super) fn at_home(dir: &Path, expected: &TrainConfig) -> Result<()> {
    let path = dir.join(CONFIG);
    let mut config = TrainConfig::from_file(&path)?;
    let (source, weights) = (&expected.data.source, &expected.init.weights);
    if (&config.data.source, &config.init.weights) == (source, weights) {
        return Ok(());
    }
    config.data.source.clone_from(source);
    config.init.weights.clone_from(weights);
    files::write_atomically(&path, config.to_toml()?.as_bytes())
}

/// Refuses a run of other data than the comparison's. Earlier versions did not note which they were.
///
/// # Errors
/// When they are others.
pub(super) fn of_data(run: &Report, data: &Identity) -> Result<()> {
    let own = run.data_identity.as_ref();
    match own.and_then(|own| data.difference(own)) {
        None => Ok(()),
        Some(difference) => Err(foreign(
            &run.dir,
            &format!("is a run of other data than the comparison's: {difference}"),
        )),
    }
}

/// The place of one of those that agree with most in data and starting weights, the first of these. One that does not say which pixels it is of agrees with runs that do not agree with each
/// other: then it is the first of those that agree with it, say so, and agree with most.
pub(super) fn most_agreed(reports: &[Report]) -> Option<usize> {
    let alike = |one: usize, other: usize| same_beginning(&reports[one], &reports[other]).is_ok();
    let rank = |at: &usize| {
        let agreeing = (0..reports.len()).filter(|other| alike(*other, *at));
        (agreeing.count(), Reverse(*at))
    };
    let tells = |at: &usize| {
        let data = reports[*at].data_identity.as_ref();
        data.is_some_and(|data| data.pixels.is_some())
    };
    let best = (0..reports.len()).max_by_key(rank)?;
    let telling = (0..reports.len()).filter(|at| tells(at) && alike(*at, best));
    telling.max_by_key(rank).or(Some(best))
}

/// Refuses a run of other data or starting weights than another one: a folder or file may be called the same anywhere.
///
/// # Errors
/// When name, classes, images, network or starting weights differ.
pub(super) fn same_beginning(run: &Report, other: &Report) -> Result<()> {
    let refuse = |what: &str| {
        let other = other.dir.display();
        Err(foreign(&run.dir, &format!("{what} those of {other}")))
    };
    // Who knows the images need not go by the name of their folder.
    let known = run.data_identity.is_some() && other.data_identity.is_some();
    let of = |report: &Report| {
        let data = if known { "data" } else { &report.data };
        let (classes, parameters) = (report.classes, report.parameters_kept);
        format!("{data}, {classes} classes, a network of {parameters} parameters")
    };
    let (own, wanted) = (of(run), of(other));
    if own != wanted {
        let message = format!("is a run of {own}, {} one of {wanted}", other.dir.display());
        return Err(foreign(&run.dir, &message));
    }
    // Earlier versions did not note these.
    let (Some(images), Some(others)) = (&run.data_identity, &other.data_identity) else {
        return Ok(());
    };
    if images.difference(others).is_some() {
        return refuse("is a run of other classes or images of the same name than");
    }
    let starts = (&run.start_sha256, &other.start_sha256);
    if let (Some(own), Some(theirs)) = starts
        && own != theirs
    {
        return refuse("began with other weights than");
    }
    Ok(())
}

/// Refuses a run whose settings are not those of the comparison.
fn check(dir: &Path, config: &TrainConfig, expected: &TrainConfig) -> Result<()> {
    match difference::in_results(config, expected, &[])? {
        None => Ok(()),
        Some(found) => Err(foreign(
            dir,
            &format!(
                "is another run: its {} = {}, the comparison's is {}",
                found.key, found.one, found.other
            ),
        )),
    }
}

fn foreign(dir: &Path, message: &str) -> Error {
    Error::RunDir {
        path: dir.to_path_buf(),
        message: format!("{message}; take the folder away, and the run is done anew"),
        hint: None,
    }
}

/// A figure that no run can have.
fn impossible(report: &Report) -> Option<(&'static str, f64)> {
    let fractions = [
        ("top1", report.top1),
        ("top5", report.top5),
        ("balanced", report.balanced.unwrap_or_default()),
    ];
    let amounts = [
        ("test_loss", report.test_loss),
        ("seconds", report.seconds),
        ("samples_per_s", report.samples_per_s),
    ];
    let wrong = fractions
        .into_iter()
        .find(|(_, v)| !(0.0..=1.0).contains(v));
    wrong.or_else(|| {
        amounts
            .into_iter()
            .find(|(_, v)| !v.is_finite() || *v < 0.0)
    })
}

/// The report of a run that has come to its end; `None` where it has not.
///
/// # Errors
/// When there is one that cannot be read: the run is done, and must not be trained over.
pub(super) fn report(dir: &Path) -> Result<Option<Report>> {
    let path = dir.join(REPORT);
    let refuse = |message: String| Error::RunDir {
        path: path.clone(),
        message: format!(
            "cannot be read: {message}; mend it, or take the run's folder away, and the run is done anew"
        ),
        hint: None,
    };
    match std::fs::read_to_string(&path) {
        Ok(text) => serde_json::from_str(&text)
            .map(Some)
            .map_err(|error| refuse(error.to_string())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(refuse(error.to_string())),
    }
}

/// What is read of a process that worked on a run.
#[derive(Deserialize)]
struct Session {
    #[serde(default)]
    build: Option<String>,
    threads: usize,
    machine: Machine,
}

#[derive(Deserialize)]
struct Machine {
    processor: Option<String>,
    instruction_set: String,
    threads: usize,
}

/// The processes that worked on the run.
fn sessions(dir: &Path) -> Option<Vec<Session>> {
    let text = std::fs::read_to_string(dir.join(SESSIONS)).ok()?;
    serde_json::from_str(&text).ok()
}

/// Processor, instruction set and threads, each kind once; costs measured under other ones are no costs to compare with.
fn conditions(sessions: &[Session]) -> Option<String> {
    let mut seen = BTreeSet::new();
    for session in sessions {
        let machine = &session.machine;
        let processor = machine.processor.as_deref().unwrap_or("unknown processor");
        let told = format!(
            "{processor}, {}, {} of {} threads",
            machine.instruction_set, session.threads, machine.threads
        );
        seen.insert(told);
    }
    let told: Vec<_> = seen.into_iter().collect();
    (!told.is_empty()).then(|| told.join(" and "))
}

/// The builds of the processes, each once.
fn builds(sessions: &[Session]) -> Option<String> {
    let all: Option<BTreeSet<&str>> = sessions.iter().map(|own| own.build.as_deref()).collect();
    let all: Vec<_> = all?.into_iter().collect();
    (!all.is_empty()).then(|| all.join(" and "))
}
