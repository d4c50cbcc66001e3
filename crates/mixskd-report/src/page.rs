//! `report.html`: what a run shows, on one page.

use std::path::Path;

use mixskd_train::method::SELF_TEACHER;
use mixskd_train::names::REPORT_HTML;

use crate::html::Page;
use crate::pictures::{self, Source};
use crate::{Error, Result, Run, Session, confusion, curves, run_files};

/// The page of one run, or of several with their curves laid over each other.
///
/// A run without a finished epoch, or one cut short, makes a whole page that says so.
pub fn page(runs: &[Run]) -> String {
    let title = match runs {
        [run] => run.name.clone(),
        runs => format!("{} runs", runs.len()),
    };
    let names = names(runs);
    let mut page = Page::new(&title);
    results(&mut page, runs, &names);
    if runs.iter().any(|run| !run.records.is_empty()) {
        page.section("Accuracy");
        page.charts(&curves::accuracies(runs, &names));
        page.section("Losses");
        page.charts(&curves::losses(runs, &names));
        page.section("Learning rate and speed");
        page.charts(&curves::pace(runs, &names));
    }
    for (run, name) in runs.iter().zip(&names) {
        if let Some(predictions) = &run.predictions {
            page.section(&match runs {
                [_] => "What is taken for what".to_string(),
                _ => format!("What {name} takes for what"),
            });
            confusion::section(&mut page, predictions);
        }
        images(&mut page, run);
    }
    for (run, name) in runs.iter().zip(&names) {
        let of = |what: &str| match runs {
            [_] => what.to_string(),
            _ => format!("{what} of {name}"),
        };
        page.section(&of("Command, version, seeds and machine"));
        origin(&mut page, run);
        page.section(&of("Configuration"));
        page.note("Every setting, resolved: config.toml of the run directory.");
        page.code(&run.config_text);
    }
    page.finish()
}

/// The pictures, and what is missing of them.
fn images(page: &mut Page, run: &Run) {
    if !run.pictures.worst.is_empty() {
        page.section("The worst-classified held-out images");
        page.note(
            "Those with the largest loss, largest first: the network gives their own class the least. As they are evaluated.",
        );
        page.images(&run.pictures.worst);
    }
    if !run.pictures.seen.is_empty() {
        page.section("Training images as the network sees them");
        let lines = run.pictures.seen.iter().flat_map(|cell| &cell.lines);
        let mixed = if lines.into_iter().any(|line| line.contains('λ')) {
            " A mix names both its classes with their shares; λ is that of the first."
        } else {
            ""
        };
        page.note(&format!(
            "A few of each of the first batches of the first epoch, augmented, as {} trains on them.{mixed}",
            run.config.method_name()
        ));
        page.images(&run.pictures.seen);
    }
    for missing in &run.missing {
        page.note(missing);
    }
}

/// Writes the page of the run in `dir` into it, as [`write_page_of`].
///
/// # Errors
/// When the directory holds no run, or a file of it cannot be read or written.
pub fn write_page(dir: &Path) -> Result<Vec<String>> {
    write_page_of(&[dir], &dir.join(REPORT_HTML))
}

/// The page of a run that is being trained in `dir`, with pictures of `source`.
pub(crate) fn write_own(dir: &Path, source: Option<&Source>) -> Result<()> {
    let mut run = Run::read(dir)?;
    if let Some(source) = source
        && let Err(error) = source.fill(&mut run)
    {
        run.missing.push(pictures::told(&error));
    }
    run_files::write(&dir.join(REPORT_HTML), page(&[run]).as_bytes())
}

