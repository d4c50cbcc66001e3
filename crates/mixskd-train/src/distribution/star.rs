//! Collectives over TCP: every process is connected to the first, which adds up and answers.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use candle_core::{DType, Device, Tensor, Var};

use super::Collective;
use super::peer::{self, Peer};
use crate::gradients::Gradients;
use crate::{Error, Result};

/// The processes of a run, as one of them sees them. Sums are added in the order of ranks, whoever answers first.
pub(super) struct Star {
    rank: usize,
    world: usize,
    /// For the first process all others by rank; for the others, the first.
    peers: Arc<Vec<Peer>>,
    /// Its end ends the thread that gives signs of life.
    _beating: Sender<()>,
    /// The others know that this process ends.
    parted: Cell<bool>,
}

impl Star {
    pub(super) fn new(rank: usize, world: usize, peers: Vec<Peer>, timeout: Duration) -> Self {
        let peers = Arc::new(peers);
        let (beating, ended) = channel::<()>();
        let alive = Arc::clone(&peers);
        let every = (timeout / 4).min(Duration::from_secs(5));
        let beat = move || {
            while ended.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                alive.iter().for_each(Peer::beat);
            }
        };
        // Without a thread to spare, the others' patience has to last from message to message.
        let _ = std::thread::Builder::new()
            .name("mixskd-alive".into())
            .spawn(beat);
        Self {
            rank,
            world,
            peers,
            _beating: beating,
            parted: Cell::new(false),
        }
    }

    /// One round: everybody's part goes to the first process, which `add`s them to its own in the order of ranks and makes out of that
    /// what all get. `wanted` are the lengths of a part and of the answer, where they are known.
    fn exchange(
        &self,
        own: Vec<u8>,
        wanted: (Option<usize>, Option<usize>),
        mut add: impl FnMut(&mut Vec<u8>, Vec<u8>) -> Result<()>,
        answer: impl FnOnce(Vec<u8>) -> Result<Vec<u8>>,
    ) -> Result<Vec<u8>> {
        if self.rank > 0 {
            let first = &self.peers[0];
            first.send(&own)?;
            return first.receive(wanted.1);
        }
        let mut all = own;
        for peer in self.peers.iter() {
            add(&mut all, peer.receive(wanted.0)?)?;
        }
        let all = answer(all)?;
        for peer in self.peers.iter() {
            peer.send(&all)?;
        }
        Ok(all)
    }
}

impl Collective for Star {
    fn gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>> {
        let framed = |part: &[u8]| [&(part.len() as u64).to_le_bytes()[..], part].concat();
        let add = |all: &mut Vec<u8>, part: Vec<u8>| {
            all.extend(part);
            Ok(())
        };
        let all = self.exchange(framed(own), (None, None), add, Ok)?;
        let mut rest = all.as_slice();
        let mut parts = Vec::with_capacity(self.world);
        while let Some((length, contents)) = rest.split_first_chunk() {
            let length = u64::from_le_bytes(*length) as usize;
            let Some((part, after)) = contents.split_at_checked(length) else {
                break;
            };
            parts.push(part.to_vec());
            rest = after;
        }
        if parts.len() != self.world || !rest.is_empty() {
            return Err(self.peers[0].stranger());
        }
        Ok(parts)
    }

