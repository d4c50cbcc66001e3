//! What is measured side by side.

use std::path::Path;

use serde::{Deserialize, Serialize};

/// A kind of work; a table of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    Step,
    Infer,
    Conv,
    Zoo,
    Loader,
}

impl Kind {
    pub(super) const ALL: [Self; 5] =
        [Self::Step, Self::Infer, Self::Conv, Self::Zoo, Self::Loader];

    /// The word for `--only`.
    fn word(self) -> &'static str {
        match self {
            Self::Step => "step",
            Self::Infer => "infer",
            Self::Conv => "conv",
            Self::Zoo => "zoo",
            Self::Loader => "loader",
        }
    }

    pub(super) fn heading(self) -> &'static str {
        match self {
            Self::Step => "Whole training steps, original images per second",
            Self::Infer => "Inference, images per second",
            Self::Conv => {
                "Convolutions by shape, GFLOP/s (10⁹ operations of the direct form per second)"
            }
            Self::Zoo => "A cross-entropy step of every network, batch 16, images per second",
            Self::Loader => "Loader with crop, flip and normalisation, batch 64, images per second",
        }
    }

    /// Head of the first column.
    pub(super) fn noun(self) -> &'static str {
        match self {
            Self::Step => "step",
            Self::Infer | Self::Zoo => "network",
            Self::Conv => "convolution",
            Self::Loader => "images",
        }
    }

    /// Head of the notes' column.
    pub(super) fn note(self) -> &'static str {
        match self {
            Self::Loader => "workers",
            _ => "PyTorch's layout",
        }
    }

    /// Whether a row's process does one thing alone, so that its memory peak is the row's.
    pub(super) fn has_memory(self) -> bool {
        matches!(self, Self::Step | Self::Infer)
    }
}

/// Whole training steps or forward passes of one network.
pub(super) struct NetworkRow {
    /// Name in the table.
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) model: &'static str,
    pub(super) width: &'static str,
    /// Empty for inference.
    pub(super) method: &'static str,
    pub(super) batch: usize,
    /// Side of the images, in pixels.
    pub(super) size: usize,
    /// Repetitions that are timed, per turn; those of the peer, which is slower where it matters, are half as many.
    pub(super) steps: usize,
}

const CIFAR: NetworkRow = NetworkRow {
    name: "",
    kind: Kind::Step,
    model: "cifar_resnet18",
    width: "1",
    method: "mixskd",
    batch: 32,
    size: 32,
    steps: 5,
};

/// The networks' rows.
pub(super) const NETWORKS: &[NetworkRow] = &[
    NetworkRow {
        name: "MixSKD, ResNet-18 (CIFAR), 32 + 32",
        ..CIFAR
    },
    NetworkRow {
        name: "MixSKD, ResNet-18 (CIFAR) × 0.25, 64 + 64",
        width: "0.25",
        batch: 64,
        steps: 16,
        ..CIFAR
    },
    NetworkRow {
        name: "CE, ResNet-18 (CIFAR), 32",
        method: "ce",
        steps: 10,
        ..CIFAR
    },
    NetworkRow {
        name: "CE, ResNet-18 (CIFAR) × 0.25, 64",
        width: "0.25",
        method: "ce",
        batch: 64,
        steps: 40,
        ..CIFAR
    },
    NetworkRow {
        name: "CE, ResNet-50, 224 px, 8",
        model: "resnet50",
        method: "ce",
        batch: 8,
        size: 224,
        steps: 5,
        ..CIFAR
    },
    NetworkRow {
        name: "ResNet-18 (CIFAR), inference, batch 1",
        kind: Kind::Infer,
        method: "",
        batch: 1,
        steps: 150,
        ..CIFAR
    },
    NetworkRow {
        name: "ResNet-18 (CIFAR), inference, batch 64",
        kind: Kind::Infer,
        method: "",
        batch: 64,
        steps: 16,
        ..CIFAR
    },
];

/// Convolutions: name in the table, and `batch,side,in,out,kernel,stride,groups`.
pub(super) const CONVOLUTIONS: &[(&str, &str)] = &[
    ("3×3, 64 → 64, 32 px, batch 32", "32,32,64,64,3,1,1"),
    ("3×3, 128 → 128, 16 px, batch 32", "32,16,128,128,3,1,1"),
    ("3×3, 256 → 256, 8 px, batch 32", "32,8,256,256,3,1,1"),
    ("3×3, 512 → 512, 4 px, batch 32", "32,4,512,512,3,1,1"),
    ("3×3, 16 → 16, 32 px, batch 64", "64,32,16,16,3,1,1"),
    ("3×3, 32 → 32, 16 px, batch 64", "64,16,32,32,3,1,1"),
    ("3×3, 64 → 64, 8 px, batch 64", "64,8,64,64,3,1,1"),
    ("3×3, 128 → 128, 4 px, batch 64", "64,4,128,128,3,1,1"),
    ("3×3, 3 → 64, 32 px, batch 32", "32,32,3,64,3,1,1"),
    ("3×3 / 2, 64 → 128, 32 px, batch 32", "32,32,64,128,3,2,1"),
    ("3×3 / 2, 256 → 512, 8 px, batch 32", "32,8,256,512,3,2,1"),
    ("1×1, 256 → 64, 56 px, batch 8", "8,56,256,64,1,1,1"),
    ("1×1, 512 → 2048, 7 px, batch 8", "8,7,512,2048,1,1,1"),
    ("7×7 / 2, 3 → 64, 224 px, batch 8", "8,224,3,64,7,2,1"),
    ("3×3 depthwise, 256, 28 px, batch 8", "8,28,256,256,3,1,256"),
];

