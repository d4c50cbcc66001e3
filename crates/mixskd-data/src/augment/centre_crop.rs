//! The middle of the image.

use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::{Augment, Canvas, Entry, Validate, build, defaults};
use crate::Result;

/// Keeps the `size × size` pixels in the middle; a smaller image gets black borders.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CentreCrop {
    /// Side of the result in pixels.
    pub size: usize,
}

impl Default for CentreCrop {
    fn default() -> Self {
        Self { size: 224 }
    }
}

pub(super) const ENTRY: Entry = Entry {
    name: "centre_crop",
    summary: "keep the size × size pixels in the middle",
    defaults: defaults::<CentreCrop>,
    build: build::<CentreCrop>,
};

impl Validate for CentreCrop {
    fn validate(&self) -> std::result::Result<(), String> {
        if (1..=8192).contains(&self.size) {
            Ok(())
        } else {
            Err(format!(
                "size must be between 1 and 8192, got {}",
                self.size
            ))
        }
    }
}

/// Where the middle `size` of `side` pixels begin; an odd half goes to the even neighbour, as torchvision rounds it.
fn start(side: usize, size: usize) -> i64 {
    let twice = side as i64 - size as i64;
    let half = twice.div_euclid(2);
    if twice % 2 != 0 && half % 2 != 0 {
        half + 1
    } else {
        half
    }
}

impl Augment for CentreCrop {
    fn moves_only(&self) -> bool {
        true
    }

    fn apply(&self, canvas: &mut Canvas<'_>, _rng: &mut ChaCha8Rng) -> Result<()> {
        let (top, left) = (
            start(canvas.height(), self.size),
            start(canvas.width(), self.size),
        );
        canvas.crop(top, left, self.size, self.size);
        Ok(())
    }

    fn size(&self, _size: Option<(usize, usize)>) -> Option<(usize, usize)> {
        Some((self.size, self.size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_are_pythons_round_half_to_even() {
        // Python: int(round((side - 224) / 2.0)).
        for (side, expected) in [(224, 0), (225, 0), (227, 2), (229, 2), (256, 16), (231, 4)] {
            assert_eq!(start(side, 224), expected, "{side}");
        }
    }
}
