//! Whether `docs/cli.md` says everything that can be typed and everything that is printed.

use clap::CommandFactory;
use mixskd_train::{EpochRecord, TrainConfig};
use serde_json::Value;

use crate::cli::Cli;
use crate::summary;

const PAGE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/cli.md"));

/// The section of the page under the heading that begins with `heading`, up to the next heading of its level.
fn section(heading: &str) -> &'static str {
    let start = PAGE
        .find(heading)
        .unwrap_or_else(|| panic!("docs/cli.md has no `{heading}`"));
    let level = heading.split(' ').next().unwrap();
    let rest = &PAGE[start + heading.len()..];
    rest.find(&format!("\n{level} "))
        .map_or(rest, |end| &rest[..end])
}

fn check_flags(command: &clap::Command, section: &str) {
    // As a table has it.
    let section = section.replace("\\|", "|");
    for argument in command
        .get_arguments()
        .filter(|argument| argument.get_id() != "help" && argument.get_id() != "version")
        .filter(|argument| !argument.is_hide_set())
    {
        let wanted = argument.get_long().map_or_else(
            || format!("{}", argument.get_value_names().unwrap()[0]),
            |long| format!("--{long}"),
        );
        assert!(
            section.contains(&wanted),
            "docs/cli.md does not name `{wanted}` of `{}`",
            command.get_name()
        );
    }
}

#[test]
fn every_flag_of_every_command_is_named() {
    for command in Cli::command().get_subcommands() {
        let text = section(&format!("## `mixskd {}`", command.get_name()));
        check_flags(command, text);
        for inner in command.get_subcommands() {
            check_flags(
                inner,
                section(&format!(
                    "### `mixskd {} {}",
                    command.get_name(),
                    inner.get_name()
                )),
            );
        }
    }
}

fn check_fields(value: &Value, section: &str) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                assert!(
                    section.contains(&format!("`{name}`")),
                    "docs/cli.md does not name the field `{name}`"
                );
                check_fields(value, section);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| check_fields(item, section)),
        _ => {}
    }
}

#[test]
fn every_field_of_report_and_record_is_named() {
    let report = summary::tests::report();
    check_fields(
        &serde_json::to_value(&report).unwrap(),
        section("### Report"),
    );
    let record = EpochRecord {
        epoch: 1,
        lr: 0.1,
        loss: 1.0,
        terms: std::collections::BTreeMap::new(),
        train_top1: 0.5,
        top1: 0.5,
        top5: 0.5,
        test_loss: 1.0,
        heads: report.heads,
        samples_per_s: 1.0,
        seconds: 1.0,
        peak_memory_bytes: None,
        gpu_memory_bytes: None,
    };
    check_fields(
        &serde_json::to_value(record).unwrap(),
        &PAGE[PAGE.find("### Report").unwrap()..],
    );
}

#[test]
fn the_keys_are_shown_with_their_defaults() {
    let shown = section("### Keys")
        .split("```toml\n")
        .nth(1)
        .unwrap()
        .split("```")
        .next()
        .unwrap();
    assert_eq!(
        shown.trim(),
        TrainConfig::default().to_toml().unwrap().trim()
    );
}
