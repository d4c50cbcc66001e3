//! Processor and memory on systems without `/proc`: macOS, Windows.

use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};

use super::Found;

/// What the system says of itself.
pub(super) fn look() -> Found {
    let wanted = RefreshKind::nothing()
        .with_cpu(CpuRefreshKind::nothing())
        .with_memory(MemoryRefreshKind::nothing().with_ram());
    let system = System::new_with_specifics(wanted);
    let name = system.cpus().first().map(|cpu| cpu.brand().trim());
    let bytes = |count: u64| (count > 0).then_some(count);
    Found {
        processor: name.filter(|name| !name.is_empty()).map(str::to_string),
        features: features(),
        memory: bytes(system.total_memory()),
        available: bytes(system.available_memory()),
    }
}

/// The features that decide which kernels run; the system names none.
fn features() -> Vec<String> {
    let mut there = Vec::new();
    let mut look = |name: &str, found: bool| {
        if found {
            there.push(name.to_string());
        }
    };
    #[cfg(target_arch = "x86_64")]
    {
        look("sse4_2", is_x86_feature_detected!("sse4.2"));
        look("avx", is_x86_feature_detected!("avx"));
        look("avx2", is_x86_feature_detected!("avx2"));
        look("fma", is_x86_feature_detected!("fma"));
        look("f16c", is_x86_feature_detected!("f16c"));
        look("avx512f", is_x86_feature_detected!("avx512f"));
        look("avx512dq", is_x86_feature_detected!("avx512dq"));
        look("avx512bw", is_x86_feature_detected!("avx512bw"));
        look("avx512vl", is_x86_feature_detected!("avx512vl"));
        look("avx512_vnni", is_x86_feature_detected!("avx512vnni"));
        look("avx512_bf16", is_x86_feature_detected!("avx512bf16"));
    }
    #[cfg(target_arch = "aarch64")]
    look("asimd", std::arch::is_aarch64_feature_detected!("neon"));
    there
}

/// Largest resident memory of this process so far, in bytes.
#[cfg(windows)]
pub(super) fn peak_resident_bytes() -> Option<u64> {
    use windows_sys::Win32::System::ProcessStatus::{
        GetProcessMemoryInfo, PROCESS_MEMORY_COUNTERS,
    };
    use windows_sys::Win32::System::Threading::GetCurrentProcess;

    let mut counters = PROCESS_MEMORY_COUNTERS::default();
    let size = u32::try_from(size_of_val(&counters)).ok()?;
    // SAFETY: the handle is this process's own and needs no closing; the call fills in a structure of the size it is told.
    let done = unsafe { GetProcessMemoryInfo(GetCurrentProcess(), &raw mut counters, size) };
    (done != 0).then_some(counters.PeakWorkingSetSize as u64)
}

/// Largest resident memory of this process so far, in bytes.
#[cfg(unix)]
pub(super) fn peak_resident_bytes() -> Option<u64> {
    // Apple counts bytes, the others kibibytes.
    let unit = if cfg!(target_vendor = "apple") {
        1
    } else {
        1024
    };
    // SAFETY: all zeros are a valid `rusage`, and the call fills it in.
    let (done, usage) = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        let done = libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        (done, usage)
    };
    let peak = u64::try_from(usage.ru_maxrss).ok()?.checked_mul(unit)?;
    (done == 0).then_some(peak)
}
