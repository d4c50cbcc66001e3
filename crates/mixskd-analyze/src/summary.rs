//! The figures of an analysis as one table.

use crate::{Analysis, Common, NetworkAnalysis};

/// Rows of cells: what, then one cell for each network. The first row names the networks.
pub fn summary(analysis: &Analysis) -> Vec<Vec<String>> {
    let networks = &analysis.networks;
    let mut rows = Vec::new();
    let mut row = |name: String, cell: &dyn Fn(&NetworkAnalysis) -> Option<String>| {
        let cells = networks.iter().map(cell).collect::<Vec<_>>();
        if cells.iter().any(Option::is_some) {
            let cells = cells.into_iter().map(Option::unwrap_or_default);
            rows.push(std::iter::once(name).chain(cells).collect::<Vec<_>>());
        }
    };
    row(String::new(), &|n| Some(n.name.clone()));
    row("weights".into(), &|n| Some(n.weights.clone()));
    row("network".into(), &|n| {
        let method = n.method.as_ref();
        let method = method.map_or(String::new(), |method| format!(", {method}"));
        Some(format!("{} × {}{method}", n.model, n.width))
    });
    row("top-1".into(), &|n| Some(percent(n.top1)));
    row("top-5".into(), &|n| Some(percent(n.top5)));
    let differs = |n: &NetworkAnalysis| (n.balanced - n.top1).abs() > 1e-9;
    let is_balanced_shown = networks.iter().any(differs);
    row("balanced accuracy".into(), &|n| {
        is_balanced_shown.then(|| percent(n.balanced))
    });
    row("loss, nats".into(), &|n| Some(format!("{:.4}", n.loss)));
    let bins = analysis.config.bins;
    row(format!("ECE, {bins} bins"), &|n| {
        Some(percent(n.calibration.as_ref()?.all.ece))
    });
    row("Brier score".into(), &|n| {
        Some(format!("{:.4}", n.calibration.as_ref()?.all.brier))
    });
    let judged = networks
        .iter()
        .find_map(|n| Some(n.calibration.as_ref()?.scaling.as_ref()?.after.images));
    row("temperature".into(), &|n| {
        let t = n.calibration.as_ref()?.scaling.as_ref()?.temperature;
        let bound = if t.at_bound { ", end of its range" } else { "" };
        Some(format!("{:.3}{bound}", t.value))
    });
    let judged = judged.map_or(String::new(), |images| format!(", {images} other images"));
    row(format!("ECE, T = 1 → scaled{judged}"), &|n| {
        let scaling = n.calibration.as_ref()?.scaling.as_ref()?;
        let (before, after) = (percent(scaling.before.ece), percent(scaling.after.ece));
        Some(format!("{before} → {after}"))
    });
    row("loss, T = 1 → scaled".into(), &|n| {
        let scaling = n.calibration.as_ref()?.scaling.as_ref()?;
        Some(format!(
            "{:.4} → {:.4}",
            scaling.before.nll, scaling.after.nll
        ))
    });
    for (k, lambda) in analysis.config.lambdas.iter().enumerate() {
        row(format!("error on mixes, λ = {lambda}"), &|n| {
            Some(percent(n.mixed.as_ref()?.get(k)?.error))
        });
    }
    for (k, epsilon) in analysis.config.epsilons.iter().enumerate() {
        row(format!("top-1 under FGSM, ε = {epsilon}/255"), &|n| {
            Some(percent(n.fgsm.as_ref()?.get(k)?.top1))
        });
    }
    for (name, of) in [
        ("shrunk image", true),
        ("shrunk image, output undone", false),
    ] {
        row(format!("{name}: top-1, loss, ECE"), &|n| {
            let rescaling = n.rescaling.as_ref()?;
            let r = if of {
                &rescaling.shrunk
            } else {
                &rescaling.undone
            };
            let (top1, ece) = (percent(r.accuracy), percent(r.ece));
            Some(format!("{top1}, {:.4}, {ece}", r.nll))
        });
    }
    row("worst class".into(), &|n| {
        let classes = n.per_class.as_ref()?.iter();
        let scores = classes.filter_map(|c| Some((c, c.top1?)));
        let (class, top1) = scores.min_by(|a, b| a.1.total_cmp(&b.1))?;
        Some(format!("{} ({})", class.class, percent(top1)))
    });
    if let Some(agreement) = &analysis.agreement {
        let mut common = |name: &str, common: &Common| {
            let cell = |mean: Option<f64>| mean.map_or("–".into(), |mean| format!("{mean:.3}"));
            rows.push(vec![
                format!("log-probability, both {name} ({} images)", common.images),
                cell(common.a.mean),
                cell(common.b.mean),
            ]);
        };
        common("wrong", &agreement.both_wrong);
        common("right", &agreement.both_right);
        rows.push(vec![
            "images that it alone has right".into(),
            agreement.only_a_right.to_string(),
            agreement.only_b_right.to_string(),
        ]);
    }
    rows
}

fn percent(fraction: f64) -> String {
    format!("{:.2} %", 100.0 * fraction)
}
