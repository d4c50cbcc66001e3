//! What an analysis leaves in its directory.

use std::fs;
use std::path::Path;

use crate::{Analysis, Error, Result};

/// The result's file.
pub const ANALYSIS_JSON: &str = "analysis.json";
/// The page's file.
pub const ANALYSIS_HTML: &str = "analysis.html";

impl Analysis {
    /// Writes `analysis.json`, `analysis.html`, the charts and the pictures into `dir`, which is made where it is missing. Files of the
    /// same names are replaced.
    ///
    /// # Errors
    /// When something cannot be written.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let mut json = serde_json::to_vec_pretty(self).map_err(|error| Error::Encode {
            what: "the result",
            message: error.to_string(),
        })?;
        json.push(b'\n');
        write(&dir.join(ANALYSIS_JSON), &json)?;
        let figures = self.figures();
        write(&dir.join(ANALYSIS_HTML), self.html(&figures).as_bytes())?;
        for figure in &figures {
            write(&dir.join(&figure.file), figure.svg.as_bytes())?;
        }
        for picture in &self.pictures {
            let views = picture.views.iter();
            let heats = views.flat_map(|view| [Some(&view.for_predicted), view.for_class.as_ref()]);
            for file in heats.flatten().chain([&picture.input]) {
                write(&dir.join(&file.file), &file.bytes)?;
            }
        }
        Ok(())
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let fail = |action| {
        move |source| Error::File {
            path: path.to_path_buf(),
            action,
            source,
        }
    };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(fail("make its folder"))?;
    }
    fs::write(path, bytes).map_err(fail("write"))
}
