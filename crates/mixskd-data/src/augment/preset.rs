//! The augmentations that suit a data set.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Augment, CentreCrop, Flip, PadCrop, RandomResizedCrop, Resize};

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

    /// Augmentations, none of them random, for evaluation with an input of `size × size`. Images of any size are taken.
    pub fn eval(self, size: usize, natural: (usize, usize)) -> Vec<Arc<dyn Augment>> {
        match self {
            Self::Cifar => fit(size, natural),
            Self::ImageNet => vec![
                Arc::new(Resize { size: size * 8 / 7 }),
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
