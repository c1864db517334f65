//! Miners whose updates are not what training gives: nothing, too much, too little, damage, trained on
//! other text, or no update at all.

use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};

use connito_learning::shard::Shard;
use connito_protocol::ids::{BlobId, BlockHash, Cycle, GroupId};
use connito_protocol::job::{Job, Outcome};
use connito_protocol::manifest::{Document, TaskManifest};
use connito_protocol::seed::{Draw, seed};

use super::copies::{scale, untrained};
use super::{Policy, Scene};

/// An honest update with its values changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Altered {
    /// As large as the rules allow in even cycles, far beyond in odd ones.
    Amplifier,
    /// A thousandth of it.
    Shrinker,
    /// A fiftieth of it, backwards.
    Drifter,
    /// Three times as large, backwards.
    Vandal,
}

impl Policy for Altered {
    fn outcome(&mut self, mut outcome: Outcome, scene: &mut Scene<'_>) -> Outcome {
        let Outcome::Trained(trained) = &mut outcome else {
            return outcome;
        };
        let Some(mut update) = scene.workshop.read(scene.group(), trained.update) else {
            return outcome;
        };
        let bound = scene.setting.manifest.rules.scoring.norm_bound;
        match self {
            #[expect(clippy::cast_possible_truncation, reason = "updates are f32")]
            Self::Amplifier => {
                let even = trained.cycle.0 % 2 == 0;
                scale(&mut update, bound as f32 * if even { 0.9 } else { 20.0 });
            }
            Self::Shrinker => scale(&mut update, 1e-3),
            Self::Drifter => scale(&mut update, -0.02),
            Self::Vandal => scale(&mut update, -3.0),
        }
        trained.update = scene
            .workshop
            .write(scene.group(), &update)
            .unwrap_or(trained.update);
        outcome
    }
}

/// A thousandth of noise, and nothing else.
#[derive(Debug)]
pub(crate) struct Lazy;

impl Policy for Lazy {
    fn outcome(&mut self, outcome: Outcome, scene: &mut Scene<'_>) -> Outcome {
        untrained(outcome, None, scene)
    }
}

/// Honest training on text that the rules do not mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OtherText {
    /// Nothing of the other domains.
    OwnDomainOnly,
    /// The text that updates are scored on.
    ScoringPool,
}

impl OtherText {
    fn alter(self, manifest: &mut TaskManifest, group: GroupId) {
        match self {
            Self::OwnDomainOnly => manifest.rules.own_share = 1.0,
            Self::ScoringPool => {
                let own = manifest
                    .domains
                    .iter_mut()
                    .filter(|domain| domain.group == group);
                own.for_each(|domain| domain.training = domain.scoring);
            }
        }
    }
}

impl Policy for OtherText {
    /// The same job on a task of its own making.
    fn job(&mut self, job: Job, scene: &mut Scene<'_>) -> Job {
        let Job::Train(mut train) = job else {
            return job;
        };
        let mut manifest = scene.setting.manifest.clone();
        self.alter(&mut manifest, train.group);
        let task = scene.workshop.write_bytes(&manifest.to_bytes());
        train.task = task.unwrap_or(train.task);
        Job::Train(train)
    }
}

/// Trains honestly; its advantage lies with the authors of blocks.
#[derive(Debug)]
pub(crate) struct Grinder;

impl Policy for Grinder {
    fn job(&mut self, job: Job, scene: &mut Scene<'_>) -> Job {
        scene.crew.note_job(&job);
        job
    }

    fn outcome(&mut self, outcome: Outcome, scene: &mut Scene<'_>) -> Outcome {
        if let Outcome::Trained(trained) = &outcome {
            scene.crew.submitted.insert(scene.me, trained.update);
        }
        outcome
    }
}

/// Which of two hashes of the seeding block draws the text that suits a crew's updates better.
pub(crate) fn preferred(cycle: Cycle, hashes: [BlockHash; 2], scene: &mut Scene<'_>) -> BlockHash {
    let crew = std::mem::take(scene.crew);
    let gain = |hash, scene: &mut Scene<'_>| -> f64 {
        crew.measure(seed(Draw::Scoring, hash, cycle), scene)
            .values()
            .sum()
    };
    let gains = hashes.map(|hash| gain(hash, scene));
    *scene.crew = crew;
    if gains[1] > gains[0] {
        hashes[1]
    } else {
        hashes[0]
    }
}

/// Sends files that are no updates: one kind after the other, beginning anywhere.
#[derive(Debug, Default)]
pub(crate) struct Garbler {
    next: Option<u64>,
}

/// Ways in which a file can be no update.
const GARBLES: u64 = 18;

/// Of these, what is done to chunks and scales: in a sparse file, which validators read whatever the rules
/// tell miners to write (P-19).
const SPARSE_WAYS: RangeInclusive<u64> = 10..=12;

