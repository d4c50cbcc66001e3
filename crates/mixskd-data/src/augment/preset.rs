//! The augmentations that suit a data set.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Augment, CentreCrop, Flip, MAX_SIZE, PadCrop, RandomResizedCrop, Resize};

/// A family of augmentations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    /// Small images, all of one size: pad and crop, flip. Evaluation uses the image as it is.
    Cifar,
    /// Photographs of any size: random resized crop, flip. Evaluation scales the shorter side to 8/7 of the input and takes the
    /// middle (256 and 224).
    ImageNet,
}

impl Preset {
    /// Augmentations for training with an input of `size × size`, from images of `natural` size. `mirror` adds the flip; sets of
    /// digits go without.
    pub fn train(
        self,
        size: usize,
        natural: (usize, usize),
        mirror: bool,
    ) -> Vec<Arc<dyn Augment>> {
        let mut ops: Vec<Arc<dyn Augment>> = match self {
            Self::Cifar => {
                let mut ops = fit(size, natural);
                // 4 pixels of 32 is the published choice; half of it for the smaller 28 of the MNIST family.
                ops.push(Arc::new(PadCrop {
                    padding: if size < 32 { 2 } else { size as u32 / 8 },
                }));
                ops
            }
            Self::ImageNet => vec![Arc::new(RandomResizedCrop {
                size,
                ..Default::default()
            })],
        };
        if mirror {
            ops.push(Arc::new(Flip::default()));
        }
        ops
    }

    /// The shorter side that evaluation scales photographs to before it takes the middle `size × size` pixels: 8/7 of `size`, rounded down, and
    /// 8,192 at most. Small images are scaled to `size`.
    ///
    /// ```
    /// use mixskd_data::Preset;
    ///
    /// assert_eq!(Preset::ImageNet.eval_shorter(224), 256);
    /// assert_eq!(Preset::Cifar.eval_shorter(32), 32);
    /// ```
    pub fn eval_shorter(self, size: usize) -> usize {
        match self {
            Self::Cifar => size,
            Self::ImageNet => (size.saturating_mul(8) / 7).min(MAX_SIZE.max(size)),
        }
    }

    /// Augmentations, none of them random, for evaluation with an input of `size × size`. Images of any size are taken.
    pub fn eval(self, size: usize, natural: (usize, usize)) -> Vec<Arc<dyn Augment>> {
        match self {
            Self::Cifar => fit(size, natural),
            Self::ImageNet => vec![
                Arc::new(Resize {
                    size: self.eval_shorter(size),
                }),
                Arc::new(CentreCrop { size }),
            ],
        }
    }
}

/// What brings images of `natural` size to `size × size`: nothing when they have it.
fn fit(size: usize, natural: (usize, usize)) -> Vec<Arc<dyn Augment>> {
    if natural == (size, size) {
        return Vec::new();
    }
    vec![Arc::new(Resize { size }), Arc::new(CentreCrop { size })]
}