/// Writes the page of the runs in `dirs` to `file`, and gives what it lacks and what runs do not share, in words that stand on it, too.
///
/// The page of a single run has pictures, for which its data are opened; where a run did not write down what its network says of the
/// held-out images, its weights are asked again.
///
/// # Errors
/// When a directory holds no run, or a file cannot be read or written.
pub fn write_page_of<P: AsRef<Path>>(dirs: &[P], file: &Path) -> Result<Vec<String>> {
    let runs = dirs.iter().map(|dir| Run::read(dir.as_ref()));
    let mut runs = runs.collect::<Result<Vec<_>>>()?;
    if file.is_dir() {
        let taken = std::io::Error::from(std::io::ErrorKind::IsADirectory);
        return Err(Error::file(file, "write")(taken));
    }
    for (run, dir) in runs.iter_mut().zip(dirs) {
        pictures::look(run, dir.as_ref(), dirs.len() == 1);
    }
    run_files::write(file, page(&runs).as_bytes())?;
    let unlike = unlike(&runs, &names(&runs));
    let missing = runs.into_iter().flat_map(|run| run.missing);
    Ok(unlike.into_iter().chain(missing).collect())
}

/// What curves are called; runs whose directories have one name are numbered.
fn names(runs: &[Run]) -> Vec<String> {
    let name = |(at, run): (usize, &Run)| {
        let same = runs.iter().filter(|other| other.name == run.name).count();
        if same > 1 {
            format!("{}: {}", at + 1, run.name)
        } else {
            run.name.clone()
        }
    };
    runs.iter().enumerate().map(name).collect()
}

/// Where the column of balanced accuracies stands, where there is one.
const BALANCED_AT: usize = 7;

fn results(page: &mut Page, runs: &[Run], names: &[String]) {
    let mut rows = vec![
        [
            "run",
            "method",
            "network",
            "data",
            "state",
            "backbone top-1",
            "top-5",
            "best head",
        ]
        .map(String::from)
        .to_vec(),
    ];
    for (run, name) in runs.iter().zip(names) {
        let config = &run.config;
        let model = format!("{}, width {}", config.model.name, config.model.width);
        let last = run.records.last();
        let best = last.and_then(|record| {
            // As in report.json: the self-teacher sees the maps of all others.
            let heads = record.heads.iter();
            let heads = heads.filter(|head| head.name != SELF_TEACHER);
            // The earlier wins a tie, as there.
            heads.rev().max_by(|a, b| a.top1.total_cmp(&b.top1))
        });
        rows.push(vec![
            name.clone(),
            config.method_name().into(),
            model,
            config.data.source.clone(),
            state(run),
            last.map_or("–".into(), |record| percent(record.top1)),
            last.map_or("–".into(), |record| percent(record.top5)),
            best.map_or("–".into(), |head| {
                format!("{} {}", head.name, percent(head.top1))
            }),
        ]);
    }
    let backbone = |run: &Run| run.records.last()?.heads.first().cloned();
    let has_own = |run: &Run| backbone(run)?.own_balanced();
    let has_balanced = runs.iter().any(|run| has_own(run).is_some());
    if has_balanced {
        rows[0].insert(BALANCED_AT, "balanced".into());
        for (cells, run) in rows[1..].iter_mut().zip(runs) {
            let balanced = backbone(run).and_then(|head| head.balanced);
            let cell = balanced.map_or("–".into(), percent);
            cells.insert(BALANCED_AT, cell);
        }
    }
    if let [_] = runs {
        rows = upright(&rows);
    }
    page.table(&rows, if runs.len() == 1 { 2 } else { 5 });
    page.note(
        "Accuracies are of the held-out images after the last finished epoch. The backbone is what is kept; which head is best is read off the held-out images themselves, so that it flatters.",
    );
    if has_balanced {
        page.note("Classes have unequal numbers of held-out images: top-1 counts images, the balanced accuracy counts classes (the mean of their accuracies).");
    }
    for (run, name) in runs.iter().zip(names) {
        if let Some(failure) = failure(run) {
            page.note(&format!(
                "The last process that worked on {name} ended with: {failure}"
            ));
        }
    }
    if let Some(unlike) = unlike(runs, names) {
        page.note(&unlike);
    }
}

