//! The recipes in `configs/`.

use std::path::Path;

use mixskd_train::TrainConfig;

#[test]
fn every_recipe_is_a_valid_configuration() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
    let mut recipes = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        TrainConfig::from_file(&path)
            .and_then(|config| config.validate())
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        let text = std::fs::read_to_string(&path).unwrap();
        let command = format!("# mixskd train --config configs/{name}");
        assert!(
            text.starts_with(&command),
            "{name} does not open with its command"
        );
        assert!(text.contains("# Cost"), "{name} does not say what it costs");
        assert!(
            text.contains("docs/results") || text.contains("# Expected"),
            "{name} does not say what to expect"
        );
        recipes += 1;
    }
    assert!(recipes >= 4);
}

#[test]
fn the_shipped_recipe_is_the_default() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/shipped.toml");
    // What the default leaves to the images is this network for these.
    let default = TrainConfig::default().with("model.name=cifar_resnet18");
    assert_eq!(TrainConfig::from_file(&path).unwrap(), default.unwrap());
}
