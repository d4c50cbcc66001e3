//! TensorBoard's event files: records of a length, a message and two checksums, one message an event.
//!
//! Formats: TensorFlow's `tfrecord` (length, masked CRC-32C of it, data, masked CRC-32C of the data; little-endian) around
//! `tensorflow.Event` of `event.proto` and `tensorflow.Summary` of `summary.proto`.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use mixskd_train::EpochRecord;
use prost::{Message, Oneof};

use crate::{Error, Result};

/// An event file that grows by one event an epoch; the step of every value is its epoch, counted from 1.
#[derive(Debug)]
pub struct EventFile {
    path: PathBuf,
    file: File,
}

/// How this program's event files end; others are left alone.
const SUFFIX: &str = ".mixskd";
const PREFIX: &str = "events.out.tfevents.";

impl EventFile {
    /// Begins the event file of the run in `dir`; one that an earlier process of the run left is replaced.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn create(dir: &Path) -> Result<Self> {
        for old in event_files(dir)? {
            std::fs::remove_file(&old).map_err(Error::file(&old, "remove"))?;
        }
        let now = seconds();
        let path = dir.join(format!("{PREFIX}{:010}{SUFFIX}", now as u64));
        let file = File::create(&path).map_err(Error::file(&path, "create"))?;
        let mut events = Self { path, file };
        events.write(&Event {
            wall_time: now,
            step: 0,
            what: Some(What::FileVersion("brain.Event:2".into())),
        })?;
        Ok(events)
    }

    /// Adds every value of one epoch.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add(&mut self, record: &EpochRecord) -> Result<()> {
        let value = values(record)
            .into_iter()
            .map(|(tag, value)| Value {
                tag,
                value: Some(Kind::SimpleValue(value as f32)),
            })
            .collect();
        self.write(&Event {
            wall_time: seconds(),
            step: record.epoch as i64,
            what: Some(What::Summary(Summary { value })),
        })
    }

    /// One record in one write, so that a reader of a growing file finds whole ones.
    fn write(&mut self, event: &Event) -> Result<()> {
        let data = framed(&event.encode_to_vec());
        self.file
            .write_all(&data)
            .map_err(Error::file(&self.path, "write"))
    }
}

/// Event files of this program in `dir`.
fn event_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(Error::file(dir, "read"))? {
        let path = entry.map_err(Error::file(dir, "read"))?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if name.is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX)) {
            found.push(path);
        }
    }
    Ok(found)
}

/// What is shown of an epoch, under the names TensorBoard groups by their first part.
fn values(record: &EpochRecord) -> Vec<(String, f64)> {
    let mut values = vec![("loss/total".to_string(), record.loss)];
    for (name, value) in &record.terms {
        values.push((format!("loss/{}", tag(name)), *value));
    }
    values.push(("top1/train".into(), record.train_top1));
    for head in &record.heads {
        let name = tag(&head.name);
        values.push((format!("top1/{name}"), head.top1));
        values.push((format!("top5/{name}"), head.top5));
        if let Some(balanced) = head.balanced {
            values.push((format!("balanced/{name}"), balanced));
        }
        values.push((format!("test_loss/{name}"), head.loss));
    }
    values.push(("optimizer/lr".into(), record.lr));
    values.push(("speed/samples_per_s".into(), record.samples_per_s));
    values.push(("speed/seconds".into(), record.seconds));
    values
}

/// A name without spaces, as tags are written.
fn tag(name: &str) -> String {
    name.replace(' ', "_")
}

fn seconds() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |time| time.as_secs_f64())
}

/// `data` as one record.
fn framed(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(data.len() + 16);
    record.extend(length);
    record.extend(masked(&length).to_le_bytes());
    record.extend(data);
    record.extend(masked(data).to_le_bytes());
    record
}

/// The checksum, rotated and shifted, so that the checksum of data that holds checksums is still one.
fn masked(data: &[u8]) -> u32 {
    crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli; RFC 3720, appendix B.4), a byte at a time. A few hundred bytes an epoch want no faster one.
fn crc32c(data: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut byte = 0;
        while byte < 256 {
            let mut crc = byte as u32;
            let mut bit = 0;
            while bit < 8 {
                // 0x82f63b78: the polynomial 0x1edc6f41, bits reversed.
                crc = (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
                bit += 1;
            }
            table[byte] = crc;
            byte += 1;
        }
        table
    };
    let fold = |crc: u32, &byte: &u8| TABLE[usize::from(crc as u8 ^ byte)] ^ (crc >> 8);
    !data.iter().fold(!0, fold)
}

/// `tensorflow.Event`.
#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(oneof = "What", tags = "3, 5")]
    what: Option<What>,
}

#[derive(Clone, PartialEq, Oneof)]
enum What {
    #[prost(string, tag = "3")]
    FileVersion(String),
    #[prost(message, tag = "5")]
    Summary(Summary),
}

/// `tensorflow.Summary`.
#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Value>,
}

/// `tensorflow.Summary.Value`.
#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(oneof = "Kind", tags = "2")]
    value: Option<Kind>,
}

#[derive(Clone, PartialEq, Oneof)]
enum Kind {
    #[prost(float, tag = "2")]
    SimpleValue(f32),
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Every scalar of the one event file in `dir`, read back with its checksums: tag, step, value.
    pub(crate) fn scalars(dir: &Path) -> Vec<(String, i64, f32)> {
        let files = event_files(dir).unwrap();
        assert_eq!(files.len(), 1, "{files:?}");
        let bytes = std::fs::read(&files[0]).unwrap();
        let mut rest = bytes.as_slice();
        let mut found = Vec::new();
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            let data = &rest[12..12 + length];
            assert_eq!(rest[..16 + length], framed(data));
            rest = &rest[16 + length..];
            let event = Event::decode(data).unwrap();
            if let Some(What::Summary(summary)) = event.what {
                for value in summary.value {
                    let Some(Kind::SimpleValue(number)) = value.value else {
                        panic!("{} holds nothing", value.tag);
                    };
                    found.push((value.tag, event.step, number));
                }
            }
        }
        found
    }

    #[test]
    fn the_checksum_is_that_of_the_rfc() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    }

    #[test]
    fn files_of_other_programs_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let other = dir.path().join("events.out.tfevents.1.host");
        std::fs::write(&other, "x").unwrap();
        EventFile::create(dir.path()).unwrap();
        let mut again = EventFile::create(dir.path()).unwrap();
        again.add(&crate::run_files::tests::record(1)).unwrap();
        assert!(other.exists());
        let found = scalars(dir.path());
        assert!(
            found.contains(&("top1/branch_1".into(), 1, 0.625)),
            "{found:?}"
        );
    }
}
