//! Fills the blanks of a sentence: `{key}` becomes the value bound to `key`.
//!
//! A bound value is either fixed for the whole document (the person it is about) or drawn anew
//! at each blank (an adjective). Templates and keys are constants of the grammars; a key that
//! nobody bound stays visible as `{key}`, which the grammars' tests look for.

use crate::data::random::Random;

/// Words to draw from at every blank of one name.
pub(super) type Choices = (&'static str, &'static [&'static str]);

/// The values for the blanks of one document.
#[derive(Debug, Default)]
pub(super) struct Blanks {
    fixed: Vec<(&'static str, String)>,
}

impl Blanks {
    /// Binds `key` for the rest of the document; a later binding of the same key replaces it.
    pub(super) fn bind(&mut self, key: &'static str, value: impl ToString) {
        self.fixed.retain(|(bound, _)| *bound != key);
        self.fixed.push((key, value.to_string()));
    }

    /// `template` with every blank filled, from the bound values first, then from `choices`.
    ///
    /// A sentence begins with a capital letter, whatever was filled in at its beginning.
    pub(super) fn sentence(
        &self,
        template: &str,
        choices: &[Choices],
        random: &mut Random,
    ) -> String {
        let filled = self.fill(template, choices, random);
        let mut letters = filled.chars();
        letters
            .next()
            .into_iter()
            .flat_map(char::to_uppercase)
            .chain(letters)
            .collect()
    }

    /// `template` with every blank filled, from the bound values first, then from `choices`.
    pub(super) fn fill(&self, template: &str, choices: &[Choices], random: &mut Random) -> String {
        let mut text = String::new();
        let mut rest = template;
        while let Some((before, blank)) = rest.split_once('{') {
            text.push_str(before);
            let (key, after) = blank.split_once('}').unwrap_or((blank, ""));
            let fixed = self.fixed.iter().find(|(bound, _)| *bound == key);
            let words = choices.iter().find(|(name, _)| *name == key);
            match (fixed, words) {
                (Some((_, value)), _) => text.push_str(value),
                (None, Some((_, words))) => text.push_str(random.pick(words)),
                (None, None) => text.extend(["{", key, "}"]),
            }
            rest = after;
        }
        text + rest
    }
}
