//! A folder that appears whole or not at all.
//!
//! Files are written into a neighbour of the folder and made durable; then one renaming puts everything in
//! place. A folder that is there already, and empty, stays the one it is (somebody may stand in it, or it
//! may be a file system of its own): there the neighbour lies inside, and the files move up in the order
//! in which they were written. Whatever goes wrong, what was made here is removed again.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::path::{Component, Path, PathBuf};

use super::error::CheckpointError;
use super::stream::CHUNK;

/// A folder in the making.
#[derive(Debug)]
pub(super) struct Staging {
    out: PathBuf,
    /// Where files are until all are written.
    place: PathBuf,
    /// Whether the folder was there before.
    existed: bool,
    /// Folders on the way that were not there before, outermost first.
    parents: Vec<PathBuf>,
    /// In the order in which they were written.
    files: Vec<PathBuf>,
    finished: bool,
}

/// One of its files.
#[derive(Debug)]
pub(super) struct NewFile {
    /// Where it will be.
    path: PathBuf,
    file: BufWriter<File>,
}

impl NewFile {
    pub(super) fn put(&mut self, bytes: &[u8]) -> Result<(), CheckpointError> {
        let written = self.file.write_all(bytes);
        written.map_err(|source| CheckpointError::write(&self.path, source))
    }
}

impl Staging {
    /// Begins a folder, which must not exist or be empty, and be none of the inputs nor lie within one.
    pub(super) fn new(out: &Path, inputs: &[&Path]) -> Result<Self, CheckpointError> {
        let failed = |source| CheckpointError::write(out, source);
        let missing = missing(out)?;
        outside(out, &missing, inputs)?;
        let existed = missing.is_empty();
        if existed && fs::read_dir(out).map_err(failed)?.next().is_some() {
            return Err(CheckpointError::FolderNotEmpty { path: out.into() });
        }
        let unfinished = format!("{}.unfinished", std::process::id());
        let mut name = OsString::from(".");
        let place = match out.file_name().filter(|_| !existed) {
            Some(own) => {
                name.push(own);
                name.push(".");
                name.push(unfinished);
                out.with_file_name(name)
            }
            None => {
                name.push(unfinished);
                out.join(name)
            }
        };
        let mut staging = Self {
            out: out.to_owned(),
            place,
            existed,
            parents: Vec::new(),
            files: Vec::new(),
            // Until there is something to remove.
            finished: true,
        };
        for parent in missing.iter().filter(|path| *path != out) {
            fs::create_dir(parent).map_err(failed)?;
            staging.parents.push(parent.clone());
            staging.finished = false;
        }
        fs::create_dir(&staging.place).map_err(failed)?;
        staging.finished = false;
        Ok(staging)
    }

    /// Writes a file and makes it durable.
    pub(super) fn file<E: From<CheckpointError>>(
        &mut self,
        name: &Path,
        write: impl FnOnce(&mut NewFile) -> Result<(), E>,
    ) -> Result<(), E> {
        let path = self.out.join(name);
        let failed = |source| CheckpointError::write(&path, source);
        let file = File::create_new(self.place.join(name)).map_err(failed)?;
        self.files.push(name.to_owned());
        let mut file = NewFile {
            path: path.clone(),
            file: BufWriter::new(file),
        };
        write(&mut file)?;
        let file = file.file.into_inner();
        let file = file.map_err(|error| failed(error.into_error()))?;
        file.sync_all().map_err(failed)?;
        Ok(())
    }

    /// Copies a file that has nothing to do with weights.
    pub(super) fn copy(&mut self, from: &Path, name: &Path) -> Result<(), CheckpointError> {
        let unreadable = |source| CheckpointError::read(from, source);
        let mut source = File::open(from).map_err(unreadable)?;
        self.file(name, |file| {
            let mut buffer = vec![0; CHUNK];
            loop {
                match source.read(&mut buffer).map_err(unreadable)? {
                    0 => return Ok(()),
                    bytes => file.put(&buffer[..bytes])?,
                }
            }
        })
    }

    /// Puts the folder in its place.
    pub(super) fn finish(mut self) -> Result<(), CheckpointError> {
        let failed = |source| CheckpointError::write(&self.out, source);
        persist(&self.place);
        if self.existed {
            for name in &self.files {
                fs::rename(self.place.join(name), self.out.join(name)).map_err(failed)?;
            }
            fs::remove_dir(&self.place).map_err(failed)?;
            persist(&self.out);
        } else {
            fs::rename(&self.place, &self.out).map_err(failed)?;
            self.out.parent().into_iter().for_each(persist);
        }
        self.finished = true;
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        // Failing to remove what is of no use adds nothing to the first error.
        drop(fs::remove_dir_all(&self.place));
        if self.existed {
            let moved = self.files.iter().map(|name| self.out.join(name));
            moved.for_each(|path| drop(fs::remove_file(path)));
        }
        let parents = self.parents.iter().rev();
        parents.for_each(|path| drop(fs::remove_dir(path)));
    }
}

/// The folders on the way to `out`, and it itself, that are not there, outermost first.
fn missing(out: &Path) -> Result<Vec<PathBuf>, CheckpointError> {
    let no_place = || CheckpointError::NoPlace { path: out.into() };
    if out.as_os_str().is_empty() {
        return Err(no_place());
    }
    let mut missing = Vec::new();
    for path in out.ancestors() {
        // The parent of a bare name is the working directory.
        if path == Path::new("") || path.is_dir() {
            break;
        }
        // Neither a way back, a link into nowhere, nor a file is a folder that could be made.
        let named = matches!(path.components().next_back(), Some(Component::Normal(_)));
        if !named || fs::symlink_metadata(path).is_ok() {
            return Err(no_place());
        }
        missing.push(path.to_owned());
    }
    missing.reverse();
    Ok(missing)
}

/// Whether a folder will be none of the inputs and in none of them, links followed.
fn outside(out: &Path, missing: &[PathBuf], inputs: &[&Path]) -> Result<(), CheckpointError> {
    let there = match missing.first() {
        Some(outermost) => outermost.parent().unwrap_or(Path::new("")),
        None => out,
    };
    let canonical = here(there).canonicalize();
    let canonical = canonical.map_err(|source| CheckpointError::write(out, source))?;
    let place = canonical.join(out.strip_prefix(there).unwrap_or(Path::new("")));
    let within = |input: &&&Path| {
        let input = input.canonicalize();
        input.is_ok_and(|input| place.starts_with(input))
    };
    match inputs.iter().find(within) {
        Some(input) => Err(CheckpointError::WithinInput {
            path: out.into(),
            input: (*input).into(),
        }),
        None => Ok(()),
    }
}

/// A folder, the working directory where the path is empty.
fn here(folder: &Path) -> &Path {
    match folder.as_os_str().is_empty() {
        true => Path::new("."),
        false => folder,
    }
}

/// Makes the entries of a folder durable, where the file system can: what matters is in the files.
fn persist(folder: &Path) {
    drop(File::open(here(folder)).and_then(|folder| folder.sync_all()));
}
