//! Files of a run directory that reports read and write.

use std::io::Write as _;
use std::path::Path;

use mixskd_train::EpochRecord;
use mixskd_train::names::METRICS_JSONL;

use crate::{Error, Result};

/// The text of the file `path`; nothing where it is not there.
pub(crate) fn read_text(path: &Path) -> Result<Option<String>> {
    use std::io::ErrorKind;
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == ErrorKind::InvalidData => Err(Error::Damaged {
            path: path.to_path_buf(),
            message: "is no text".into(),
        }),
        Err(error) => Err(Error::file(path, "read")(error)),
    }
}

/// Every finished epoch of the run in `dir`; none where nothing is written yet.
///
/// A last line that is not whole, of a process that was killed while it wrote, is left out.
///
/// # Errors
/// When the file cannot be read, or another line is no record.
pub fn read_records(dir: &Path) -> Result<Vec<EpochRecord>> {
    let path = dir.join(METRICS_JSONL);
    let text = read_text(&path)?.unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole
        .lines()
        .enumerate()
        .map(|(at, line)| {
            serde_json::from_str(line).map_err(|error| Error::Damaged {
                path: path.clone(),
                message: format!("line {}: {error}", at + 1),
            })
        })
        .collect()
}

/// Writes `data` beside `path` and renames it into place, so that a reader finds all of it or none.
pub(crate) fn write(path: &Path, data: &[u8]) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.tmp", std::process::id()));
    let aside = path.with_file_name(name);
    let written = std::fs::File::create(&aside)
        .and_then(|mut file| file.write_all(data))
        .and_then(|()| std::fs::rename(&aside, path));
    written.map_err(|error| {
        // Of what could not be finished nothing is to remain.
        let _ = std::fs::remove_file(&aside);
        Error::file(path, "write")(error)
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use mixskd_train::HeadScore;

    use super::*;

    pub(crate) fn record(epoch: usize) -> EpochRecord {
        let head = |name: &str, top1| HeadScore {
            name: name.into(),
            top1,
            top5: 1.0,
            balanced: Some(top1),
            loss: 0.5,
        };
        EpochRecord {
            epoch,
            lr: 0.1,
            loss: 2.5,
            terms: BTreeMap::from([("task_mix".into(), 2.0), ("feature".into(), 0.25)]),
            train_top1: 0.5,
            top1: 0.75,
            top5: 1.0,
            test_loss: 0.5,
            heads: vec![head("backbone", 0.75), head("branch 1", 0.625)],
            samples_per_s: 300.0,
            seconds: 12.5,
            peak_memory_bytes: None,
            gpu_memory_bytes: None,
        }
    }

    #[test]
    fn a_torn_last_line_is_left_out_and_any_other_is_told() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read_records(dir.path()).unwrap().is_empty());
        let line = serde_json::to_string(&record(1)).unwrap();
        let path = dir.path().join(METRICS_JSONL);
        std::fs::write(&path, format!("{line}\n{}", &line[..20])).unwrap();
        assert_eq!(read_records(dir.path()).unwrap(), [record(1)]);
        std::fs::write(&path, format!("{line}\n{}\n{line}\n", &line[..20])).unwrap();
        let error = read_records(dir.path()).unwrap_err().to_string();
        assert!(error.contains("line 2"), "{error}");
    }

    #[test]
    fn a_file_that_cannot_be_finished_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let taken = dir.path().join("a.csv");
        std::fs::create_dir_all(taken.join("inside")).unwrap();
        assert!(write(&taken, b"x").is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
