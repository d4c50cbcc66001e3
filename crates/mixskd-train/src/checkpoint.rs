//! Checkpoints: everything a run needs to go on with the same bits, in one checksummed safetensors file.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::io::Write as _;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use mixskd_data::Identity;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::progress::Progress;
use crate::to_host::{OnHost, ToHost};
use crate::{Error, Result, files};

/// Version of the file's layout. Layout 2, which is read as well, hashed the header's fields as Rust's `Debug` writes them.
const FORMAT: u32 = 3;

/// State of a run between two updates.
pub(crate) struct Checkpoint {
    /// Where the run stands.
    pub(crate) progress: Progress,
    /// Parameters and buffers by name.
    pub(crate) tensors: BTreeMap<String, Tensor>,
    /// The optimiser's velocities by parameter name.
    pub(crate) velocities: BTreeMap<String, Tensor>,
    /// The moving average of the parameters by name; empty without one.
    pub(crate) average: BTreeMap<String, Tensor>,
    /// What the method remembers beside its parameters, by name.
    pub(crate) method: BTreeMap<String, Tensor>,
    /// The algorithms of the run's convolutions, where it chose them by time.
    pub(crate) convolutions: Option<String>,
    /// What the run's data set is; checkpoints of earlier versions do not say.
    pub(crate) data: Option<Identity>,
    /// SHA-256 of the file of weights that the run began with, where it began with any; checkpoints of earlier versions do not say.
    pub(crate) start_sha256: Option<String>,
    /// The run's settings that may change its result, by key; checkpoints of earlier versions do not say.
    pub(crate) settings: Option<BTreeMap<String, String>>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Header {
    format: u32,
    version: String,
    progress: Progress,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    convolutions: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data: Option<Identity>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    start_sha256: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    settings: Option<BTreeMap<String, String>>,
    /// Over this header as JSON with nothing here, and every tensor.
    sha256: String,
}

impl Header {
    /// The header as layout 2 hashed it.
    fn unsigned_2(&self) -> String {
        let Self {
            format,
            version,
            progress,
            convolutions,
            data,
            ..
        } = self;
        let convolutions = convolutions
            .as_ref()
            .map_or(String::new(), |choices| format!(" {choices}"));
        // As Rust writes it for debugging, without what came later.
        let data = data.as_ref().map_or(String::new(), |data| {
            format!(
                " Identity {{ classes: {}, train: {}, test: {}, names: {:?}, images: {:?} }}",
                data.classes, data.train, data.test, data.names, data.images
            )
        });
        format!("{format} {version} {progress:?}{convolutions}{data}")
    }
}

/// What every layout has.
#[derive(Deserialize)]
struct Signature {
    format: u32,
    sha256: String,
}

impl Signature {
    /// `header`, the text that holds this, as it was before it was signed.
    fn unsigned(&self, header: &str) -> String {
        match header.rsplit_once(&self.sha256) {
            Some((before, after)) => format!("{before}{after}"),
            None => header.into(),
        }
    }
}

const HEADER: &str = "mixskd.checkpoint";

/// A checkpoint in memory of its own, which no later step changes.
pub(crate) struct Frozen {
    header: Header,
    /// Names and shapes, in the names' order.
    tensors: Vec<(String, Vec<usize>)>,
    /// Their values; a GPU's may be on their way.
    values: OnHost,
}

impl Checkpoint {
    /// The contents of its file at `path`.
    pub(crate) fn to_bytes(&self, path: &Path) -> Result<Vec<u8>> {
        self.freeze(&ToHost::default())?.to_bytes(path)
    }