/// What is measured of a convolution: key of the measured programs, and name in the table.
pub(super) const PASSES: [(&str, &str); 3] = [
    ("forward", "forward"),
    ("data", "data gradient"),
    ("weight", "weight gradient"),
];

/// Name of a convolution's row.
pub(super) fn pass_name(convolution: &str, pass: &str) -> String {
    format!("{convolution}: {pass}")
}

/// Networks whose cross-entropy step is compared, and the side of their images.
pub(super) const ZOO: &[(&str, usize)] = &[
    ("cifar_resnet18", 32),
    ("cifar_resnet34", 32),
    ("cifar_resnet50", 32),
    ("cifar_wrn_16_2", 32),
    ("cifar_wrn_28_10", 32),
    ("cifar_preact_resnet18", 32),
    ("cifar_vgg13_bn", 32),
    ("cifar_densenet40_12", 32),
    ("cifar_hcgnet_a1", 32),
    ("cifar_mobilenetv2", 32),
    ("cifar_shufflenetv2", 32),
    ("resnet18", 224),
    ("resnet34", 224),
    ("resnet50", 224),
    ("resnet101", 224),
    ("resnext50_32x4d", 224),
    ("densenet121", 224),
    ("mobilenet_v2", 224),
    ("shufflenet_v2_x1_0", 224),
    ("efficientnet_b0", 224),
];

/// The loader's row, of the images in `data`.
pub(super) fn loader_name(data: Option<&Path>) -> &'static str {
    match data {
        Some(data) if data.join("train").is_dir() => "image files, boxes of them as 224 px",
        Some(_) => "CIFAR-100, 32 px",
        None => "shipped set, 28 px",
    }
}

/// A row's place in its table: its place here. Rows that are here no longer come last.
pub(super) fn place(kind: Kind, name: &str) -> usize {
    let found = match kind {
        Kind::Step | Kind::Infer => NETWORKS.iter().position(|row| row.name == name),
        Kind::Conv => {
            let mut names = CONVOLUTIONS
                .iter()
                .flat_map(|(shape, _)| PASSES.map(|(_, pass)| pass_name(shape, pass)));
            names.position(|other| other == name)
        }
        Kind::Zoo => ZOO.iter().position(|(other, _)| *other == name),
        Kind::Loader => None,
    };
    found.unwrap_or(usize::MAX)
}

/// Whether `--only` asks for a row: by its kind or by a part of its name; all, where it names none.
pub(super) fn wanted(only: &[String], kind: Kind, name: &str) -> bool {
    only.is_empty() || only.iter().any(|part| part == kind.word()) || named(only, name)
}

/// Whether one of `only` is a part of a row's name, or there is none.
pub(super) fn named(only: &[String], name: &str) -> bool {
    let name = name.to_lowercase();
    only.is_empty() || only.iter().any(|part| name.contains(&part.to_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_chosen_by_kind_or_by_name() {
        let only = |text: &str| text.split(';').map(String::from).collect::<Vec<_>>();
        assert!(wanted(&[], Kind::Conv, "anything"));
        assert!(wanted(&only("step;conv"), Kind::Conv, "3×3"));
        assert!(!wanted(&only("step;conv"), Kind::Infer, "ResNet-18"));
        assert!(wanted(&only("mixskd"), Kind::Step, NETWORKS[0].name));
        assert!(!wanted(&only("mixskd"), Kind::Step, NETWORKS[2].name));
        assert!(named(&only("Batch 16;width 1"), "width 1, batch 128"));
    }

    #[test]
    fn every_shape_is_seven_counts() {
        for (name, shape) in CONVOLUTIONS {
            let counts = shape.split(',').map(str::parse::<usize>);
            assert_eq!(counts.flatten().count(), 7, "{name}");
        }
    }

    #[test]
    fn names_tell_rows_apart() {
        let mut names = NETWORKS
            .iter()
            .map(|row| row.name.to_string())
            .collect::<Vec<_>>();
        names.extend(CONVOLUTIONS.iter().map(|(name, _)| (*name).into()));
        names.extend(ZOO.iter().map(|(name, _)| (*name).into()));
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn rows_stand_in_the_order_of_the_lists() {
        let name = pass_name(CONVOLUTIONS[1].0, "data gradient");
        assert_eq!(place(Kind::Conv, &name), 4);
        assert_eq!(place(Kind::Zoo, "cifar_resnet34"), 1);
        assert_eq!(place(Kind::Zoo, "gone"), usize::MAX);
    }
}
