//! Work in a process of its own.

use std::io::{Read, Seek};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// What a child printed. It is ended when `over` says why; a child that fails is told with its last lines.
pub(crate) fn output_of(
    command: &mut Command,
    over: impl Fn() -> Option<String>,
) -> Result<String> {
    let mut errors = tempfile::tempfile()?;
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(errors.try_clone()?)
        .spawn()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if let Some(why) = over() {
            child.kill()?;
            child.wait()?;
            bail!(why);
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let mut text = String::new();
    if let Some(mut output) = child.stdout.take() {
        output.read_to_string(&mut text)?;
    }
    if !status.success() {
        let mut said = Vec::new();
        errors.rewind()?;
        errors.read_to_end(&mut said)?;
        let said = String::from_utf8_lossy(&said);
        let lines: Vec<_> = said.lines().collect();
        bail!(
            "{status}: {}",
            lines[lines.len().saturating_sub(3)..].join(" / ")
        );
    }
    Ok(text)
}

#[cfg(unix)]
#[cfg(test)]
pub(crate) mod tests {
    use std::sync::{Mutex, MutexGuard, PoisonError};
    use std::time::Instant;

    use super::*;

    /// Held by a test that begins processes. A program that another test is writing at that moment would be open in the new process, and could not be
    /// run: "text file busy".
    pub(crate) fn turn() -> MutexGuard<'static, ()> {
        static TURN: Mutex<()> = Mutex::new(());
        TURN.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn is_what_it_printed_or_why_it_came_to_nothing() {
        let _turn = turn();
        let never = || None;
        assert_eq!(output_of(&mut shell("echo yes"), never).unwrap(), "yes\n");
        let failed = output_of(
            &mut shell("for i in 1 2 3 4; do echo $i >&2; done; exit 3"),
            never,
        );
        let failed = failed.unwrap_err().to_string();
        assert!(failed.ends_with(": 2 / 3 / 4"), "{failed}");
        // Were it waited for, this would take an hour.
        let begun = Instant::now();
        let over = || (begun.elapsed() > Duration::from_millis(100)).then(|| "too late".into());
        let ended = output_of(&mut shell("exec sleep 3600"), over).unwrap_err();
        assert_eq!(ended.to_string(), "too late");
    }
}
