//! How the processes of a run find each other: the first waits at an address that all of them know.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use super::peer::{Peer, farewell, part};
use super::place::Place;
use crate::{Control, Error, Result};

/// What a process sends first, and what it is answered. Another layout of the messages gets another word.
const GREETING: &[u8; 8] = b"mixskd-1";

/// Patience with somebody who connects and says nothing.
const SILENCE: Duration = Duration::from_secs(5);

/// How a description begins that says why a process will not come.
const DECLINES: &str = "failed: ";

/// Bytes of a description; more is no description.
const MOST: usize = 1 << 20;

/// Brings the processes of a run together.
pub(super) struct Meeting<'a> {
    pub(super) place: &'a Place,
    /// What has to be the same for all, line by line.
    pub(super) description: &'a str,
    pub(super) timeout: Duration,
    /// How long one that ends stays for those that have not come yet.
    pub(super) patience: Duration,
    pub(super) control: &'a Control,
}

impl Meeting<'_> {
    /// Every other process, for the first; the first, for the others. They are all there when the first has been heard of through them.
    pub(super) fn hold(&self) -> Result<Vec<Peer>> {
        let until = Instant::now() + self.timeout;
        if self.place.is_first() {
            self.wait(until)
        } else {
            Ok(vec![self.call(until)?])
        }
    }

    /// Tells the others that this process will not come, as many of them as can be met in the time: the first waits for them, the others tell
    /// the first. That somebody was not there is no error of a process that ends anyway.
    pub(super) fn decline(place: &Place, cause: &str, timeout: Duration) {
        let words = cause.replace('\n', " ");
        let meeting = Meeting {
            place,
            description: &format!("{DECLINES}{words}"),
            timeout,
            patience: timeout,
            control: &Control::default(),
        };
        if place.is_first() {
            if let Ok(listener) = meeting.listen() {
                let error = Error::absent(0, meeting.description);
                meeting.turn_away(&listener, place.world - 1, &error);
            }
        } else if let Ok(first) = meeting.call(Instant::now() + timeout) {
            part([first].iter());
        }
    }

    /// The first process: tells those that are `missing`, as they come, that there is nothing to come for.
    fn turn_away(&self, listener: &TcpListener, mut missing: usize, error: &Error) {
        let until = Instant::now() + self.patience;
        if listener.set_nonblocking(true).is_err() {
            return;
        }
        while missing > 0 && Instant::now() < until && !self.control.is_stopped() {
            if let Ok((stream, _)) = listener.accept()
                && let Ok(Some((rank, _))) = Self::greeted(&stream)
                && let Ok(peer) = Peer::new(rank, stream, self.timeout)
            {
                farewell([peer].iter(), 0, error);
                missing -= 1;
            } else {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    /// The first process: takes in one after the other.
    fn wait(&self, until: Instant) -> Result<Vec<Peer>> {
        let cannot = |error: std::io::Error| Error::Config {
            place: "MASTER_PORT".into(),
            message: format!("cannot wait at {}: {error}", self.place.address()),
            hint: Some("name a free port of this machine in MASTER_PORT, on every rank".into()),
        };
        let listener = self.listen().map_err(cannot)?;
        listener.set_nonblocking(true).map_err(cannot)?;
        let mut peers: Vec<Option<Peer>> = (1..self.place.world).map(|_| None).collect();
        while let Some(missing) = peers.iter().position(Option::is_none) {
            match listener.accept() {
                Ok((stream, _)) => {
                    // Whoever is no process of this program is shown the door.
                    let Ok(Some((rank, description))) = Self::greeted(&stream) else {
                        continue;
                    };
                    let peer = Peer::new(rank, stream, self.timeout)?;
                    if let Some(error) = self.refuse(rank, &description, &peers) {
                        farewell(peers.iter().flatten().chain([&peer]), 0, &error);
                        // Whoever comes late is not to wait for nobody.
                        let known = peers.iter().flatten().count() + 1;
                        let missing = (self.place.world - 1).saturating_sub(known);
                        drop((peers, peer));
                        self.turn_away(&listener, missing, &error);
                        return Err(error);
                    }
                    peers[rank - 1] = Some(peer);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if let Err(error) = self.go_on(until, missing + 1, "did not appear") {
                        farewell(peers.iter().flatten(), 0, &error);
                        return Err(error);
                    }
                    std::thread::sleep(Duration::from_millis(5));
                }
                // One that was gone before it could be let in.
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
        Ok(peers.into_iter().flatten().collect())
    }

    /// A loopback address is listened to as such; with any other name, every address of the machine, since what the name means elsewhere this
    /// machine may not know.
    fn listen(&self) -> std::io::Result<TcpListener> {
        let mut here = (self.place.host.as_str(), self.place.port).to_socket_addrs();
        match here.as_mut().ok().and_then(Iterator::next) {
            Some(address)
                if address.ip().is_loopback()
                    && (self.place.host == "localhost"
                        || self.place.host.parse() == Ok(address.ip())) =>
            {
                TcpListener::bind(address)
            }
            _ => TcpListener::bind(("::", self.place.port))
                .or_else(|_| TcpListener::bind(("0.0.0.0", self.place.port))),
        }
    }

    /// Rank and description of whoever has connected.
    fn greeted(mut stream: &TcpStream) -> std::io::Result<Option<(usize, String)>> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(SILENCE))?;
        stream.set_write_timeout(Some(SILENCE))?;
        let mut greeting = [0; GREETING.len()];
        stream.read_exact(&mut greeting)?;
        if &greeting != GREETING {
            return Ok(None);
        }
        let mut numbers = [0; 12];
        stream.read_exact(&mut numbers)?;
        let number = |at: usize| {
            let bytes = numbers[at..at + 4].iter().rev();
            bytes.fold(0usize, |all, byte| all << 8 | usize::from(*byte))
        };
        let (rank, world, length) = (number(0), number(4), number(8));
        if length > MOST {
            return Ok(None);
        }
        let mut description = vec![0; length];
        stream.read_exact(&mut description)?;
        stream.write_all(GREETING)?;
        let description = String::from_utf8_lossy(&description);
        Ok(Some((rank, format!("processes: {world}\n{description}"))))
    }

    /// Why the process at `rank` cannot be let in.
    fn refuse(&self, rank: usize, description: &str, known: &[Option<Peer>]) -> Option<Error> {
        let refusal = |message: String, hint: &str| Error::Config {
            place: format!("rank {rank}"),
            message,
            hint: Some(hint.into()),
        };
        if let Some((_, there)) = description.split_once('\n')
            && there.starts_with(DECLINES)
        {
            return Some(Error::absent(rank, there));
        }
        let own = format!("processes: {}\n{}", self.place.world, self.description);
        let differ = own.lines().zip(description.lines()).find(|(a, b)| a != b);
        if let Some((here, there)) = differ {
            return Some(refusal(
                format!("was started with `{there}` where rank 0 has `{here}`"),
                "give every rank the same program, command line and data",
            ));
        }
        if own.lines().count() != description.lines().count() {
            return Some(refusal(
                "was started with other settings than rank 0".into(),
                "give every rank the same program, command line and data",
            ));
        }
        match rank.checked_sub(1).and_then(|at| known.get(at)) {
            Some(None) => None,
            _ => Some(refusal(
                "is there twice".into(),
                "give every process a rank of its own",
            )),
        }
    }

    /// Any other process: calls until the first answers.
    fn call(&self, until: Instant) -> Result<Peer> {
        loop {
            if let Ok(addresses) = (self.place.host.as_str(), self.place.port).to_socket_addrs() {
                for address in addresses {
                    let Ok(stream) = TcpStream::connect_timeout(&address, SILENCE) else {
                        continue;
                    };
                    match self.greet(&stream, until) {
                        Ok(()) => return Peer::new(0, stream, self.timeout),
                        Err(error) if error.kind() == ErrorKind::InvalidData => {
                            return Err(Error::Config {
                                place: "MASTER_PORT".into(),
                                message: format!("at {address} another program answers"),
                                hint: Some("name a free port in MASTER_PORT, on every rank".into()),
                            });
                        }
                        Err(_) => {}
                    }
                }
            }
            self.go_on(until, 0, "does not answer")?;
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn greet(&self, mut stream: &TcpStream, until: Instant) -> std::io::Result<()> {
        let small = |number: usize| (number as u32).to_le_bytes();
        let mut greeting = GREETING.to_vec();
        greeting.extend(small(self.place.rank));
        greeting.extend(small(self.place.world));
        greeting.extend(small(self.description.len()));
        greeting.extend(self.description.as_bytes());
        stream.set_write_timeout(Some(SILENCE))?;
        stream.write_all(&greeting)?;
        let left = until.saturating_duration_since(Instant::now());
        stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        let mut answer = [0; GREETING.len()];
        stream.read_exact(&mut answer)?;
        if &answer != GREETING {
            return Err(ErrorKind::InvalidData.into());
        }
        Ok(())
    }

    /// An error once the time is up or the run is to stop.
    fn go_on(&self, until: Instant, missing: usize, how: &str) -> Result<()> {
        self.control.go_on()?;
        if Instant::now() < until {
            return Ok(());
        }
        let (address, seconds) = (self.place.address(), self.timeout.as_secs_f64());
        Err(Error::Peer {
            rank: missing,
            message: format!("{how} at {address} within {seconds} s"),
            hint: "start every rank, with the same MASTER_ADDR and MASTER_PORT; distribution.timeout_s is how long they wait".into(),
        })
    }
}
