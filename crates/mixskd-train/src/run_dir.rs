//! The directory of one run.
//!
//! ```text
//! config.toml         the resolved configuration
//! metrics.jsonl       one object an epoch
//! model.safetensors   the backbone alone, float32, after the last finished epoch
//! report.json         the result, once the run is done
//! checkpoints/        epoch-NNNN.safetensors after epoch N, epoch-NNNN-step-SSSSSS.safetensors S steps later; the newest few.
//!                     ….damaged: those that could not be read
//! earlier-N/          what was there when the run had to begin anew for want of a checkpoint
//! lock                held while a process works here
//! ```

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use candle_core::Device;

use crate::checkpoint::Checkpoint;
use crate::checkpoint_name::{CheckpointName, checkpoints_in};
use crate::error::word;
use crate::to_host::ToHost;
use crate::{EpochRecord, Error, Report, Result, TrainConfig, files, names};

/// A run directory that this process holds.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    /// None where another process writes here.
    lock: Option<File>,
    /// A checkpoint on its way to the disk.
    writing: Mutex<Option<Writing>>,
}

/// Checkpoints that cannot be used, each with its fault.
pub(crate) type Damaged = Vec<(PathBuf, Error)>;

/// A thread that writes.
type Writing = JoinHandle<Result<()>>;

impl RunDir {
    /// Whether a run can be begun in `path`. Writes nothing.
    ///
    /// # Errors
    /// When it exists and holds more than the beginnings of a run that finished no epoch.
    pub fn check_free(path: &Path) -> Result<()> {
        if path.is_file() {
            return Err(Error::RunDir {
                path: path.to_path_buf(),
                message: "is a file; nothing was written".into(),
                hint: Some("name a directory with --out".into()),
            });
        }
        if is_occupied(path) {
            let another = "name another directory with --out";
            let is_run = path.join(names::CONFIG_TOML).is_file() && path.join(names::LOCK).exists();
            return Err(Error::RunDir {
                path: path.to_path_buf(),
                message: "already exists and is not empty; nothing was written".into(),
                hint: Some(if is_run {
                    format!("{another}, or go on with --resume {}", word(path))
                } else {
                    another.into()
                }),
            });
        }
        Ok(())
    }

    /// Makes a new run directory and writes the configuration into it.
    ///
    /// # Errors
    /// As [`Self::check_free`], and when it cannot be made.
    pub fn create(path: &Path, config: &TrainConfig) -> Result<Self> {
        Self::check_free(path)?;
        let checkpoints = path.join(names::CHECKPOINTS);
        std::fs::create_dir_all(&checkpoints).map_err(Error::file(&checkpoints, "create"))?;
        if let Some(parent) = path.parent() {
            files::sync_dir(parent);
        }
        let run = Self::hold(path)?;
        run.set_config(config)?;
        Ok(run)
    }

    /// Opens the directory of an earlier run, and reads its configuration.
    ///
    /// # Errors
    /// When it is no run directory, or another process works in it.
    pub fn open(path: &Path) -> Result<(Self, TrainConfig)> {
        let config = path.join(names::CONFIG_TOML);
        if !config.is_file() {
            return Err(Error::RunDir {
                path: path.to_path_buf(),
                message: "is no run directory: it holds no config.toml".into(),
                hint: Some(
                    "name the directory that `mixskd train` wrote, such as runs/001-…".into(),
                ),
            });
        }
        let run = Self::hold(path)?;
        // A run may have been brought here without its checkpoints, which are most of its bytes.
        let checkpoints = path.join(names::CHECKPOINTS);
        std::fs::create_dir_all(&checkpoints).map_err(Error::file(&checkpoints, "create"))?;
        Ok((run, TrainConfig::from_file(&config)?))
    }

    /// Replaces its configuration, for the next that goes on with it.
    ///
    /// # Errors
    /// When it cannot be written: the one before stays.
    pub fn set_config(&self, config: &TrainConfig) -> Result<()> {
        let text = config.to_toml()?;
        files::write_atomically(&self.path.join(names::CONFIG_TOML), text.as_bytes())
    }

    /// The directory as the other processes of a distributed run know it: the first one holds it, and nothing is read or written through this.
    pub fn of_first(path: &Path) -> Self {
        Self {
            path: path.to_path_buf(),
            lock: None,
            writing: Mutex::default(),
        }
    }

    /// [`Self::open`] for every process of a distributed run: those that by the launcher's variables are not the first read the
    /// configuration and no more ([`Self::of_first`]).
    ///
    /// # Errors
    /// As [`Self::open`], and when the variables make no sense.
    pub fn open_together(path: &Path) -> Result<(Self, TrainConfig)> {
        let file = path.join(names::CONFIG_TOML);
        if file.is_file() {
            let config = TrainConfig::from_file(&file)?;
            if !config.distribution.place()?.is_first() {
                return Ok((Self::of_first(path), config));
            }
        }
        Self::open(path)
    }

