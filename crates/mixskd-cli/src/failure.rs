//! What a person is told when a command cannot do its work: a cause, a hint, an exit status.

use std::cell::Cell;
use std::fmt::Write as _;
use std::io::Write as _;
use std::panic::PanicHookInfo;

use clap::error::ErrorKind;

use crate::{signals, style};

/// Shorthand for the result of a command.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// A message to a person.
#[derive(Debug)]
pub(crate) struct Failure {
    cause: String,
    hint: Option<String>,
    status: u8,
    /// Whether it has been told.
    is_told: Cell<bool>,
}

/// Exit status of a mistake in what was asked for.
const USAGE: u8 = 2;
/// Exit status of everything else.
const FAILED: u8 = 1;

impl Failure {
    /// The same with another hint.
    pub(crate) fn with_hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }

    /// A mistake in what was asked for: exit status 2.
    pub(crate) fn usage(cause: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            cause: cause.into(),
            hint: Some(hint.into()),
            status: USAGE,
            is_told: Cell::new(false),
        }
    }

    /// Something that failed on the way: exit status 1.
    pub(crate) fn failed(cause: impl Into<String>, hint: Option<String>) -> Self {
        Self {
            cause: cause.into(),
            hint,
            status: FAILED,
            is_told: Cell::new(false),
        }
    }

    /// The end that a signal asked for.
    pub(crate) fn stopped(cause: impl Into<String>, hint: Option<String>) -> Self {
        Self {
            cause: cause.into(),
            hint,
            status: signals::status(),
            is_told: Cell::new(false),
        }
    }

    /// One failure that names each of `failures`, or none where there are none; `all` things were tried.
    pub(crate) fn of_many(mut failures: Vec<Self>, all: usize, things: &str) -> Result<()> {
        if failures.len() <= 1 {
            return failures.pop().map_or(Ok(()), |failure| {
                Err(Self {
                    status: FAILED,
                    ..failure
                })
            });
        }
        let mut cause = format!("{} of {all} {things} could not be used:", failures.len());
        for failure in &failures {
            let _ = write!(cause, "\n  {}", failure.cause);
        }
        let hint = failures.into_iter().find_map(|failure| failure.hint);
        Err(Self {
            cause,
            hint,
            status: FAILED,
            is_told: Cell::new(false),
        })
    }

    /// What went wrong, without the hint.
    pub(crate) fn cause(&self) -> &str {
        &self.cause
    }

    /// The same as one of several processes says it.
    pub(crate) fn of_rank(self, rank: usize) -> Self {
        Self {
            cause: format!("on rank {rank}: {}", self.cause),
            ..self
        }
    }

    /// 2 for a mistake in what was asked for, 129, 130 or 143 after a signal, 1 for everything else.
    pub(crate) fn status(&self) -> u8 {
        self.status
    }

    /// Tells it on stderr, once.
    pub(crate) fn print(&self) {
        if self.is_told.replace(true) {
            return;
        }
        let mut stderr = std::io::stderr().lock();
        // Nobody is left to be told when stderr is closed.
        let cause = plain(&self.cause);
        let _ = writeln!(stderr, "{} {cause}", style::stderr().red("error:"));
        if let Some(hint) = &self.hint {
            let _ = writeln!(stderr, "{} {hint}", style::stderr().cyan("hint:"));
        }
    }
}

/// `cause` in words that mean something to whoever does not write Rust.
fn plain(cause: &str) -> String {
    const WORDS: [(&str, &str); 9] = [
        ("expected usize", "expected a whole number of 0 or more"),
        ("expected u64", "expected a whole number of 0 or more"),
        ("expected u32", "expected a whole number of 0 or more"),
        ("expected i64", "expected a whole number"),
        ("expected f64", "expected a number"),
        ("expected f32", "expected a number"),
        (
            "invalid digit found in string",
            "is no whole number of 0 or more",
        ),
        ("number too large to fit in target type", "is too large"),
        ("invalid float literal", "is no number"),
    ];
    let replace = |text: String, (from, to): &(&str, &str)| text.replace(from, to);
    WORDS.iter().fold(cause.to_string(), replace)
}

impl From<clap::Error> for Failure {
    /// clap's message without its word on where to read more, which becomes the hint where it has no better one.
    fn from(error: clap::Error) -> Self {
        let text = error.to_string();
        let text = text.strip_prefix("error: ").unwrap_or(&text);
        let mut cause = Vec::new();
        let mut tip = None;
        for line in text.lines() {
            let line = line.trim_end();
            if let Some(found) = line.trim_start().strip_prefix("tip: ") {
                tip.get_or_insert(found.to_string());
            } else if !line.starts_with("For more information") && !line.is_empty() {
                cause.push(line);
            }
        }
        if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
            // All that clap has to say is the help.
            cause.insert(0, "a command is missing");
        }
        let help = "`mixskd --help` lists the commands, `mixskd COMMAND --help` the flags of one";
        Self {
            cause: cause.join("\n"),
            hint: Some(tip.unwrap_or_else(|| help.into())),
            status: USAGE,
            is_told: Cell::new(false),
        }
    }
}

