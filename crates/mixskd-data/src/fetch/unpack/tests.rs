use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use rand::Rng;
use tar::{Builder, Header};

use super::*;

/// The bytes of an archive, not packed yet.
fn tarred(fill: impl FnOnce(&mut Builder<Vec<u8>>)) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    fill(&mut builder);
    builder.into_inner().unwrap()
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
    io::Write::write_all(&mut packer, bytes).unwrap();
    packer.finish().unwrap()
}

fn header(path: &str, size: usize, kind: EntryType) -> Header {
    let mut header = Header::new_gnu();
    header.set_size(size as u64);
    header.set_mode(0o644);
    header.set_entry_type(kind);
    // Written by hand: the header's own setter refuses the paths that the tests are about.
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    header.set_cksum();
    header
}

/// Makes the checksum of a header right again.
fn mend_checksum(header: &mut [u8]) {
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
}

/// A .tar.gz with one file for each pair.
pub(in crate::fetch) fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    packed(&tarred(|builder| {
        for (path, bytes) in files {
            builder
                .append(&header(path, bytes.len(), EntryType::Regular), *bytes)
                .unwrap();
        }
    }))
}

/// Unpacks `archive` below `root/inner/set`; what is there afterwards, in the whole of `root`.
fn unpacked(root: &Path, archive: &[u8]) -> (Result<()>, Vec<String>) {
    let dir = root.join("inner/set");
    std::fs::create_dir_all(&dir).unwrap();
    let path = root.join("a.tar.gz");
    std::fs::write(&path, archive).unwrap();
    let result = unpack("toy", &path, &dir);
    std::fs::remove_file(&path).unwrap();
    let mut found = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                let path = entry.path();
                let path = path.strip_prefix(root).unwrap().display().to_string();
                found.push(path.replace('\\', "/"));
            }
        }
    }
    found.sort();
    (result, found)
}

#[test]
fn links_in_archives_are_left_out_and_nothing_is_written_through_them() {
    for kind in [EntryType::Symlink, EntryType::Link] {
        for target in ["../..", "/tmp", "../../victim.txt", "fine.txt"] {
            let root = tempfile::tempdir().unwrap();
            std::fs::write(root.path().join("victim.txt"), "mine").unwrap();
            let body = packed(&tarred(|builder| {
                let mut link = header("door", 0, kind);
                link.set_link_name(target).unwrap();
                link.set_cksum();
                builder.append(&link, &[][..]).unwrap();
                for path in ["fine.txt", "door/evil.txt"] {
                    let header = header(path, 4, EntryType::Regular);
                    builder.append(&header, &b"evil"[..]).unwrap();
                }
            }));
            let (result, found) = unpacked(root.path(), &body);
            result.unwrap();
            let wanted = [
                "inner/set/door/evil.txt",
                "inner/set/fine.txt",
                "victim.txt",
            ];
            assert_eq!(found, wanted, "{kind:?} to {target}");
            assert_eq!(
                std::fs::read(root.path().join("victim.txt")).unwrap(),
                b"mine"
            );
            let door = root.path().join("inner/set/door");
            assert!(!door.symlink_metadata().unwrap().is_symlink());
        }
    }
}

#[test]
fn names_by_extension_headers_are_checked_too() {
    let long = format!("{}../../evil.txt", "a/../".repeat(40));
    let by_gnu = tarred(|builder| {
        let mut name = long.clone().into_bytes();
        name.push(0);
        let long_name = header("././@LongLink", name.len(), EntryType::GNULongName);
        builder.append(&long_name, name.as_slice()).unwrap();
        builder
            .append(&header("short", 4, EntryType::Regular), &b"evil"[..])
            .unwrap();
    });
    let by_pax = tarred(|builder| {
        builder
            .append_pax_extensions([("path", &b"../../evil.txt"[..])])
            .unwrap();
        builder
            .append(&header("short", 4, EntryType::Regular), &b"evil"[..])
            .unwrap();
    });
    for body in [by_gnu, by_pax] {
        let root = tempfile::tempdir().unwrap();
        let (result, found) = unpacked(root.path(), &packed(&body));
        let error = result.unwrap_err().to_string();
        assert!(error.contains("leaves its folder"), "{error}");
        assert!(found.is_empty(), "{found:?}");
    }
}

#[test]
fn an_archive_that_grows_beyond_belief_is_refused() {
    // 40 MiB of nothing in less than 200 KiB.
    let body = packed(&tarred(|builder| {
        let size = 40 << 20;
        let zeros = std::io::Read::take(std::io::repeat(0), size as u64);
        builder
            .append(&header("zeros", size, EntryType::Regular), zeros)
            .unwrap();
    }));
    assert!(body.len() < 1 << 20);
    let root = tempfile::tempdir().unwrap();
    let error = unpacked(root.path(), &body).0.unwrap_err().to_string();
    assert!(error.contains("more than"), "{error}");
}

/// Several hundred damaged archives: a refusal is as good as a success, and nothing is ever written elsewhere.
#[test]
fn damaged_archives_write_nothing_elsewhere() {
    let plain = tarred(|builder| {
        for path in ["toy/a.txt", "toy/deep/er/b.txt"] {
            let header = header(path, 600, EntryType::Regular);
            builder.append(&header, &[b'.'; 600][..]).unwrap();
        }
        let mut link = header("toy/link", 0, EntryType::Symlink);
        link.set_link_name("../../..").unwrap();
        link.set_cksum();
        builder.append(&link, &[][..]).unwrap();
        let name = b"toy/long/name\0";
        let long_name = header("././@LongLink", name.len(), EntryType::GNULongName);
        builder.append(&long_name, &name[..]).unwrap();
        builder
            .append(&header("short", 4, EntryType::Regular), &b"good"[..])
            .unwrap();
    });
    let mut random = crate::rng::stream(7, 0, 0, crate::rng::Purpose::Method);
    let telling = b"./\x00007LKSx125\xFF";
    let mut unpacked_whole = 0;
    for _ in 0..800 {
        let mut bytes = plain.clone();
        let headers: Vec<usize> = (0..bytes.len()).step_by(512).collect();
        for _ in 0..random.random_range(1..6) {
            let start = headers[random.random_range(0..headers.len())];
            // Name, mode, size, checksum, kind, link name, magic: the first 265 bytes of a header.
            let at = (start + random.random_range(0..265)).min(bytes.len() - 1);
            bytes[at] = telling[random.random_range(0..telling.len())];
        }
        if random.random_range(0..4) > 0 {
            for header in bytes.chunks_exact_mut(512) {
                mend_checksum(header);
            }
        }
        if random.random_range(0..8) == 0 {
            bytes.truncate(random.random_range(0..bytes.len()));
        }
        let root = tempfile::tempdir().unwrap();
        let (result, found) = unpacked(root.path(), &packed(&bytes));
        unpacked_whole += usize::from(result.is_ok());
        assert!(
            found.iter().all(|path| path.starts_with("inner/set/")),
            "{found:?}"
        );
    }
    assert!((20..780).contains(&unpacked_whole), "{unpacked_whole}");
}
