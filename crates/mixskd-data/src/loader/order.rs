//! The order in which an epoch takes the samples.

use std::collections::BTreeMap;

use rand::seq::{SliceRandom, index};
use rand_chacha::ChaCha8Rng;

use crate::Samples;

/// Which sample is taken at each place of an epoch.
pub(super) struct Order {
    samples: Vec<u32>,
    /// How often the sample of each place is taken at others that count as earlier; empty where none is taken twice.
    again: Vec<u32>,
}

impl Order {
    /// No sample at all.
    pub(super) fn empty() -> Self {
        Self {
            samples: Vec::new(),
            again: Vec::new(),
        }
    }

    /// Every sample once, as they are numbered.
    pub(super) fn numbered(len: usize) -> Self {
        Self {
            samples: (0..len as u32).collect(),
            again: Vec::new(),
        }
    }

    /// Every sample once.
    pub(super) fn shuffled(len: usize, rng: &mut ChaCha8Rng) -> Self {
        let mut order = Self::numbered(len);
        order.samples.shuffle(rng);
        order
    }

    /// As many places as there are samples, each of `classes` having a share of them by its number of samples to the power of `1 − strength`: with 1 as many as
    /// any other. A class of more places than samples has each of them again, none more than once more than another; of a class of fewer, others are left out in
    /// every epoch. What is left after rounding down goes to classes that are drawn.
    pub(super) fn balanced(classes: &[Vec<u32>], strength: f64, rng: &mut ChaCha8Rng) -> Self {
        let len: usize = classes.iter().map(Vec::len).sum();
        let weight = |class: &Vec<u32>| (class.len() as f64).powf(1.0 - strength);
        let all: f64 = classes.iter().map(weight).sum();
        // A hair more, so that what is a whole number is not rounded below it.
        let share = |class| (len as f64 * weight(class) / all + 1e-9).floor() as usize;
        let mut places: Vec<usize> = classes.iter().map(share).collect();
        let left = len.saturating_sub(places.iter().sum());
        for class in index::sample(rng, classes.len(), left.min(classes.len())) {
            places[class] += 1;
        }
        let mut drawn = Vec::with_capacity(len);
        for (class, places) in classes.iter().zip(places) {
            let (mut left, mut again) = (places, 0);
            while left > 0 && !class.is_empty() {
                let taken = left.min(class.len());
                let round = index::sample(rng, class.len(), taken).into_iter();
                drawn.extend(round.map(|at| (class[at], again)));
                (left, again) = (left - taken, again + 1);
            }
        }
        drawn.shuffle(rng);
        let (samples, again) = drawn.into_iter().unzip();
        Self { samples, again }
    }

    /// What is taken at places `first` to `first + count`, or to the end.
    pub(super) fn anchors(&self, first: usize, count: usize) -> Anchors<'_> {
        let part = |all| -> &[u32] {
            let all: &[u32] = all;
            &all[first.min(all.len())..all.len().min(first + count)]
        };
        Anchors {
            samples: part(&self.samples),
            again: part(&self.again),
        }
    }
}

/// The samples that one batch is made for.
#[derive(Clone, Copy)]
pub(crate) struct Anchors<'a> {
    pub(crate) samples: &'a [u32],
    again: &'a [u32],
}

impl Anchors<'_> {
    /// Samples of which none is taken twice in an epoch.
    #[cfg(test)]
    pub(crate) fn once(samples: &[u32]) -> Anchors<'_> {
        let again = &[];
        Anchors { samples, again }
    }

    /// What draws for the anchor at `row` are made by, of `len` samples: its number, and others where it is taken again, so that it is augmented otherwise.
    pub(crate) fn key(self, row: usize, len: usize) -> u64 {
        let again = self.again.get(row).copied().unwrap_or(0);
        u64::from(self.samples[row]) + u64::from(again) * len as u64
    }
}

/// The samples of each class that has any, in their order.
pub(crate) fn by_class(samples: &dyn Samples) -> BTreeMap<u32, Vec<u32>> {
    let mut classes: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for at in 0..samples.len() {
        classes
            .entry(samples.label(at))
            .or_default()
            .push(at as u32);
    }
    classes
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::rng::{Purpose, stream};

    fn rng(epoch: u64) -> ChaCha8Rng {
        stream(7, epoch, 0, Purpose::Shuffle)
    }

    #[test]
    fn balanced_classes_have_as_many_places() {
        // Of 20, 3 and 1: 24 places, 8 each.
        let classes = [(0..20).collect(), vec![20, 21, 22], vec![23]];
        let mut left_out = [false; 20];
        for epoch in 0..20 {
            let order = Order::balanced(&classes, 1.0, &mut rng(epoch));
            assert_eq!(order.samples.len(), 24);
            let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
            for &sample in &order.samples {
                *counts.entry(sample).or_default() += 1;
            }
            let of = |class: &Vec<u32>| -> Vec<usize> {
                let count = |sample| counts.get(sample).copied().unwrap_or(0);
                class.iter().map(count).collect()
            };
            for class in &classes {
                assert_eq!(of(class).iter().sum::<usize>(), 8);
            }
            assert!(of(&classes[0]).iter().all(|&count| count <= 1));
            assert!(of(&classes[1]).iter().all(|count| (2..=3).contains(count)));
            for (out, count) in left_out.iter_mut().zip(of(&classes[0])) {
                *out |= count == 0;
            }
            // Each has draws of its own, wherever it is taken again.
            let all = order.anchors(0, 24);
            let keys: std::collections::BTreeSet<u64> =
                (0..24).map(|row| all.key(row, 24)).collect();
            assert_eq!(keys.len(), 24);
            // Not class after class.
            assert!(order.samples[..8].iter().any(|&s| s >= 20));
            assert_ne!(
                order.samples,
                Order::balanced(&classes, 1.0, &mut rng(epoch + 1)).samples
            );
        }
        // No image of a large class is left out for ever, or never.
        assert!(left_out.iter().all(|out| *out));
    }

    #[test]
    fn a_remainder_goes_to_other_classes_each_time() {
        // 5 places for two classes.
        let classes = [vec![0, 1, 2], vec![3, 4]];
        let first = |epoch| {
            let order = Order::balanced(&classes, 1.0, &mut rng(epoch));
            order.samples.iter().filter(|&&s| s < 3).count()
        };
        let counts: Vec<_> = (0..20).map(first).collect();
        assert!(counts.contains(&2) && counts.contains(&3), "{counts:?}");
    }

    #[test]
    fn between_the_two_lies_the_square_root() {
        // 4 : 1 by number, 2 : 1 by their square roots: of 125 places 83 or 84.
        let classes = [(0..100).collect(), (100..125).collect()];
        let of_first = |strength| {
            let order = Order::balanced(&classes, strength, &mut rng(0));
            assert_eq!(order.samples.len(), 125);
            order.samples.iter().filter(|&&s| s < 100).count()
        };
        assert_eq!(of_first(0.0), 100);
        assert!((83..=84).contains(&of_first(0.5)));
        assert!((62..=63).contains(&of_first(1.0)));
    }

    #[test]
    fn without_repetition_keys_are_numbers() {
        let order = Order::shuffled(9, &mut rng(0));
        let anchors = order.anchors(6, 6);
        assert_eq!(anchors.samples.len(), 3);
        for row in 0..3 {
            assert_eq!(anchors.key(row, 9), u64::from(anchors.samples[row]));
        }
    }
}