impl Garbler {
    fn garble(way: u64, honest: BlobId, scene: &mut Scene<'_>) -> Option<BlobId> {
        let honest = match SPARSE_WAYS.contains(&way) {
            true => scene.workshop.sparsely(scene.group(), honest)?,
            false => honest,
        };
        let mut bytes = scene.workshop.bytes(honest)?;
        let body = bytes.get(..8).and_then(|length| length.try_into().ok());
        let body = body.map_or(0, |length| u64::from_le_bytes(length).saturating_add(8));
        let body = usize::try_from(body).map_or(bytes.len(), |body| body.min(bytes.len()));
        match way {
            0 => bytes.clear(),
            1 => bytes.truncate(bytes.len() / 2),
            2 => bytes.push(0),
            // A header that claims to be as long as memory is large.
            3 => bytes.iter_mut().take(8).for_each(|byte| *byte = 0xff),
            4 => bytes = b"\x80\x04\x95pickle".to_vec(),
            5 => bytes = b"{}".to_vec(),
            // A letter of a tensor's name.
            6 => flip(&mut bytes, b"experts"),
            7 => flip(&mut bytes, b"shape"),
            8 => flip(&mut bytes, b"data_offsets"),
            // As if it had been compressed on the way.
            9 => drop(bytes.splice(..0, *b"\x1f\x8b\x08\x00")),
            // More chunks than the tensors have.
            10 => bytes.extend_from_within(body..),
            // Places beyond the end of a chunk.
            11 => fill_chunks(&mut bytes[body..], 2..4),
            // Scales that are no numbers.
            12 => fill_chunks(&mut bytes[body..], 0..2),
            13 => {
                let update = scene.workshop.read(scene.group(), honest)?;
                repeat_a_name(&mut bytes, &update);
            }
            _ => {
                let mut update = scene.workshop.read(scene.group(), honest)?;
                Self::garble_tensors(way, &mut update);
                return scene.workshop.write(scene.group(), &update);
            }
        }
        scene.workshop.write_bytes(&bytes)
    }

    fn garble_tensors(way: u64, update: &mut Shard) {
        let renamed = |update: &Shard, rename: fn(&str) -> String| {
            let tensors = update.0.iter();
            tensors
                .map(|(name, tensor)| (rename(name), tensor.clone()))
                .collect()
        };
        match way {
            // A tensor that there is not.
            14 => {
                let more: BTreeMap<_, _> = renamed(update, |name| format!("{name}.more"));
                update.0.extend(more.into_iter().take(1));
            }
            // Experts that the group does not have.
            15 => update.0 = renamed(update, |name| name.replace("experts.", "experts.1")),
            // A value less than the model has.
            16 => {
                if let Some(tensor) = update.0.values_mut().next() {
                    tensor.values.pop();
                    tensor.shape = vec![tensor.values.len()];
                }
            }
            _ => scale(update, f32::NAN),
        }
    }
}

/// Sets every bit of these bytes of every sparse chunk of a table. A table's sixteen numbers are one chunk,
/// which keeps one of them: two bytes of scale, two of place and sign.
fn fill_chunks(body: &mut [u8], bytes: Range<usize>) {
    for chunk in body.chunks_exact_mut(4) {
        chunk[bytes.clone()].fill(0xff);
    }
}

/// Gives the second tensor the name of the first, where they are equally long.
fn repeat_a_name(bytes: &mut [u8], update: &Shard) {
    let mut names = update.0.keys();
    let (Some(first), Some(second)) = (names.next(), names.next()) else {
        return;
    };
    let place = bytes
        .windows(second.len())
        .position(|window| window == second.as_bytes());
    let place = place.and_then(|place| bytes.get_mut(place..place + first.len()));
    if let Some(place) = place.filter(|_| first.len() == second.len()) {
        place.copy_from_slice(first.as_bytes());
    }
}

/// Changes one bit of the first place where a word stands.
fn flip(bytes: &mut [u8], word: &[u8]) {
    let place = bytes.windows(word.len()).position(|window| window == word);
    if let Some(byte) = place.and_then(|place| bytes.get_mut(place)) {
        *byte ^= 1;
    }
}

impl Policy for Garbler {
    fn outcome(&mut self, mut outcome: Outcome, scene: &mut Scene<'_>) -> Outcome {
        if let Outcome::Trained(trained) = &mut outcome {
            let way = self.next.unwrap_or_else(|| scene.random.below(GARBLES));
            self.next = Some((way + 1) % GARBLES);
            let garbled = Self::garble(way, trained.update, scene);
            (trained.update, trained.steps) = (garbled.unwrap_or(trained.update), 0);
        }
        outcome
    }
}