    fn average(&self, gradients: &mut Gradients, buffers: &[(String, Var)]) -> Result<()> {
        let mut own = Vec::new();
        for gradient in gradients.values() {
            put(&mut own, gradient)?;
        }
        let sums = own.len();
        let copies: usize = buffers.iter().map(|(_, var)| 4 * var.elem_count()).sum();
        let add = |all: &mut Vec<u8>, part: Vec<u8>| {
            for (sum, value) in all.chunks_exact_mut(4).zip(part.chunks_exact(4)) {
                sum.copy_from_slice(&(float(sum) + float(value)).to_le_bytes());
            }
            Ok(())
        };
        let answer = |mut all: Vec<u8>| {
            for sum in all.chunks_exact_mut(4) {
                sum.copy_from_slice(&(float(sum) / self.world as f32).to_le_bytes());
            }
            for (_, buffer) in buffers {
                put(&mut all, buffer)?;
            }
            Ok(all)
        };
        let wanted = (Some(sums), Some(sums + copies));
        let all = self.exchange(own, wanted, add, answer)?;
        let mut rest = all.as_slice();
        for gradient in gradients.values_mut() {
            *gradient = take(&mut rest, gradient)?;
        }
        if self.rank > 0 {
            for (_, buffer) in buffers {
                buffer.set(&take(&mut rest, buffer)?)?;
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<()> {
        self.peers.iter().try_for_each(Peer::check)
    }

    fn farewell(&self, error: &Error) {
        self.parted.set(true);
        peer::farewell(self.peers.iter(), self.rank, error);
    }
}

impl Drop for Star {
    fn drop(&mut self) {
        if !self.parted.get() {
            peer::part(self.peers.iter());
        }
        // The thread that gives signs of life may hold the connections for a moment more.
        self.peers.iter().for_each(Peer::close);
    }
}

pub(super) fn float(bytes: &[u8]) -> f32 {
    bytes.try_into().map_or(f32::NAN, f32::from_le_bytes)
}

/// Appends a tensor's values.
fn put(bytes: &mut Vec<u8>, tensor: &Tensor) -> Result<()> {
    let values = tensor.flatten_all()?.to_vec1::<f32>()?;
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    Ok(())
}

/// A tensor like `like` of the next values.
fn take(bytes: &mut &[u8], like: &Tensor) -> Result<Tensor> {
    let (own, rest) = bytes
        .split_at_checked(4 * like.elem_count())
        .unwrap_or((&[], bytes));
    *bytes = rest;
    let tensor = Tensor::from_raw_buffer(own, DType::F32, like.dims(), &Device::Cpu)?;
    Ok(tensor.to_device(like.device())?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// `world` processes that know each other.
    fn stars(world: usize, timeout: Duration) -> Vec<Star> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (mut all, mut others) = (Vec::new(), Vec::new());
        for rank in 1..world {
            let there = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (here, _) = listener.accept().unwrap();
            all.push(Peer::new(rank, here, timeout).unwrap());
            let first = Peer::new(0, there, timeout).unwrap();
            others.push(Star::new(rank, world, vec![first], timeout));
        }
        let first = Star::new(0, world, all, timeout);
        std::iter::once(first).chain(others).collect()
    }

    #[test]
    fn sums_are_added_in_the_order_of_ranks_whoever_comes_first() {
        let values = [1e8f32, 3.25, -1e8];
        let expected = ((values[0] + values[1]) + values[2]) / 3.0;
        assert_ne!(expected, ((values[0] + values[2]) + values[1]) / 3.0);
        for last in 0..3 {
            let work = |star: Star| {
                if star.rank == last {
                    std::thread::sleep(Duration::from_millis(50));
                }
                let tensor = |value: f32| Tensor::new(&[value, 6.0], &Device::Cpu).unwrap();
                let own = tensor(values[star.rank]);
                let mut gradients: Gradients = BTreeMap::from([("a".to_string(), own)]);
                let buffer = Var::from_tensor(&tensor(star.rank as f32 + 7.0)).unwrap();
                let buffers = [("b".to_string(), buffer)];
                star.average(&mut gradients, &buffers).unwrap();
                let parts = star.gather(&[star.rank as u8; 3][..star.rank]).unwrap();
                assert_eq!(parts, [vec![], vec![1], vec![2, 2]]);
                let of = |t: &Tensor| t.to_vec1::<f32>().unwrap();
                (of(&gradients["a"]), of(&buffers[0].1))
            };
            std::thread::scope(|scope| {
                let threads: Vec<_> = stars(3, Duration::from_secs(20))
                    .into_iter()
                    .map(|star| scope.spawn(move || work(star)))
                    .collect();
                for thread in threads {
                    let (mean, buffer) = thread.join().unwrap();
                    assert_eq!(mean, [expected, 6.0], "the last to come is {last}");
                    assert_eq!(buffer, [7.0, 6.0]);
                }
            });
        }
    }

    #[test]
    fn who_is_busy_for_longer_than_the_others_wait_is_waited_for() {
        let mut both = stars(2, Duration::from_millis(400)).into_iter();
        let (first, second) = (both.next().unwrap(), both.next().unwrap());
        std::thread::scope(|scope| {
            let busy = scope.spawn(move || {
                std::thread::sleep(Duration::from_millis(900));
                second.gather(b"late").unwrap()
            });
            assert_eq!(first.gather(b"early").unwrap()[1], b"late");
            assert_eq!(busy.join().unwrap()[0], b"early");
        });
    }
}
