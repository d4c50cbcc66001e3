//! What can go wrong in a training run.

use std::path::{Path, PathBuf};

use crate::RunDir;

/// Shorthand for a result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of configuring, running or resuming a training run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A configuration value is unknown or out of range.
    #[error("{place}: {message}")]
    Config {
        /// Where it stands: a key, a flag, or file and line.
        place: String,
        /// What is wrong, and what is allowed.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// A loss term or a gradient became NaN or infinite.
    #[error(
        "`{term}`{} became {value} at epoch {epoch}, step {step}; the run stopped before that step changed anything",
        layer.as_ref().map_or(String::new(), |layer| format!(" of {layer}"))
    )]
    NotFinite {
        /// Name of the term, `gradient` or `weights`.
        term: String,
        /// The parameter or stage where it was first seen, if any was.
        layer: Option<String>,
        /// Its value, `NaN` or `inf`.
        value: f64,
        /// Epoch, counted from 1.
        epoch: usize,
        /// Step inside the epoch, counted from 1.
        step: usize,
        /// The newest checkpoint, which is still good.
        checkpoint: Option<PathBuf>,
    },
    /// The run ended before its last epoch because somebody asked it to, with a checkpoint to go on from.
    #[error("stopped after step {step} of epoch {epoch}; everything up to there is in {}", checkpoint.display())]
    Stopped {
        /// The run directory.
        dir: PathBuf,
        /// Epoch, counted from 1.
        epoch: usize,
        /// Steps that are done of it.
        step: usize,
        /// The checkpoint.
        checkpoint: PathBuf,
    },
    /// An image could not be read; a checkpoint holds the steps before.
    #[error("{}; the steps before are in {}", source.cause(), checkpoint.display())]
    Kept {
        /// Which, and why not.
        source: Box<Error>,
        /// The run directory.
        dir: PathBuf,
        /// The checkpoint.
        checkpoint: PathBuf,
    },
    /// Work was left in the middle because the run is to stop.
    #[error("stopped")]
    Stopping,
    /// Another process of a distributed run failed, ended, or never came.
    #[error("rank {rank} {message}")]
    Peer {
        /// Which.
        rank: usize,
        /// What became of it.
        message: String,
        /// What to do about it.
        hint: String,
    },
    /// The processes of a distributed run did not come together.
    #[error("{message}")]
    Distribution {
        /// What went wrong.
        message: String,
        /// What to do about it.
        hint: String,
    },
    /// The run directory is not there any more.
    #[error(
        "{}: was removed or renamed while the run was going on; what came after its newest checkpoint is lost",
        path.display()
    )]
    Gone {
        /// The directory.
        path: PathBuf,
    },
    /// The run directory cannot be used.
    #[error("{}: {message}", path.display())]
    RunDir {
        /// The directory or file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// A file could not be read or written.
    #[error("{}: cannot {action}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// A comparison was stopped by the user.
    #[error("{}: the comparison stopped: {cause}", dir.display())]
    Interrupted {
        /// The comparison's directory.
        dir: PathBuf,
        /// What the run said.
        cause: String,
    },
    /// A checkpoint is damaged or belongs to another run.
    #[error("{}: {message}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// The records of a run's epochs are not those of its checkpoint.
    #[error("{}: {message}", path.display())]
    Records {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// What cannot be did happen.
    #[error("{0}: this is a fault of mixskd")]
    Internal(String),
    /// The data pipeline failed.
    #[error(transparent)]
    Data(#[from] mixskd_data::Error),
    /// The model failed.
    #[error(transparent)]
    Model(#[from] mixskd_models::Error),
    /// A loss failed.
    #[error(transparent)]
    Loss(#[from] mixskd_losses::Error),
    /// A kernel failed.
    #[error(transparent)]
    Kernel(#[from] mixskd_kernels::Error),
    /// A chart could not be drawn.
    #[error(transparent)]
    Chart(#[from] mixskd_chart::Error),
    /// candle refused.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

impl Error {
    /// A configuration error at `place`.
    pub(crate) fn config(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Config {
            place: place.into(),
            message: message.into(),
            hint: None,
        }
    }

    /// What became of another process of a run that was under way.
    pub(crate) fn peer(rank: usize, message: impl Into<String>) -> Self {
        Self::Peer {
            rank,
            message: message.into(),
            hint: UNDER_WAY.into(),
        }
    }

    /// Where the run stands that another process ended, to whoever holds its directory.
    pub(crate) fn with_place_of(self, run: &RunDir) -> Self {
        match (self, run.newest_checkpoint_path()) {
            (
                Self::Peer {
                    rank,
                    message,
                    hint,
                },
                Some(checkpoint),
            ) if hint == UNDER_WAY => Self::Peer {
                rank,
                message,
                hint: format!(
                    "see to that, and start every rank again with `mixskd train --resume {}`, which goes on from {}",
                    word(run.path()),
                    checkpoint.display()
                ),
            },
            (other, _) => other,
        }
    }

    /// What became of another process before the run was under way.
    pub(crate) fn absent(rank: usize, message: impl Into<String>) -> Self {
        Self::Peer {
            rank,
            message: message.into(),
            hint: "see to that, and start every rank again".into(),
        }
    }

    /// A file error, as a closure for `map_err`.
    pub(crate) fn file(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::File {
            path,
            action,
            source,
        }
    }

    /// The error with the configuration's key in place of the lower crate's name for it, where it is about one.
    pub(crate) fn with_key(self) -> Self {
        let (place, message, hint) = match self {
            Self::Data(mixskd_data::Error::Config { key, message, hint }) => {
                let (section, option) = key.split_once('.').unwrap_or((&key, ""));
                if !["val_fraction", "labels", "augment", "flip", "balance"].contains(&section) {
                    return Self::Data(mixskd_data::Error::Config { key, message, hint });
                }
                let message = match option {
                    "" => message,
                    option => format!("{option}: {message}"),
                };
                (format!("data.{section}"), message, Some(hint))
            }
            Self::Model(mixskd_models::Error::Config { key, message }) => {
                let place = match key {
                    "input" => "run.image_size".into(),
                    key => format!("model.{key}"),
                };
                (place, message, None)
            }
            Self::Loss(mixskd_losses::Error::Range { key, value, hint }) => {
                let message = format!("{value} is out of range");
                (format!("objective.{key}"), message, Some(hint.into()))
            }
            other => return other,
        };
        Self::Config {
            place,
            message,
            hint,
        }
    }

    /// What went wrong, without the hint.
    pub fn cause(&self) -> String {
        let text = self.to_string();
        text.split_once(HINT)
            .map_or(text.clone(), |(cause, _)| cause.to_string())
    }

    /// What the user can do about it, in one line.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Config { hint, .. } | Self::RunDir { hint, .. } => hint.clone(),
            Self::NotFinite { checkpoint, .. } => Some(match checkpoint {
                Some(path) => {
                    format!(
                        "lower the learning rate (--lr) and start again; the last good state is {}",
                        path.display()
                    )
                }
                None => {
                    "lower the learning rate (--lr) or the weight of that term, and start again"
                        .into()
                }
            }),
            Self::Stopped { dir, .. } => {
                Some(format!("go on with `mixskd train --resume {}`", word(dir)))
            }
            Self::Kept { source, dir, .. } => {
                let go_on = format!("go on with `mixskd train --resume {}`", word(dir));
                Some(match source.hint() {
                    // Not every image can be mended, and not every one is at fault itself.
                    Some(hint) if !hint.contains("--skip-unreadable") => {
                        format!(
                            "{hint}; then {go_on}, or `Trainer::resume` where a program of your own trains"
                        )
                    }
                    _ => format!(
                        "mend or replace the image and {go_on}; a new run with --skip-unreadable leaves such images out"
                    ),
                })
            }
            Self::Interrupted { dir, .. } => Some(format!(
                "go on with `mixskd compare --resume --out {}`",
                word(dir)
            )),
            Self::Peer { hint, .. } | Self::Distribution { hint, .. } => Some(hint.clone()),
            Self::Gone { .. } => Some(
                "put it back and go on with --resume, or begin again with another --out".into(),
            ),
            Self::File { source, .. }
            | Self::Model(mixskd_models::Error::File { source, .. })
            | Self::Data(mixskd_data::Error::Io { source, .. })
                if is_full(source) =>
            {
                let text = "free some space, then repeat the command, or go on with --resume where a checkpoint is written";
                Some(text.into())
            }
            Self::File { .. }
            | Self::Model(mixskd_models::Error::File { .. })
            | Self::Data(mixskd_data::Error::Io { .. }) => {
                Some("check that the path is right and that you may read and write there".into())
            }
            Self::Records { .. } => Some(
                "bring the lines back, or take checkpoints of later epochs than it has lines for out of checkpoints/: the run then goes on from an older one".into(),
            ),
            Self::Internal(_) => {
                Some("report it with the command and its settings; `--resume` goes on from the newest checkpoint".into())
            }
            Self::Checkpoint { .. } => Some("start a new run with another --out".into()),
            _ => self
                .to_string()
                .split_once(HINT)
                .map(|(_, hint)| hint.to_string()),
        }
    }

    /// Whether the caller asked for something that cannot be, as against something that failed on the way.
    pub fn is_usage(&self) -> bool {
        use std::io::ErrorKind::NotFound;

        use mixskd_data::Error as Data;
        use mixskd_losses::Error as Loss;
        use mixskd_models::Error as Model;
        matches!(
            self,
            Self::Config { .. }
                | Self::RunDir { .. }
                | Self::Data(Data::Config { .. } | Data::Source { .. })
                | Self::Model(
                    Model::Config { .. } | Model::UnknownModel { .. } | Model::Weights { .. }
                )
                | Self::Loss(Loss::Range { .. } | Loss::UnknownObjective { .. })
        ) || matches!(self, Self::Data(Data::Io { source, .. }) if source.kind() == NotFound)
            // A file of another layout is a damaged one.
            || matches!(self, Self::Data(Data::Layout { path, .. }) if path.is_dir())
    }
}

/// Whether there is no room left on the disk, or none that this user may have.
fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};

    matches!(error.kind(), StorageFull | QuotaExceeded)
}

/// `dir` as a shell takes it, quoted only where it must be.
pub(crate) fn word(dir: &Path) -> String {
    shell_word(&dir.display().to_string())
}

/// `word` as a shell takes it, quoted only where it must be: for the lines that tell a user what to type.
pub fn shell_word(word: &str) -> String {
    // A backslash parts folders on Windows, whose shells know double quotes.
    let others = if cfg!(windows) {
        r"-_./:=+,@\"
    } else {
        "-_./:=+,@%"
    };
    let plain = |c: char| c.is_alphanumeric() || others.contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into()
    } else if cfg!(windows) {
        quoted_for_windows(word)
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// `word` in double quotes, as Windows' programs take their arguments apart: backslashes count where a quote follows. (What a shell makes of `$` and `%` is another thing.)
fn quoted_for_windows(word: &str) -> String {
    let mut quoted = String::from('"');
    let mut backslashes = 0;
    for c in word.chars() {
        if c == '"' {
            quoted.extend(std::iter::repeat_n('\\', backslashes + 1));
        }
        backslashes = if c == '\\' { backslashes + 1 } else { 0 };
        quoted.push(c);
    }
    quoted.extend(std::iter::repeat_n('\\', backslashes));
    quoted.push('"');
    quoted
}

/// What a process advises that does not know where the run stands.
const UNDER_WAY: &str = "rank 0 says where the run stands; start every rank again with --resume";

/// What parts cause and hint in the messages of the crates below.
const HINT: &str = "\nhint: ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_quoted_only_where_the_shell_needs_it() {
        assert_eq!(
            shell_word("runs/001-x.safetensors"),
            "runs/001-x.safetensors"
        );
        for (word, quoted) in [
            (r"my pets", r#""my pets""#),
            (r"a\my pets\", r#""a\my pets\\""#),
            (r#"x=["a"]"#, r#""x=[\"a\"]""#),
            (r#"a\"b"#, r#""a\\\"b""#),
        ] {
            assert_eq!(quoted_for_windows(word), quoted);
        }
        if cfg!(windows) {
            assert_eq!(shell_word(r"runs\my pets"), r#""runs\my pets""#);
            assert_eq!(shell_word(r"runs\pets"), r"runs\pets");
        } else {
            assert_eq!(shell_word("it's"), r"'it'\''s'");
        }
    }
}
