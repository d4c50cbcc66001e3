//! A connection to another process of the run: messages, signs of life, and last words.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::{Error, Result};

/// What a message is. Each goes over the wire as this byte, the length of its contents as eight bytes, and the contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// What the other side waits for.
    Data = 1,
    /// The process is alive, and busy.
    Beat = 2,
    /// The process ends: rank and words of whoever was the first to fail.
    Failed = 3,
}

const HEADER: usize = 9;

/// Contents up to this size go out in one piece with their header.
const SMALL: usize = 1 << 16;

/// How long a look at what has arrived may take.
const GLANCE: Duration = Duration::from_millis(1);

/// How long the end of a process waits for the other side to hear why.
const PARTING: Duration = Duration::from_secs(2);

/// Another process.
pub(super) struct Peer {
    pub(super) rank: usize,
    stream: TcpStream,
    /// Held while a message goes out: signs of life come from another thread.
    writing: Mutex<()>,
    timeout: Duration,
}

impl Peer {
    /// The process `rank` at the other end of `stream`; `timeout` without a sign of life from it is an error.
    pub(super) fn new(rank: usize, stream: TcpStream, timeout: Duration) -> Result<Self> {
        let set = || {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(timeout))?;
            stream.set_write_timeout(Some(timeout))
        };
        let set: std::io::Result<()> = set();
        let peer = Self {
            rank,
            stream,
            writing: Mutex::new(()),
            timeout,
        };
        match set {
            Ok(()) => Ok(peer),
            Err(error) => Err(peer.lost(&error)),
        }
    }

    /// Sends what the other side waits for.
    pub(super) fn send(&self, contents: &[u8]) -> Result<()> {
        self.write(Kind::Data, contents).map_err(|error| {
            // Whoever ends says why before the connection closes.
            let told = self.stream.set_read_timeout(Some(PARTING)).is_ok();
            loop {
                match told.then(|| self.read()) {
                    Some(Ok((Kind::Failed, words))) => return last_words(self.rank, &words),
                    Some(Ok(_)) => {}
                    _ => return self.lost(&error),
                }
            }
        })
    }

    /// The next message, which has `wanted` bytes where that is known.
    pub(super) fn receive(&self, wanted: Option<usize>) -> Result<Vec<u8>> {
        loop {
            let (kind, contents) = self.read().map_err(|error| self.lost(&error))?;
            match kind {
                Kind::Beat => {}
                Kind::Failed => return Err(last_words(self.rank, &contents)),
                Kind::Data => {
                    if wanted.is_some_and(|wanted| wanted != contents.len()) {
                        return Err(self.stranger());
                    }
                    return Ok(contents);
                }
            }
        }
    }

    /// Says that this process is alive. That it could not be said is found out by whoever waits for an answer.
    pub(super) fn beat(&self) {
        let _ = self.write(Kind::Beat, &[]);
    }

    /// An error if the other side has ended; takes no message away that is waited for.
    #[cfg_attr(
        not(feature = "nccl"),
        allow(dead_code, reason = "asked while a GPU is waited for")
    )]
    pub(super) fn check(&self) -> Result<()> {
        let mut header = [0; HEADER];
        let peeked = self
            .stream
            .set_read_timeout(Some(GLANCE))
            .and_then(|()| self.stream.peek(&mut header));
        self.stream
            .set_read_timeout(Some(self.timeout))
            .map_err(|error| self.lost(&error))?;
        match peeked {
            Ok(0) => Err(self.lost(&ErrorKind::UnexpectedEof.into())),
            Ok(_) if header[0] == Kind::Beat as u8 => {
                self.read().map(|_| ()).map_err(|error| self.lost(&error))
            }
            Ok(_) if header[0] == Kind::Failed as u8 => self.receive(None).map(|_| ()),
            Ok(_) => Ok(()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Ok(())
            }
            Err(error) => Err(self.lost(&error)),
        }
    }

    /// Says why this process ends.
    fn fail(&self, rank: usize, words: &str) {
        let mut contents = (rank as u64).to_le_bytes().to_vec();
        contents.extend(words.as_bytes());
        let _ = self.stream.set_write_timeout(Some(PARTING));
        let _ = self.write(Kind::Failed, &contents);
    }

    /// Waits until the other side has closed the connection too, but not for long: what has not arrived when this side is gone may be lost.
    fn part(&self, until: Instant) {
        let mut rest = [0; 4096];
        while let Some(left) = until.checked_duration_since(Instant::now())
            && !left.is_zero()
        {
            let _ = self.stream.set_read_timeout(Some(left));
            if !matches!((&self.stream).read(&mut rest), Ok(1..)) {
                break;
            }
        }
    }

    /// Lets the other side see the end.
    pub(super) fn close(&self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    fn write(&self, kind: Kind, contents: &[u8]) -> std::io::Result<()> {
        let _turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut message = vec![kind as u8];
        message.extend((contents.len() as u64).to_le_bytes());
        if contents.len() <= SMALL {
            message.extend(contents);
            return (&self.stream).write_all(&message);
        }
        (&self.stream).write_all(&message)?;
        (&self.stream).write_all(contents)
    }

    fn read(&self) -> std::io::Result<(Kind, Vec<u8>)> {
        let mut header = [0; HEADER];
        (&self.stream).read_exact(&mut header)?;
        let [kind, length @ ..] = header;
        let kind = match kind {
            1 => Kind::Data,
            2 => Kind::Beat,
            3 => Kind::Failed,
            _ => return Err(ErrorKind::InvalidData.into()),
        };
        let length = u64::from_le_bytes(length);
        let mut contents = Vec::new();
        (&self.stream).take(length).read_to_end(&mut contents)?;
        if contents.len() as u64 != length {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok((kind, contents))
    }

    fn lost(&self, error: &std::io::Error) -> Error {
        use ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut, UnexpectedEof};
        let message = match error.kind() {
            UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe => {
                "has ended, or was killed".into()
            }
            TimedOut | ErrorKind::WouldBlock => format!(
                "has given no sign of life for {} s",
                self.timeout.as_secs_f64()
            ),
            ErrorKind::InvalidData => return self.stranger(),
            _ => format!("cannot be reached: {error}"),
        };
        Error::peer(self.rank, message)
    }

    /// What came is not what this program sends.
    pub(super) fn stranger(&self) -> Error {
        Error::Peer {
            rank: self.rank,
            message: "sent what was not expected of it".into(),
            hint: "start the same program on every rank, with the same settings".into(),
        }
    }
}

