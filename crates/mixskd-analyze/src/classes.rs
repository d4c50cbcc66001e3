//! How well each class is recognised.

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

/// Scores every class of `names`, in their order.
pub fn per_class(predictions: &[Prediction], names: &[String]) -> Vec<ClassScore> {
    let n = names.len();
    let mut confusion = vec![0usize; n * n];
    let mut right = vec![0usize; n];
    for p in predictions {
        if p.correct {
            right[p.label] += 1;
        }
        confusion[p.label * n + p.predicted] += 1;
    }
    names
        .iter()
        .enumerate()
        .map(|(label, name)| {
            let row = &confusion[label * n..(label + 1) * n];
            let images = row.iter().sum::<usize>();
            let other = (0..n)
                .filter(|&k| k != label)
                .fold(None, |best: Option<usize>, k| match best {
                    Some(b) if row[k] <= row[b] => best,
                    _ => Some(k),
                })
                .filter(|&k| row[k] > 0);
            ClassScore {
                class: name.clone(),
                images,
                top1: (images > 0).then(|| right[label] as f64 / images as f64),
                taken_for: other.map(|k| names[k].clone()),
                taken: other.map_or(0, |k| row[k]),
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
}
