//! How well each class is recognised.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::Serialize;

use crate::Prediction;

/// One class on the test images.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassScore {
    /// Its name.
    pub class: String,
    /// Images of it.
    pub images: usize,
    /// Share of them that is classified rightly; none where there is no image.
    pub top1: Option<f64>,
    /// What its wrongly classified images are most often taken for, the first class among equals.
    pub taken_for: Option<String>,
    /// How many are.
    pub taken: usize,
}

/// How often each class is taken for each; what never happens takes no memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confusion {
    /// By class and predicted class.
    counts: BTreeMap<(usize, usize), usize>,
}

/// Images of one class that are taken for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Confused {
    /// Their class.
    pub label: usize,
    /// What they are taken for.
    pub predicted: usize,
    /// How many are.
    pub images: usize,
}

impl Confusion {
    /// Counts (class, predicted class).
    pub fn new(answers: impl Iterator<Item = (usize, usize)>) -> Self {
        let mut counts = BTreeMap::new();
        for answer in answers {
            *counts.entry(answer).or_default() += 1;
        }
        Self { counts }
    }

    /// What the images of class `label` are taken for, with counts above 0, by predicted class.
    pub fn row(&self, label: usize) -> impl Iterator<Item = (usize, usize)> {
        let row = self.counts.range((label, 0)..=(label, usize::MAX));
        row.map(|(&(_, predicted), &images)| (predicted, images))
    }

    /// Images of class `label`.
    pub fn images(&self, label: usize) -> usize {
        self.row(label).map(|(_, images)| images).sum()
    }

    /// Classes that are taken for others, the most frequent first, then by class.
    pub fn most_confused(&self, at_most: usize) -> Vec<Confused> {
        let pair = |(&(label, predicted), &images): (&(usize, usize), &usize)| Confused {
            label,
            predicted,
            images,
        };
        let mut found: Vec<_> = self.counts.iter().map(pair).collect();
        found.retain(|pair| pair.label != pair.predicted);
        found.sort_by_key(|pair| (Reverse(pair.images), pair.label, pair.predicted));
        found.truncate(at_most);
        found
    }

    /// The other class that images of `label` are most often taken for, the first among equals.
    pub fn taken_for(&self, label: usize) -> Option<Confused> {
        let others = self.row(label).filter(|(predicted, _)| *predicted != label);
        let most = others.min_by_key(|&(predicted, images)| (Reverse(images), predicted));
        most.map(|(predicted, images)| Confused {
            label,
            predicted,
            images,
        })
    }
}

/// Scores every class of `names`, in their order; what is of other classes is left out.
pub fn per_class(predictions: &[Prediction], names: &[String]) -> Vec<ClassScore> {
    let answers = predictions.iter().map(|p| (p.label, p.predicted));
    let confusion = Confusion::new(answers);
    let mut right = vec![0usize; names.len()];
    for p in predictions.iter().filter(|p| p.correct) {
        if let Some(right) = right.get_mut(p.label) {
            *right += 1;
        }
    }
    names
        .iter()
        .enumerate()
        .map(|(label, name)| {
            let images = confusion.images(label);
            let other = confusion.taken_for(label);
            ClassScore {
                class: name.clone(),
                images,
                top1: (images > 0).then(|| right[label] as f64 / images as f64),
                taken_for: other.and_then(|other| names.get(other.predicted).cloned()),
                taken: other.map_or(0, |other| other.images),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_images_by_hand() {
        let image = |label, predicted: usize| {
            let mut logits = [0.0f32; 3];
            logits[predicted] = 1.0;
            Prediction::new(0, label, &logits, 1.0)
        };
        let names = ["a", "b", "c"].map(String::from);
        let images = [
            image(0, 0),
            image(0, 2),
            image(0, 2),
            image(0, 1),
            image(1, 1),
        ];
        let scores = per_class(&images, &names);
        assert_eq!((scores[0].images, scores[0].top1), (4, Some(0.25)));
        assert_eq!(
            (scores[0].taken_for.as_deref(), scores[0].taken),
            (Some("c"), 2)
        );
        assert_eq!(
            (scores[1].top1, scores[1].taken_for.clone()),
            (Some(1.0), None)
        );
        assert_eq!((scores[2].images, scores[2].top1), (0, None));
    }

    #[test]
    fn the_most_frequent_confusion_comes_first() {
        let answers = [(0, 0), (0, 2), (0, 2), (0, 1), (1, 0), (2, 2)];
        let confusion = Confusion::new(answers.into_iter());
        let row: Vec<_> = confusion.row(0).collect();
        assert_eq!(row, [(0, 1), (1, 1), (2, 2)]);
        assert_eq!(confusion.images(1), 1);
        let pairs = confusion.most_confused(2).into_iter();
        let pairs: Vec<_> = pairs.map(|p| (p.label, p.predicted, p.images)).collect();
        assert_eq!(pairs, [(0, 2, 2), (0, 1, 1)]);
        assert_eq!(confusion.most_confused(9).len(), 3);
        assert_eq!(confusion.taken_for(2), None);
    }
}