    /// Whether this process holds it.
    pub(crate) fn is_held(&self) -> bool {
        self.lock.is_some()
    }

    /// Takes the directory for this process, and clears away what one that died in it was writing.
    fn hold(path: &Path) -> Result<Self> {
        let lock = lock(path)?;
        files::remove_unfinished(path);
        files::remove_unfinished(&path.join(names::CHECKPOINTS));
        Ok(Self {
            path: path.to_path_buf(),
            lock: Some(lock),
            writing: Mutex::default(),
        })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the backbone's weights are written.
    pub fn weights(&self) -> PathBuf {
        self.path.join(names::MODEL_SAFETENSORS)
    }

    /// Makes the names in it durable.
    pub(crate) fn sync(&self) {
        files::sync_dir(&self.path);
    }

    pub(crate) fn metrics_path(&self) -> PathBuf {
        self.path.join(names::METRICS_JSONL)
    }

    /// Adds one line to `metrics.jsonl`.
    pub(crate) fn append(&self, record: &EpochRecord) -> Result<()> {
        if !self.is_held() {
            return Ok(());
        }
        let path = self.metrics_path();
        let mut line =
            serde_json::to_string(record).map_err(|e| Error::Internal(format!("metrics: {e}")))?;
        line.push('\n');
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(Error::file(&path, "open"))?;
        let length = file
            .metadata()
            .map_err(Error::file(&path, "look at"))?
            .len();
        let written = file
            .write_all(line.as_bytes())
            .and_then(|()| file.sync_data());
        if written.is_err() {
            // Half a line is worse than none; if this fails too, the next `--resume` cuts it off.
            let _ = file.set_len(length);
        }
        written.map_err(Error::file(&path, "write"))
    }

    /// The records of the first `epochs` epochs; later lines, of epochs whose checkpoint was never written, are dropped.
    pub(crate) fn records(&self, epochs: usize) -> Result<Vec<EpochRecord>> {
        let path = self.metrics_path();
        if epochs == 0 && !path.exists() {
            return Ok(Vec::new());
        }
        let text = std::fs::read_to_string(&path).map_err(Error::file(&path, "read"))?;
        let damaged = |message: String| Error::Records {
            path: path.clone(),
            message,
        };
        let lines = text.lines().take(epochs).collect::<Vec<_>>();
        let records = lines
            .iter()
            .enumerate()
            .map(|(k, line)| {
                serde_json::from_str(line).map_err(|e| damaged(format!("line {}: {e}", k + 1)))
            })
            .collect::<Result<Vec<_>>>()?;
        if records.len() < epochs {
            return Err(damaged(format!(
                "holds {} epochs, the checkpoint {epochs}",
                records.len()
            )));
        }
        let kept = lines
            .iter()
            .flat_map(|line| [*line, "\n"])
            .collect::<String>();
        if kept != text {
            files::write_atomically(&path, kept.as_bytes())?;
        }
        Ok(records)
    }

    /// Writes the final report.
    pub(crate) fn write_report(&self, report: &Report) -> Result<()> {
        if !self.is_held() {
            return Ok(());
        }
        let text = serde_json::to_string_pretty(report)
            .map_err(|e| Error::Internal(format!("report: {e}")))?;
        files::write_atomically(
            &self.path.join(names::REPORT_JSON),
            format!("{text}\n").as_bytes(),
        )
    }

    /// Has a checkpoint written as things stand now, and all but the newest `keep` removed, while the run goes on: hashing and a disk take as long as many a
    /// step. `to_host` brings it out of a GPU's memory. One at a time; whoever needs it on the disk [settles](Self::settle). What went wrong is told by the next call of any of these.
    pub(crate) fn begin_checkpoint(
        &self,
        checkpoint: &Checkpoint,
        to_host: &ToHost,
        keep: usize,
    ) -> Result<()> {
        self.settle()?;
        let frozen = checkpoint.freeze(to_host)?;
        let dir = self.path.join(names::CHECKPOINTS);
        let path = dir.join(CheckpointName::of(checkpoint).to_string());
        let write = move || {
            frozen.save(&path)?;
            for old in checkpoints_in(&dir)?.iter().rev().skip(keep) {
                std::fs::remove_file(old).map_err(Error::file(old, "remove"))?;
            }
            Ok(())
        };
        let thread = std::thread::Builder::new().name("checkpoint".into());
        let begun = thread.spawn(write);
        let begun = begun.map_err(Error::file(&self.path, "begin a thread that writes"))?;
        *self.writing() = Some(begun);
        Ok(())
    }

    /// Waits until the checkpoint that was begun is on the disk.
    pub(crate) fn settle(&self) -> Result<()> {
        match self.writing().take() {
            Some(writing) => self.written(writing),
            None => Ok(()),
        }
    }

    /// The same where that needs no waiting.
    pub(crate) fn glance(&self) -> Result<()> {
        let mut writing = self.writing();
        match writing.take_if(|writing| writing.is_finished()) {
            Some(writing) => self.written(writing),
            None => Ok(()),
        }
    }

    /// What came of writing.
    fn written(&self, writing: Writing) -> Result<()> {
        writing.join().unwrap_or_else(|_| {
            let panic = std::io::Error::other("the thread that wrote a checkpoint panicked");
            Err(Error::file(&self.path, "write into")(panic))
        })
    }

    fn writing(&self) -> MutexGuard<'_, Option<Writing>> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the run came to its end.
    pub(crate) fn is_finished(&self) -> bool {
        self.path.join(names::REPORT_JSON).exists()
    }

    /// Whether something of a run lies here that a new one would write over.
    pub(crate) fn has_results(&self) -> bool {
        let length = |name: &String| {
            let file = std::fs::metadata(self.path.join(name));
            file.map_or(0, |file| file.len())
        };
        let counts = |name: &String| is_result(name) && !name.starts_with(names::EVENTS);
        names_in(&self.path)
            .iter()
            .any(|name| counts(name) && length(name) > 0)
    }

    /// Whether a process has begun to train here.
    pub(crate) fn was_begun(&self) -> bool {
        self.path.join(names::RUN_JSON).exists()
    }

    /// Moves what a run writes, but for its beginnings and its checkpoints, into a folder of its own, `earlier-N`, and gives
    /// that: the run begins anew, and nothing of it is written over. What else lies here stays.
    pub(crate) fn set_aside(&self) -> Result<PathBuf> {
        let folder = |number: u32| self.path.join(format!("earlier-{number}"));
        let mut number = 1;
        while folder(number).exists() {
            number += 1;
        }
        let aside = folder(number);
        std::fs::create_dir(&aside).map_err(Error::file(&aside, "create"))?;
        for name in names_in(&self.path)
            .iter()
            .filter(|name| is_result(name.as_str()))
        {
            let from = self.path.join(name);
            std::fs::rename(&from, aside.join(name)).map_err(Error::file(&from, "move"))?;
        }
        files::sync_dir(&aside);
        files::sync_dir(&self.path);
        Ok(aside)
    }

    /// Before the first step: what was left to the data is settled in the configuration, and the result of a run that goes on from before its end is no
    /// longer one.
    pub(crate) fn settle_beginning(&self, config: &TrainConfig, epochs_done: usize) -> Result<()> {
        if !self.is_held() {
            return Ok(());
        }
        let noted = TrainConfig::from_file(&self.path.join(names::CONFIG_TOML))?;
        if noted.model.is_auto() {
            self.set_config(config)?;
        }
        if epochs_done >= config.run.epochs {
            return Ok(());
        }
        let path = self.path.join(names::REPORT_JSON);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::file(&path, "remove")(error))
            }
            _ => Ok(()),
        }
    }

    /// The error as it is, or that the directory is gone, where that is why.
    pub(crate) fn explain(&self, error: Error) -> Error {
        if self.is_held()
            && matches!(
                error,
                Error::File { .. } | Error::Model(mixskd_models::Error::File { .. })
            )
            && !self.path.is_dir()
        {
            return Error::Gone {
                path: self.path.clone(),
            };
        }
        error
    }

    /// The newest checkpoint that is whole, with path and fault of each damaged one before it.
    pub(crate) fn newest_checkpoint(
        &self,
        device: &Device,
    ) -> Result<(Option<Checkpoint>, Damaged)> {
        let mut damaged = Vec::new();
        for path in self.checkpoints()?.into_iter().rev() {
            match Checkpoint::load(&path, device) {
                Ok(checkpoint) => return Ok((Some(checkpoint), damaged)),
                Err(error @ Error::Checkpoint { .. }) => damaged.push((path, error)),
                Err(error) => return Err(error),
            }
        }
        Ok((None, damaged))
    }

    /// Path of the newest checkpoint, whole or not.
    pub(crate) fn newest_checkpoint_path(&self) -> Option<PathBuf> {
        self.lock.as_ref()?;
        // One that cannot be written is not the newest; whoever ends the run for another reason tells that.
        let _ = self.settle();
        self.checkpoints().ok()?.pop()
    }

    /// Whether there is a checkpoint, whole or not, whoever holds the directory.
    pub(crate) fn has_checkpoint(&self) -> bool {
        self.checkpoints().is_ok_and(|found| !found.is_empty())
    }

    /// Checkpoint files, oldest first.
    fn checkpoints(&self) -> Result<Vec<PathBuf>> {
        checkpoints_in(&self.path.join(names::CHECKPOINTS))
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        // Whoever had something to do with an error has asked.
        let _ = self.settle();
    }
}

