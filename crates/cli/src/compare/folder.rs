//! Where a comparison's files go: a folder, all files or none.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};

use crate::exit::{Blame, Failure};
use crate::result_file::ResultFile;

/// A folder that may have to be made.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Refuses a place that cannot be a folder, before anything is computed.
    pub(super) fn new(path: &Path) -> Result<Self, Failure> {
        let refused =
            |what: String| Err(Failure::Input(anyhow!("--out {} {what}", path.display())));
        if fs::symlink_metadata(path).is_ok() && !path.is_dir() {
            return refused("is there and is no folder".to_owned());
        }
        let parent = path.parent().filter(|parent| *parent != Path::new(""));
        let parent = parent.unwrap_or(Path::new("."));
        let can_be_made = parent.is_dir() && path.file_name().is_some();
        if !path.is_dir() && !can_be_made {
            let parent = parent.display();
            return refused(format!("has no place: there is no folder {parent}"));
        }
        Ok(Self {
            path: path.to_owned(),
        })
    }

    /// Writes all files and then puts each in its place.
    pub(super) fn write(&self, files: &[(&str, String)]) -> Result<(), Failure> {
        let made = !self.path.is_dir();
        if made {
            fs::create_dir(&self.path)
                .with_context(|| format!("cannot make {}", self.path.display()))
                .environment()?;
        }
        let written = self.put(files);
        if written.is_err() && made {
            // Only a folder that stayed empty can be removed so, which is what is wanted.
            drop(fs::remove_dir(&self.path));
        }
        written
    }

    fn put(&self, files: &[(&str, String)]) -> Result<(), Failure> {
        let places = files
            .iter()
            .map(|(name, _)| ResultFile::new("--out", &self.path.join(name), &[]))
            .collect::<Result<Vec<_>, _>>()?;
        let texts = files.iter().map(|(_, text)| text);
        let prepared = places
            .iter()
            .zip(texts)
            .map(|(place, text)| place.prepare_text(text))
            .collect::<Result<Vec<_>, _>>()?;
        prepared.into_iter().try_for_each(|file| file.put())
    }
}
