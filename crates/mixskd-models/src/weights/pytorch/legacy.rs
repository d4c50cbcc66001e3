//! What `torch.save` wrote before PyTorch 1.6: a magic number, a version, the machine's sizes and the object, each a pickle; then the
//! storages' names as a pickle, and each storage as its number of values (int64) and the values.

use std::collections::BTreeMap;

use super::globals::{Global, Scalar};
use super::machine::{self, Object, Pickle};
use super::{Result, Storages};

/// The pickle of PyTorch's magic number.
const MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";

/// Whether the file begins with a pickle.
pub(super) fn is_legacy(file: &[u8]) -> bool {
    file.starts_with(b"\x80\x02")
}

/// Reads the object's pickle and finds the storages.
pub(super) fn open(file: &[u8]) -> Result<(Pickle, Regions<'_>)> {
    if !file.starts_with(MAGIC) {
        return Err("a pickle, but not written by torch.save".into());
    }
    let mut rest = &file[MAGIC.len()..];
    let mut next = || -> Result<(Pickle, &[u8])> {
        let (pickle, taken) = machine::run(rest)?;
        rest = &rest[taken..];
        Ok((pickle, rest))
    };
    // Version of the layout and sizes of the writer's machine: the same wherever PyTorch runs today.
    next()?;
    next()?;
    let (pickle, _) = next()?;
    let (keys, mut rest) = next()?;
    let scalars = scalars(&pickle);
    let Object::List(keys_in_order) = keys.get(keys.root()) else {
        return Err("its list of storages is missing".into());
    };
    let mut regions = BTreeMap::new();
    for &key in keys_in_order {
        let key = keys.text(key).ok_or("a storage's name is no text")?;
        let scalar = *scalars
            .get(key)
            .ok_or_else(|| format!("its storage `{key}` belongs to no tensor"))?;
        let short = || format!("the file ends inside its storage `{key}`");
        let (count, values) = rest.split_first_chunk().ok_or_else(short)?;
        let length = usize::try_from(i64::from_le_bytes(*count))
            .ok()
            .and_then(|count| count.checked_mul(scalar.size()));
        let (region, behind) = length
            .and_then(|length| values.split_at_checked(length))
            .ok_or_else(short)?;
        regions.insert(key.to_string(), region);
        rest = behind;
    }
    Ok((pickle, Regions(regions)))
}

/// Type of each storage, by its name.
fn scalars(pickle: &Pickle) -> BTreeMap<&str, Scalar> {
    let described = pickle.storages().filter_map(|items| {
        let Object::Global(Global::Storage(scalar)) = pickle.get(*items.get(1)?) else {
            return None;
        };
        Some((pickle.text(*items.get(2)?)?, *scalar))
    });
    described.collect()
}

/// The storages as parts of the file.
pub(super) struct Regions<'a>(BTreeMap<String, &'a [u8]>);

impl Storages for Regions<'_> {
    fn bytes(&mut self, key: &str, length: usize) -> Result<&[u8]> {
        match self.0.get(key) {
            Some(region) if region.len() >= length => Ok(region),
            Some(_) => Err(format!(
                "its storage `{key}` is shorter than its tensors need"
            )),
            None => Err(format!("its storage `{key}` is missing")),
        }
    }
}
