//! Signals: the only place that listens to them.

#[cfg(unix)]
#[path = "unix.rs"]
mod system;
#[cfg(windows)]
#[path = "windows.rs"]
mod system;

pub(crate) use system::{end_with_parent, pass_on, status, watch};

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    /// The first SIGINT, SIGTERM or SIGHUP, or Ctrl-C in a console: come to an end.
    Stop,
    /// The second of its kind: the process ends as soon as the listener returns.
    Now,
    /// SIGUSR1: write a checkpoint and go on. Windows has no such thing.
    #[cfg_attr(windows, expect(dead_code, reason = "nothing there asks for it"))]
    Checkpoint,
}

/// Says something without waiting for ever: a stderr that nobody reads must not keep the next signal from being heard.
pub(crate) fn tell(say: impl FnOnce() + Send + 'static) {
    let (done, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        say();
        let _ = done.send(());
    });
    let _ = told.recv_timeout(std::time::Duration::from_millis(200));
}