/// What a run has before it has finished an epoch.
const BEGINNINGS: [&str; 4] = [
    names::CONFIG_TOML,
    names::LOCK,
    names::CHECKPOINTS,
    names::RUN_JSON,
];

/// What comes of a run, the command line's tables and pages included.
const RESULTS: [&str; 6] = [
    names::METRICS_JSONL,
    names::METRICS_CSV,
    names::PREDICTIONS_CSV,
    names::MODEL_SAFETENSORS,
    names::REPORT_HTML,
    names::REPORT_JSON,
];

/// Whether a file of that name comes of a run.
fn is_result(name: &str) -> bool {
    RESULTS.contains(&name) || name.starts_with(names::EVENTS)
}

/// Whether a directory holds anything but the beginnings of a run that finished no epoch.
pub(crate) fn is_occupied(dir: &Path) -> bool {
    // A run takes its lock before it writes its configuration: without one it is somebody's own file.
    let is_own = |name: &str| name != names::CONFIG_TOML || dir.join(names::LOCK).exists();
    let counts = |name: &String| {
        let is_beginning = BEGINNINGS.contains(&name.as_str()) && is_own(name);
        !is_beginning && !files::is_unfinished(name)
    };
    names_in(dir).iter().any(counts) || names_in(&dir.join(names::CHECKPOINTS)).iter().any(counts)
}

