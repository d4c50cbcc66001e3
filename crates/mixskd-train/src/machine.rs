//! What a run finds: processor, memory, GPU.

use std::fs::File;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::device;

#[cfg(not(target_os = "linux"))]
#[path = "machine/elsewhere.rs"]
mod system;
#[cfg(target_os = "linux")]
#[path = "machine/linux.rs"]
mod system;

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
        let found = system::look();
        Self {
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            processor: found.processor,
            instruction_set: mixskd_kernels::instruction_set().into(),
            cpu_features: found.features,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: found.memory,
            memory_available_bytes: found.available,
            peak_memory_bytes: peak_resident_bytes(),
            gpu: device::describe_gpu(),
        }
    }
}

/// Largest resident memory of this process so far, in bytes, where the system keeps count.
pub(crate) fn peak_resident_bytes() -> Option<u64> {
    system::peak_resident_bytes()
}

/// What a system tells of its processor and memory.
struct Found {
    processor: Option<String>,
    features: Vec<String>,
    memory: Option<u64>,
    available: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_threads_and_a_named_instruction_set() {
        let machine = Machine::detect();
        assert!(machine.threads >= 1);
        assert!(!machine.gpu.is_empty() && !machine.instruction_set.is_empty());
    }
}