    /// All of it as it is now, brought to the host by `to_host`.
    pub(crate) fn freeze(&self, to_host: &ToHost) -> Result<Frozen> {
        let mut all = BTreeMap::new();
        for (prefix, tensors) in [
            ("model/", &self.tensors),
            ("velocity/", &self.velocities),
            ("average/", &self.average),
            ("method/", &self.method),
        ] {
            let tensors = tensors.iter();
            all.extend(tensors.map(|(name, tensor)| (format!("{prefix}{name}"), tensor)));
        }
        let header = Header {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").into(),
            progress: self.progress.clone(),
            convolutions: self.convolutions.clone(),
            data: self.data.clone(),
            start_sha256: self.start_sha256.clone(),
            settings: self.settings.clone(),
            sha256: String::new(),
        };
        let values = to_host.begin(&all.values().copied().collect::<Vec<_>>())?;
        let tensors = all.into_iter();
        Ok(Frozen {
            header,
            tensors: tensors
                .map(|(name, tensor)| (name, tensor.dims().to_vec()))
                .collect(),
            values,
        })
    }

    /// Reads a checkpoint and proves it whole.
    pub(crate) fn load(path: &Path, device: &Device) -> Result<Self> {
        let data = std::fs::read(path).map_err(Error::file(path, "read"))?;
        Self::from_bytes(&data, path, device)
    }

    /// The checkpoint whose file at `path` has these contents.
    pub(crate) fn from_bytes(data: &[u8], path: &Path, device: &Device) -> Result<Self> {
        let damaged = |message| damaged(path, message);
        let (_, metadata) = SafeTensors::read_metadata(data)
            .map_err(|e| damaged(format!("is no whole safetensors file ({e})")))?;
        let header = metadata
            .metadata()
            .as_ref()
            .and_then(|map| map.get(HEADER))
            .ok_or_else(|| damaged("is not a mixskd checkpoint: its header is missing".into()))?;
        let signature = serde_json::from_str::<Signature>(header)
            .map_err(|e| damaged(format!("has a damaged header ({e})")))?;
        // Not passed over like a damaged one: an older checkpoint, or none at all, is not what the user wants then.
        let of_another_version = |message: String| Error::RunDir {
            path: path.to_path_buf(),
            message,
            hint: Some("go on with the version of mixskd that wrote it".into()),
        };
        let format = signature.format;
        if ![2, FORMAT].contains(&format) {
            let message = format!("has layout {format}; this version reads layouts 2 and {FORMAT}");
            return Err(of_another_version(message));
        }
        let parsed = serde_json::from_str::<Header>(header);
        let unsigned = match &parsed {
            Ok(parsed) if format == 2 => parsed.unsigned_2(),
            Err(e) if format == 2 => return Err(damaged(format!("has a damaged header ({e})"))),
            _ => signature.unsigned(header),
        };
        let file = SafeTensors::deserialize(data)
            .map_err(|e| damaged(format!("is no whole safetensors file ({e})")))?;
        let views = file.iter().collect::<BTreeMap<_, _>>();
        let contents = views
            .iter()
            .map(|(name, view)| (*name, view.shape(), Cow::from(view.data())));
        if digest(&unsigned, contents) != signature.sha256 {
            return Err(damaged(
                "its checksum does not match: the file was altered or torn".into(),
            ));
        }
        let header =
            parsed.map_err(|e| of_another_version(format!("is whole, but unknown here ({e})")))?;
        let mut checkpoint = Self {
            progress: header.progress,
            tensors: BTreeMap::new(),
            velocities: BTreeMap::new(),
            average: BTreeMap::new(),
            method: BTreeMap::new(),
            convolutions: header.convolutions,
            data: header.data,
            start_sha256: header.start_sha256,
            settings: header.settings,
        };
        for (name, view) in views {
            if view.dtype() != Dtype::F32 {
                return Err(damaged(format!("holds `{name}` as {:?}", view.dtype())));
            }
            let tensor = Tensor::from_raw_buffer(view.data(), DType::F32, view.shape(), device)?;
            match name.split_once('/') {
                Some(("model", name)) => checkpoint.tensors.insert(name.into(), tensor),
                Some(("velocity", name)) => checkpoint.velocities.insert(name.into(), tensor),
                Some(("average", name)) => checkpoint.average.insert(name.into(), tensor),
                Some(("method", name)) => checkpoint.method.insert(name.into(), tensor),
                _ => return Err(damaged(format!("holds an unknown tensor `{name}`"))),
            };
        }
        Ok(checkpoint)
    }
}

impl Frozen {
    /// Writes the checkpoint: aside, synced, then renamed.
    pub(crate) fn save(self, path: &Path) -> Result<()> {
        let values = self.values.values()?;
        let head = self.head(path, &values)?;
        // Tensor after tensor: a copy of them all as one would be as large again.
        files::make_atomically(path, |file| {
            file.write_all(&head)?;
            values
                .iter()
                .try_for_each(|values| file.write_all(&bytes(values)))
        })
    }

