//! When checkpoints are written.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// How often a checkpoint is written beside the one at the end of every epoch: `epoch` (no more than that), a number of steps
/// (`200`), or seconds (`30s`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "String")]
pub enum CheckpointEvery {
    /// After each epoch and at no other time.
    #[default]
    Epoch,
    /// After so many steps, counted over the whole run.
    Steps(u64),
    /// After the first step that ends so many seconds after the last checkpoint; on a GPU, after the one that has been launched behind it.
    Seconds(f64),
}

/// As a person may write it: `200` is a number or a word.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Steps(u64),
    Word(String),
    /// Anything else, refused with our own words.
    Other(toml::Value),
}

impl TryFrom<Written> for CheckpointEvery {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        match written {
            Written::Steps(steps) => steps.to_string().parse(),
            Written::Word(word) => word.parse(),
            Written::Other(value) => value.to_string().parse(),
        }
    }
}

impl FromStr for CheckpointEvery {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = || {
            format!("must be `epoch`, a number of steps (200) or of seconds (30s), got `{text}`")
        };
        if text == "epoch" {
            return Ok(Self::Epoch);
        }
        if let Some(seconds) = text.strip_suffix('s') {
            return match seconds.trim().parse::<f64>() {
                Ok(seconds) if seconds > 0.0 && seconds <= 1e9 => Ok(Self::Seconds(seconds)),
                _ => Err(wanted()),
            };
        }
        match text.parse::<u64>() {
            Ok(steps) if steps >= 1 => Ok(Self::Steps(steps)),
            _ => Err(wanted()),
        }
    }
}

impl fmt::Display for CheckpointEvery {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Epoch => out.write_str("epoch"),
            Self::Steps(steps) => write!(out, "{steps}"),
            Self::Seconds(seconds) => write!(out, "{seconds}s"),
        }
    }
}

impl From<CheckpointEvery> for String {
    fn from(every: CheckpointEvery) -> Self {
        every.to_string()
    }
}

/// Says after each step whether a checkpoint is due.
pub(crate) struct Cadence {
    every: CheckpointEvery,
    last: Instant,
}

impl Cadence {
    pub(crate) fn new(every: CheckpointEvery) -> Self {
        Self {
            every,
            last: Instant::now(),
        }
    }

    /// `steps` are those of the whole run so far.
    pub(crate) fn is_due(&self, steps: u64) -> bool {
        match self.every {
            CheckpointEvery::Epoch => false,
            CheckpointEvery::Steps(every) => steps.is_multiple_of(every),
            CheckpointEvery::Seconds(every) => {
                self.last.elapsed() >= Duration::from_secs_f64(every)
            }
        }
    }

    /// A checkpoint was written.
    pub(crate) fn written(&mut self) {
        self.last = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_what_it_writes() {
        for (text, every) in [
            ("epoch", CheckpointEvery::Epoch),
            ("200", CheckpointEvery::Steps(200)),
            ("30s", CheckpointEvery::Seconds(30.0)),
            ("0.5s", CheckpointEvery::Seconds(0.5)),
        ] {
            assert_eq!(text.parse(), Ok(every));
            assert_eq!(every.to_string(), text);
        }
        for wrong in ["", "0", "0s", "-3", "-3s", "often", "NaNs", "1e99s", "3 h"] {
            assert!(wrong.parse::<CheckpointEvery>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn steps_are_those_of_the_whole_run() {
        let cadence = Cadence::new(CheckpointEvery::Steps(3));
        let due: Vec<u64> = (1..10).filter(|&steps| cadence.is_due(steps)).collect();
        assert_eq!(due, [3, 6, 9]);
    }
}
