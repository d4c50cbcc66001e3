//! Real files of PyTorch (`tests/pytorch/make.py`), damaged ones, and hostile ones.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::io::{Cursor, Write};

use candle_core::DType;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::machine::Object;
use super::*;

const ZIP: &[u8] = include_bytes!("../../../tests/pytorch/zip.pth");
const LEGACY: &[u8] = include_bytes!("../../../tests/pytorch/legacy.pth");

fn floats(tensor: &Tensor) -> Vec<f32> {
    assert_eq!(tensor.dtype(), DType::F32);
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn integers(tensor: &Tensor) -> Vec<i64> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// A zip archive as PyTorch lays it out.
fn archive(pickle: &[u8], storages: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    let mut add = |name: &str, bytes: &[u8]| {
        zip.start_file(name, stored).unwrap();
        zip.write_all(bytes).unwrap();
    };
    add("a/data.pkl", pickle);
    for (key, bytes) in storages {
        add(&format!("a/data/{key}"), bytes);
    }
    zip.finish().unwrap().into_inner()
}

fn refusal(file: &[u8]) -> String {
    assert!(is_pytorch(file));
    read(file).unwrap_err()
}

/// The pickle of `{"w": tensor}` over storage `0`, the numbers as eight-byte integers.
fn view(offset: i64, size: &[i64], stride: &[i64]) -> Vec<u8> {
    let number = |value: i64| [&[0x8a, 8][..], &value.to_le_bytes()].concat();
    let tuple = |values: &[i64]| {
        let numbers: Vec<u8> = values.iter().flat_map(|&value| number(value)).collect();
        [b"(", &numbers[..], b"t"].concat()
    };
    let text = |text: &str| [&[0x8c, text.len() as u8], text.as_bytes()].concat();
    [
        b"\x80\x02}".to_vec(),
        text("w"),
        b"ctorch._utils\n_rebuild_tensor_v2\n(".to_vec(),
        [
            b"(".to_vec(),
            text("storage"),
            b"ctorch\nFloatStorage\n".to_vec(),
        ]
        .concat(),
        [text("0"), text("cpu"), number(4), b"tQ".to_vec()].concat(),
        number(offset),
        tuple(size),
        tuple(stride),
        b"\x89NtRs.".to_vec(),
    ]
    .concat()
}

#[test]
fn what_pytorch_wrote_comes_back_from_both_layouts() {
    for file in [ZIP, LEGACY] {
        let tensors = read(file).unwrap();
        let get = |name: &str| &tensors[&format!("module.{name}")];
        assert_eq!(tensors.len(), 11);
        let halves = [0.0, 0.5, 1.0, 1.5, 2.0, 2.5];
        assert_eq!(get("float32").dims(), [2, 3]);
        assert_eq!(floats(get("float32")), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(get("transposed").dims(), [3, 2]);
        assert_eq!(floats(get("transposed")), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
        assert_eq!(floats(get("part")), [4.0, 5.0]);
        for name in ["float64", "float16", "bfloat16"] {
            assert_eq!(floats(get(name)), halves, "{name}");
        }
        assert_eq!(floats(get("parameter")), [0.0, 3.0, 6.0, 9.0, 12.0, 15.0]);
        assert_eq!(
            (get("counter").rank(), integers(get("counter"))),
            (0, vec![7])
        );
        assert_eq!(integers(get("int32")), [-1, 2]);
        assert_eq!(get("flags").to_vec1::<u8>().unwrap(), [1, 0]);
        assert_eq!(get("empty").dims(), [0, 4]);
    }
}

#[test]
fn a_file_that_asks_for_code_is_refused_with_the_name() {
    let calls: [(&[u8], &str); 4] = [
        (
            b"\x80\x02cposix\nsystem\nX\x04\x00\x00\x00true\x85R.",
            "posix.system",
        ),
        (
            b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x031+1\x85R.",
            "builtins.eval",
        ),
        (b"\x80\x02ctorch.hub\nload\n)R.", "torch.hub.load"),
        (b"\x80\x02cmodels\nNet\n)\x81.", "models.Net"),
    ];
    for (pickle, name) in calls {
        let said = refusal(&archive(pickle, &[]));
        assert!(said.contains(name), "{said}");
    }
}

#[test]
fn damaged_files_are_refused_and_never_crash() {
    for file in [ZIP, LEGACY] {
        for length in 0..file.len() {
            // Some ends carry nothing that is needed; all others must be missed.
            let _ = read(&file[..length]);
        }
        assert!(read(&file[..file.len() / 2]).is_err());
        for at in 0..file.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut damaged = file.to_vec();
                damaged[at] ^= flip;
                let _ = read(&damaged);
            }
        }
    }
    let mut damaged = ZIP.to_vec();
    let value = damaged
        .windows(8)
        .position(|w| w == [0, 0, 0, 0, 0, 0, 128, 63])
        .unwrap();
    damaged[value + 7] = 64;
    assert!(
        refusal(&damaged).contains("hecksum"),
        "{}",
        refusal(&damaged)
    );
}

#[test]
fn a_view_is_read_and_one_outside_its_storage_is_refused() {
    let values: Vec<u8> = [1f32, 2.0, 3.0, 4.0]
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .collect();
    let file = |pickle: &[u8]| archive(pickle, &[("0", &values)]);
    let tensors = read(&file(&view(1, &[3], &[1]))).unwrap();
    assert_eq!(floats(&tensors["w"]), [2.0, 3.0, 4.0]);
    for (pickle, cause) in [
        (view(2, &[3], &[1]), "shorter"),
        (view(0, &[2, 2], &[4, 1]), "shorter"),
        (view(i64::MAX, &[2], &[i64::MAX]), "beyond"),
        (view(0, &[1 << 40], &[0]), "more values"),
        (view(0, &[1 << 32, 1 << 32, 1 << 32], &[0, 0, 0]), "beyond"),
        (view(-1, &[2], &[1]), "broken"),
        (view(0, &[2], &[1, 1]), "broken"),
        (view(0, &[1; 200], &[1; 200]), "broken"),
    ] {
        let said = refusal(&file(&pickle));
        assert!(
            said.contains("tensor `w`") && said.contains(cause),
            "{said}"
        );
    }
}

#[test]
fn many_views_of_one_storage_do_not_fill_the_memory() {
    let values = vec![0; 4 * 1000];
    let mut pickle = b"\x80\x02}(".to_vec();
    for index in 0..2000 {
        let single = view(0, &[1000], &[1]);
        // The tensor of `view`, without dictionary and name, under another name.
        pickle.extend(format!("X\x06\0\0\0{index:06}").bytes());
        pickle.extend(&single[6..single.len() - 2]);
    }
    pickle.extend(b"u.");
    let said = refusal(&archive(&pickle, &[("0", &values)]));
    assert!(said.contains("more values than the file"), "{said}");
}

/// One long tuple of arguments, recalled again and again; each call with a copy of it would fill the memory.
#[test]
fn many_calls_with_one_long_tuple_do_not_fill_the_memory() {
    for call in [&b"h\x01h\x00R0"[..], b"h\x00Q0"] {
        let file = |arguments: usize, calls: usize| {
            [
                b"\x80\x02(".to_vec(),
                vec![b'N'; arguments],
                b"tq\x00ctorch._utils\n_rebuild_tensor_v2\nq\x01".to_vec(),
                call.repeat(calls),
                b".".to_vec(),
            ]
            .concat()
        };
        let (pickle, _) = machine::run(&file(1000, 10)).unwrap();
        let kept: Vec<usize> = (0..2000)
            .filter_map(|id| match pickle.get(id) {
                Object::Tensor(items) | Object::Storage(items) => Some(items.len()),
                _ => None,
            })
            .collect();
        assert!(kept.len() == 10 && kept.iter().all(|&n| n <= 6), "{kept:?}");
        // Two megabytes that would become 200 GB.
        let said = refusal(&archive(&file(131_072, 200_000), &[]));
        assert!(said.contains("no dictionary"), "{said}");
    }
}

#[test]
fn many_dictionaries_of_one_list_do_not_fill_the_memory() {
    let mut pickle = b"\x80\x02ccollections\nOrderedDict\nq\x02](".to_vec();
    for _ in 0..100_000 {
        pickle.extend(b"NN\x86");
    }
    pickle.extend(b"e\x85q\x00");
    pickle.extend(b"h\x02h\x00R0".repeat(100_000));
    pickle.push(b'.');
    let said = refusal(&archive(&pickle, &[]));
    assert!(said.contains("more entries"), "{said}");

    // Python 2's way to write one is read.
    let mut pickle = b"\x80\x02ccollections\nOrderedDict\n](X\x01\0\0\0wK\x03\x86e\x85R.".to_vec();
    let said = refusal(&archive(&pickle, &[]));
    assert!(said.contains("its keys are w"), "{said}");
    pickle.truncate(pickle.len() - 1);
    assert!(refusal(&archive(&pickle, &[])).contains("ends early"));
}

/// Entries of a zip archive that all lie at one place.
#[test]
fn many_storages_at_one_place_do_not_fill_the_memory() {
    let values = vec![0; 4000];
    let single = view(0, &[1], &[1]);
    let of = |key: u8| {
        let mut tensor = single[6..single.len() - 2].to_vec();
        let place = tensor
            .windows(3)
            .position(|w| w == [0x8c, 1, b'0'])
            .unwrap();
        tensor[place + 2] = key;
        [&[b'X', 1, 0, 0, 0, key][..], &tensor].concat()
    };
    let pickle = [b"\x80\x02}(".to_vec(), of(b'0'), of(b'1'), b"u.".to_vec()].concat();
    let honest = archive(&pickle, &[("0", &values), ("1", &values)]);
    assert_eq!(read(&honest).unwrap().len(), 2);

    // In the directory at the end, the second storage gets the place of the first, and the second's bytes go.
    let mut entries = honest.windows(4).enumerate();
    let starts: Vec<usize> = entries
        .by_ref()
        .filter(|(_, w)| *w == b"PK\x03\x04")
        .map(|(at, _)| at)
        .collect();
    let directory: Vec<usize> = honest
        .windows(4)
        .enumerate()
        .filter(|(_, w)| *w == b"PK\x01\x02")
        .map(|(at, _)| at)
        .collect();
    let mut hostile = honest.clone();
    hostile[directory[2] + 42..directory[2] + 46]
        .copy_from_slice(&(starts[1] as u32).to_le_bytes());
    let gone = starts[2]..directory[0];
    let end = honest.windows(4).rposition(|w| w == b"PK\x05\x06").unwrap();
    hostile[end + 16..end + 20].copy_from_slice(&(gone.start as u32).to_le_bytes());
    hostile.drain(gone);
    let said = refusal(&hostile);
    assert!(said.contains("more than the file holds"), "{said}");
}

#[test]
fn nesting_without_end_costs_no_stack() {
    let mut pickle = b"\x80\x02".to_vec();
    pickle.extend(vec![b']'; 1_000_000]);
    pickle.extend(vec![b'a'; 999_999]);
    pickle.push(b'.');
    assert!(refusal(&archive(&pickle, &[])).contains("no dictionary"));
}

#[test]
fn what_holds_no_tensors_is_told_by_its_keys() {
    let said = refusal(&archive(b"\x80\x02}X\x05\0\0\0epochK\x03s.", &[]));
    assert!(
        said.contains("no state dict") && said.contains("epoch"),
        "{said}"
    );
    assert!(refusal(b"\x80\x02K\x03.").contains("not written by torch.save"));
}
