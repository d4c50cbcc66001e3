//! "Did you mean …?"

/// So many names that an unknown one is part of are all said.
const MOST_MEANT: usize = 4;

/// A hint for an unknown `name`: the nearest of `known` if one is near or holds it as a part, and all of them. Case is no difference.
///
/// ```
/// let hint = mixskd_data::did_you_mean("mnits", ["cifar-10", "mnist"].into_iter());
/// assert_eq!(hint, "did you mean `mnist`? known: cifar-10, mnist");
/// ```
pub fn did_you_mean<'a>(name: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    let all = known.clone().collect::<Vec<_>>().join(", ");
    let lower = name.to_lowercase();
    let distance = |other: &str| strsim::damerau_levenshtein(&lower, &other.to_lowercase());
    let nearest = known.clone().map(|other| (distance(other), other)).min();
    let nearest = nearest.filter(|(distance, _)| *distance <= 1 + name.len() / 3);
    if let Some((_, other)) = nearest {
        return format!("did you mean `{other}`? known: {all}");
    }
    // `vgg` is meant to be `cifar_vgg13_bn`, however many letters that has.
    let is_part = |other: &&str| name.len() >= 3 && other.to_lowercase().contains(&lower);
    let wholes = known.filter(is_part).map(|other| format!("`{other}`"));
    let wholes: Vec<_> = wholes.collect();
    match wholes.len() {
        1..=MOST_MEANT => format!("did you mean {}? known: {all}", wholes.join(" or ")),
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
        assert!(did_you_mean("MNI", known.into_iter()).starts_with("did you mean `mnist`"));
        let keys = ["weight_decay", "ema_decay", "momentum"];
        let both = "did you mean `weight_decay` or `ema_decay`?";
        assert!(did_you_mean("decay", keys.into_iter()).starts_with(both));
        assert!(did_you_mean("imagenet-21k", known.into_iter()).starts_with("known: "));
    }
}
