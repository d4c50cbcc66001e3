//! Images that are there more than once.

use std::collections::HashMap;
use std::fs::File;
use std::io;

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::{Dataset, Samples};

/// Images of a data set that are there more than once, byte for byte: as files, or as pixels where they lie in memory. The same picture saved anew or at another
/// size is another one here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Duplicates {
    /// Test images that are training images, too, as the same class or as another: index of the test image, index of the first training image like it.
    pub leaked: Vec<(usize, usize)>,
    /// Test images that are there before as test images, as the same class or as another: index of the image, index of the first like it.
    pub tested_twice: Vec<(usize, usize)>,
    /// Training images that are there before as another class: index of the image, index of the first like it.
    pub contradicting: Vec<(usize, usize)>,
    /// Training images that are there before as the same class: index of the image, index of the first like it.
    pub repeated: Vec<(usize, usize)>,
}

impl Duplicates {
    /// Of what there is to warn, a line each.
    pub fn notes(&self, dataset: &Dataset) -> Vec<String> {
        let (train, test) = (dataset.train.as_ref(), dataset.test.as_ref());
        let other =
            |&&(tested, trained): &&(usize, usize)| test.label(tested) != train.label(trained);
        let others = match self.leaked.iter().filter(other).count() {
            0 => String::new(),
            count => format!(", {count} of them as another class"),
        };
        let leaked = format!("for training, too{others}");
        let notes = [
            note(
                &self.leaked,
                ("test", test),
                train,
                &leaked,
                ": accuracy on what was learnt by heart says nothing; remove one of each pair",
            ),
            note(
                &self.contradicting,
                ("training", train),
                train,
                "as another class, too",
                ": no network can learn both",
            ),
            note(
                &self.repeated,
                ("training", train),
                train,
                "more than once",
                "",
            ),
            note(
                &self.tested_twice,
                ("test", test),
                test,
                "for testing before",
                "",
            ),
        ];
        notes.into_iter().flatten().collect()
    }
}

/// How many images of `side` are there again, with the first pair of them, whose other one is of `others`; nothing where none are.
fn note(
    found: &[(usize, usize)],
    (name, side): (&str, &dyn Samples),
    others: &dyn Samples,
    there: &str,
    end: &str,
) -> Option<String> {
    let &(one, other) = found.first()?;
    let count = match found.len() {
        1 => format!("1 {name} image is"),
        many => format!("{many} {name} images are"),
    };
    let (one, other) = (side.origin(one), others.origin(other));
    Some(format!("{count} there {there} ({one} is {other}){end}"))
}

impl Dataset {
    /// Looks for images that are there more than once. Files are read where their length is another's, too; those that cannot be read are left out,
    /// as are images that are neither files nor in memory. `None` where more than `most` bytes would have to be read for it.
    ///
    /// ```
    /// use mixskd_data::DataConfig;
    ///
    /// let dataset = DataConfig::default().open()?;
    /// let found = dataset.duplicates(u64::MAX).unwrap();
    /// assert!(found.leaked.is_empty());
    /// # Ok::<(), mixskd_data::Error>(())
    /// ```
    pub fn duplicates(&self, most: u64) -> Option<Duplicates> {
        let sides = [&self.train, &self.test];
        let lengths = sides.map(|side| lengths(side.as_ref()));
        let mut shared: HashMap<u64, usize> = HashMap::new();
        for length in lengths.iter().flatten().flatten() {
            *shared.entry(*length).or_default() += 1;
        }
        let is_shared = |length: &u64| shared.get(length).is_some_and(|&count| count > 1);
        let bytes = lengths.iter().flatten().flatten().filter(|l| is_shared(l));
        if bytes.fold(0u64, |sum, length| sum.saturating_add(*length)) > most {
            return None;
        }
        let [train, test] = [0, 1].map(|side| -> Vec<Option<[u8; 32]>> {
            let lengths = lengths[side].par_iter().enumerate();
            let digest = |(index, length): (usize, &Option<u64>)| {
                length.filter(is_shared)?;
                digest(sides[side].as_ref(), index)
            };
            lengths.map(digest).collect()
        });
        let mut found = Duplicates::default();
        let mut first = HashMap::new();
        for (index, digest) in train.iter().enumerate() {
            let Some(digest) = digest else { continue };
            let earlier = *first.entry(*digest).or_insert(index);
            if earlier == index {
                continue;
            }
            if self.train.label(earlier) == self.train.label(index) {
                found.repeated.push((index, earlier));
            } else {
                found.contradicting.push((index, earlier));
            }
        }
        let mut tested = HashMap::new();
        for (index, digest) in test.iter().enumerate() {
            let Some(digest) = digest else { continue };
            if let Some(&trained) = first.get(digest) {
                found.leaked.push((index, trained));
            }
            let earlier = *tested.entry(*digest).or_insert(index);
            if earlier != index {
                found.tested_twice.push((index, earlier));
            }
        }
        Some(found)
    }
}

