//! What a batch holds beside one view of each of its images.

use std::collections::BTreeMap;

use rand::Rng;
use rand::seq::index;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::Samples;
use crate::loader::order::{Anchors, by_class};
use crate::rng::{Purpose, stream};

/// What a training method needs of a batch.
///
/// A batch of n images, its *anchors*, is drawn the same way whatever is needed. What is needed beside them comes on top, in
/// blocks of n rows: row `k·n + i` belongs to anchor i. So the batch size, the number of steps and the anchors of each step are
/// the same for all methods, and what a method asks for on top is part of its cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BatchNeeds {
    /// One view of each image: the anchors alone.
    #[default]
    Anchors,
    /// That many independently augmented views of each image, the first included.
    Views(usize),
    /// That many other images of each anchor's class, each augmented on its own. They are drawn without repetition where
    /// the class has enough images, otherwise with; a class of one image gives that image again.
    SameClass(usize),
}

impl BatchNeeds {
    /// Blocks of a batch, the anchors' included.
    pub fn blocks(self) -> usize {
        match self {
            Self::Anchors => 1,
            Self::Views(views) => views.max(1),
            Self::SameClass(companions) => companions.saturating_add(1),
        }
    }
}

/// Finds what belongs to an anchor. Every draw is a function of (seed, epoch, anchor).
pub(crate) struct Companions {
    needs: BatchNeeds,
    /// Indices of every class, where companions are drawn from.
    classes: BTreeMap<u32, Vec<u32>>,
    seed: u64,
}

impl Companions {
    pub(crate) fn new(needs: BatchNeeds, samples: &dyn Samples, seed: u64) -> Self {
        let classes = match needs {
            BatchNeeds::SameClass(_) => by_class(samples),
            _ => BTreeMap::new(),
        };
        Self {
            needs,
            classes,
            seed,
        }
    }

    /// The images of `anchors` and what comes on top of them, block by block.
    pub(crate) fn rows(&self, anchors: Anchors, samples: &dyn Samples, epoch: u64) -> Vec<u32> {
        let mut rows = anchors.samples.to_vec();
        match self.needs {
            BatchNeeds::Anchors => {}
            BatchNeeds::Views(_) => {
                for _ in 1..self.needs.blocks() {
                    rows.extend_from_slice(anchors.samples);
                }
            }
            BatchNeeds::SameClass(count) => {
                let of_each = anchors.samples.iter().enumerate().map(|(row, &anchor)| {
                    let class = samples.label(anchor as usize);
                    let key = anchors.key(row, samples.len());
                    let mut rng = stream(self.seed, epoch, key, Purpose::Companions);
                    self.of(anchor, class, count, &mut rng)
                });
                let of_each: Vec<Vec<u32>> = of_each.collect();
                for block in 0..count {
                    rows.extend(of_each.iter().map(|companions| companions[block]));
                }
            }
        }
        rows
    }

    /// `count` images of the anchor's class.
    fn of(&self, anchor: u32, class: u32, count: usize, rng: &mut ChaCha8Rng) -> Vec<u32> {
        let Some(class) = self.classes.get(&class) else {
            return vec![anchor; count];
        };
        let own = class.partition_point(|&index| index < anchor);
        let others = class.len() - 1;
        // The others are counted with the anchor left out.
        let other = |at: usize| class[if at >= own { at + 1 } else { at }];
        if others == 0 {
            vec![anchor; count]
        } else if others < count {
            (0..count)
                .map(|_| other(rng.random_range(0..others)))
                .collect()
        } else {
            index::sample(rng, others, count)
                .into_iter()
                .map(other)
                .collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PackedSamples;

    fn samples(labels: &[u32]) -> PackedSamples {
        PackedSamples::new((1, 1, 1), vec![0; labels.len()], labels.to_vec(), "memory").unwrap()
    }

    fn rows(needs: BatchNeeds, labels: &[u32], anchors: &[u32], epoch: u64) -> Vec<u32> {
        let samples = samples(labels);
        Companions::new(needs, &samples, 3).rows(Anchors::once(anchors), &samples, epoch)
    }

    #[test]
    fn companions_share_the_class_and_are_others() {
        let labels: Vec<u32> = (0..60).map(|i| i % 3).collect();
        let anchors = [7, 0, 59, 31];
        for epoch in 0..5 {
            let all = rows(BatchNeeds::SameClass(3), &labels, &anchors, epoch);
            assert_eq!(all[..4], anchors);
            for (i, &anchor) in anchors.iter().enumerate() {
                let mut own: Vec<u32> = (0..4).map(|block| all[block * 4 + i]).collect();
                assert!(own.iter().all(|c| c % 3 == anchor % 3), "{own:?}");
                own.sort_unstable();
                own.dedup();
                assert_eq!(own.len(), 4, "{all:?}");
            }
        }
    }

    #[test]
    fn a_companion_follows_its_anchor_not_its_batch() {
        let labels: Vec<u32> = (0..40).map(|i| i % 2).collect();
        let alone = rows(BatchNeeds::SameClass(2), &labels, &[8], 1);
        let among = rows(BatchNeeds::SameClass(2), &labels, &[3, 8], 1);
        assert_eq!([among[1], among[3], among[5]], alone[..]);
        assert_ne!(rows(BatchNeeds::SameClass(2), &labels, &[8], 2), alone);
    }

    #[test]
    fn every_other_image_of_a_class_is_drawn_about_as_often() {
        let labels = [0; 5];
        let mut seen = [0; 5];
        for epoch in 0..4000 {
            for index in &rows(BatchNeeds::SameClass(1), &labels, &[2], epoch)[1..] {
                seen[*index as usize] += 1;
            }
        }
        assert_eq!(seen[2], 0);
        for count in [seen[0], seen[1], seen[3], seen[4]] {
            assert!((900..1100).contains(&count), "{seen:?}");
        }
    }

    #[test]
    fn small_classes_repeat_images_and_a_single_one_itself() {
        let two = rows(BatchNeeds::SameClass(3), &[0, 0, 1], &[1], 0);
        assert_eq!(two, [1, 0, 0, 0]);
        assert_eq!(rows(BatchNeeds::SameClass(3), &[0, 0, 1], &[2], 0), [2; 4]);
    }

    #[test]
    fn views_repeat_the_anchors() {
        assert_eq!(
            rows(BatchNeeds::Views(2), &[0, 1, 0], &[2, 0], 0),
            [2, 0, 2, 0]
        );
        assert_eq!(rows(BatchNeeds::Anchors, &[0, 1, 0], &[2, 0], 0), [2, 0]);
        let blocks = [
            BatchNeeds::Anchors,
            BatchNeeds::Views(2),
            BatchNeeds::SameClass(3),
        ];
        assert_eq!(blocks.map(BatchNeeds::blocks), [1, 2, 4]);
    }
}
