//! The charts of an analysis.

mod chart;

use chart::{Axis, Chart, Series};

pub(crate) use chart::escape;

use crate::{Agreement, Analysis, Common, NetworkAnalysis, Reliability};

/// Rows of the chart of classes; with more classes, those that the first network knows worst.
const CLASSES: usize = 40;

/// A chart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Figure {
    /// Its file's name.
    pub file: String,
    /// What it shows, in one sentence.
    pub caption: String,
    /// The picture.
    pub svg: String,
}

impl Analysis {
    /// The charts of everything that was measured.
    pub fn figures(&self) -> Vec<Figure> {
        let mut figures = Vec::new();
        for network in &self.networks {
            figures.extend(reliability(network));
        }
        figures.extend(self.agreement.as_ref().map(agreement).into_iter().flatten());
        figures.extend(self.mixed());
        figures.extend(self.fgsm());
        figures.extend(self.class_chart());
        figures
    }

    /// What a network is called in a legend.
    fn legend(network: &NetworkAnalysis) -> String {
        let method = network.method.as_ref();
        method.map_or(network.name.clone(), |method| {
            format!("{}: {method}", network.name)
        })
    }

    fn lines(
        &self,
        title: &str,
        (x, y): (Axis<'_>, Axis<'_>),
        points: impl Fn(&NetworkAnalysis) -> Option<Vec<(f64, f64)>>,
    ) -> String {
        let mut chart = Chart::new(title, x, y);
        for (index, network) in self.networks.iter().enumerate() {
            if let Some(points) = points(network) {
                chart.name(Series::of(index), &Self::legend(network));
                chart.line(Series::of(index), &points);
            }
        }
        chart.finish()
    }

    fn mixed(&self) -> Option<Figure> {
        let points = |network: &NetworkAnalysis| {
            let points = network.mixed.as_ref()?;
            let mut points: Vec<_> = points.iter().map(|p| (p.lambda, p.error)).collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            Some(points)
        };
        let all = self.networks.iter().filter_map(points).flatten();
        let high = all.map(|(_, y)| y).fold(f64::NAN, f64::max);
        let axes = (
            axis("λ, the share of the first image", 0.0, 1.0, false),
            axis("error", 0.0, ceiling(high)?, true),
        );
        Some(Figure {
            file: "mixed-error.svg".into(),
            caption: "Error on mixes λ·x + (1−λ)·x′; a prediction is right if it is either image's class.".into(),
            svg: self.lines("Error on mixed images", axes, points),
        })
    }

    fn fgsm(&self) -> Option<Figure> {
        let points = |network: &NetworkAnalysis| {
            let points = network.fgsm.as_ref()?;
            let mut points: Vec<_> = points.iter().map(|p| (p.epsilon, p.top1)).collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            Some(points)
        };
        let all = self.networks.iter().filter_map(points).flatten();
        let most = all.map(|(x, _)| x).fold(f64::NAN, f64::max);
        let most = (most > 0.0).then_some(most)?;
        let axes = (
            axis("ε, in 1/255 of a pixel's range", 0.0, most, false),
            axis("top-1", 0.0, 1.0, true),
        );
        Some(Figure {
            file: "fgsm.svg".into(),
            caption: "Accuracy under one step of the fast gradient sign method, each network attacked by its own gradient.".into(),
            svg: self.lines("Accuracy under attack (FGSM)", axes, points),
        })
    }

    fn class_chart(&self) -> Option<Figure> {
        let first = self.networks.first()?.per_class.as_ref()?;
        let mut order = (0..first.len())
            .filter(|&k| first[k].images > 0)
            .collect::<Vec<_>>();
        let score = |k: usize| first[k].top1.unwrap_or(0.0);
        order.sort_by(|&a, &b| score(a).total_cmp(&score(b)).then(a.cmp(&b)));
        order.truncate(CLASSES);
        let names = order
            .iter()
            .map(|&k| first[k].class.clone())
            .collect::<Vec<_>>();
        let mut chart = Chart::rows(
            "Accuracy of every class",
            axis("top-1", 0.0, 1.0, true),
            &names,
        );
        for (index, network) in self.networks.iter().enumerate() {
            let series = Series::of(index);
            chart.name(series, &Self::legend(network));
            for (row, &k) in order.iter().enumerate() {
                let score = network.per_class.as_ref().and_then(|c| c.get(k)?.top1);
                if let Some(score) = score {
                    let (x, y) = (chart.x_at(score), chart.y_at(row as f64 + 0.5));
                    chart.mark(series, x, y);
                }
            }
        }
        let worst = if first.len() > CLASSES {
            format!(" The {CLASSES} classes that A knows worst.")
        } else {
            String::new()
        };
        Some(Figure {
            file: "per-class.svg".into(),
            caption: format!(
                "Share of each class that is classified rightly, worst of A first.{worst}"
            ),
            svg: chart.finish(),
        })
    }
}

