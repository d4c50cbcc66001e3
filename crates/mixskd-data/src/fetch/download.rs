//! One file over HTTP.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use ureq::http::StatusCode;

use super::FetchEvent;
use super::checksum::checksum;
use crate::recipe::RemoteFile;
use crate::{Error, Result};

/// How often a connection may break before the whole is given up; each time the download goes on where it stopped.
const TRIES: usize = 5;
/// How long nothing may come before a connection counts as broken. A download as a whole may take as long as it takes.
const STALL: Duration = if cfg!(test) {
    Duration::from_millis(300)
} else {
    Duration::from_secs(60)
};

/// How an attempt ended short of an error that ends everything.
enum Outcome {
    /// All bytes are there.
    Whole,
    /// The connection broke; the reason.
    Broken(String),
}

/// Downloads `file` into `dir`, unless it lies there verified already.
pub(super) fn download(
    set: &str,
    file: &RemoteFile,
    dir: &Path,
    progress: &mut dyn FnMut(FetchEvent),
) -> Result<()> {
    let path = dir.join(file.name());
    let part = dir.join(format!("{}.part", file.name()));
    if path.exists() {
        // A file gets its final name once it is verified.
        return Ok(());
    }
    let mut broken = String::new();
    for _ in 0..TRIES {
        match attempt(set, file, &part, progress)? {
            Outcome::Whole => {
                let got = checksum(&part, &file.checksum)?;
                if got != file.checksum {
                    std::fs::remove_file(&part)
                        .map_err(Error::io(&part, "remove the damaged download"))?;
                    return Err(failure(
                        set,
                        format!(
                            "{} has checksum {got}, expected {}; the download was removed",
                            file.url, file.checksum
                        ),
                        "try again; if it stays so, the file on the server has changed",
                    ));
                }
                std::fs::rename(&part, &path).map_err(Error::io(&path, "move the download"))?;
                progress(FetchEvent::Verified {
                    file: file.name().into(),
                });
                return Ok(());
            }
            Outcome::Broken(reason) => broken = reason,
        }
    }
    let kept = part.metadata().map_or(0, |data| data.len());
    Err(failure(
        set,
        format!("{}: {broken}", file.url),
        format!(
            "check the connection and run the same command again; it goes on after the {kept} bytes in {}",
            part.display()
        ),
    ))
}

fn attempt(
    set: &str,
    file: &RemoteFile,
    part: &Path,
    progress: &mut dyn FnMut(FetchEvent),
) -> Result<Outcome> {
    let have = part.metadata().map_or(0, |data| data.len());
    if have > 0 && file.bytes == Some(have) {
        return Ok(Outcome::Whole);
    }
    let agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_connect(Some(Duration::from_secs(30)))
        .timeout_recv_response(Some(Duration::from_secs(60)))
        .build()
        .new_agent();
    // Archives are fetched as they are: an encoding on the way would change lengths and ranges.
    let mut request = agent.get(&file.url).header("Accept-Encoding", "identity");
    if have > 0 {
        request = request.header("Range", format!("bytes={have}-"));
    }
    let response = match request.call() {
        Ok(response) => response,
        Err(ureq::Error::BadUri(why)) => {
            return Err(failure(
                set,
                format!("{}: {why}", file.url),
                "mend the recipe",
            ));
        }
        Err(error) => return Ok(Outcome::Broken(error.to_string())),
    };
    let status = response.status();
    if have > 0 && status == StatusCode::RANGE_NOT_SATISFIABLE {
        // Nothing lies behind what we have: either that is all of it, or it is another file's.
        if checksum(part, &file.checksum)? == file.checksum {
            return Ok(Outcome::Whole);
        }
        std::fs::remove_file(part).map_err(Error::io(part, "remove the damaged download"))?;
        return Ok(Outcome::Broken(
            "the server has less than what lies on disk".into(),
        ));
    }
    if status.is_server_error() {
        return Ok(Outcome::Broken(format!("the server answers {status}")));
    }
    if !status.is_success() {
        let hint = "the file may have moved: see the set's page in `mixskd datasets`";
        return Err(failure(
            set,
            format!("{}: the server answers {status}", file.url),
            hint,
        ));
    }
    let range = response
        .headers()
        .get("Content-Range")
        .and_then(|value| value.to_str().ok());
    // A server that knows no ranges sends the whole file again.
    let resumes = status == StatusCode::PARTIAL_CONTENT
        && range.is_some_and(|r| r.starts_with(&format!("bytes {have}-")));
    let start = if resumes { have } else { 0 };
    let body = response.into_body();
    let total = body
        .content_length()
        .map(|length| start + length)
        .or(file.bytes);
    let mut target = OpenOptions::new()
        .create(true)
        .write(true)
        .append(resumes)
        .truncate(!resumes)
        .open(part)
        .map_err(Error::io(part, "write the download"))?;
    let name = file.name();
    progress(FetchEvent::Started {
        file: name.into(),
        resumed_from: start,
    });
    let ended = copy(body.into_reader(), &mut target, |count| {
        progress(FetchEvent::Progress {
            file: name.into(),
            done: start + count,
            total,
        });
    });
    match ended {
        Ok(count) => match total {
            Some(total) if start + count < total => Ok(Outcome::Broken(format!(
                "the connection ended after {} of {total} bytes",
                start + count
            ))),
            _ => Ok(Outcome::Whole),
        },
        Err(Failed::Reading(reason)) => Ok(Outcome::Broken(reason)),
        Err(Failed::Writing(error)) => Err(Error::io(part, "write the download")(error)),
    }
}

enum Failed {
    Reading(String),
    Writing(std::io::Error),
}

/// Copies until the end. The connection is read on a thread of its own, because a read has no time limit: a thread that waits for a
/// server that fell silent is left behind, and ends with the connection.
fn copy(
    mut from: impl Read + Send + 'static,
    to: &mut File,
    mut progress: impl FnMut(u64),
) -> std::result::Result<u64, Failed> {
    let (sender, pieces) = sync_channel(4);
    let work = move || loop {
        let mut piece = vec![0; 1 << 16];
        let read = from.read(&mut piece);
        let end = !matches!(read, Ok(1..));
        let piece = read.map(|count| {
            piece.truncate(count);
            piece
        });
        // Nobody listens any more, or nothing more comes.
        if sender.send(piece).is_err() || end {
            return;
        }
    };
    let thread = std::thread::Builder::new().name("mixskd-download".into());
    thread
        .spawn(work)
        .map_err(|error| Failed::Reading(error.to_string()))?;
    let mut done = 0;
    loop {
        let piece = match pieces.recv_timeout(STALL) {
            Ok(piece) => piece.map_err(|error| Failed::Reading(error.to_string()))?,
            Err(RecvTimeoutError::Timeout) => {
                let reason = format!("nothing came for {} s", STALL.as_secs_f64());
                return Err(Failed::Reading(reason));
            }
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Failed::Reading("the reading thread ended".into()));
            }
        };
        if piece.is_empty() {
            to.flush().map_err(Failed::Writing)?;
            return Ok(done);
        }
        to.write_all(&piece).map_err(Failed::Writing)?;
        done += piece.len() as u64;
        progress(done);
    }
}

fn failure(set: &str, message: impl Into<String>, hint: impl Into<String>) -> Error {
    Error::Fetch {
        name: set.into(),
        message: message.into(),
        hint: hint.into(),
    }
}