impl From<mixskd_train::Error> for Failure {
    fn from(error: mixskd_train::Error) -> Self {
        let usage = error.is_usage();
        let keys = || "`mixskd train --dry-run` prints every key with its value, docs/config.md says what it means";
        let status = match &error {
            mixskd_train::Error::Stopped { .. }
            | mixskd_train::Error::Stopping
            | mixskd_train::Error::Interrupted { .. } => signals::status(),
            _ if usage => USAGE,
            _ => FAILED,
        };
        let hint = error.hint().or_else(|| usage.then(|| keys().into()));
        Self {
            cause: error.cause(),
            hint,
            status,
            is_told: Cell::new(false),
        }
    }
}

impl From<mixskd_data::Error> for Failure {
    fn from(error: mixskd_data::Error) -> Self {
        mixskd_train::Error::from(error).into()
    }
}

impl From<mixskd_models::Error> for Failure {
    fn from(error: mixskd_models::Error) -> Self {
        mixskd_train::Error::from(error).into()
    }
}

impl From<mixskd_losses::Error> for Failure {
    fn from(error: mixskd_losses::Error) -> Self {
        mixskd_train::Error::from(error).into()
    }
}

impl From<mixskd_analyze::Error> for Failure {
    fn from(error: mixskd_analyze::Error) -> Self {
        use mixskd_analyze::Error as Analyze;
        let status = match error {
            Analyze::Data(error) => return error.into(),
            Analyze::Model(error) => return error.into(),
            Analyze::Loss(error) => return error.into(),
            Analyze::Candle(error) => return error.into(),
            Analyze::Config { .. } | Analyze::Fit { .. } => USAGE,
            _ => FAILED,
        };
        let text = error.to_string();
        let (cause, hint) = match text.split_once("\nhint: ") {
            Some((cause, hint)) => (cause, Some(hint.to_string())),
            None => (text.as_str(), None),
        };
        let written =
            "check that the path is right, that you may write there and that the disk has room";
        let hint = match error {
            Analyze::File { .. } => Some(written.to_string()),
            _ => hint,
        };
        Self {
            cause: cause.to_string(),
            hint,
            status,
            is_told: Cell::new(false),
        }
    }
}

impl From<mixskd_report::Error> for Failure {
    fn from(error: mixskd_report::Error) -> Self {
        let status = if error.is_usage() { USAGE } else { FAILED };
        Self {
            cause: error.cause(),
            hint: error.hint(),
            status,
            is_told: Cell::new(false),
        }
    }
}

impl From<candle_core::Error> for Failure {
    fn from(error: candle_core::Error) -> Self {
        mixskd_train::Error::from(error).into()
    }
}

/// What is said of a mistake in the program itself: one line and where to take it.
pub(crate) fn report_panic(info: &PanicHookInfo) {
    let payload = info.payload();
    let what = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let what = what.unwrap_or("no message").replace('\n', " ");
    let place = info
        .location()
        .map_or_else(|| "an unknown place".into(), ToString::to_string);
    let repository = env!("CARGO_PKG_REPOSITORY");
    let hint = format!(
        "please report this line and the command to {repository}/issues; what its checkpoints hold is safe in the run directory"
    );
    Failure {
        cause: format!("mixskd made a mistake at {place}: {what}"),
        hint: Some(hint),
        status: FAILED,
        is_told: Cell::new(false),
    }
    .print();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_inside_an_error_of_a_lower_crate_stands_apart() {
        let failure = Failure::from(mixskd_losses::ObjectiveConfig::preset("mixsdk").unwrap_err());
        assert_eq!(failure.cause, "unknown objective `mixsdk`");
        let status = failure.status();
        assert!(failure.hint.unwrap().starts_with("did you mean `mixskd`?"));
        assert_eq!(status, 2);
    }

    #[test]
    fn every_wrong_request_has_a_hint() {
        let error = mixskd_train::TrainConfig::default().with("run.batch=0");
        let failure = Failure::from(error.and_then(|config| config.validate()).unwrap_err());
        assert!(failure.hint.is_some() && failure.status() == 2);
    }

    #[test]
    fn what_clap_refuses_has_one_hint() {
        let check = |line: &str, cause: &str, hint: &str| {
            let error = crate::cli::Cli::read(line.split(' ')).unwrap_err();
            let failure = Failure::from(error);
            let advice = failure.hint.clone().unwrap();
            assert!(failure.cause.contains(cause), "{}", failure.cause);
            assert!(advice.contains(hint), "{advice}");
            assert!(!failure.cause.contains("For more"), "{}", failure.cause);
        };
        check("mixskd train --epoch 3", "'--epoch'", "'--epochs'");
        check("mixskd train --epochs x", "invalid value 'x'", "--help");
        check("mixskd trian", "'trian'", "'train'");
    }

    #[test]
    fn several_failures_are_one_message_that_names_each() {
        let missing = |name: &str| Failure::usage(format!("{name}: missing"), "look again");
        assert!(Failure::of_many(vec![], 3, "images").is_ok());
        let failure = Failure::of_many(vec![missing("a"), missing("b")], 3, "images").unwrap_err();
        assert!(
            failure.cause.starts_with("2 of 3 images") && failure.cause.contains("\n  b: missing")
        );
        assert_eq!(failure.hint.as_deref(), Some("look again"));
        assert_eq!(failure.status(), 1);
    }

    #[test]
    fn a_wrong_request_and_a_failure_differ_in_status() {
        assert_eq!(Failure::usage("no", "yes").status(), 2);
        assert_eq!(Failure::failed("no", None).status(), 1);
    }
}
