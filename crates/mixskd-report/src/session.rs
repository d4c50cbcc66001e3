//! Who ran what where: one entry for each process that worked on a run.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use mixskd_train::Machine;
use mixskd_train::names::RUN_JSON;
use serde::{Deserialize, Serialize};

use crate::{Error, Result, run_files};

/// One process that worked on a run: the first, and one more for each resume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Version of mixskd.
    pub version: String,
    /// Which build: the first twelve digits of the SHA-256 of the program's file. `None` where that was not recorded.
    #[serde(default)]
    pub build: Option<String>,
    /// The command, as it was typed.
    pub command: String,
    /// When it began, in UTC, as `YYYY-MM-DDThh:mm:ssZ`.
    pub started: String,
    /// The first epoch it trained, counted from 1.
    pub first_epoch: usize,
    /// Steps of that epoch that were done before.
    pub steps_before: usize,
    /// Threads that computed.
    pub threads: usize,
    /// Where.
    pub machine: Machine,
    /// What it told on its way: of the data, of settings, of what it did without.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<String>,
    /// What it ended with, where it failed; `None` where it did not, goes on, or could not say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

impl Session {
    /// This process, now.
    pub(crate) fn now(command: &str) -> Self {
        let seconds = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |time| time.as_secs());
        Self {
            version: env!("CARGO_PKG_VERSION").into(),
            build: mixskd_train::build().map(Into::into),
            command: command.into(),
            started: utc(seconds),
            first_epoch: 1,
            steps_before: 0,
            threads: rayon::current_num_threads(),
            machine: Machine::detect(),
            notices: Vec::new(),
            failure: None,
        }
    }

    fn place(&self) -> (usize, usize) {
        (self.first_epoch, self.steps_before)
    }
}

/// The sessions of the run in `dir`, oldest first; none where the run was not recorded.
///
/// # Errors
/// When the file is there and cannot be read.
pub fn read_sessions(dir: &Path) -> Result<Vec<Session>> {
    let path = dir.join(RUN_JSON);
    let Some(text) = run_files::read_text(&path)? else {
        return Ok(Vec::new());
    };
    serde_json::from_str(&text).map_err(|error| Error::Damaged {
        path,
        message: error.to_string(),
    })
}

/// Adds `session` to those of `dir`. One whose work was lost, because the new one begins no later, is left out. Whether the last before it was another build's.
pub(crate) fn add_session(dir: &Path, session: &Session) -> Result<bool> {
    let mut sessions = read_sessions(dir)?;
    sessions.retain(|earlier| earlier.place() < session.place());
    let before = sessions.last().and_then(|earlier| earlier.build.as_ref());
    let is_other = before.is_some_and(|before| Some(before) != session.build.as_ref());
    sessions.push(session.clone());
    let path = dir.join(RUN_JSON);
    let text = serde_json::to_string_pretty(&sessions).map_err(|error| Error::Damaged {
        path: path.clone(),
        message: error.to_string(),
    })?;
    run_files::write(&path, format!("{text}\n").as_bytes())?;
    Ok(is_other)
}

/// Seconds since 1970 as a date and time of day in UTC (the civil-from-days arithmetic of the Gregorian calendar).
fn utc(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days since 0000-03-01: years then end with February and its leap day.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = 400 * era + year_of_era + u64::from(month <= 2);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!(
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{:02}Z",
        second % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, date) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_767_225_599, "2025-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(utc(seconds), date);
        }
    }

    #[test]
    fn each_resume_adds_a_session() {
        let dir = tempfile::tempdir().unwrap();
        for (first_epoch, steps_before) in [(1, 0), (1, 40), (3, 20), (3, 20), (3, 10), (5, 0)] {
            let session = Session {
                first_epoch,
                steps_before,
                ..Session::now("mixskd train")
            };
            add_session(dir.path(), &session).unwrap();
        }
        let sessions = read_sessions(dir.path()).unwrap();
        let places: Vec<_> = sessions.iter().map(Session::place).collect();
        assert_eq!(places, [(1, 0), (1, 40), (3, 10), (5, 0)]);
        assert!(sessions[0].machine.threads >= 1);
    }

    #[test]
    fn another_build_before_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let by = |build: Option<&str>, first_epoch| Session {
            build: build.map(Into::into),
            first_epoch,
            ..Session::now("mixskd train")
        };
        assert!(
            Session::now("")
                .build
                .is_some_and(|build| build.len() == 12)
        );
        for (session, is_other) in [
            (by(Some("a"), 1), false),
            (by(Some("a"), 2), false),
            (by(Some("b"), 3), true),
            (by(Some("b"), 4), false),
            (by(None, 5), true),
            // What is not known may be the same.
            (by(Some("b"), 6), false),
        ] {
            assert_eq!(
                add_session(dir.path(), &session).unwrap(),
                is_other,
                "{session:?}"
            );
        }
    }
}
