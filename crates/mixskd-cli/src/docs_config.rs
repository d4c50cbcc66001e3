//! `docs/config.md`: every key with its default and what it means, taken from the structs that read it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use mixskd_train::{TrainConfig, method};
use toml::Table;

const HEAD: &str = "\
# Configuration

Every key that `--config FILE`, `--set KEY=VALUE` and a run's `config.toml` know. Later settings win: defaults, then the file, then named flags, then
`--set`. An unknown key is refused with the nearest known one. This page is made from the source: `MIXSKD_WRITE_DOCS=1 cargo test -p mixskd-cli config_page`
writes it, and a test says when it is out of date.
";

const METHOD: &str = "\
`name` says which method, `mixskd` by default. The other keys are that method's own; naming another method puts them at its defaults.
";

/// Sections of the file: name, what it is about, source, struct.
const SECTIONS: [(&str, &str, &str, &str); 10] = [
    (
        "data",
        "The data.",
        "mixskd-data/src/config.rs",
        "DataConfig",
    ),
    (
        "model",
        "The network.",
        "mixskd-train/src/config.rs",
        "NetworkConfig",
    ),
    (
        "init",
        "Where its weights start.",
        "mixskd-train/src/init.rs",
        "InitConfig",
    ),
    ("method", METHOD, "", ""),
    (
        "objective",
        "Weights of MixSKD's terms; other methods do not read them.",
        "mixskd-losses/src/objective/config.rs",
        "ObjectiveConfig",
    ),
    (
        "optimizer",
        "Stochastic gradient descent.",
        "mixskd-train/src/optimizer.rs",
        "OptimizerConfig",
    ),
    (
        "schedule",
        "The learning rate of every step.",
        "mixskd-train/src/schedule.rs",
        "ScheduleConfig",
    ),
    (
        "run",
        "The loop.",
        "mixskd-train/src/config.rs",
        "RunConfig",
    ),
    (
        "distribution",
        "The processes that share the run.",
        "mixskd-train/src/distribution/config.rs",
        "DistributionConfig",
    ),
    (
        "own",
        "Parts that a run has from a program that uses mixskd as a library, by name, for the record. Not set by hand: nothing else can go on with such a run.",
        "mixskd-train/src/builder.rs",
        "OwnConfig",
    ),
];

fn crates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn source(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The fields of a struct and their docs.
fn fields(source: &str, name: &str) -> Vec<(String, String)> {
    let start = source
        .find(&format!("struct {name} {{"))
        .unwrap_or_else(|| panic!("no struct {name}"));
    let mut fields = Vec::new();
    let mut doc: Vec<String> = Vec::new();
    for line in source[start..].lines().skip(1) {
        if line.starts_with('}') {
            break;
        }
        let line = line.trim();
        if let Some(text) = line.strip_prefix("///") {
            doc.push(text.trim().into());
        } else if let Some((field, _)) = line.split_once(':').filter(|_| !line.starts_with("#[")) {
            let field = field.rsplit(' ').next().unwrap_or(field);
            fields.push((field.to_string(), std::mem::take(&mut doc).join(" ")));
        }
    }
    fields
}

/// Docs without links: what stands between the brackets stays.
fn plain(doc: &str) -> String {
    let mut text = String::new();
    let mut rest = doc;
    while let Some((before, link)) = rest.split_once("[`") {
        let (name, after) = link
            .split_once("`]")
            .unwrap_or_else(|| panic!("a link without an end: {doc}"));
        let _ = write!(text, "{before}`{name}`");
        rest = match after.strip_prefix('(') {
            Some(target) => target.split_once(')').map_or("", |(_, after)| after),
            None => after,
        };
    }
    (text + rest).replace('|', r"\|")
}

fn table(page: &mut String, fields: &[(String, String)], defaults: &Table) {
    let known = |key: &String| fields.iter().any(|(field, _)| field == key);
    assert!(
        defaults.keys().all(known),
        "{defaults:?} against {fields:?}"
    );
    page.push_str("\n| key | default | meaning |\n|---|---|---|\n");
    for (key, doc) in fields {
        assert!(!doc.is_empty(), "`{key}` has no doc");
        let default = defaults
            .get(key)
            .map_or("not set".into(), |value| format!("`{value}`"));
        let _ = writeln!(page, "| `{key}` | {default} | {} |", plain(doc));
    }
}

/// The fields of the settings of the method called `name`.
fn settings(name: &str) -> Vec<(String, String)> {
    let folder = std::fs::read_dir(crates().join("mixskd-train/src/method")).unwrap();
    let sources: Vec<String> = folder
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "rs"))
        .map(|path| source(&path))
        .collect();
    let row = format!("    name: \"{name}\",");
    let own = sources.iter().find(|text| text.contains(&row));
    let own = own.unwrap_or_else(|| panic!("no row of {name}"));
    let (_, of) = own.split_once("SettingsSpec::of::<").unwrap();
    let of = of.split_once('>').unwrap().0;
    // Settings that several methods share stand in a file of their own.
    let holder = sources
        .iter()
        .filter(|text| text.contains(&format!("struct {of} {{")));
    let holder = holder.min_by_key(|text| !std::ptr::eq(*text, own)).unwrap();
    fields(holder, of)
}

fn page() -> String {
    let all = Table::try_from(TrainConfig::default()).unwrap();
    let known = |key: &String| SECTIONS.iter().any(|section| section.0 == key);
    assert!(all.keys().all(known), "a section is missing here");
    let mut page = HEAD.to_string();
    for (name, about, path, of) in SECTIONS {
        let _ = writeln!(page, "\n## `[{name}]`\n\n{}", about.trim_end());
        if name != "method" {
            table(
                &mut page,
                &fields(&source(&crates().join(path)), of),
                all.get(name)
                    .and_then(toml::Value::as_table)
                    .unwrap_or(&Table::new()),
            );
            continue;
        }
        for spec in method::ALL {
            let defaults = spec.settings.defaults();
            let source = match spec.source {
                "—" => String::new(),
                source => format!(" {source}."),
            };
            let _ = writeln!(page, "\n### `{}`\n\n{}.{source}", spec.name, spec.summary);
            if defaults.is_empty() {
                page.push_str("\nNothing to set.\n");
            } else {
                table(&mut page, &settings(spec.name), &defaults);
            }
        }
    }
    page
}

#[test]
fn the_config_page_is_current() {
    let path = crates().join("../docs/config.md");
    let page = page();
    if std::env::var_os("MIXSKD_WRITE_DOCS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    let first = page.lines().zip(written.lines()).position(|(a, b)| a != b);
    assert!(
        page == written,
        "docs/config.md is out of date, first at line {:?}: MIXSKD_WRITE_DOCS=1 cargo test -p mixskd-cli config_page",
        first.map(|line| line + 1)
    );
}
