//! The files of the joined checkpoint, one after the other, expert by expert.
//!
//! Headers are the base's to the byte. Of a tensor that holds experts, each expert's bytes come from its
//! slice: as they are where type and arrangement agree, converted number by number where only the type
//! differs, and otherwise put together in memory from the matrices of that one expert. What arrives is
//! compared with what was there: so it is known which experts changed, and a number that is not finite is
//! refused unless it was there before.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

use super::donor::{Donor, convert, is_plain};
use super::{Base, JoinError, Owners};
use crate::checkpoint::files::WEIGHTS;
use crate::checkpoint::header::Entry;
use crate::checkpoint::layout::{Content, Part, SCALE_SUFFIX};
use crate::checkpoint::staging::{NewFile, Staging};
use crate::checkpoint::stream::{CHUNK, Meter, Reader};
use crate::checkpoint::{FileElement, Located, StoredRows};
use crate::names::parse_expert_name;

/// Writes the files, and notes which experts are other ones than before.
#[derive(Debug)]
pub(super) struct Writer<'a> {
    base: &'a Base,
    base_reader: Reader<'a>,
    donors: &'a [Donor],
    readers: Vec<Reader<'a>>,
    owners: &'a Owners,
    meter: Meter<'a>,
    changed: BTreeSet<(usize, usize)>,
    /// Room for numbers and bytes on their way.
    room: Room,
}

#[derive(Debug, Default)]
struct Room {
    own: Vec<u8>,
    new: Vec<u8>,
    old: Vec<u8>,
    values: Vec<f32>,
}

/// The part of a tensor that belongs to one expert.
#[derive(Debug)]
struct Unit {
    expert: (usize, usize),
    /// In the base's file.
    bytes: Range<usize>,
    /// The matrices in it, by canonical name.
    parameters: Vec<String>,
}

/// A tensor of the base that is being written.
#[derive(Debug, Clone, Copy)]
struct Target<'a> {
    /// Of the base's weights files.
    file: usize,
    entry: &'a Entry,
    /// Whether it holds the scales of another tensor.
    is_scales: bool,
}

/// Where the bytes of a unit come from.
enum Origin {
    /// A range of a slice's file, in this type if it is to be converted.
    Range {
        file: usize,
        bytes: Range<usize>,
        convert: Option<(FileElement, FileElement)>,
    },
    /// In the base's type and arrangement.
    Block(Vec<u8>),
}

impl<'a> Writer<'a> {
    pub(super) fn new(
        base: &'a Base,
        donors: &'a [Donor],
        owners: &'a Owners,
        meter: Meter<'a>,
    ) -> Self {
        let readers = donors.iter();
        let readers = readers.map(|donor| Reader::new(&donor.checkpoint.files));
        Self {
            base,
            base_reader: Reader::new(&base.checkpoint.files),
            donors,
            readers: readers.collect(),
            owners,
            meter,
            changed: BTreeSet::new(),
            room: Room::default(),
        }
    }

    /// How many experts changed.
    pub(super) fn changed(&self) -> usize {
        self.changed.len()
    }

    /// Writes one of the base's weights files.
    pub(super) fn file(&mut self, number: usize, staging: &mut Staging) -> Result<(), JoinError> {
        let base = self.base;
        let file = &base.checkpoint.files.files[number];
        let data = file.present()?.data;
        let name = file.path.file_name().map_or(Path::new(WEIGHTS), Path::new);
        staging.file(name, |out| {
            self.keep(number, 0..data, out)?;
            for (tensor, entry) in file.tensors() {
                let scaled = tensor.strip_suffix(SCALE_SUFFIX);
                let target = Target {
                    file: number,
                    entry,
                    is_scales: scaled.is_some(),
                };
                let mut done = entry.bytes.start;
                // A tensor that the index does not list is nobody's, and stays.
                let listed = base.checkpoint.files.tensors.contains_key(tensor);
                let units = listed.then(|| self.units(scaled.unwrap_or(tensor), entry));
                for unit in units.into_iter().flatten() {
                    if let Some(&donor) = self.owners.get(&unit.expert) {
                        self.keep(number, done..unit.bytes.start, out)?;
                        done = unit.bytes.end;
                        self.replace(donor, &unit, target, out)?;
                    }
                }
                self.keep(number, done..entry.bytes.end, out)?;
            }
            Ok(())
        })
    }

    /// The experts that a tensor is made of; none if it holds something else.
    fn units(&self, tensor: &str, entry: &Entry) -> Vec<Unit> {
        let Content::Parameters(parameters) = self.base.checkpoint.layout.content(tensor, None)
        else {
            return Vec::new();
        };
        let mut units: Vec<Unit> = Vec::new();
        for (name, _) in parameters {
            let Some(expert) = parse_expert_name(&name) else {
                return Vec::new();
            };
            match units.last_mut() {
                Some(unit) if unit.expert == expert => unit.parameters.push(name),
                _ => units.push(Unit {
                    expert,
                    bytes: 0..0,
                    parameters: vec![name],
                }),
            }
        }
        let size = entry.bytes.len() / units.len().max(1);
        for (number, unit) in units.iter_mut().enumerate() {
            let start = entry.bytes.start + number * size;
            unit.bytes = start..start + size;
        }
        units
    }

    /// Bytes of the base as they are.
    fn keep(
        &mut self,
        file: usize,
        range: Range<usize>,
        out: &mut NewFile,
    ) -> Result<(), JoinError> {
        let meter = &mut self.meter;
        self.base_reader.each_chunk(file, range, |chunk| {
            meter.advance(chunk.len());
            out.put(chunk)
        })?;
        Ok(())
    }

