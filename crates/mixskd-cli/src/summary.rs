//! The end of a run: a table of heads and the next commands to try.

use std::fmt::Write as _;
use std::time::Duration;

use mixskd_train::method::SELF_TEACHER;
use mixskd_train::{Report, shell_word};

use crate::output;
use crate::progress::{duration, percent};
use crate::style::Style;

/// Where the column of balanced accuracies stands, where classes have unequal numbers of test images.
const BALANCED_AT: usize = 3;

/// The table: the backbone, which is the result, then the heads that are thrown away; what was chosen on the test images
/// stands beside, and says so.
pub(crate) fn table(report: &Report, style: Style) -> String {
    let head = [
        "after the last epoch",
        "top-1",
        "top-5",
        "test loss",
        "best top-1, chosen on the test images",
    ];
    let mut rows = vec![head.map(String::from).to_vec()];
    for (k, score) in report.heads.iter().enumerate() {
        let (name, best) = if k == 0 {
            let best = &report.best_backbone;
            (
                format!("{} (the result)", score.name),
                format!("epoch {}: {}", best.epoch, percent(best.top1)),
            )
        } else {
            (score.name.clone(), String::new())
        };
        rows.push(vec![
            name,
            percent(score.top1),
            percent(score.top5),
            format!("{:.4}", score.loss),
            best,
        ]);
    }
    // The self-teacher is none of those that published figures choose from.
    let chosen_from = report.heads.iter().filter(|head| head.name != SELF_TEACHER);
    if chosen_from.count() > 1 {
        let best = &report.best_head;
        let cell = format!(
            "epoch {}: {}, {}",
            best.epoch,
            percent(best.top1),
            best.head
        );
        rows.push(vec![
            "best of backbone and branches".into(),
            String::new(),
            String::new(),
            String::new(),
            cell,
        ]);
    }
    if report
        .heads
        .iter()
        .any(|head| head.own_balanced().is_some())
    {
        rows[0].insert(BALANCED_AT, "balanced".into());
        let cells = report.heads.iter().map(|head| head.balanced);
        for (row, balanced) in rows[1..].iter_mut().zip(cells.chain([None])) {
            row.insert(BALANCED_AT, balanced.map_or(String::new(), percent));
        }
    }
    let table = output::table(&rows);
    let mut lines = table.lines().map(String::from).collect::<Vec<_>>();
    if let Some(result) = lines.get_mut(1) {
        *result = style.bold(result);
    }
    lines.join("\n")
}

/// What ran, the table, and what to type next; `data` is the `--data …` that the run was given, if any.
pub(crate) fn text(report: &Report, data: &str, style: Style) -> String {
    let mut text = format!(
        "\n{} on {}: {} × {}, {} epoch{} in {}, {:.0} images/s; {} parameters kept of {} in training\n\n",
        report.method,
        report.data,
        report.model,
        report.width,
        report.epochs,
        if report.epochs == 1 { "" } else { "s" },
        duration(Duration::from_secs_f64(report.seconds)),
        report.samples_per_s,
        report.parameters_kept,
        report.parameters_training,
    );
    text.push_str(&table(report, style));
    let weights = shell_word(&report.weights.display().to_string());
    let _ = write!(
        text,
        "\n\nrun directory: {}\nnext: mixskd eval --weights {weights}{data}",
        report.dir.display()
    );
    let _ = write!(text, "\n      mixskd predict --weights {weights} IMAGE");
    text
}

#[cfg(test)]
pub(crate) mod tests {
    use mixskd_train::{Best, HeadScore};

    use super::*;

    pub(crate) fn report() -> Report {
        let head = |name: &str, top1| HeadScore {
            name: name.into(),
            top1,
            top5: 0.99,
            balanced: None,
            loss: 0.5,
        };
        let best = |head: &str, epoch, top1| Best {
            epoch,
            head: head.into(),
            top1,
            top5: 0.99,
        };
        Report {
            method: "mixskd".into(),
            model: "cifar_resnet18".into(),
            width: 0.125,
            data: "shipped".into(),
            classes: 10,
            data_identity: None,
            start_sha256: None,
            epochs: 8,
            seed: 0,
            top1: 0.81,
            top5: 0.99,
            balanced: None,
            test_loss: 0.5,
            heads: vec![
                head("backbone", 0.81),
                head("branch 1", 0.79),
                head("self-teacher", 0.82),
            ],
            best_backbone: best("backbone", 7, 0.815),
            best_head: best("branch 3", 6, 0.83),
            parameters_kept: 10,
            parameters_training: 40,
            seconds: 187.0,
            samples_per_s: 300.0,
            peak_memory_bytes: Some(300_000_000),
            gpu_memory_bytes: None,
            dir: "runs/a b".into(),
            weights: "runs/a b/model.safetensors".into(),
        }
    }

    #[test]
    fn the_result_comes_first_and_what_the_test_images_chose_is_labelled() {
        let text = text(&report(), " --data pets", crate::style::stdout());
        let lines = text.lines().collect::<Vec<_>>();
        let start = lines
            .iter()
            .position(|line| line.starts_with("after the last epoch"))
            .unwrap();
        assert!(lines[start].ends_with("best top-1, chosen on the test images"));
        assert!(
            lines[start + 1].contains("backbone (the result)")
                && lines[start + 1].contains("81.00 %"),
            "{text}"
        );
        assert!(lines[start + 1].contains("epoch 7: 81.50 %"), "{text}");
        assert!(
            lines[start + 4].contains("epoch 6: 83.00 %, branch 3"),
            "{text}"
        );
        let weights = shell_word("runs/a b/model.safetensors");
        assert!(
            text.contains(&format!("mixskd eval --weights {weights} --data pets")),
            "{text}"
        );
    }

    #[test]
    fn a_balanced_accuracy_is_shown_where_it_says_something() {
        let mut report = report();
        assert!(!table(&report, crate::style::stdout()).contains("balanced"));
        for head in &mut report.heads {
            head.balanced = Some(0.5);
        }
        let text = table(&report, crate::style::stdout());
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].contains("top-5    balanced"), "{text}");
        for line in &lines[1..4] {
            assert!(line.contains("99.00 %   50.00 %"), "{text}");
        }
        assert!(lines[4].contains("epoch 6: 83.00 %, branch 3"), "{text}");
    }
}
