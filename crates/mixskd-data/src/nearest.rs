//! "Did you mean …?"

/// A hint for an unknown `name`: the nearest of `known` if one is near or holds it as a part, and all of them. Case is no difference.
///
/// ```
/// let hint = mixskd_data::did_you_mean("mnits", ["cifar-10", "mnist"].into_iter());
/// assert_eq!(hint, "did you mean `mnist`? known: cifar-10, mnist");
/// ```
pub fn did_you_mean<'a>(name: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    let all = known.clone().collect::<Vec<_>>().join(", ");
    let lower = name.to_lowercase();
    // `vgg` is meant to be `cifar_vgg13_bn`, however many letters that has.
    let is_part = |other: &&str| name.len() >= 3 && other.to_lowercase().contains(&lower);
    let whole = known
        .clone()
        .filter(is_part)
        .min_by_key(|other| other.len());
    let distance = |other: &str| strsim::damerau_levenshtein(&lower, &other.to_lowercase());
    let nearest = known.map(|other| (distance(other), other)).min();
    let nearest = nearest.filter(|(distance, _)| *distance <= 1 + name.len() / 3);
    match whole.or(nearest.map(|(_, other)| other)) {
        Some(other) => format!("did you mean `{other}`? known: {all}"),
        None => format!("known: {all}"),
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
        assert!(did_you_mean("MNI", known.into_iter()).starts_with("did you mean `mnist`"));
        assert!(did_you_mean("imagenet-21k", known.into_iter()).starts_with("known: "));
    }
}
