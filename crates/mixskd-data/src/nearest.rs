//! "Did you mean …?"

/// A hint for an unknown `name`: the nearest of `known` if one is near, and all of them. Case is no difference.
///
/// ```
/// let hint = mixskd_data::did_you_mean("mnits", ["cifar-10", "mnist"].into_iter());
/// assert_eq!(hint, "did you mean `mnist`? known: cifar-10, mnist");
/// ```
pub fn did_you_mean<'a>(name: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    let all = known.clone().collect::<Vec<_>>().join(", ");
    let lower = name.to_lowercase();
    let nearest = known
        .map(|other| {
            (
                strsim::damerau_levenshtein(&lower, &other.to_lowercase()),
                other,
            )
        })
        .min();
    match nearest {
        Some((distance, other)) if distance <= 1 + name.len() / 3 => {
            format!("did you mean `{other}`? known: {all}")
        }
        _ => format!("known: {all}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_mended_and_a_stranger_is_not() {
        let known = ["cifar-10", "cifar-100", "mnist"];
        assert!(
            did_you_mean("cifar100", known.into_iter()).starts_with("did you mean `cifar-100`")
        );
        assert!(did_you_mean("imagenet-21k", known.into_iter()).starts_with("known: "));
    }
}
