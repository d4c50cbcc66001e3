//! What a run finds: processor, memory, GPU.

use serde::{Deserialize, Serialize};

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

impl Machine {
    /// Looks around.
    pub fn detect() -> Self {
        let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        Self {
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            processor: std::fs::read_to_string("/proc/cpuinfo")
                .ok()
                .and_then(|text| field(&text, "model name").map(str::to_string)),
            instruction_set: mixskd_kernels::instruction_set().into(),
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
    }

    #[test]
    fn this_machine_has_threads_and_a_named_instruction_set() {
        let machine = Machine::detect();
        assert!(machine.threads >= 1);
        assert!(!machine.gpu.is_empty() && !machine.instruction_set.is_empty());
    }
}
