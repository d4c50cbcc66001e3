//! timm's names of the networks that it spells otherwise than torchvision, and torchvision's own old spelling of DenseNet.

/// Blocks of each of MobileNetV2's stages in timm; torchvision counts them through.
const MOBILENET_STAGES: [usize; 7] = [1, 2, 3, 4, 3, 3, 1];

/// Networks that timm has, too.
pub const NETWORKS: [&str; 8] = [
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnext50_32x4d",
    "densenet121",
    "mobilenet_v2",
    "efficientnet_b0",
];

/// What other programs call the tensor `own` of the network `model`, where it is another name.
pub(super) fn name(model: &str, own: &str) -> Option<String> {
    match model {
        "mobilenet_v2" => mobilenet(own),
        "efficientnet_b0" => efficientnet(own),
        _ => None,
    }
}

/// What torchvision's DenseNet files called the tensor `own` before PyTorch forbade dots in modules' names; the files on its
/// servers still do.
pub(super) fn old_densenet(own: &str) -> Option<String> {
    let (layer, tensor) = own.rsplit_once(".norm").or(own.rsplit_once(".conv"))?;
    if !layer.contains(".denselayer") {
        return None;
    }
    let kind = &own[layer.len() + 1..layer.len() + 5];
    Some(format!("{layer}.{kind}.{tensor}"))
}

/// `features.4.conv.1.0.weight` is `blocks.2.0.conv_dw.weight`.
fn mobilenet(own: &str) -> Option<String> {
    let last = 1 + MOBILENET_STAGES.iter().sum::<usize>();
    if let Some(name) = outside(own, last) {
        return Some(name);
    }
    let (number, rest) = own.strip_prefix("features.")?.split_once(".conv.")?;
    let mut block = number.parse::<usize>().ok()?.checked_sub(1)?;
    let mut stage = 0;
    while block >= *MOBILENET_STAGES.get(stage)? {
        block -= MOBILENET_STAGES[stage];
        stage += 1;
    }
    let narrow = [
        ("0.0.", "conv_dw."),
        ("0.1.", "bn1."),
        ("1.", "conv_pw."),
        ("2.", "bn2."),
    ];
    let wide = [
        ("0.0.", "conv_pw."),
        ("0.1.", "bn1."),
        ("1.0.", "conv_dw."),
        ("1.1.", "bn2."),
        ("2.", "conv_pwl."),
        ("3.", "bn3."),
    ];
    let rest = match stage {
        0 => replaced(rest, &narrow),
        _ => replaced(rest, &wide),
    }?;
    Some(format!("blocks.{stage}.{block}.{rest}"))
}

/// `features.2.0.block.2.fc1.weight` is `blocks.1.0.se.conv_reduce.weight`.
fn efficientnet(own: &str) -> Option<String> {
    if let Some(name) = outside(own, 8) {
        return Some(name);
    }
    let (place, rest) = own.strip_prefix("features.")?.split_once(".block.")?;
    let (number, block) = place.split_once('.')?;
    let stage = number.parse::<usize>().ok()?.checked_sub(1)?;
    let narrow = [
        ("0.0.", "conv_dw."),
        ("0.1.", "bn1."),
        ("1.fc1.", "se.conv_reduce."),
        ("1.fc2.", "se.conv_expand."),
        ("2.0.", "conv_pw."),
        ("2.1.", "bn2."),
    ];
    let wide = [
        ("0.0.", "conv_pw."),
        ("0.1.", "bn1."),
        ("1.0.", "conv_dw."),
        ("1.1.", "bn2."),
        ("2.fc1.", "se.conv_reduce."),
        ("2.fc2.", "se.conv_expand."),
        ("3.0.", "conv_pwl."),
        ("3.1.", "bn3."),
    ];
    let rest = match stage {
        0 => replaced(rest, &narrow),
        _ => replaced(rest, &wide),
    }?;
    Some(format!("blocks.{stage}.{block}.{rest}"))
}

/// Stem, last convolution (`features.LAST`) and classifier, which both families share.
fn outside(own: &str, last: usize) -> Option<String> {
    let (conv, norm) = (format!("features.{last}.0."), format!("features.{last}.1."));
    let table = [
        ("features.0.0.", "conv_stem."),
        ("features.0.1.", "bn1."),
        (conv.as_str(), "conv_head."),
        (norm.as_str(), "bn2."),
        ("classifier.1.", "classifier."),
    ];
    replaced(own, &table)
}

/// `name` with the first prefix of the table that it begins with replaced by its partner.
fn replaced(name: &str, table: &[(&str, &str)]) -> Option<String> {
    table
        .iter()
        .find_map(|(from, to)| Some(format!("{to}{}", name.strip_prefix(from)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_counted_by_stage() {
        let check = |model, own, timm: &str| assert_eq!(name(model, own).as_deref(), Some(timm));
        let mobile = "mobilenet_v2";
        check(mobile, "features.0.0.weight", "conv_stem.weight");
        check(
            mobile,
            "features.1.conv.1.weight",
            "blocks.0.0.conv_pw.weight",
        );
        check(mobile, "features.6.conv.1.1.bias", "blocks.2.2.bn2.bias");
        check(
            mobile,
            "features.17.conv.3.running_var",
            "blocks.6.0.bn3.running_var",
        );
        check(mobile, "features.18.1.weight", "bn2.weight");
        check(mobile, "classifier.1.bias", "classifier.bias");
        let efficient = "efficientnet_b0";
        check(
            efficient,
            "features.1.0.block.1.fc2.bias",
            "blocks.0.0.se.conv_expand.bias",
        );
        check(
            efficient,
            "features.6.3.block.3.0.weight",
            "blocks.5.3.conv_pwl.weight",
        );
        check(efficient, "features.8.0.weight", "conv_head.weight");
        assert_eq!(name("resnet18", "layer1.0.conv1.weight"), None);
    }

    #[test]
    fn densenets_once_had_dots_in_their_names() {
        let old = old_densenet("features.denseblock2.denselayer11.norm1.running_mean");
        let expected = "features.denseblock2.denselayer11.norm.1.running_mean";
        assert_eq!(old.as_deref(), Some(expected));
        let old = old_densenet("features.denseblock1.denselayer1.conv2.weight");
        assert_eq!(
            old.as_deref(),
            Some("features.denseblock1.denselayer1.conv.2.weight")
        );
        assert_eq!(old_densenet("features.conv0.weight"), None);
        assert_eq!(old_densenet("features.transition1.norm.weight"), None);
    }
}
