//! Matrix products and convolutions go through mixskd-kernels: candle's own convolution is slow in the backward pass, and what
//! bypasses the kernels gets neither their speed nor their fixed order of sums.

use super::{Problem, Repo, Rule};

pub(super) const RULE: Rule = Rule {
    name: "candle-traps",
    check,
    broken: &[(
        "crates/mixskd-models/src/a.rs",
        "//! A.\nlet y = x.matmul(&w)?;\n",
    )],
};

const FORBIDDEN: &[&str] = &[
    ".matmul(",
    ".broadcast_matmul(",
    ".conv2d(",
    "candle_nn::conv2d",
];

fn check(repo: &Repo) -> Vec<Problem> {
    let mut problems = Vec::new();
    let above = repo.sources().filter(|file| {
        file.path.starts_with("crates/") && !file.path.starts_with("crates/mixskd-kernels/")
    });
    for file in above {
        for (line, code) in file.code() {
            for name in FORBIDDEN.iter().filter(|name| code.contains(**name)) {
                let message = format!("`{name}` is candle's: call mixskd-kernels");
                problems.push(Problem::new(file, line, message));
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_may_call_candle_and_others_call_kernels() {
        let theirs = "//! A.\nlet y = x.conv2d(w, 1, 1, 1, 1)?;\n";
        let ours = "//! A.\nlet y = conv2d(&x, &w, config)?;\n";
        let files = [
            ("crates/mixskd-kernels/src/compose.rs", theirs),
            ("crates/mixskd-models/src/layers/conv.rs", ours),
        ];
        assert!(check(&Repo::of(&files)).is_empty());
    }
}
