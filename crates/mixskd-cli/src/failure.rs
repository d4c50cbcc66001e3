//! What a person is told when a command cannot do its work: a cause, a hint, an exit status.

use std::fmt::Write as _;
use std::io::Write as _;
use std::panic::PanicHookInfo;

use crate::style;

/// Shorthand for the result of a command.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// A message to a person.
#[derive(Debug)]
pub(crate) struct Failure {
    cause: String,
    hint: Option<String>,
    usage: bool,
}

impl Failure {
    /// A mistake in what was asked for: exit status 2.
    pub(crate) fn usage(cause: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            cause: cause.into(),
            hint: Some(hint.into()),
            usage: true,
        }
    }

    /// Something that failed on the way: exit status 1.
    pub(crate) fn failed(cause: impl Into<String>, hint: Option<String>) -> Self {
        Self {
            cause: cause.into(),
            hint,
            usage: false,
        }
    }

    /// One failure that names each of `failures`, or none where there are none; `all` things were tried.
    pub(crate) fn of_many(mut failures: Vec<Self>, all: usize, things: &str) -> Result<()> {
        if failures.len() <= 1 {
            return failures.pop().map_or(Ok(()), |failure| {
                Err(Self {
                    usage: false,
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
            usage: false,
        })
    }

    /// 2 for a mistake in what was asked for, 1 for everything else.
    pub(crate) fn status(&self) -> u8 {
        if self.usage { 2 } else { 1 }
    }

    /// Tells it on stderr.
    pub(crate) fn print(&self) {
        let mut stderr = std::io::stderr().lock();
        // Nobody is left to be told when stderr is closed.
        let _ = writeln!(stderr, "{} {}", style::stderr().red("error:"), self.cause);
        if let Some(hint) = &self.hint {
            let _ = writeln!(stderr, "{} {hint}", style::stderr().cyan("hint:"));
        }
    }
}

impl From<mixskd_train::Error> for Failure {
    fn from(error: mixskd_train::Error) -> Self {
        let usage = error.is_usage();
        let keys = || "`mixskd train --dry-run` prints every key with its value, docs/cli.md says what it means";
        let hint = error.hint().or_else(|| usage.then(|| keys().into()));
        Self {
            cause: error.cause(),
            hint,
            usage,
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
        "please report this line and the command to {repository}/issues; finished epochs are safe in the run directory"
    );
    Failure {
        cause: format!("mixskd made a mistake at {place}: {what}"),
        hint: Some(hint),
        usage: false,
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
        assert!(failure.hint.unwrap().starts_with("did you mean `mixskd`?"));
        assert!(failure.usage);
    }

    #[test]
    fn every_wrong_request_has_a_hint() {
        let error = mixskd_train::TrainConfig::default().with("run.batch=0");
        let failure = Failure::from(error.and_then(|config| config.validate()).unwrap_err());
        assert!(failure.hint.is_some() && failure.usage);
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
