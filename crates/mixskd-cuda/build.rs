//! The kernels to PTX with nvcc (feature `cuda`), or to machine code for the emulator (feature `emulator`); otherwise nothing.

use std::error::Error;

// Only nvcc can fail here.
#[cfg_attr(not(feature = "cuda"), expect(clippy::unnecessary_wraps))]
fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=kernels");
    println!("cargo::rerun-if-changed=emulator");
    #[cfg(feature = "cuda")]
    ptx()?;
    #[cfg(feature = "emulator")]
    emulator();
    Ok(())
}

/// Virtual architecture of the PTX: the oldest with bfloat16. The driver compiles it for the GPU it meets.
#[cfg(feature = "cuda")]
const ARCHITECTURE: &str = "compute_80";

#[cfg(feature = "cuda")]
fn ptx() -> Result<(), Box<dyn Error>> {
    use std::path::{Path, PathBuf};
    use std::process::Command;

    for name in ["NVCC", "CUDA_HOME", "CUDA_PATH"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let in_home = |home: &str| {
        let path = Path::new(&std::env::var_os(home)?).join("bin").join("nvcc");
        path.exists().then_some(path)
    };
    let nvcc = std::env::var_os("NVCC")
        .map(PathBuf::from)
        .or_else(|| in_home("CUDA_HOME"))
        .or_else(|| in_home("CUDA_PATH"))
        .unwrap_or_else(|| "nvcc".into());
    let out = PathBuf::from(std::env::var("OUT_DIR")?).join("kernels.ptx");
    let status = Command::new(&nvcc)
        .args(["--ptx", "-O3", "-std=c++17", "-arch", ARCHITECTURE, "-o"])
        .arg(&out)
        .arg("kernels/all.cu")
        .status()
        .map_err(|error| {
            format!(
                "cannot run {}: {error}\nhint: install the CUDA toolkit, or name nvcc in NVCC",
                nvcc.display()
            )
        })?;
    if !status.success() {
        return Err(format!("{} kernels/all.cu: {status}", nvcc.display()).into());
    }
    Ok(())
}

#[cfg(feature = "emulator")]
fn emulator() {
    // Kernels register themselves before main: all of the archive has to be linked.
    let compile = |files: &[&str], flags: &[&str], name: &str| {
        let mut build = cc::Build::new();
        build.cpp(true).std("c++17").opt_level(2).files(files);
        for flag in flags {
            build.flag(flag);
        }
        build.link_lib_modifier("+whole-archive").compile(name);
    };
    let files = ["host.cpp", "racecheck.cpp", "all.cpp"].map(|name| format!("emulator/{name}"));
    compile(
        &files.each_ref().map(String::as_str),
        &[],
        "mixskd_emulator",
    );
    // Elsewhere linkers know no bounds of what is static.
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system == "linux") {
        compile(
            &["emulator/watched.cpp"],
            &["-fsanitize=thread"],
            "mixskd_racecheck",
        );
    }
}
