//! Text for a terminal or a page, in lines that are not too long.

/// Characters of a line.
pub(crate) const COLUMNS: usize = 100;

/// The words of `text` in lines, the first of which begins with `first` and the others with `indent`.
/// A word is never broken.
pub(crate) fn wrapped(first: &str, indent: &str, text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= COLUMNS => {
                line.push(' ');
                line.push_str(word);
            }
            Some(_) => lines.push(format!("{indent}{word}")),
            None => lines.push(format!("{first}{word}")),
        }
    }
    lines
}
