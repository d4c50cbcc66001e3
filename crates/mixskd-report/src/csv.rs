//! Metrics as a table that spreadsheets and data frames read.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use mixskd_train::EpochRecord;

/// One line an epoch under one line of names; numbers unrounded, an empty cell where an epoch has no such value.
///
/// Columns: `epoch`, `lr`, `loss`, `term.NAME` for every term, `train_top1`, `HEAD.top1`, `HEAD.top5`, `HEAD.balanced`, `HEAD.loss` for
/// every head, `samples_per_s`, `seconds`.
pub(crate) fn table(records: &[EpochRecord]) -> String {
    let terms: BTreeSet<&str> = records
        .iter()
        .flat_map(|record| record.terms.keys().map(String::as_str))
        .collect();
    let mut heads: Vec<&str> = Vec::new();
    for head in records.iter().flat_map(|record| &record.heads) {
        if !heads.contains(&head.name.as_str()) {
            heads.push(&head.name);
        }
    }
    let mut names: Vec<String> = ["epoch", "lr", "loss"].map(String::from).to_vec();
    names.extend(terms.iter().map(|term| cell(&format!("term.{term}"))));
    names.push("train_top1".into());
    for head in &heads {
        names.extend(
            ["top1", "top5", "balanced", "loss"].map(|what| cell(&format!("{head}.{what}"))),
        );
    }
    names.extend(["samples_per_s", "seconds"].map(String::from));
    let mut text = names.join(",");
    text.push('\n');
    for record in records {
        let _ = write!(text, "{},{},{}", record.epoch, record.lr, record.loss);
        let mut add = |value: Option<f64>| {
            let _ = match value {
                Some(value) => write!(text, ",{value}"),
                None => write!(text, ","),
            };
        };
        for term in &terms {
            add(record.terms.get(*term).copied());
        }
        add(Some(record.train_top1));
        for name in &heads {
            let head = record.heads.iter().find(|head| head.name == *name);
            add(head.map(|head| head.top1));
            add(head.map(|head| head.top5));
            add(head.and_then(|head| head.balanced));
            add(head.map(|head| head.loss));
        }
        add(Some(record.samples_per_s));
        add(Some(record.seconds));
        text.push('\n');
    }
    text
}

/// `text` as a cell of comma-separated values: quoted where a comma, a quote or a line's end would break the table (RFC 4180).
pub fn cell(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run_files::tests::record;

    #[test]
    fn every_term_and_head_has_its_columns() {
        let mut second = record(2);
        second.terms.remove("feature");
        let text = table(&[record(1), second]);
        assert_eq!(
            text,
            "epoch,lr,loss,term.feature,term.task_mix,train_top1,\
             backbone.top1,backbone.top5,backbone.balanced,backbone.loss,branch 1.top1,branch 1.top5,branch 1.balanced,branch 1.loss,samples_per_s,seconds\n\
             1,0.1,2.5,0.25,2,0.5,0.75,1,0.75,0.5,0.625,1,0.625,0.5,300,12.5\n\
             2,0.1,2.5,,2,0.5,0.75,1,0.75,0.5,0.625,1,0.625,0.5,300,12.5\n"
        );
    }

    #[test]
    fn a_name_cannot_break_the_table() {
        assert_eq!(cell("a,\"b\""), "\"a,\"\"b\"\"\"");
    }
}
