//! Signals as Unix has them.

use std::process::Command;
use std::sync::atomic::{AtomicI32, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGKILL, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

use super::Request;
use crate::failure::{Failure, Result};

/// The first signal that asked this process to end; 0 before there is one.
static RECEIVED: AtomicI32 = AtomicI32::new(0);

/// Tells `listener` of every signal, on a thread of its own, from now on.
pub(crate) fn watch(listener: impl Fn(Request) + Send + 'static) -> Result<()> {
    let failed =
        |error: std::io::Error| Failure::failed(format!("cannot listen to signals: {error}"), None);
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGUSR1]).map_err(failed)?;
    // The terminal is gone. Whoever began the process with nohup does not want to hear of it.
    if !is_ignored(SIGHUP) {
        signals.add_signal(SIGHUP).map_err(failed)?;
    }
    let work = move || {
        let mut seen = Vec::new();
        for signal in signals.forever() {
            if signal == SIGUSR1 {
                listener(Request::Checkpoint);
            } else if seen.contains(&signal) {
                // The system and a shell may both tell of a terminal that is gone.
                if signal == SIGHUP {
                    continue;
                }
                listener(Request::Now);
                signal_hook::low_level::exit(128 + signal);
            } else {
                seen.push(signal);
                let _ = RECEIVED.compare_exchange(0, signal, Ordering::SeqCst, Ordering::SeqCst);
                listener(Request::Stop);
            }
        }
    };
    let thread = std::thread::Builder::new().name("mixskd-signals".into());
    thread.spawn(work).map_err(failed)?;
    Ok(())
}

fn is_ignored(signal: i32) -> bool {
    // SAFETY: all zeros are a valid `sigaction`, and the call fills it in without changing anything.
    unsafe {
        let mut now: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &raw mut now) == 0
            && now.sa_sigaction == libc::SIG_IGN
    }
}

/// Exit status of a process that ended because a signal asked it to: 129, 130 or 143.
pub(crate) fn status() -> u8 {
    match RECEIVED.load(Ordering::SeqCst) {
        0 => 128 + SIGINT as u8,
        signal => 128 + signal as u8,
    }
}

/// Asks a child for what this process was asked for. Whoever signals the process group has asked both; the other of the two kinds on
/// top of it changes nothing, while a second of the same kind would end the child at once.
pub(crate) fn pass_on(child: u32, request: Request) {
    let signal = match request {
        Request::Stop if RECEIVED.load(Ordering::SeqCst) == SIGINT => SIGTERM,
        Request::Stop => SIGINT,
        Request::Now => SIGKILL,
        Request::Checkpoint => SIGUSR1,
    };
    // SAFETY: no memory is involved; a child that has ended in between is answered with an error that concerns nobody.
    unsafe { libc::kill(child as libc::pid_t, signal) };
}

/// Makes the system ask `command`'s process to stop when this one is killed, where it can (Linux).
pub(crate) fn end_with_parent(command: &mut Command) {
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::process::CommandExt;
        // SAFETY: between fork and exec one system call is made, with constants; it touches no memory.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
                Ok(())
            });
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = command;
}
