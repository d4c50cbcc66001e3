//! What a run finds: processor, memory, GPU.

use std::fs::File;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::device;

/// The machine this process runs on. What the system does not tell is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Operating system and architecture, `linux x86_64`.
    pub system: String,
    /// The processor's own name.
    pub processor: Option<String>,
    /// Instruction set of the float32 kernels: `AVX-512`, `AVX2`, `NEON` or `portable`.
    pub instruction_set: String,
    /// Those of the processor's features that matter to arithmetic, as the system names them: `avx2`, `fma`, `avx512f`, `asimd` and the like.
    #[serde(default)]
    pub cpu_features: Vec<String>,
    /// Threads that can run at once.
    pub threads: usize,
    /// Physical memory, in bytes.
    pub memory_bytes: Option<u64>,
    /// Memory that a new process could take, in bytes.
    pub memory_available_bytes: Option<u64>,
    /// Largest resident memory of this process so far, in bytes.
    pub peak_memory_bytes: Option<u64>,
    /// The GPU, or why there is none.
    pub gpu: String,
}

/// Which program this is: the first twelve digits of the SHA-256 of its file. Two builds may add up in another order, so that runs of both do not have the
/// bits that runs of one have. `None` where the file cannot be read.
pub fn build() -> Option<&'static str> {
    static BUILD: OnceLock<Option<String>> = OnceLock::new();
    let found = BUILD.get_or_init(|| {
        let mut file = File::open(std::env::current_exe().ok()?).ok()?;
        let mut hash = Sha256::new();
        std::io::copy(&mut file, &mut hash).ok()?;
        let mut digits = format!("{:x}", hash.finalize());
        digits.truncate(12);
        Some(digits)
    });
    found.as_deref()
}

impl Machine {
    /// Looks around.
    pub fn detect() -> Self {
        let table = |path| std::fs::read_to_string(path).unwrap_or_default();
        let (memory, processor) = (table("/proc/meminfo"), table("/proc/cpuinfo"));
        Self {
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            processor: field(&processor, "model name").map(str::to_string),
            instruction_set: mixskd_kernels::instruction_set().into(),
            cpu_features: features(&processor),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: kibibytes(&memory, "MemTotal"),
            memory_available_bytes: kibibytes(&memory, "MemAvailable"),
            peak_memory_bytes: peak_resident_bytes(),
            gpu: device::describe_gpu(),
        }
    }
}

/// Largest resident memory of this process so far, in bytes, where the system keeps count (Linux).
pub(crate) fn peak_resident_bytes() -> Option<u64> {
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

    #[test]
    fn this_machine_has_threads_and_a_named_instruction_set() {
        let machine = Machine::detect();
        assert!(machine.threads >= 1);
        assert!(!machine.gpu.is_empty() && !machine.instruction_set.is_empty());
    }
}
