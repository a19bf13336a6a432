//! Rules of settings, each with a sentence.

/// The sentences of the rules that are broken.
pub(crate) fn sentences(rules: &[(bool, &str)]) -> Result<(), Vec<String>> {
    let wrong: Vec<String> = rules.iter().filter(|(holds, _)| !holds).map(|(_, rule)| (*rule).to_owned()).collect();
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}
