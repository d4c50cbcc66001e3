//! What is known of data sets: one TOML file each in `datasets/`.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

/// A known data set: where it comes from, how it lies on disk, and the constants of its images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Name on the command line and of its folder.
    pub name: String,
    /// Name in prose.
    pub title: String,
    /// Licence or terms, in words.
    pub licence: String,
    /// Where it is described.
    pub homepage: String,
    /// Name of the reader its files are for.
    pub reader: String,
    /// Folder inside the unpacked files that the reader opens; empty for the top.
    #[serde(default)]
    pub root: String,
    /// Number of classes.
    pub classes: usize,
    /// Number of training images.
    pub train: usize,
    /// Number of test images.
    pub test: usize,
    /// 1 (grey) or 3 (RGB).
    pub channels: usize,
    /// Height and width of the images, or of the recommended input.
    pub size: [usize; 2],
    /// Mean of each channel, bytes counted as 0…1.
    pub mean: Vec<f32>,
    /// Standard deviation of each channel.
    pub std: Vec<f32>,
    /// Whether a mirrored image still shows its class.
    pub mirror: bool,
    /// Class names, where the files do not tell them.
    #[serde(default)]
    pub class_names: Vec<String>,
    /// What to download; nothing for a set that ships with the program.
    #[serde(default)]
    pub files: Vec<RemoteFile>,
}

/// One file to download.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoteFile {
    /// Its address; the part after the last slash names the file.
    pub url: String,
    /// Its size in bytes, if known.
    #[serde(default)]
    pub bytes: Option<u64>,
    /// Its checksum, `md5:…` or `sha256:…` in hexadecimal.
    pub checksum: String,
}

impl RemoteFile {
    /// The file's name.
    pub fn name(&self) -> &str {
        self.url.rsplit('/').next().unwrap_or(&self.url)
    }

    /// Whether it is an archive to be unpacked.
    pub fn is_archive(&self) -> bool {
        [".tar.gz", ".tgz"]
            .iter()
            .any(|ending| self.name().ends_with(ending))
    }
}

macro_rules! recipes {
    ($($name:literal),* $(,)?) => {
        [$(include_str!(concat!("../../../datasets/", $name, ".toml"))),*]
    };
}

/// The files, sorted by name.
const FILES: &[&str] = &recipes![
    "cifar-10",
    "cifar-100",
    "cub-200-2011",
    "fashion-mnist",
    "fashion-mnist-mini",
    "imagenette",
    "imagenette-160",
    "imagenette-320",
    "mnist",
];

// A file that does not parse would be missing here; the tests count them.
static RECIPES: LazyLock<Vec<Recipe>> = LazyLock::new(|| {
    FILES
        .iter()
        .filter_map(|text| toml::from_str(text).ok())
        .collect()
});

/// Every known data set, sorted by name.
pub fn recipes() -> &'static [Recipe] {
    &RECIPES
}

/// The known data set called `name`.
pub fn recipe(name: &str) -> Option<&'static Recipe> {
    recipes().iter().find(|recipe| recipe.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::readers;

    #[test]
    fn every_file_parses_and_every_recipe_is_whole() {
        for text in FILES {
            toml::from_str::<Recipe>(text).unwrap();
        }
        let names: Vec<_> = recipes()
            .iter()
            .map(|recipe| recipe.name.as_str())
            .collect();
        assert!(names.is_sorted_by(|a, b| a < b), "{names:?}");
        for recipe in recipes() {
            let name = &recipe.name;
            assert!(
                readers::ALL
                    .iter()
                    .any(|reader| reader.name == recipe.reader),
                "{name}: reader"
            );
            assert_eq!(
                (recipe.mean.len(), recipe.std.len()),
                (recipe.channels, recipe.channels),
                "{name}"
            );
            assert!(
                recipe.std.iter().all(|s| *s > 0.0) && recipe.classes >= 2 && recipe.test > 0,
                "{name}"
            );
            assert!(
                recipe.class_names.is_empty() || recipe.class_names.len() == recipe.classes,
                "{name}: classes"
            );
            assert!(
                !recipe.licence.is_empty() && recipe.homepage.starts_with("http"),
                "{name}"
            );
            assert_eq!(
                recipe.files.is_empty(),
                name == readers::SHIPPED,
                "{name}: only the shipped set has no files"
            );
            for file in &recipe.files {
                let (kind, digest) = file.checksum.split_once(':').unwrap();
                assert!(
                    matches!((kind, digest.len()), ("md5", 32) | ("sha256", 64)),
                    "{name}: {}",
                    file.checksum
                );
                assert!(
                    digest
                        .bytes()
                        .all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase()),
                    "{name}"
                );
            }
        }
    }
}