    /// Bytes of a slice in the place of the base's.
    fn replace(
        &mut self,
        number: usize,
        unit: &Unit,
        target: Target<'_>,
        out: &mut NewFile,
    ) -> Result<(), JoinError> {
        let (tensor, origin) = self.origin(number, unit, target)?;
        let size = target.entry.element().map_or(1, FileElement::size);
        let numbers = unit.bytes.len() / size;
        let at_once = CHUNK / size_of::<f32>();
        for first in (0..numbers).step_by(at_once) {
            let numbers = first..numbers.min(first + at_once);
            self.fetch(number, &origin, numbers.clone(), size)?;
            let room = &mut self.room;
            room.old.resize(numbers.len() * size, 0);
            let place = unit.bytes.start + first * size;
            self.base_reader.read(target.file, place, &mut room.old)?;
            if room.new != room.old {
                self.changed.insert(unit.expert);
                if room.spoils(target.entry) {
                    return Err(JoinError::NotFinite {
                        slice: self.donors[number].folder().to_owned(),
                        name: tensor,
                        element_type: target.entry.element_type.clone(),
                    });
                }
            }
            out.put(&room.new)?;
            self.meter.advance(room.new.len());
        }
        Ok(())
    }

    /// Some numbers from where they come, each `size` bytes in the base's type, into the room for new bytes.
    fn fetch(
        &mut self,
        donor: usize,
        origin: &Origin,
        numbers: Range<usize>,
        size: usize,
    ) -> Result<(), JoinError> {
        let room = &mut self.room;
        match origin {
            Origin::Block(block) => {
                room.new.clear();
                let bytes = numbers.start * size..numbers.end * size;
                room.new.extend_from_slice(&block[bytes]);
            }
            Origin::Range {
                file,
                bytes,
                convert: types,
            } => {
                let own_size = types.map_or(size, |(from, _)| from.size());
                room.own.resize(numbers.len() * own_size, 0);
                let start = bytes.start + numbers.start * own_size;
                self.readers[donor]
                    .read(*file, start, &mut room.own)
                    .map_err(|error| self.donors[donor].broken(error))?;
                match types {
                    Some(types) => convert(&room.own, *types, &mut room.values, &mut room.new),
                    None => std::mem::swap(&mut room.own, &mut room.new),
                }
            }
        }
        Ok(())
    }

    /// What a slice has for a unit, and the tensor that it has it in.
    fn origin(
        &mut self,
        number: usize,
        unit: &Unit,
        target: Target<'_>,
    ) -> Result<(String, Origin), JoinError> {
        let donor = &self.donors[number];
        let broken = |error| donor.broken(error);
        let (own, old) = (donor.locate(&unit.parameters[0])?, &self.base.checkpoint);
        let old = old.locate(&unit.parameters[0])?;
        if !own.is_arranged_as(&old) {
            let block = self.rearranged(number, unit, target)?;
            return Ok((own.tensor.to_owned(), Origin::Block(block)));
        }
        let tensor = match target.is_scales {
            true => format!("{}{SCALE_SUFFIX}", own.tensor),
            false => own.tensor.to_owned(),
        };
        let files = &donor.checkpoint.files;
        let (_, entry) = files.entry(&tensor).map_err(broken)?;
        let (row, rows) = match own.part {
            Part::OfAll { row, rows, .. } => (*row, *rows),
            Part::Whole { .. } | Part::OfOne { .. } => (0, 1),
        };
        let size = entry.bytes.len() / rows.max(1);
        let start = entry.bytes.start + row * size;
        let types = entry.element().zip(target.entry.element());
        let origin = Origin::Range {
            file: files.tensors[&tensor].file,
            bytes: start..start + size,
            convert: types.filter(|(from, to)| from != to),
        };
        Ok((tensor, origin))
    }

    /// An expert's part of a tensor, put together from matrices that lie differently in the slice.
    fn rearranged(
        &mut self,
        number: usize,
        unit: &Unit,
        target: Target<'_>,
    ) -> Result<Vec<u8>, JoinError> {
        let donor = &self.donors[number];
        let mut block = vec![0; unit.bytes.len()];
        let first = unit.bytes.start - target.entry.bytes.start;
        for name in &unit.parameters {
            let (own, old) = (donor.locate(name)?, self.base.checkpoint.locate(name)?);
            let types = own.entry.element().zip(target.entry.element());
            let Some((from, to)) = types.filter(|_| is_plain(own.entry)) else {
                continue;
            };
            let range = own.view.block(from);
            let mut bytes = vec![0; range.len()];
            let file = donor.checkpoint.files.tensors[own.tensor].file;
            self.readers[number]
                .read(file, own.entry.bytes.start + range.start, &mut bytes)
                .map_err(|error| donor.broken(error))?;
            let mut view = own.view;
            view.offset -= range.start / from.size();
            let rows = StoredRows {
                bytes: &bytes,
                element: from,
                view,
                scales: None,
            };
            old.view.scatter(&rows, to, first, &mut block);
        }
        Ok(block)
    }
}

impl Room {
    /// Whether a number is not finite that was not there before.
    fn spoils(&mut self, entry: &Entry) -> bool {
        let Some(element) = entry.element() else {
            return false;
        };
        let size = element.size();
        self.values.resize(self.new.len() / size, 0.0);
        element.widen(&self.new, 1, &mut self.values);
        let pairs = self.new.chunks_exact(size).zip(self.old.chunks_exact(size));
        let mut numbers = self.values.iter().zip(pairs);
        numbers.any(|(value, (new, old))| !value.is_finite() && new != old)
    }
}

impl Donor {
    fn locate(&self, name: &str) -> Result<Located<'_>, JoinError> {
        let located = self.checkpoint.locate(name);
        located.map_err(|error| self.broken(error))
    }
}
