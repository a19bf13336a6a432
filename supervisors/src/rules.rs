//! Settings that are judged by rules, each of which is a sentence.

/// The sentences of the rules that do not hold.
pub(crate) fn sentences(rules: &[(bool, &str)]) -> Result<(), Vec<String>> {
    let wrong: Vec<String> = rules.iter().filter(|(holds, _)| !holds).map(|(_, rule)| (*rule).to_owned()).collect();
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}
