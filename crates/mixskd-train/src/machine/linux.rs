//! Processor and memory by Linux's tables in `/proc`.

use super::Found;

/// What the system says of itself.
pub(super) fn look() -> Found {
    let table = |path| std::fs::read_to_string(path).unwrap_or_default();
    let (memory, processor) = (table("/proc/meminfo"), table("/proc/cpuinfo"));
    Found {
        processor: field(&processor, "model name").map(str::to_string),
        features: features(&processor),
        memory: kibibytes(&memory, "MemTotal"),
        available: kibibytes(&memory, "MemAvailable"),
    }
}

/// Largest resident memory of this process so far, in bytes.
pub(super) fn peak_resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    kibibytes(&status, "VmHWM")
}

/// What is worth telling of `/proc/cpuinfo`'s long list.
const TELLING: [&str; 17] = [
    "sse4_2",
    "avx",
    "avx2",
    "fma",
    "f16c",
    "avx512f",
    "avx512dq",
    "avx512bw",
    "avx512vl",
    "avx512_vnni",
    "avx512_bf16",
    "amx_bf16",
    "amx_int8",
    "asimd",
    "asimdhp",
    "sve",
    "bf16",
];

fn features(processor: &str) -> Vec<String> {
    let all = field(processor, "flags").or_else(|| field(processor, "Features"));
    let words: Vec<_> = all.unwrap_or_default().split_whitespace().collect();
    let there = TELLING.iter().filter(|name| words.contains(name));
    there.map(ToString::to_string).collect()
}

/// The first `name : value` of one of the system's tables.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

/// A field in kB, as bytes.
fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let value = field(text, name)?.strip_suffix("kB")?;
    value.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_tables_are_read() {
        let text = "MemTotal:       24000 kB\nMemAvailable: 12 kB\nmodel name\t: A Processor\n";
        assert_eq!(kibibytes(text, "MemTotal"), Some(24_000 * 1024));
        assert_eq!(kibibytes(text, "Mem"), None);
        assert_eq!(field(text, "model name"), Some("A Processor"));
        assert_eq!(
            features("flags\t\t: fpu avx sse fma avx2x\n"),
            ["avx", "fma"]
        );
        assert_eq!(features("Features\t: fp asimd crc32\n"), ["asimd"]);
        assert!(features(text).is_empty());
    }
}