/// A round upper end for fractions up to `high`; none where nothing was measured.
fn ceiling(high: f64) -> Option<f64> {
    let steps = [0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0];
    high.is_finite()
        .then(|| steps.into_iter().find(|step| *step >= high).unwrap_or(1.0))
}

fn axis(label: &str, low: f64, high: f64, percent: bool) -> Axis<'_> {
    Axis {
        label,
        low,
        high,
        percent,
    }
}

fn reliability(network: &NetworkAnalysis) -> Vec<Figure> {
    let Some(calibration) = &network.calibration else {
        return Vec::new();
    };
    let name = Analysis::legend(network);
    let mut figures = vec![Figure {
        file: format!("reliability-{}.svg", network.name),
        caption: format!(
            "Reliability of {name}: bars are accuracies, the heavy line on each bar's column its mean confidence. On the dashed line both are equal."
        ),
        svg: diagram(&format!("Reliability of {name}"), &calibration.all),
    }];
    if let Some(scaling) = &calibration.scaling {
        let temperature = scaling.temperature.value;
        figures.push(Figure {
            file: format!("reliability-{}-scaled.svg", network.name),
            caption: format!("The same with logits divided by T = {temperature:.3}, on the {} images that T was not fitted on.", scaling.after.images),
            svg: diagram(&format!("Reliability of {name} at T = {temperature:.3}"), &scaling.after),
        });
    }
    figures
}

fn diagram(title: &str, reliability: &Reliability) -> String {
    let axes = [
        axis("confidence", 0.0, 1.0, true),
        axis("accuracy", 0.0, 1.0, true),
    ];
    let [x, y] = axes;
    let mut chart = Chart::new(title, x, y);
    chart.note(&format!(
        "ECE {:.2} %, {} bins, {} images; accuracy {:.2} %, mean confidence {:.2} %",
        100.0 * reliability.ece,
        reliability.bins.len(),
        reliability.images,
        100.0 * reliability.accuracy,
        100.0 * reliability.confidence
    ));
    let base = chart.y_at(0.0);
    for bin in &reliability.bins {
        let (Some(accuracy), Some(confidence)) = (bin.accuracy, bin.confidence) else {
            continue;
        };
        let (left, right) = (chart.x_at(bin.low), chart.x_at(bin.high));
        let (top, sure) = (chart.y_at(accuracy), chart.y_at(confidence));
        chart.push(format_args!(
            "<rect class=\"c-bar\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\"><title>{:.3} to {:.3}: {} images, accuracy {:.1} %, confidence {:.1} %</title></rect><path class=\"c-ink\" stroke-width=\"3\" d=\"M{left:.1} {sure:.1}H{right:.1}\"/>",
            right - left,
            base - top,
            bin.low,
            bin.high,
            bin.images,
            100.0 * accuracy,
            100.0 * confidence
        ));
    }
    let (x0, y0, x1, y1) = (chart.x_at(0.0), base, chart.x_at(1.0), chart.y_at(1.0));
    chart.push(format_args!(
        "<path class=\"c-ink\" stroke-dasharray=\"5 4\" d=\"M{x0:.1} {y0:.1}L{x1:.1} {y1:.1}\"/>"
    ));
    chart.finish()
}

fn agreement(agreement: &Agreement) -> [Figure; 2] {
    let figure = |file: &str, common: &Common, which: &str, better: &str| {
        let share = |counts: &[usize]| {
            let total = common.images.max(1) as f64;
            let shares = counts.iter().map(|&count| count as f64 / total);
            shares.collect::<Vec<_>>()
        };
        let (a, b) = (share(&common.a.histogram), share(&common.b.histogram));
        let high = a.iter().chain(&b).copied().fold(0.0, f64::max);
        let low = agreement.edges.first().copied().unwrap_or(-1.0);
        let title = format!("Log-probability of the prediction, both {which}");
        let mut chart = Chart::new(
            &title,
            axis("log-probability, nats", low, 0.0, false),
            axis(
                "share of the images",
                0.0,
                ceiling(high).unwrap_or(1.0),
                true,
            ),
        );
        for (series, name, of, shares) in [
            (Series::A, "A", &common.a, &a),
            (Series::B, "B", &common.b, &b),
        ] {
            let mean = of.mean.map_or("none".into(), |mean| format!("{mean:.3}"));
            chart.name(series, &format!("{name}, mean {mean}").replace('-', "−"));
            chart.steps(series, &agreement.edges, shares);
        }
        Figure {
            file: file.into(),
            caption: format!(
                "How sure each network is of its own answer on the {} images that both classify {which}ly; {better} is better.",
                common.images
            ),
            svg: chart.finish(),
        }
    };
    [
        figure(
            "log-probability-wrong.svg",
            &agreement.both_wrong,
            "wrong",
            "lower",
        ),
        figure(
            "log-probability-right.svg",
            &agreement.both_right,
            "right",
            "higher",
        ),
    ]
}
