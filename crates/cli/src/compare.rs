//! `connito compare`: data, pipeline and expert parallel training of one model on one network, side by side.
//!
//! Models come from their configurations (`models.rs`), strategies and the network that they are played on from
//! the simulator; `played.rs` plays them. `words.rs` has what is said beside the numbers: names, sources, claims
//! that are out of date, and what the comparison leaves out. `text.rs` and `json.rs` show the same numbers, and
//! `figures.rs` draws them. Nothing here decides who is better.

mod figures;
mod folder;
mod json;
mod models;
mod played;
mod svg;
mod text;
mod words;

use crate::args::compare::CompareArguments;
use crate::exit::Failure;
use crate::output::print;
use folder::Folder;
use played::Comparison;

/// Runs the command.
pub(crate) fn run(arguments: &CompareArguments) -> Result<(), Failure> {
    let folder = arguments.out.as_deref().map(Folder::new).transpose()?;
    let models = models::read(arguments)?;
    let comparison = Comparison::play(arguments, models)?;
    let json = json::line(&comparison);
    if let Some(folder) = &folder {
        let mut files = vec![("comparison.json", format!("{json}\n"))];
        files.extend(figures::all(&comparison));
        folder.write(&files)?;
    }
    print(&if arguments.json {
        json
    } else {
        text::page(&comparison)
    })
}