/// Bytes of each image, where it has any to compare.
fn lengths(samples: &dyn Samples) -> Vec<Option<u64>> {
    let length = |index| match samples.view(index) {
        Some(view) => Some(view.pixels.len() as u64),
        None => Some(samples.path(index)?.metadata().ok()?.len()),
    };
    // Empty files are no images, and so not the same one.
    let some = |index| length(index).filter(|&length| length > 0);
    (0..samples.len()).into_par_iter().map(some).collect()
}

fn digest(samples: &dyn Samples, index: usize) -> Option<[u8; 32]> {
    let mut hash = Sha256::new();
    if let Some(view) = samples.view(index) {
        hash.update(view.pixels);
    } else {
        let mut file = File::open(samples.path(index)?).ok()?;
        io::copy(&mut file, &mut hash).ok()?;
    }
    Some(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use super::*;
    use crate::{FileSamples, PackedSamples};

    fn dataset(train: impl Samples + 'static, test: impl Samples + 'static) -> Dataset {
        let classes = vec!["a".to_string(), "b".to_string()];
        Dataset::new("made", classes, 1, (1, 2), Arc::new(train), Arc::new(test))
    }

    #[test]
    fn pixels_that_are_there_again_are_found() {
        let packed = |pixels: &[[u8; 2]], labels: &[u32]| {
            PackedSamples::new((1, 2, 1), pixels.concat(), labels.to_vec(), "x").unwrap()
        };
        let train = packed(&[[1, 2], [3, 4], [1, 2], [3, 4], [2, 1]], &[0, 0, 0, 1, 0]);
        let test = packed(&[[9, 9], [3, 4], [9, 9]], &[0, 0, 1]);
        let dataset = dataset(train, test);
        let found = dataset.duplicates(16).unwrap();
        let wanted = Duplicates {
            leaked: vec![(1, 1)],
            tested_twice: vec![(2, 0)],
            contradicting: vec![(3, 1)],
            repeated: vec![(2, 0)],
        };
        assert_eq!(found, wanted);
        assert_eq!(dataset.duplicates(15), None);
        let notes = found.notes(&dataset).join("\n");
        for told in [
            "1 test image is",
            "x record 1",
            "1 training image is there as another class",
            "x record 3",
            "1 training image is there more than once",
            "1 test image is there for testing before",
        ] {
            assert!(notes.contains(told), "{notes}");
        }
    }

    #[test]
    fn files_are_read_where_their_lengths_agree() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        };
        let train = vec![
            (file("1", b"same"), 0),
            (file("2", b"else"), 1),
            (file("3", b"longer"), 1),
        ];
        let test = vec![
            (file("6", b""), 0),
            (file("7", b""), 0),
            (file("4", b"diff"), 0),
            (file("5", b"same"), 1),
            (PathBuf::from("gone"), 0),
        ];
        let dataset = dataset(FileSamples::new(train, 1), FileSamples::new(test, 1));
        // The longer one is not read.
        let found = dataset.duplicates(16).unwrap();
        assert_eq!(found.leaked, [(3, 0)]);
        let notes = found.notes(&dataset).join("\n");
        assert!(
            notes.contains("too, 1 of them as another class ("),
            "{notes}"
        );
        assert!(found.tested_twice.is_empty());
        assert!(found.repeated.is_empty() && found.contradicting.is_empty());
        assert_eq!(dataset.duplicates(15), None);
    }
}
