//! What is taken for what.

use mixskd_analyze::Confusion;
use mixskd_chart::HeatMap;

use crate::html::Page;
use crate::page::percent;
use crate::predictions::Predictions;

/// More classes than this make no picture that says more than the tables.
const DRAWN: usize = 2000;
/// Rows of the tables. Of up to [`FEW`] classes each has its row.
const ROWS: usize = 20;
const FEW: usize = 25;

/// Matrix and tables.
pub(crate) fn section(page: &mut Page, predictions: &Predictions) {
    let answers = predictions.answers.iter().map(|a| (a.label, a.predicted));
    let confusion = Confusion::new(answers);
    let classes = &predictions.classes;
    page.note(&format!(
        "{} held-out {} of {} {}, after epoch {}; predictions.csv has every one.",
        predictions.answers.len(),
        plural(predictions.answers.len(), "image", "images"),
        classes.len(),
        plural(classes.len(), "class", "classes"),
        predictions.epoch
    ));
    if classes.len() <= DRAWN {
        matrix(page, &confusion, classes);
    }
    page.grid(|page| {
        page.part(|page| confused(page, &confusion, classes));
        page.part(|page| by_class(page, &confusion, classes));
    });
}

fn plural(count: usize, one: &'static str, many: &'static str) -> &'static str {
    if count == 1 { one } else { many }
}

fn matrix(page: &mut Page, confusion: &Confusion, classes: &[String]) {
    let row = |label| {
        let mut counts = vec![0; classes.len()];
        for (predicted, images) in confusion.row(label) {
            counts[predicted] = images;
        }
        counts
    };
    let map = HeatMap {
        title: "Confusion matrix of the backbone".into(),
        names: classes.to_vec(),
        counts: (0..classes.len()).map(row).collect(),
    };
    let caption = match classes.len() {
        0..=25 => {
            "A row is a class, a column what its images are taken for, a number how many. The stronger the colour, the larger the share of the row. In the outlined cells both are the same."
        }
        26..=60 => {
            "A row is a class, a column, in the same order, what its images are taken for. The stronger the colour, the larger the share of the row, by its square root. In the outlined cells both are the same. The numbers are in the tables."
        }
        _ => {
            "A row is a class, a column what its images are taken for, both counted from 0 at the edges. The stronger the colour, the larger the share of the row, by its square root. What is right lies on the line from the upper left to the lower right. The numbers are in the tables."
        }
    };
    page.drawing(&map.svg(), map.readable_width(), caption);
}

fn confused(page: &mut Page, confusion: &Confusion, classes: &[String]) {
    page.subsection("Most frequent confusions, with their share of the class");
    let pairs = confusion.most_confused(ROWS);
    if pairs.is_empty() {
        page.text("No image is taken for another class.");
        return;
    }
    let heads = ["class", "taken for", "images", "share"];
    let mut rows = vec![heads.map(String::from).to_vec()];
    rows.extend(pairs.into_iter().map(|pair| {
        let share = pair.images as f64 / confusion.images(pair.label) as f64;
        vec![
            numbered(classes, pair.label),
            numbered(classes, pair.predicted),
            pair.images.to_string(),
            percent(share),
        ]
    }));
    page.table(&rows, 2);
}

fn by_class(page: &mut Page, confusion: &Confusion, classes: &[String]) {
    let mut scores: Vec<_> = (0..classes.len())
        .filter_map(|label| {
            let images = confusion.images(label);
            let right = confusion
                .row(label)
                .find(|(predicted, _)| *predicted == label);
            let right = right.map_or(0, |(_, images)| images);
            (images > 0).then(|| (label, images, right as f64 / images as f64))
        })
        .collect();
    scores.sort_by(|a, b| a.2.total_cmp(&b.2).then(a.0.cmp(&b.0)));
    let title = if scores.len() > FEW {
        scores.truncate(ROWS);
        format!("The {ROWS} classes that are recognised worst")
    } else {
        "Classes, the worst recognised first".into()
    };
    page.subsection(&title);
    let mut rows = vec![["class", "images", "right"].map(String::from).to_vec()];
    rows.extend(scores.into_iter().map(|(label, images, share)| {
        vec![numbered(classes, label), images.to_string(), percent(share)]
    }));
    page.table(&rows, 1);
}

/// A class's name; with many classes its number besides, by which it is found in the matrix.
fn numbered(classes: &[String], label: usize) -> String {
    let name = classes.get(label).map_or("", String::as_str);
    if classes.len() > 60 {
        format!("{label} {name}")
    } else {
        name.into()
    }
}
