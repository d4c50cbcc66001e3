//! Which images, in which order.

use std::sync::Arc;

use mixskd_data::rng::{Purpose, stream};
use mixskd_data::{Image, ImageView, Loader, LoaderConfig, Pipeline, Samples};
use rand::seq::SliceRandom;

use crate::Result;

/// Some samples of a set, in an order of their own.
pub(crate) struct Selected {
    samples: Arc<dyn Samples>,
    order: Vec<usize>,
}

/// Which images of a set an order is drawn for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Split {
    Test = 0,
    Train = 1,
}

impl Selected {
    /// At most `limit` of `samples` (0: all), in an order that `seed` draws: data sets stand sorted by class, and neither halves nor
    /// neighbours of a sorted set are what a measure wants.
    pub(crate) fn draw(
        samples: &Arc<dyn Samples>,
        limit: usize,
        seed: u64,
        split: Split,
    ) -> Arc<Self> {
        let mut order = (0..samples.len()).collect::<Vec<_>>();
        order.shuffle(&mut stream(seed, 0, split as u64, Purpose::Analysis));
        if limit > 0 {
            order.truncate(limit);
        }
        Arc::new(Self {
            samples: Arc::clone(samples),
            order,
        })
    }

    /// Index in the whole set of the image at `position`.
    pub(crate) fn original(&self, position: usize) -> usize {
        self.order[position]
    }

    /// Batches of them, in order.
    pub(crate) fn loader(self: &Arc<Self>, pipeline: Pipeline, batch: usize) -> Result<Loader> {
        let config = LoaderConfig {
            batch,
            shuffle: false,
            drop_last: false,
            ..LoaderConfig::default()
        };
        let samples: Arc<dyn Samples> = Arc::clone(self) as _;
        Ok(Loader::new(samples, pipeline, config)?)
    }
}

impl Samples for Selected {
    fn len(&self) -> usize {
        self.order.len()
    }

    fn label(&self, index: usize) -> u32 {
        self.samples.label(self.order[index])
    }

    fn image(&self, index: usize) -> mixskd_data::Result<Image> {
        self.samples.image(self.order[index])
    }

    fn view(&self, index: usize) -> Option<ImageView<'_>> {
        self.samples.view(self.order[index])
    }

    fn origin(&self, index: usize) -> String {
        self.samples.origin(self.order[index])
    }
}

#[cfg(test)]
mod tests {
    use mixskd_data::PackedSamples;

    use super::*;

    #[test]
    fn a_limit_takes_the_first_of_the_drawn_order() {
        let labels = (0..50).collect::<Vec<u32>>();
        let samples: Arc<dyn Samples> =
            Arc::new(PackedSamples::new((1, 1, 1), vec![0; 50], labels, "x").unwrap());
        let all = Selected::draw(&samples, 0, 3, Split::Test);
        let some = Selected::draw(&samples, 7, 3, Split::Test);
        let labels = |s: &Selected| (0..s.len()).map(|i| s.label(i)).collect::<Vec<_>>();
        let mut sorted = labels(&all);
        assert_eq!(labels(&some), sorted[..7]);
        assert_ne!(
            labels(&Selected::draw(&samples, 0, 3, Split::Train)),
            sorted
        );
        sorted.sort_unstable();
        assert_eq!(sorted, (0..50).collect::<Vec<u32>>());
        assert_eq!(some.label(2) as usize, some.original(2));
    }
}
