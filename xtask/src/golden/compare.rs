//! Whether two files of golden data hold the same values.
//!
//! Another machine's arithmetic rounds differently, so floats are compared within a tolerance; everything else exactly.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// Largest difference, relative to the largest entry of a tensor (or to the number itself in JSON).
const TOLERANCE: f64 = 1e-6;

/// How `stored` and `fresh` differ, or nothing.
pub(super) fn files(stored: &Path, fresh: &Path) -> Result<Option<String>> {
    let read =
        |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let (old, new) = (read(stored)?, read(fresh)?);
    let extension = stored.extension().and_then(|e| e.to_str());
    Ok(match extension {
        Some("safetensors") => tensors(&old, &new)?,
        Some("json") => json(
            &serde_json::from_slice(&old)?,
            &serde_json::from_slice(&new)?,
            "",
        ),
        _ => (old != new).then(|| "bytes differ".into()),
    })
}

fn tensors(old: &[u8], new: &[u8]) -> Result<Option<String>> {
    let (old, new) = (
        SafeTensors::deserialize(old)?,
        SafeTensors::deserialize(new)?,
    );
    let names = |file: &SafeTensors| {
        let mut names: Vec<_> = file.names().into_iter().map(str::to_owned).collect();
        names.sort_unstable();
        names
    };
    let all = names(&old);
    if all != names(&new) {
        return Ok(Some("tensors' names differ".into()));
    }
    for name in all {
        if let Some(how) = tensor(&old.tensor(&name)?, &new.tensor(&name)?) {
            return Ok(Some(format!("{name}: {how}")));
        }
    }
    Ok(None)
}

fn tensor(old: &TensorView, new: &TensorView) -> Option<String> {
    if old.dtype() != new.dtype() || old.shape() != new.shape() {
        return Some("type or shape differs".into());
    }
    let (Some(a), Some(b)) = (floats(old), floats(new)) else {
        return (old.data() != new.data()).then(|| "values differ".into());
    };
    let size = a.iter().fold(0f64, |m, x| m.max(x.abs()));
    let wrong = a.iter().zip(&b).position(|(a, b)| !within(*a, *b, size))?;
    let (a, b) = (a[wrong], b[wrong]);
    Some(format!("entry {wrong}: stored {a}, fresh {b}"))
}

/// The entries of a float tensor.
fn floats(view: &TensorView) -> Option<Vec<f64>> {
    fn all<const N: usize>(data: &[u8], read: fn([u8; N]) -> f64) -> Vec<f64> {
        data.as_chunks::<N>()
            .0
            .iter()
            .map(|bytes| read(*bytes))
            .collect()
    }
    match view.dtype() {
        Dtype::F32 => Some(all(view.data(), |b| f64::from(f32::from_le_bytes(b)))),
        Dtype::F64 => Some(all(view.data(), f64::from_le_bytes)),
        _ => None,
    }
}

fn within(a: f64, b: f64, size: f64) -> bool {
    a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= TOLERANCE * size
}

fn json(old: &Value, new: &Value, place: &str) -> Option<String> {
    match (old, new) {
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => a
            .iter()
            .zip(b)
            .enumerate()
            .find_map(|(i, (a, b))| json(a, b, &format!("{place}[{i}]"))),
        (Value::Object(a), Value::Object(b)) if a.keys().eq(b.keys()) => a
            .iter()
            .zip(b.values())
            .find_map(|((key, a), b)| json(a, b, &format!("{place}.{key}"))),
        (Value::Number(a), Value::Number(b)) if both_close(a.as_f64(), b.as_f64()) => None,
        _ if old == new => None,
        _ => Some(format!("{place}: stored {old}, fresh {new}")),
    }
}

fn both_close(a: Option<f64>, b: Option<f64>) -> bool {
    a.zip(b).is_some_and(|(a, b)| within(a, b, a.abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(dtype: Dtype, shape: &[usize], data: &[u8]) -> Vec<u8> {
        let view = TensorView::new(dtype, shape.to_vec(), data).unwrap();
        safetensors::serialize([("x", view)], None).unwrap()
    }

    fn bytes(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|x| x.to_le_bytes()).collect()
    }

    fn check(old: &[u8], new: &[u8], expected: Option<&str>) {
        assert_eq!(tensors(old, new).unwrap().as_deref(), expected);
    }

    #[test]
    fn floats_agree_within_the_tolerance() {
        let old = file(Dtype::F32, &[2], &bytes(&[1000.0, 1e-9]));
        check(&old, &file(Dtype::F32, &[2], &bytes(&[1000.0, 1e-5])), None);
        check(
            &old,
            &file(Dtype::F32, &[2], &bytes(&[1000.0, 0.5])),
            Some("x: entry 1: stored 0.0000000009999999717180685, fresh 0.5"),
        );
        check(
            &old,
            &file(Dtype::F32, &[2], &bytes(&[f32::NAN, 1e-9])),
            Some("x: entry 0: stored 1000, fresh NaN"),
        );
    }

    #[test]
    fn shapes_types_and_integers_agree_exactly() {
        let old = file(Dtype::U8, &[2], &[1, 2]);
        check(&old, &old, None);
        check(
            &old,
            &file(Dtype::U8, &[2], &[1, 3]),
            Some("x: values differ"),
        );
        check(
            &old,
            &file(Dtype::U8, &[1, 2], &[1, 2]),
            Some("x: type or shape differs"),
        );
    }

    #[test]
    fn json_is_walked() {
        let value = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        let old = value(r#"{"a": [1, {"b": 2.5}]}"#);
        assert_eq!(json(&old, &old, ""), None);
        assert_eq!(
            json(&old, &value(r#"{"a": [1, {"b": 2.5000000001}]}"#), ""),
            None
        );
        assert_eq!(
            json(&old, &value(r#"{"a": [1, {"b": 2.6}]}"#), "").as_deref(),
            Some(".a[1].b: stored 2.5, fresh 2.6")
        );
        assert!(json(&old, &value(r#"{"a": [1]}"#), "").is_some());
    }
}