/// Tells `peers` that the process `own` ends with `error`.
pub(super) fn farewell<'a>(
    peers: impl Iterator<Item = &'a Peer> + Clone,
    own: usize,
    error: &Error,
) {
    let (rank, words) = match error {
        Error::Peer { rank, message, .. } => (*rank, message.clone()),
        other => (own, format!("failed: {}", other.cause())),
    };
    peers.clone().for_each(|peer| peer.fail(rank, &words));
    part(peers);
}

/// Ends the connections to `peers`: what was sent last still arrives.
pub(super) fn part<'a>(peers: impl Iterator<Item = &'a Peer> + Clone) {
    for peer in peers.clone() {
        let _ = peer.stream.shutdown(Shutdown::Write);
    }
    let until = Instant::now() + PARTING;
    peers.for_each(|peer| peer.part(until));
}

/// The error of whoever failed first, as one of the others tells it.
fn last_words(teller: usize, contents: &[u8]) -> Error {
    match contents.split_first_chunk() {
        Some((rank, words)) => Error::peer(
            u64::from_le_bytes(*rank) as usize,
            String::from_utf8_lossy(words),
        ),
        None => Error::peer(teller, "has ended"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn pair(timeout: Duration) -> (Peer, Peer) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let there = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (here, _) = listener.accept().unwrap();
        let peer = |rank, stream| Peer::new(rank, stream, timeout).unwrap();
        (peer(1, here), peer(0, there))
    }

    fn text<T>(result: Result<T>) -> String {
        result.map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn messages_arrive_whole_and_signs_of_life_are_passed_over() {
        let (first, second) = pair(Duration::from_secs(20));
        let large: Vec<u8> = (0..1 << 20).map(|k| (k % 251) as u8).collect();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                second.beat();
                second.send(b"short").unwrap();
                second.beat();
                second.send(&large).unwrap();
            });
            assert_eq!(first.receive(Some(5)).unwrap(), b"short");
            assert!(first.receive(None).unwrap() == large);
        });
        first.check().unwrap();
        second.send(b"odd").unwrap();
        assert!(text(first.receive(Some(4))).contains("not expected"));
    }

    #[test]
    fn the_end_of_a_process_is_told_whoever_waits() {
        let (first, second) = pair(Duration::from_secs(20));
        second.fail(3, "cats/1.png: is damaged");
        assert_eq!(text(first.check()), "rank 3 cats/1.png: is damaged");
        drop(second);
        assert!(text(first.receive(None)).contains("rank 1 has ended"));
        assert!(text(first.check()).contains("rank 1 has ended"));

        // Whoever is sending hears it too, whether the end waits for that or not.
        let large = vec![0; 1 << 22];
        let (first, second) = pair(Duration::from_secs(20));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let error = Error::config("images", "are damaged");
                farewell([&second].into_iter(), 1, &error);
                second.close();
            });
            let answer = first.send(&large).and_then(|()| first.receive(None));
            assert_eq!(text(answer), "rank 1 failed: images: are damaged");
            first.close();
        });
        let (first, second) = pair(Duration::from_secs(20));
        second.fail(1, "failed: no room");
        drop(second);
        let sent = (0..100).try_for_each(|_| first.send(&large));
        assert_eq!(text(sent), "rank 1 failed: no room");
    }

    #[test]
    fn silence_and_strangers_are_told() {
        let (first, _second) = pair(Duration::from_millis(50));
        assert!(text(first.receive(None)).contains("no sign of life for 0.05 s"));
        let (first, second) = pair(Duration::from_secs(20));
        (&second.stream).write_all(b"GET / HTTP/1.1").unwrap();
        assert!(text(first.receive(None)).contains("not expected"));
    }
}