/// Names of what lies in a directory; none where it cannot be read.
pub(crate) fn names_in(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// Takes the directory's lock, or says that another process has it. The system frees it when the process ends.
pub(crate) fn lock(dir: &Path) -> Result<File> {
    let path = dir.join(names::LOCK);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(Error::file(&path, "create"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::RunDir {
            path: dir.to_path_buf(),
            message: "another process is training here, or this one has it open already".into(),
            hint: Some("wait for it, or name another directory with --out".into()),
        }),
        Err(TryLockError::Error(source)) => Err(Error::File {
            path,
            action: names::LOCK,
            source,
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use candle_core::{DType, Tensor};

    use super::*;
    use crate::progress::Progress;

    fn checkpoint(epochs_done: usize) -> Checkpoint {
        let tensors = (0..4).map(|k| {
            let tensor = Tensor::zeros(1 << 16, DType::F32, &Device::Cpu);
            (format!("w{k}"), tensor.unwrap())
        });
        Checkpoint {
            progress: Progress {
                epochs_done,
                ..Progress::default()
            },
            tensors: tensors.collect(),
            velocities: BTreeMap::new(),
            average: BTreeMap::new(),
            method: BTreeMap::new(),
            convolutions: None,
            data: None,
            start_sha256: None,
            settings: None,
        }
    }

    fn begin(run: &RunDir, epoch: usize) -> Result<()> {
        run.begin_checkpoint(&checkpoint(epoch), &ToHost::default(), 2)
    }

    #[test]
    fn checkpoints_are_written_beside_the_run() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::create(&dir.path().join("run"), &TrainConfig::default()).unwrap();
        for epoch in 1..=4 {
            begin(&run, epoch).unwrap();
        }
        // Whoever asks for the newest is given one that is whole.
        let newest = run.newest_checkpoint_path().unwrap();
        assert!(newest.ends_with("epoch-0004.safetensors"));
        crate::verify_checkpoint(&newest).unwrap();
        assert_eq!(run.checkpoints().unwrap().len(), 2);
        // What goes wrong is told by the next call, once.
        let folder = run.path.join("checkpoints");
        std::fs::remove_dir_all(&folder).unwrap();
        std::fs::write(&folder, "in the way").unwrap();
        begin(&run, 5).unwrap();
        let told = loop {
            if let Err(error) = run.glance() {
                break error;
            }
            std::thread::yield_now();
        };
        assert!(told.to_string().contains("epoch-0005"), "{told}");
        run.settle().unwrap();
        begin(&run, 6).unwrap();
        run.settle().unwrap_err();
        // The last of a run is waited for.
        std::fs::remove_file(&folder).unwrap();
        std::fs::create_dir(&folder).unwrap();
        begin(&run, 7).unwrap();
        drop(run);
        crate::verify_checkpoint(&folder.join("epoch-0007.safetensors")).unwrap();
    }
}
