//! A file that a command leaves behind: whole or not at all, and never in the place of what it reads.
//!
//! It takes the place of an earlier result at most: never that of an input, nor of anything that is no
//! regular file. A neighbour is written and renamed, so that whatever goes wrong leaves the place as it
//! was. Knows nothing of what is in the file.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};

use crate::exit::{Blame, Failure};

/// Where a result goes.
#[derive(Debug)]
pub(crate) struct ResultFile {
    /// As it was typed.
    path: PathBuf,
    /// The same without links above it.
    place: PathBuf,
}

impl ResultFile {
    /// Refuses a place that cannot be written to or must not be, before anything is read. `option` named
    /// the place, `inputs` are options and the files and folders that they name.
    pub(crate) fn new(
        option: &str,
        path: &Path,
        inputs: &[(&str, &Path)],
    ) -> Result<Self, Failure> {
        let shown = path.display();
        let refused = |what: String| Err(Failure::Input(anyhow!("{option} {shown} {what}")));
        // A link is not followed: what it points to was not named.
        if fs::symlink_metadata(path).is_ok_and(|found| !found.is_file()) {
            return refused("is there and is no regular file".to_owned());
        }
        // A bare file name lies in the working directory, its parent being empty.
        let folder = path.parent().filter(|parent| *parent != Path::new(""));
        let folder = folder.unwrap_or(Path::new("."));
        let Some(name) = path.file_name().filter(|_| folder.is_dir()) else {
            return refused(format!(
                "has no place: there is no folder {}",
                folder.display()
            ));
        };
        let place = folder
            .canonicalize()
            .with_context(|| format!("cannot find {}", folder.display()))
            .input()?
            .join(name);
        for (option, input) in inputs {
            if is_part_of(input, &place) {
                return refused(format!("belongs to {option} {}", input.display()));
            }
            if is_at(input, &place) {
                return refused(format!("is the file of {option}"));
            }
        }
        Ok(Self {
            path: path.to_owned(),
            place,
        })
    }

    /// As it was typed.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether both are one file.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.place == other.place
    }

    /// Writes a neighbour, complete but for its name.
    pub(crate) fn prepare(
        &self,
        write: impl FnOnce(&mut File) -> anyhow::Result<()>,
    ) -> Result<Prepared<'_>, Failure> {
        self.unfinished(write)
            .with_context(|| format!("cannot write {}", self.path.display()))
            .environment()
    }

    /// As [`Self::prepare`], for what is in memory already.
    pub(crate) fn prepare_text(&self, text: &str) -> Result<Prepared<'_>, Failure> {
        self.prepare(|file| Ok(file.write_all(text.as_bytes())?))
    }

    fn unfinished(
        &self,
        write: impl FnOnce(&mut File) -> anyhow::Result<()>,
    ) -> anyhow::Result<Prepared<'_>> {
        let mut unfinished = self.path.as_os_str().to_owned();
        unfinished.push(format!(".{}.unfinished", std::process::id()));
        // Whatever has that name already is not this command's to overwrite or to remove.
        let mut file = File::create_new(&unfinished)?;
        let prepared = Prepared {
            target: self,
            unfinished: Some(unfinished.into()),
        };
        write(&mut file)?;
        file.sync_all()?;
        Ok(prepared)
    }
}

/// A result that has yet to take its place; removed if it never does.
#[derive(Debug)]
pub(crate) struct Prepared<'a> {
    target: &'a ResultFile,
    unfinished: Option<PathBuf>,
}

impl Prepared<'_> {
    /// Puts it in its place.
    pub(crate) fn put(mut self) -> Result<(), Failure> {
        let Some(unfinished) = &self.unfinished else {
            return Ok(());
        };
        fs::rename(unfinished, &self.target.path)
            .with_context(|| format!("cannot write {}", self.target.path.display()))
            .environment()?;
        self.unfinished = None;
        Ok(())
    }
}

impl Drop for Prepared<'_> {
    fn drop(&mut self) {
        if let Some(unfinished) = &self.unfinished {
            // Failing to remove what is of no use adds nothing to what went wrong before.
            drop(fs::remove_file(unfinished));
        }
    }
}

/// Whether a path leads to the place, links followed.
fn is_at(path: &Path, place: &Path) -> bool {
    path.canonicalize().is_ok_and(|path| path == place)
}

/// Whether the place is inside a folder, or is where a link in it leads: downloaded models are often
/// folders of links into a store.
fn is_part_of(folder: &Path, place: &Path) -> bool {
    if !folder.is_dir() {
        return false;
    }
    if is_inside(folder, place) {
        return true;
    }
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| is_at(&entry.path(), place))
}

fn is_inside(folder: &Path, place: &Path) -> bool {
    folder
        .canonicalize()
        .is_ok_and(|folder| place.starts_with(folder))
}
