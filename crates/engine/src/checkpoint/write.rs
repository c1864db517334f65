//! Writing a checkpoint to another folder with some of its parameters replaced.
//!
//! A replaced parameter goes where the old one was, in the old type, rounded to nearest even; everything
//! else is copied byte for byte, and so are the tables at the beginning of the files, which say nothing
//! about values. Tensors pass through one at a time, row by row. Every file is written beside its
//! destination, made durable and renamed, and `config.json` comes last: a folder that can be opened is
//! whole.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::element::FileElement;
use super::error::CheckpointError;
use super::files::{INDEX, WEIGHTS};
use super::header::Entry;
use super::layout::{Content, Part, View};
use super::{CONFIG, Checkpoint};
use crate::device::Rows;
use crate::routing::ExpertMap;

/// New values of parameters by canonical name; `None` where a parameter keeps its values.
pub type Values<'a> = dyn Fn(&str) -> Option<Box<dyn Rows + 'a>> + 'a;

/// What is copied along: configuration, tokenizer, licence, code. Never weights in other formats, which
/// would hold the old values.
const COMPANIONS: [&str; 7] = ["json", "txt", "model", "jinja", "md", "py", "tiktoken"];

impl Checkpoint {
    /// Writes the checkpoint to another folder, in the same files, tensors and types, with new values
    /// where `values` has some.
    ///
    /// # Errors
    ///
    /// When the folder is not empty, a file cannot be written, a file of the checkpoint is absent, or
    /// values are given for a tensor that is misshapen or of a type that is not written. Nothing that
    /// could be mistaken for a checkpoint is left behind.
    pub fn write(&self, folder: &Path, values: &Values<'_>) -> Result<(), CheckpointError> {
        for file in &self.files.files {
            file.bytes()?;
        }
        fs::create_dir_all(folder).map_err(|source| CheckpointError::write(folder, source))?;
        let mut entries =
            fs::read_dir(folder).map_err(|source| CheckpointError::read(folder, source))?;
        if entries.next().is_some() {
            let path = folder.to_owned();
            return Err(CheckpointError::FolderNotEmpty { path });
        }
        let mut written = Vec::new();
        let result = self.write_files(folder, values, &mut written);
        if result.is_err() {
            // Failing to remove a file adds nothing to the first error.
            written.iter().for_each(|path| drop(fs::remove_file(path)));
        }
        result
    }

    fn write_files(
        &self,
        folder: &Path,
        values: &Values<'_>,
        written: &mut Vec<PathBuf>,
    ) -> Result<(), CheckpointError> {
        for file in &self.files.files {
            let path = folder.join(file.path.file_name().unwrap_or(OsStr::new(WEIGHTS)));
            written.push(path.clone());
            let old = file.bytes()?;
            write_whole(&path, |to| {
                // The tensors' ranges follow each other from the end of the table to that of the file.
                put(&path, to, &old[..file.present()?.data])?;
                for (name, entry) in file.tensors() {
                    let old = &old[entry.bytes.clone()];
                    let held = file.held.as_ref();
                    let tensor = Tensor {
                        name,
                        entry,
                        old,
                        held,
                    };
                    self.write_tensor(&tensor, values, &mut |bytes| put(&path, to, bytes))?;
                }
                Ok(())
            })?;
        }
        for name in self.companions()? {
            let (from, to) = (self.folder.join(&name), folder.join(&name));
            let bytes = fs::read(&from).map_err(|source| CheckpointError::read(&from, source))?;
            written.push(to.clone());
            write_whole(&to, |file| put(&to, file, &bytes))?;
        }
        Ok(())
    }

    /// The other files of the checkpoint that belong to it, `config.json` last.
    pub(super) fn companions(&self) -> Result<Vec<PathBuf>, CheckpointError> {
        let unreadable = |source| CheckpointError::read(&self.folder, source);
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(unreadable)? {
            let name = PathBuf::from(entry.map_err(unreadable)?.file_name());
            // Following links: in the cache of the Hub every file is one.
            if self.folder.join(&name).is_file() && is_companion(&name) {
                names.push(name);
            }
        }
        names.sort_by_key(|name| (name == Path::new(CONFIG), name.clone()));
        Ok(names)
    }

    /// Puts a tensor's bytes, those of replaced parameters anew.
    fn write_tensor(
        &self,
        tensor: &Tensor<'_>,
        values: &Values<'_>,
        put: &mut Put<'_>,
    ) -> Result<(), CheckpointError> {
        let Content::Parameters(parameters) = self.layout.content(tensor.name, tensor.held) else {
            return put(tensor.old);
        };
        let mut replaced = Vec::new();
        for (name, part) in &parameters {
            if let Some(source) = values(name) {
                let view = self.writable(tensor, part)?;
                replaced.push((view, source));
            }
        }
        let Some(element) = tensor.entry.element().filter(|_| !replaced.is_empty()) else {
            return put(tensor.old);
        };
        let mut done = 0;
        let mut replaced = replaced.into_iter().peekable();
        while let Some((view, source)) = replaced.next() {
            let range = view.block(element);
            put(&tensor.old[done..range.start])?;
            done = range.end;
            if view.column_stride == 1 {
                write_rows(&view, &*source, element, put)?;
                continue;
            }
            // Transposed matrices that share a block are interleaved in it, number by number.
            let mut block = tensor.old[range.clone()].to_vec();
            view.scatter(&*source, element, range.start, &mut block);
            let shares = |(next, _): &(View, _)| next.block(element) == range;
            if let Some((view, source)) = replaced.next_if(shares) {
                view.scatter(&*source, element, range.start, &mut block);
            }
            put(&block)?;
        }
        put(&tensor.old[done..])
    }

