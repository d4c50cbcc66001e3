//! What `--dry-run` prints.

use std::fmt::Write as _;
use std::time::Duration;

use mixskd_train::compare::CompareConfig;
use mixskd_train::{Plan, TrainConfig};
use serde_json::json;

use crate::failure::Result;
use crate::output;
use crate::progress::duration;

/// Prints the resolved configuration and what the run would take.
pub(crate) fn print(config: &TrainConfig, plan: &Plan, as_json: bool) -> Result<()> {
    if as_json {
        return output::json(&json!({ "config": config, "plan": plan }));
    }
    output::line(&text(&config.to_toml()?, plan))
}

fn text(config: &str, plan: &Plan) -> String {
    let mut text = format!("{config}\n# What the run would take. Nothing was written.\n\n");
    let mut rows = vec![
        ["stage", "height", "width", "channels"]
            .map(String::from)
            .to_vec(),
    ];
    for (k, stage) in plan.stages.iter().enumerate() {
        rows.push(
            [k + 1, stage.h, stage.w, stage.c]
                .map(|n| n.to_string())
                .to_vec(),
        );
    }
    let _ = writeln!(text, "{}\n", output::table(&rows));
    let rows = [
        ("parameters kept", grouped(plan.parameters_kept as u64)),
        (
            "parameters in training",
            grouped(plan.parameters_training as u64),
        ),
        (
            "multiply-adds per image",
            format!("{} (inference)", grouped(plan.macs_per_image)),
        ),
        (
            "multiply-adds per step",
            format!("{} (training)", grouped(plan.macs_per_step)),
        ),
        (
            "memory, estimated",
            format!("{:.1} MiB", plan.memory_bytes as f64 / f64::from(1 << 20)),
        ),
        (
            "time per step, estimated",
            format!("{:.3} s", plan.seconds_per_step),
        ),
        (
            "images",
            format!(
                "{} training, {} test",
                grouped(plan.train_images as u64),
                grouped(plan.test_images as u64)
            ),
        ),
        (
            "steps",
            format!(
                "{} per epoch, {} epochs",
                grouped(plan.steps_per_epoch as u64),
                plan.epochs
            ),
        ),
        (
            "time of the run, estimated",
            duration(Duration::try_from_secs_f64(plan.seconds_total).unwrap_or(Duration::MAX)),
        ),
    ];
    text.push_str(&output::columns(&rows));
    text
}

/// Prints what the runs of a comparison would take: `plans` has an entry's name and one run of it.
pub(crate) fn print_comparison(
    config: &CompareConfig,
    plans: &[(String, Plan)],
    as_json: bool,
) -> Result<()> {
    let seeds = config.seeds.len();
    let of_a_seed: f64 = plans.iter().map(|(_, plan)| plan.seconds_total).sum();
    // At equal time every entry but the costliest is trained once more, for as long as that one.
    let times = plans.iter().map(|(_, plan)| plan.seconds_total);
    let longest = times.fold(0.0, f64::max);
    let again = if config.equal_time {
        longest * plans.len().saturating_sub(1) as f64
    } else {
        0.0
    };
    let total = (of_a_seed + again) * seeds as f64;
    if as_json {
        let entries = plans.iter().map(|(name, plan)| {
            let mut plan = json!(plan);
            // All are tried in this process, whose memory never falls.
            if let Some(plan) = plan.as_object_mut() {
                plan.remove("memory_bytes");
            }
            json!({ "entry": name, "plan": plan })
        });
        return output::json(&json!({
            "entries": entries.collect::<Vec<_>>(),
            "seeds": config.seeds,
            "seconds_total": total,
        }));
    }
    let time =
        |seconds: f64| duration(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX));
    let mut rows = vec![
        ["entry", "parameters in training", "s per step", "a run"]
            .map(String::from)
            .to_vec(),
    ];
    for (name, plan) in plans {
        rows.push(vec![
            name.clone(),
            grouped(plan.parameters_training as u64),
            format!("{:.3}", plan.seconds_per_step),
            time(plan.seconds_total),
        ]);
    }
    let Some((_, first)) = plans.first() else {
        return Ok(());
    };
    output::line(&format!(
        "{} epoch{} of {} steps, {} training and {} test images\n{}\n\n{} runs, {} entr{} by {seeds} seed{}{}: about {}\nNothing was written.",
        first.epochs,
        if first.epochs == 1 { "" } else { "s" },
        grouped(first.steps_per_epoch as u64),
        grouped(first.train_images as u64),
        grouped(first.test_images as u64),
        output::table(&rows),
        plans.len() * seeds,
        plans.len(),
        if plans.len() == 1 { "y" } else { "ies" },
        if seeds == 1 { "" } else { "s" },
        if config.equal_time {
            ", and again at equal time"
        } else {
            ""
        },
        time(total),
    ))
}

/// A count in groups of three digits.
fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (k, digit) in digits.chars().enumerate() {
        if k > 0 && (digits.len() - k).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_grouped_by_three() {
        assert_eq!(
            [0, 999, 1000, 1234567].map(grouped),
            ["0", "999", "1,000", "1,234,567"]
        );
    }
}
