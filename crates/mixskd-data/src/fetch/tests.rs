#![allow(
    clippy::format_collect,
    reason = "tests make short texts; speed is no matter"
)]

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use md5::{Digest, Md5};

use super::unpack::tests::archive;
use super::*;
use crate::RemoteFile;

/// How the test's server treats one request.
#[derive(Clone, Copy)]
enum Answer {
    /// As it should; `ranges` says whether it knows ranges.
    Good { ranges: bool },
    /// Breaks off after so many bytes of the body.
    Break(usize),
    /// Falls silent after so many bytes, and keeps the connection.
    Stall(usize),
    /// A status without a body.
    Status(&'static str),
}

/// A server that answers one request after another as told, and then is gone. Knows one file.
struct Server {
    url: String,
    requests: Arc<Mutex<Vec<String>>>,
    thread: JoinHandle<()>,
}

fn serve(name: &str, body: Vec<u8>, answers: Vec<Answer>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/files/{name}", listener.local_addr().unwrap());
    let requests = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&requests);
    let thread = std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let request = read_request(&stream);
            let range = request
                .lines()
                .filter_map(|line| line.split_once(": "))
                .find(|(key, _)| key.eq_ignore_ascii_case("range"))
                .map(|(_, value)| {
                    value
                        .trim_start_matches("bytes=")
                        .trim_end_matches('-')
                        .parse::<usize>()
                        .unwrap()
                });
            seen.lock().unwrap().push(request);
            respond(&mut stream, &body, answer, range);
        }
    });
    Server {
        url,
        requests,
        thread,
    }
}

fn read_request(stream: &TcpStream) -> String {
    let mut lines = BufReader::new(stream)
        .lines()
        .map_while(std::result::Result::ok);
    lines
        .by_ref()
        .take_while(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join("\n")
}

fn respond(stream: &mut TcpStream, body: &[u8], answer: Answer, range: Option<usize>) {
    let (ranges, limit) = match answer {
        Answer::Good { ranges } => (ranges, usize::MAX),
        Answer::Break(limit) | Answer::Stall(limit) => (true, limit),
        Answer::Status(status) => {
            write!(
                stream,
                "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )
            .unwrap();
            return;
        }
    };
    let (from, head) = match range.filter(|_| ranges) {
        Some(from) if from >= body.len() => {
            write!(stream, "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
            return;
        }
        Some(from) => {
            let last = body.len() - 1;
            (
                from,
                format!(
                    "206 Partial Content\r\nContent-Range: bytes {from}-{last}/{}",
                    body.len()
                ),
            )
        }
        None => (0, "200 OK".into()),
    };
    let rest = &body[from..];
    write!(
        stream,
        "HTTP/1.1 {head}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        rest.len()
    )
    .unwrap();
    // The client may hang up first; that is its right.
    let _ = stream.write_all(&rest[..rest.len().min(limit)]);
    if let Answer::Stall(_) = answer {
        let silent = stream.try_clone().unwrap();
        std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_secs(20));
            drop(silent);
        });
    }
}

fn md5(bytes: &[u8]) -> String {
    format!(
        "md5:{}",
        Md5::digest(bytes)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    )
}

/// Bytes that do not compress, so that archives are long enough to be broken.
fn noise(len: usize) -> Vec<u8> {
    use rand::RngCore;
    let mut bytes = vec![0; len];
    crate::rng::stream(1, 0, 0, crate::rng::Purpose::Method).fill_bytes(&mut bytes);
    bytes
}

fn recipe_for(files: Vec<RemoteFile>) -> Recipe {
    Recipe {
        name: "toy".into(),
        files,
        ..crate::recipe("mnist").unwrap().clone()
    }
}

struct Outcome {
    result: Result<PathBuf>,
    events: Vec<FetchEvent>,
    requests: Vec<String>,
    root: tempfile::TempDir,
    archive: Vec<u8>,
}