    /// Where new values of a part go.
    fn writable(&self, tensor: &Tensor<'_>, part: &Part) -> Result<View, CheckpointError> {
        let Tensor { name, entry, .. } = tensor;
        match entry.element() {
            Some(FileElement::F32 | FileElement::F16 | FileElement::Bf16) => {}
            Some(FileElement::F8E4M3) | None => {
                return Err(CheckpointError::ReadOnly {
                    name: (*name).to_owned(),
                    element_type: entry.element_type.clone(),
                });
            }
        }
        let view = self.layout.view(part, &entry.shape);
        view.map_err(|expected| CheckpointError::MisshapenTensor {
            name: (*name).to_owned(),
            expected,
            found: entry.shape.clone(),
        })
    }
}

/// One tensor of the checkpoint being copied.
struct Tensor<'a> {
    name: &'a str,
    entry: &'a Entry,
    old: &'a [u8],
    /// The experts that its file says it holds.
    held: Option<&'a ExpertMap>,
}

/// Takes the next bytes of a file.
pub(super) type Put<'a> = dyn FnMut(&[u8]) -> Result<(), CheckpointError> + 'a;

impl View {
    /// The bytes of the tensor between which the parameter's numbers lie. A transposed matrix shares
    /// them with the other one of its expert, if there is one.
    pub(super) fn block(&self, element: FileElement) -> Range<usize> {
        let size = element.size();
        if self.column_stride == 1 {
            return self.offset * size..(self.offset + self.rows * self.width) * size;
        }
        let numbers = self.width * self.column_stride;
        let start = self.offset / numbers * numbers;
        start * size..(start + numbers) * size
    }

    /// Puts the rows of a transposed matrix into its block, which begins at byte `start`.
    pub(super) fn scatter(
        &self,
        source: &dyn Rows,
        element: FileElement,
        start: usize,
        block: &mut [u8],
    ) {
        let size = element.size();
        let mut row = vec![0.0; self.width];
        let mut bytes = Vec::new();
        for number in 0..self.rows {
            source.read_row(number, &mut row);
            bytes.clear();
            element.narrow(&row, &mut bytes);
            for (column, value) in bytes.chunks_exact(size).enumerate() {
                let place = self.offset + number * self.row_stride + column * self.column_stride;
                let place = place * size - start;
                block[place..place + size].copy_from_slice(value);
            }
        }
    }
}

pub(super) fn write_rows(
    view: &View,
    source: &dyn Rows,
    element: FileElement,
    put: &mut Put<'_>,
) -> Result<(), CheckpointError> {
    let mut row = vec![0.0; view.width];
    let mut bytes = Vec::new();
    for number in 0..view.rows {
        source.read_row(number, &mut row);
        bytes.clear();
        element.narrow(&row, &mut bytes);
        put(&bytes)?;
    }
    Ok(())
}

fn is_companion(name: &Path) -> bool {
    let text = name.to_string_lossy();
    // Indices of weights in other formats are no use without those.
    if text.starts_with('.') || text.ends_with(".index.json") {
        return text == INDEX;
    }
    match name.extension() {
        None => true,
        Some(extension) => COMPANIONS.iter().any(|known| extension == *known),
    }
}

pub(super) fn put(path: &Path, to: &mut impl Write, bytes: &[u8]) -> Result<(), CheckpointError> {
    to.write_all(bytes)
        .map_err(|source| CheckpointError::write(path, source))
}

/// Writes a neighbour of `path`, makes it durable and renames it into place.
pub(super) fn write_whole(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> Result<(), CheckpointError>,
) -> Result<(), CheckpointError> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(format!(".{}.unfinished", std::process::id()));
    let unfinished = PathBuf::from(unfinished);
    let failed = |source| CheckpointError::write(path, source);
    let result = File::create(&unfinished).map_err(failed).and_then(|file| {
        let mut file = BufWriter::new(file);
        write(&mut file)?;
        let file = file
            .into_inner()
            .map_err(|error| failed(error.into_error()))?;
        file.sync_all().map_err(failed)?;
        fs::rename(&unfinished, path).map_err(failed)
    });
    if result.is_err() {
        // Whatever was written is of no use; failing to remove it adds nothing to the first error.
        drop(fs::remove_file(&unfinished));
    }
    result
}
