//! Mistakes in a file of the app, told all at once with their lines, and bounded: a file may hold nothing but mistakes.

use std::collections::BTreeSet;

use crate::logs::excerpt::excerpt;

/// Mistakes that are told one by one.
const MOST: usize = 20;
/// The longest sentence on one mistake, in bytes: it quotes the file.
const LONGEST: usize = 500;

/// The first mistakes of a file, by where they stand in it, and how many more there are.
#[derive(Debug, Default)]
pub(super) struct Mistakes {
    first: BTreeSet<(usize, String)>,
    more: usize,
}

impl Mistakes {
    /// Adds a mistake at a byte of the file. `sentence` is not called for one that would not be told.
    pub(super) fn add(&mut self, at: usize, sentence: impl FnOnce() -> String) {
        let is_full = self.first.len() == MOST;
        if is_full && self.first.last().is_some_and(|(last, _)| *last <= at) {
            self.more += 1;
            return;
        }
        if self.first.insert((at, excerpt(&sentence(), LONGEST).into_owned())) && is_full {
            self.first.pop_last();
            self.more += 1;
        }
    }

    /// The sentences, each with its line of `text`; nothing when there is no mistake.
    pub(super) fn told(self, text: &str) -> Option<String> {
        let (mut line, mut seen) = (1, 0);
        let mut sentences: Vec<String> = Vec::with_capacity(self.first.len() + 1);
        for (at, sentence) in self.first {
            let passed = text.as_bytes().get(seen..at.min(text.len())).unwrap_or_default();
            line += passed.iter().filter(|byte| **byte == b'\n').count();
            seen = seen.max(at);
            let sentence = format!("line {line}: {sentence}");
            if !sentences.contains(&sentence) {
                sentences.push(sentence);
            }
        }
        match self.more {
            0 => {}
            1 => sentences.push("and 1 more mistake".to_owned()),
            more => sentences.push(format!("and {more} more mistakes")),
        }
        (!sentences.is_empty()).then(|| sentences.join("; "))
    }
}