/// Fetches an archive that holds `toy/data.bin` from a server that gives `answers`; `part` lies there from before.
fn check(
    answers: Vec<Answer>,
    part: impl FnOnce(&[u8]) -> Option<Vec<u8>>,
    checksum: Option<&str>,
) -> Outcome {
    let archive = archive(&[
        ("toy/data.bin", &noise(200_000)),
        ("toy/names.txt", b"a\nb\n"),
    ]);
    let root = tempfile::tempdir().unwrap();
    if let Some(part) = part(&archive) {
        std::fs::create_dir(root.path().join("toy.download")).unwrap();
        std::fs::write(root.path().join("toy.download/toy.tar.gz.part"), part).unwrap();
    }
    let server = serve("toy.tar.gz", archive.clone(), answers);
    let checksum = checksum.map_or_else(|| md5(&archive), Into::into);
    let recipe = recipe_for(vec![RemoteFile {
        url: server.url,
        bytes: None,
        checksum,
    }]);
    let mut events = Vec::new();
    let result = fetch(&recipe, root.path(), &mut |event| events.push(event));
    server.thread.join().unwrap();
    let requests = server.requests.lock().unwrap().clone();
    Outcome {
        result,
        events,
        requests,
        root,
        archive,
    }
}

fn resumed(events: &[FetchEvent]) -> Vec<u64> {
    let from = |event: &FetchEvent| match event {
        FetchEvent::Started { resumed_from, .. } => Some(*resumed_from),
        _ => None,
    };
    events.iter().filter_map(from).collect()
}

fn assert_whole(outcome: &Outcome) {
    let dir = outcome.result.as_ref().unwrap();
    assert_eq!(*dir, outcome.root.path().join("toy"));
    assert_eq!(
        std::fs::read(dir.join("toy/data.bin")).unwrap(),
        noise(200_000)
    );
    assert_eq!(std::fs::read(dir.join("toy/names.txt")).unwrap(), b"a\nb\n");
    let left: Vec<_> = std::fs::read_dir(outcome.root.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(left, ["toy"], "nothing but the set is left");
}

const GOOD: Answer = Answer::Good { ranges: true };

#[test]
fn a_whole_download_is_verified_and_unpacked() {
    let outcome = check(vec![GOOD], |_| None, None);
    assert_whole(&outcome);
    assert_eq!(resumed(&outcome.events), [0]);
    let total = outcome.archive.len() as u64;
    let last = FetchEvent::Progress {
        file: "toy.tar.gz".into(),
        done: total,
        total: Some(total),
    };
    assert!(outcome.events.contains(&last));
    assert!(outcome.events.contains(&FetchEvent::Unpacking {
        file: "toy.tar.gz".into()
    }));
}

#[test]
fn a_broken_connection_is_resumed_where_it_stopped() {
    let outcome = check(
        vec![Answer::Break(70_000), Answer::Break(50_000), GOOD],
        |_| None,
        None,
    );
    assert_whole(&outcome);
    assert_eq!(resumed(&outcome.events), [0, 70_000, 120_000]);
    assert!(
        outcome.requests[2]
            .to_lowercase()
            .contains("range: bytes=120000-"),
        "{}",
        outcome.requests[2]
    );
}

#[test]
fn a_download_left_by_an_earlier_run_is_resumed() {
    let outcome = check(vec![GOOD], |archive| Some(archive[..1234].to_vec()), None);
    assert_whole(&outcome);
    assert_eq!(resumed(&outcome.events), [1234]);
}

#[test]
fn a_finished_part_is_not_downloaded_again() {
    // The server says 416: nothing lies behind the last byte.
    let outcome = check(vec![GOOD], |archive| Some(archive.to_vec()), None);
    assert_whole(&outcome);
    assert!(resumed(&outcome.events).is_empty());
}

#[test]
fn a_part_longer_than_the_file_is_thrown_away() {
    let outcome = check(
        vec![GOOD, GOOD],
        |archive| Some(vec![0; archive.len() + 5]),
        None,
    );
    assert_whole(&outcome);
    assert_eq!(resumed(&outcome.events), [0]);
}

#[test]
fn a_server_without_ranges_sends_it_all_again() {
    let outcome = check(
        vec![Answer::Good { ranges: false }],
        |archive| Some(archive[..1234].to_vec()),
        None,
    );
    assert_whole(&outcome);
    assert_eq!(resumed(&outcome.events), [0]);
}

#[test]
fn a_stuttering_server_is_asked_again() {
    assert_whole(&check(
        vec![Answer::Status("503 Service Unavailable"), GOOD],
        |_| None,
        None,
    ));
}

#[test]
fn a_server_that_falls_silent_is_left_and_asked_again() {
    let begun = std::time::Instant::now();
    let outcome = check(vec![Answer::Stall(70_000), GOOD], |_| None, None);
    assert_whole(&outcome);
    assert_eq!(resumed(&outcome.events), [0, 70_000]);
    assert!(begun.elapsed().as_secs() < 10, "{:?}", begun.elapsed());
}

#[test]
fn a_server_that_always_breaks_leaves_the_part_for_the_next_run() {
    let outcome = check(vec![Answer::Break(1000); 5], |_| None, None);
    let error = outcome.result.unwrap_err().to_string();
    assert!(
        error.contains("run the same command again; it goes on after the 5000 bytes"),
        "{error}"
    );
    let part = outcome.root.path().join("toy.download/toy.tar.gz.part");
    assert_eq!(std::fs::read(part).unwrap(), outcome.archive[..5000]);
    assert!(!outcome.root.path().join("toy").exists());
}

#[test]
fn a_wrong_checksum_removes_the_download_and_says_so() {
    let wrong = "md5:00000000000000000000000000000000";
    let outcome = check(vec![GOOD], |_| None, Some(wrong));
    let error = outcome.result.unwrap_err().to_string();
    let got = md5(&outcome.archive);
    assert!(
        error.contains(&format!(
            "has checksum {got}, expected {wrong}; the download was removed"
        )),
        "{error}"
    );
    assert!(
        !outcome
            .root
            .path()
            .join("toy.download/toy.tar.gz.part")
            .exists()
    );
    assert!(!outcome.root.path().join("toy").exists());
}

#[test]
fn a_missing_file_is_an_error_at_once() {
    let outcome = check(vec![Answer::Status("404 Not Found")], |_| None, None);
    let error = outcome.result.unwrap_err().to_string();
    assert!(
        error.starts_with("cannot fetch toy: http://127.0.0.1"),
        "{error}"
    );
    assert!(error.contains("404 Not Found\nhint:"), "{error}");
}

#[test]
fn a_set_that_is_there_is_left_alone() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("toy")).unwrap();
    let recipe = recipe_for(vec![RemoteFile {
        url: "http://127.0.0.1:9/x".into(),
        bytes: None,
        checksum: md5(b""),
    }]);
    let mut events = Vec::new();
    assert_eq!(
        fetch(&recipe, root.path(), &mut |event| events.push(event)).unwrap(),
        root.path().join("toy")
    );
    assert_eq!(events, [FetchEvent::Present]);
}

