//! Invariant 6: no generator that is not a function of the seed.

use super::{Problem, Repo, Rule};

pub(super) const RULE: Rule = Rule {
    name: "randomness",
    check,
    broken: &[(
        "crates/mixskd-data/src/a.rs",
        "//! A.\nlet r = rand::rng();\n",
    )],
};

/// Generators seeded from outside, and candle's, whose CPU one cannot be seeded.
const FORBIDDEN: &[&str] = &[
    "Tensor::rand",
    "Var::rand",
    ".rand_like(",
    ".randn_like(",
    "rand_uniform",
    "rand_normal",
    "thread_rng",
    "rand::rng(",
    "rand::random",
    "from_os_rng",
    "from_entropy",
    "OsRng",
];

fn check(repo: &Repo) -> Vec<Problem> {
    let mut problems = Vec::new();
    let crates = repo.sources().filter(|f| f.path.starts_with("crates/"));
    for file in crates {
        for (line, code) in file.code() {
            for name in FORBIDDEN.iter().filter(|name| code.contains(**name)) {
                let message =
                    format!("`{name}`: draws are functions of (seed, epoch, sample, purpose)");
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
    fn seeded_generators_are_fine() {
        let text =
            "//! A.\nlet mut g = ChaCha8Rng::seed_from_u64(seed);\nlet x: f64 = g.random();\n";
        assert!(check(&Repo::of(&[("crates/mixskd-data/src/a.rs", text)])).is_empty());
    }

    #[test]
    fn candles_generator_is_found() {
        let text = "//! A.\nlet x = Tensor::randn(0f32, 1., (2, 2), &dev)?;\n";
        assert_eq!(check(&Repo::of(&[("crates/a/src/a.rs", text)])).len(), 1);
    }
}