/// What is said where runs are, by all that is known, not evaluated on the same images.
fn unlike(runs: &[Run], names: &[String]) -> Option<String> {
    let (first, first_name) = (runs.first()?, names.first()?);
    let classes = |run: &Run| run.report.as_ref().map(|report| report.classes);
    let differs = |run: &Run| {
        // Runs that did not come to their end do not say how many.
        let (own, wanted) = (classes(run), classes(first));
        let counts = own.is_some() && wanted.is_some() && own != wanted;
        counts || images_of(run) != images_of(first)
    };
    let (other, name) = runs.iter().zip(names).find(|(run, _)| differs(run))?;
    let told = |run: &Run| match classes(run) {
        Some(classes) => format!("{}, {classes} classes", images_of(run)),
        None => images_of(run),
    };
    Some(format!(
        "These runs may not be evaluated on the same images, and then do not compare: {first_name} is of {}, {name} of {}.",
        told(first),
        told(other)
    ))
}

/// Where a run's held-out images come from; of a folder its name, since the same may lie elsewhere on another machine.
fn images_of(run: &Run) -> String {
    let data = &run.config.data;
    let source = Path::new(&data.source).file_name();
    let source = source.map_or_else(
        || data.source.as_str().into(),
        |name| name.to_string_lossy(),
    );
    match data.val_fraction {
        Some(fraction) => format!("{source} ({fraction} held out, seed {})", data.seed),
        None => source.into_owned(),
    }
}

fn state(run: &Run) -> String {
    let (done, all) = (run.records.len(), run.config.run.epochs);
    match done {
        0 if failure(run).is_some() => format!("failed before one of {all} epochs was finished"),
        0 => format!("no epoch of {all} is finished: there is nothing to draw yet"),
        _ if failure(run).is_some() => format!("failed after {done} of {all} epochs"),
        _ if done < all => format!("{done} of {all} epochs: running, or cut short"),
        1 => "its one epoch is done".into(),
        _ => format!("all {done} epochs are done"),
    }
}

/// What the last process that worked on a run ended with, where that was an error.
fn failure(run: &Run) -> Option<&str> {
    run.sessions.last()?.failure.as_deref()
}

fn origin(page: &mut Page, run: &Run) {
    page.text(&format!(
        "Seeds: {} of initial values, order, augmentation and mixing (run.seed), {} of a drawn held-out set (data.seed).",
        run.config.run.seed, run.config.data.seed
    ));
    if run.sessions.is_empty() {
        page.note("Who trained it is not recorded: the directory has no run.json.");
        return;
    }
    // What is told again by every process that goes on stands once.
    let mut told: Vec<&str> = Vec::new();
    for notice in run.sessions.iter().flat_map(|session| &session.notices) {
        if !told.contains(&notice.as_str()) {
            told.push(notice);
            page.note(&format!("Told on the way: {notice}"));
        }
    }
    let mut rows = vec![
        [
            "command", "from", "version", "build", "started", "threads", "machine",
        ]
        .map(String::from)
        .to_vec(),
    ];
    rows.extend(run.sessions.iter().map(session));
    page.table(&upright(&rows), usize::MAX);
}

/// Rows as columns: one run, or one process, reads better from top to bottom.
fn upright(rows: &[Vec<String>]) -> Vec<Vec<String>> {
    let columns = rows.first().map_or(0, Vec::len);
    let column = |at: usize| rows.iter().map(|row| row[at].clone()).collect();
    (0..columns).map(column).collect()
}

fn session(session: &Session) -> Vec<String> {
    let machine = &session.machine;
    let memory = machine.memory_bytes.map(|bytes| {
        let gibibytes = bytes as f64 / f64::from(1 << 30);
        format!("{gibibytes:.1} GiB of memory")
    });
    let parts = [
        machine.processor.clone(),
        Some(machine.instruction_set.clone()),
        Some(format!("{} cores", machine.threads)),
        memory,
        Some(machine.system.clone()),
        Some(format!("GPU: {}", machine.gpu)),
    ];
    let from = match session.steps_before {
        0 => format!("epoch {}", session.first_epoch),
        steps => format!("epoch {}, step {}", session.first_epoch, steps + 1),
    };
    vec![
        session.command.clone(),
        from,
        session.version.clone(),
        session.build.clone().unwrap_or_default(),
        session.started.clone(),
        session.threads.to_string(),
        parts.into_iter().flatten().collect::<Vec<_>>().join(", "),
    ]
}

pub(crate) fn percent(fraction: f64) -> String {
    format!("{:.1} %", 100.0 * fraction)
}