    fn to_bytes(&self, path: &Path) -> Result<Vec<u8>> {
        let values = self.values.values()?;
        let mut all = self.head(path, &values)?;
        for values in values {
            all.extend_from_slice(&bytes(values));
        }
        Ok(all)
    }

    /// What a safetensors file has before its tensors: the length of its header, and the header, which holds this one's with a hash of everything.
    fn head(&self, path: &Path, values: &[&[f32]]) -> Result<Vec<u8>> {
        let damaged = |message| damaged(path, message);
        let tensors = self.tensors.iter().zip(values);
        let hashed = tensors
            .clone()
            .map(|((name, shape), values)| (name.as_str(), shape.as_slice(), bytes(values)));
        let text =
            |header: &Header| serde_json::to_string(header).map_err(|e| damaged(e.to_string()));
        let header = Header {
            sha256: digest(&text(&self.header)?, hashed),
            ..self.header.clone()
        };
        let text = text(&header)?;
        let mut end = 0;
        let infos = tensors.map(|((name, shape), values)| {
            let begin = end;
            end += size_of_val(*values);
            let info = TensorInfo {
                dtype: Dtype::F32,
                shape: shape.clone(),
                data_offsets: (begin, end),
            };
            (name.clone(), info)
        });
        let all = Metadata::new(
            Some(HashMap::from([(HEADER.to_string(), text)])),
            infos.collect(),
        );
        let all = all.map_err(|e| damaged(e.to_string()))?;
        let mut text = serde_json::to_string(&all).map_err(|e| damaged(e.to_string()))?;
        // Tensors begin at a multiple of eight bytes.
        while !text.len().is_multiple_of(8) {
            text.push(' ');
        }
        let mut head = (text.len() as u64).to_le_bytes().to_vec();
        head.extend(text.into_bytes());
        Ok(head)
    }
}

/// What is wrong with the checkpoint at `path`.
fn damaged(path: &Path, message: String) -> Error {
    Error::Checkpoint {
        path: path.to_path_buf(),
        message,
    }
}

/// Reads a checkpoint of a run and proves it whole: layout, names, shapes and checksum.
///
/// # Errors
/// When it cannot be read, is damaged, or is of another layout.
pub fn verify_checkpoint(path: &Path) -> Result<()> {
    Checkpoint::load(path, &Device::Cpu).map(|_| ())
}

/// Values as little-endian float32.
fn bytes(values: &[f32]) -> Cow<'_, [u8]> {
    if cfg!(target_endian = "little") {
        return Cow::Borrowed(bytemuck::cast_slice(values));
    }
    let bytes = values.iter().flat_map(|value| value.to_le_bytes());
    Cow::Owned(bytes.collect())
}