#[test]
fn plain_files_with_sha256_lie_side_by_side() {
    let body = b"just bytes".to_vec();
    let digest = sha2::Sha256::digest(&body)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect::<String>();
    let server = serve("plain.bin", body.clone(), vec![GOOD]);
    let file = RemoteFile {
        url: server.url,
        bytes: Some(10),
        checksum: format!("sha256:{digest}"),
    };
    let root = tempfile::tempdir().unwrap();
    let dir = fetch(&recipe_for(vec![file]), root.path(), &mut |_| {}).unwrap();
    server.thread.join().unwrap();
    assert_eq!(std::fs::read(dir.join("plain.bin")).unwrap(), body);
}

#[test]
fn archives_that_leave_their_folder_are_refused() {
    for path in ["../evil.txt", "toy/../../evil.txt", "/tmp/mixskd-evil.txt"] {
        let body = archive(&[("toy/fine.txt", b"fine"), (path, b"evil")]);
        let server = serve("toy.tgz", body.clone(), vec![GOOD]);
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("inner");
        let recipe = recipe_for(vec![RemoteFile {
            url: server.url,
            bytes: None,
            checksum: md5(&body),
        }]);
        let error = fetch(&recipe, &inner, &mut |_| {}).unwrap_err().to_string();
        server.thread.join().unwrap();
        assert!(
            error.contains(&format!("entry {path} leaves its folder")),
            "{error}"
        );
        assert!(!inner.join("toy").exists() && !root.path().join("evil.txt").exists());
        assert!(!std::path::Path::new("/tmp/mixskd-evil.txt").exists());
    }
}

#[test]
fn a_shipped_set_needs_no_fetching() {
    let root = tempfile::tempdir().unwrap();
    let recipe = crate::recipe(crate::readers::SHIPPED).unwrap();
    assert!(
        fetch(recipe, root.path(), &mut |_| {})
            .unwrap_err()
            .to_string()
            .contains("ships with the program")
    );
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
}
