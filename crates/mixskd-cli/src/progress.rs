//! How a run is shown while it goes: a bar on a terminal, plain lines elsewhere. Everything goes to stderr.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use mixskd_train::{EpochRecord, HeadScore, Observer, RunStart, StepEvent};

use crate::{output, style};

/// Shows a run.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    clock: Clock,
    epochs: usize,
    notices: Vec<String>,
}

impl Progress {
    /// A bar where stderr is a terminal, else plain lines.
    pub(crate) fn new() -> Self {
        let is_shown = std::io::stderr().is_terminal() && !output::is_quiet();
        let bar = is_shown.then(ProgressBar::hidden);
        Self {
            bar,
            clock: Clock::new(0, 0),
            epochs: 0,
            notices: Vec::new(),
        }
    }

    /// Every notice so far.
    pub(crate) fn notices(&self) -> Vec<String> {
        self.notices.clone()
    }

    /// One line of progress.
    fn show(&self, text: &str) {
        if !output::is_quiet() {
            self.say(text);
        }
    }

    /// One line above the bar, or one plain line.
    fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| plain(text)),
            None => plain(text),
        }
    }
}

impl Observer for Progress {
    fn started(&mut self, start: &RunStart) {
        self.epochs = start.epochs;
        let first_step = start.first_epoch * start.steps + start.first_step;
        let steps = start.epochs * start.steps;
        self.clock = Clock::new(first_step, steps);
        if first_step >= steps {
            self.show("every epoch of this run is done already");
            return;
        }
        let input = start.input;
        let from = match (start.first_epoch, start.first_step) {
            (0, 0) => String::new(),
            (done, 0) => format!(" on from epoch {}", done + 1),
            (done, step) => format!(" on from epoch {}, step {}", done + 1, step + 1),
        };
        self.show(&format!(
            "training{from}: {} epoch{} of {} step{}, {} image{} each of {input} × {input} pixels, into {}",
            start.epochs,
            if start.epochs == 1 { "" } else { "s" },
            start.steps,
            if start.steps == 1 { "" } else { "s" },
            start.batch,
            if start.batch == 1 { "" } else { "s" },
            start.dir.display()
        ));
        if let Some(bar) = &self.bar {
            bar.set_style(bar_style());
            bar.set_length(steps as u64);
            bar.set_position(first_step as u64);
            bar.set_draw_target(ProgressDrawTarget::stderr());
        }
    }

    fn step(&mut self, event: &StepEvent) {
        let left = duration(self.clock.tick());
        if let Some(bar) = &self.bar {
            bar.set_prefix(format!(
                "epoch {}/{}, {:.0} images/s, {left} left",
                event.epoch + 1,
                self.epochs,
                event.samples_per_s,
            ));
            bar.set_message(format!(
                "loss {:.3}: {}",
                event.loss,
                terms(event.terms.iter().copied())
            ));
            bar.inc(1);
        }
    }

    fn epoch(&mut self, record: &EpochRecord) {
        let balanced = record.heads.first().and_then(HeadScore::own_balanced);
        let mut text = format!(
            "epoch {}/{}: test top-1 {}, top-5 {}{}, test loss {:.3}, training loss {:.3}",
            record.epoch,
            self.epochs,
            percent(record.top1),
            percent(record.top5),
            balanced.map_or(String::new(), |balanced| format!(
                ", balanced {}",
                percent(balanced)
            )),
            record.test_loss,
            record.loss
        );
        if record.terms.len() > 1 {
            let named = record
                .terms
                .iter()
                .map(|(name, value)| (name.as_str(), *value));
            let _ = write!(text, " ({})", terms(named));
        }
        let _ = write!(
            text,
            ", {:.0} images/s, {:.1} s",
            record.samples_per_s, record.seconds
        );
        if record.epoch < self.epochs {
            let _ = write!(text, ", {} left", duration(self.clock.left()));
        }
        self.show(&text);
    }

    fn notice(&mut self, text: &str) {
        let text = output::printable(text);
        self.notices.push(text.clone());
        self.say(&format!("{} {text}", style::stderr().cyan("note:")));
    }
}

/// The bar goes whether the run ended well or not; what is said next stands on a line of its own.
impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// The whole run's steps, and when they will be done at the pace so far, evaluations included.
struct Clock {
    started: Instant,
    first: usize,
    done: usize,
    steps: usize,
}

impl Clock {
    fn new(first: usize, steps: usize) -> Self {
        Self {
            started: Instant::now(),
            first,
            done: first,
            steps,
        }
    }

    fn tick(&mut self) -> Duration {
        self.done += 1;
        self.left()
    }

    fn left(&self) -> Duration {
        self.left_after(self.started.elapsed())
    }

    fn left_after(&self, elapsed: Duration) -> Duration {
        let per_step = elapsed.as_secs_f64() / (self.done - self.first).max(1) as f64;
        Duration::from_secs_f64(per_step * self.steps.saturating_sub(self.done) as f64)
    }
}

/// One line for the run, one for the loss terms, cut to the terminal's width.
fn bar_style() -> ProgressStyle {
    let template = if style::stderr().colour() {
        COLOURED
    } else {
        PLAIN
    };
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━╸─")
}

const COLOURED: &str = "{bar:24.cyan/dim} {percent} %  {prefix}\n{wide_msg}";
const PLAIN: &str = "{bar:24} {percent} %  {prefix}\n{wide_msg}";

/// A closed stderr is no reason to stop a run.
fn plain(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

fn terms<'a>(terms: impl Iterator<Item = (&'a str, f64)>) -> String {
    terms
        .map(|(name, value)| format!("{name} {value:.3}"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// A fraction as a percentage with two decimals.
pub(crate) fn percent(fraction: f64) -> String {
    format!("{:.2} %", 100.0 * fraction)
}

/// `7 s`, `3 min 07 s`, `2 h 05 min`.
pub(crate) fn duration(time: Duration) -> String {
    let seconds = time.as_secs_f64().round() as u64;
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{rest} s"),
        (0, _) => format!("{minutes} min {rest:02} s"),
        _ => format!("{hours} h {minutes:02} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        let read = |seconds| duration(Duration::from_secs(seconds));
        assert_eq!(
            [read(7), read(187), read(7500)],
            ["7 s", "3 min 07 s", "2 h 05 min"]
        );
    }

    #[test]
    fn the_bar_templates_are_understood() {
        for template in [COLOURED, PLAIN] {
            assert!(ProgressStyle::with_template(template).is_ok());
        }
    }

    #[test]
    fn time_left_counts_only_steps_of_this_process() {
        let mut clock = Clock::new(90, 100);
        for _ in 0..4 {
            clock.tick();
        }
        assert_eq!(
            clock.left_after(Duration::from_secs(8)),
            Duration::from_secs(12)
        );
    }
}