/// SHA-256 over the header and, in sorted-name order, names, shapes and data.
fn digest<'a>(
    header: &str,
    tensors: impl Iterator<Item = (&'a str, &'a [usize], Cow<'a, [u8]>)>,
) -> String {
    let mut hash = Sha256::new();
    let text = |text: &str, hash: &mut Sha256| {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    };
    text(header, &mut hash);
    for (name, shape, data) in tensors {
        text(name, &mut hash);
        text(&format!("{shape:?}"), &mut hash);
        hash.update(data);
    }
    format!("{:x}", hash.finalize())
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::*;

    fn sample() -> Checkpoint {
        let tensor = Tensor::new(&[[1f32, 2.0], [3.0, 4.0]], &Device::Cpu).unwrap();
        Checkpoint {
            progress: Progress {
                epochs_done: 3,
                steps_done: 2,
                ..Progress::default()
            },
            average: BTreeMap::from([("a.weight".to_string(), (&tensor * 4.0).unwrap())]),
            tensors: BTreeMap::from([("a.weight".to_string(), tensor.clone())]),
            velocities: BTreeMap::from([("a.weight".to_string(), (&tensor * 2.0).unwrap())]),
            method: BTreeMap::from([("table".to_string(), (tensor * 3.0).unwrap())]),
            convolutions: Some("chosen".into()),
            data: Some(Identity {
                pixels: None,
                classes: 2,
                train: 16,
                test: 8,
                names: "n".into(),
                images: "i".into(),
            }),
            start_sha256: Some("s".into()),
            settings: None,
        }
    }

    #[test]
    fn comes_back_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.safetensors");
        sample()
            .freeze(&ToHost::default())
            .unwrap()
            .save(&path)
            .unwrap();
        let back = Checkpoint::load(&path, &Device::Cpu).unwrap();
        assert_eq!(back.progress, sample().progress);
        assert_eq!(back.convolutions, sample().convolutions);
        assert_eq!(back.data, sample().data);
        assert_eq!(back.start_sha256, sample().start_sha256);
        let values = |c: &Checkpoint| {
            (
                c.tensors["a.weight"].to_vec2::<f32>().unwrap(),
                c.velocities["a.weight"].to_vec2::<f32>().unwrap(),
                c.average["a.weight"].to_vec2::<f32>().unwrap(),
                c.method["table"].to_vec2::<f32>().unwrap(),
            )
        };
        assert_eq!(values(&back), values(&sample()));
    }

    #[test]
    fn is_the_state_of_the_moment_and_a_file_of_the_librarys_layout() {
        let weight = Var::from_tensor(&Tensor::new(&[1f32, 2.0, 3.0], &Device::Cpu).unwrap());
        let weight = weight.unwrap();
        let tensors = BTreeMap::from([("w".to_string(), weight.as_tensor().clone())]);
        let checkpoint = Checkpoint {
            tensors,
            ..sample()
        };
        let path = Path::new("memory");
        let frozen = checkpoint.freeze(&ToHost::default()).unwrap();
        weight.set(&weight.zeros_like().unwrap()).unwrap();
        let bytes = frozen.to_bytes(path).unwrap();
        let back = Checkpoint::from_bytes(&bytes, path, &Device::Cpu).unwrap();
        assert_eq!(back.tensors["w"].to_vec1::<f32>().unwrap(), [1.0, 2.0, 3.0]);
        // The same as the library writes.
        let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
        let read = SafeTensors::deserialize(&bytes).unwrap();
        let again = safetensors::serialize(read.iter(), metadata.metadata().clone()).unwrap();
        assert!(again == bytes);
    }

    #[test]
    fn every_torn_or_altered_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.safetensors");
        sample()
            .freeze(&ToHost::default())
            .unwrap()
            .save(&path)
            .unwrap();
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            assert!(
                Checkpoint::load(&path, &Device::Cpu).is_err(),
                "cut at {cut}"
            );
        }
        for byte in 0..whole.len() {
            let mut altered = whole.clone();
            altered[byte] ^= 1;
            std::fs::write(&path, &altered).unwrap();
            assert!(
                Checkpoint::load(&path, &Device::Cpu).is_err(),
                "byte {byte} altered"
            );
        }
        let mut altered = whole.clone();
        altered[whole.len() - 1] ^= 1;
        std::fs::write(&path, &altered).unwrap();
        let error = Checkpoint::load(&path, &Device::Cpu)
            .map(|_| ())
            .unwrap_err();
        assert!(error.to_string().contains("checksum"), "{error}");
    }

    /// The sample's file with another header, signed anew.
    fn with_header(change: impl Fn(&mut serde_json::Value), debugged: bool) -> Vec<u8> {
        let path = Path::new("memory");
        let bytes = sample().freeze(&ToHost::default()).unwrap().to_bytes(path);
        let bytes = bytes.unwrap();
        let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
        let text = &metadata.metadata().as_ref().unwrap()[HEADER];
        let mut header: serde_json::Value = serde_json::from_str(text).unwrap();
        change(&mut header);
        header["sha256"] = "".into();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let views: BTreeMap<_, _> = file.iter().collect();
        let contents = views
            .iter()
            .map(|(name, view)| (*name, view.shape(), Cow::from(view.data())));
        let unsigned = if debugged {
            serde_json::from_value::<Header>(header.clone())
                .unwrap()
                .unsigned_2()
        } else {
            header.to_string()
        };
        header["sha256"] = digest(&unsigned, contents).into();
        let header = HashMap::from([(HEADER.to_string(), header.to_string())]);
        safetensors::serialize(file.iter(), Some(header)).unwrap()
    }

    /// The text whose hash stands in files of layout 2.
    #[test]
    fn layout_2_is_hashed_as_it_was() {
        let mut header = sample().freeze(&ToHost::default()).unwrap().header;
        (header.format, header.version) = (2, "0.1.0".into());
        assert_eq!(
            header.unsigned_2(),
            "2 0.1.0 Progress { epochs_done: 3, steps_done: 2, skipped: 0, nanoseconds: 0, meter: Meter { steps: 0, samples: 0, loss: 0.0, hits: 0.0, terms: {} } } chosen Identity { classes: 2, train: 16, test: 8, names: \"n\", images: \"i\" }"
        );
    }

    /// A file of layout 3 as its first version wrote it: later ones have to read it. (`MIXSKD_WRITE_GOLDEN=1` writes it anew, with the next layout.)
    #[test]
    fn a_stored_checkpoint_is_read() {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/checkpoint-3.safetensors");
        if std::env::var_os("MIXSKD_WRITE_GOLDEN").is_some() {
            let frozen = sample().freeze(&ToHost::default()).unwrap();
            frozen.save(&path).unwrap();
        }
        let back = Checkpoint::load(&path, &Device::Cpu).unwrap();
        assert_eq!(back.progress, sample().progress);
        assert_eq!(back.convolutions, sample().convolutions);
        assert_eq!(back.data, sample().data);
        assert_eq!(back.start_sha256, sample().start_sha256);
        let table = back.method["table"].to_vec2::<f32>().unwrap();
        assert_eq!(table, [[3.0, 6.0], [9.0, 12.0]]);
    }

    #[test]
    fn what_is_whole_and_of_another_version_is_not_called_damaged() {
        let path = Path::new("memory");
        let load = |bytes: &[u8]| Checkpoint::from_bytes(bytes, path, &Device::Cpu);
        let same = with_header(|_| (), false);
        assert_eq!(load(&same).unwrap().progress, sample().progress);
        // Of the layout before.
        let older = with_header(|header| header["format"] = 2.into(), true);
        assert_eq!(load(&older).unwrap().progress, sample().progress);
        // What came to the header, and what came to a part of it.
        let more = with_header(|header| header["more"] = 1.into(), false);
        assert_eq!(load(&more).unwrap().data, sample().data);
        let unknown = with_header(|header| header["progress"]["more"] = 1.into(), false);
        let error = load(&unknown).map(drop).unwrap_err();
        assert!(matches!(error, Error::RunDir { .. }), "{error}");
        assert!(error.to_string().contains("unknown field"), "{error}");
    }

    #[test]
    fn another_layout_is_told_and_not_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.safetensors");
        sample()
            .freeze(&ToHost::default())
            .unwrap()
            .save(&path)
            .unwrap();
        let text = std::fs::read(&path).unwrap();
        let at = text
            .windows(11)
            .position(|w| w == b"format\\\":3,".as_slice())
            .unwrap();
        let mut older = text.clone();
        older[at + 9] = b'1';
        std::fs::write(&path, &older).unwrap();
        let error = Checkpoint::load(&path, &Device::Cpu)
            .map(|_| ())
            .unwrap_err();
        assert!(matches!(error, Error::RunDir { .. }), "{error}");
        assert!(error.to_string().contains("layout 1"), "{error}");
    }
}
