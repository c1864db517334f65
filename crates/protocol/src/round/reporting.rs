//! Which reports of a cycle count (P-25, P-44): by what stood on the chain, and which bodies are there.
//!
//! ```text
//! score window          records with reports; two different ones of a voter are void
//! its last block        the reports of the cycle: inline, or the name of a body
//! half of the vote      attestations: a body counts if holders of more than half of all stake have it
//! ```
//!
//! Where no report names a body, the last block of the score window settles it. Inputs are snapshots of
//! the chain and bodies as they come in; what a body says besides decoding is decided elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::announcement::{Announcement, Attestation, BodiesDigest};
use crate::budget::{OtherWrites, longest_inline};
use crate::committee::Roster;
use crate::conduct::{Misconduct, blame};
use crate::consensus::{Reported, quorum};
use crate::ids::{BlobId, Block, Cycle, Hotkey};
use crate::manifest::BlockRef;
use crate::memo::Memo;
use crate::report::{ScoreReport, SubmissionsDigest};
use crate::rules::Rules;
use crate::snapshot::{Record, Snapshot, Voter};

use super::{Judged, JudgementKey, block_ref};

/// What reports of a cycle must look like.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Scope {
    pub(crate) cycle: Cycle,
    pub(crate) digest: SubmissionsDigest,
    pub(crate) roster: Roster,
    /// Longest possible report that stands on the chain itself, in bytes.
    inline: usize,
    /// Most reviews at the end of a report.
    reviews: usize,
    pub(super) judged: Memo<JudgementKey, Option<Judged>>,
}

impl Scope {
    pub(crate) fn new(
        cycle: Cycle,
        digest: SubmissionsDigest,
        (roster, voters): (Roster, &[Voter]),
        rules: &Rules,
    ) -> Self {
        let reviews = match roster.is_drawn() {
            true => rules.scoring.reviews as usize,
            false => 0,
        };
        let lengths = voters
            .iter()
            .map(|voter| roster.longest_report(voter.hotkey, reviews));
        let alone = longest_inline(&rules.windows, OtherWrites::Vote);
        let inline = if lengths.max().unwrap_or(0) <= alone {
            alone
        } else {
            longest_inline(&rules.windows, OtherWrites::AttestationAndVote)
        };
        Self {
            cycle,
            digest,
            roster,
            inline,
            reviews,
            judged: Memo::default(),
        }
    }

    /// Whether a voter's report is a body with its name on the chain. Told by the longest report that
    /// it might have to give, so that it does not choose.
    pub(crate) fn is_mirrored(&self, hotkey: Hotkey) -> bool {
        self.roster.longest_report(hotkey, self.reviews) > self.inline
    }

    /// Whether a report has the entries that this voter's must have. Its reviews may be missing.
    fn fits(&self, hotkey: Hotkey, report: &ScoreReport) -> bool {
        let entries = self.roster.entries(hotkey);
        let lengths = entries..=entries + self.reviews;
        report.cycle == self.cycle
            && report.submissions == self.digest
            && lengths.contains(&report.entries.len())
    }
}

/// What has been seen of a cycle's reports so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reporting {
    /// The first report of each voter in the window.
    first: BTreeMap<Hotkey, Record>,
    /// Two different reports of one voter in the window.
    pub(crate) equivocal: BTreeMap<Hotkey, [Record; 2]>,
    late: BTreeSet<Hotkey>,
    /// Bodies that were named in the window.
    named: BTreeSet<BlobId>,
    /// Bodies that are here; nothing for bytes that are no report.
    bodies: BTreeMap<BlobId, Option<ScoreReport>>,
    scored: Option<Arc<Snapshot>>,
    attested: Option<Arc<Snapshot>>,
    claims: Option<Claims>,
}

/// What stood on the chain in the score window's last block.
#[derive(Debug, Clone, Default)]
struct Claims {
    inline: Vec<Reported>,
    /// Voters and the bodies that they name, in the order of their hotkeys.
    mirrored: Vec<(Voter, BlobId)>,
    records: BTreeMap<Hotkey, Record>,
    faults: BTreeMap<Hotkey, Misconduct>,
}

/// A voter that attested something, its record, and its word.
type Attesting<'a> = (Voter, &'a Record, Attestation);

/// The reports that count, and what follows from there.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Counted {
    pub(crate) reports: Vec<Reported>,
    /// Records of those reports, and of every other one that names a body.
    pub(crate) records: BTreeMap<Hotkey, Record>,
    pub(crate) faults: BTreeMap<Hotkey, Misconduct>,
    /// As of which block attestations were read, and those that name this cycle's bodies; none where
    /// no report names a body.
    pub(crate) attested: Option<(BlockRef, BTreeMap<Hotkey, Record>)>,
}

/// What a validator can attest at this moment.
#[derive(Debug, Clone)]
pub(crate) struct Attestable {
    pub(crate) attestation: Attestation,
    /// Bodies that are not here.
    pub(crate) missing: Vec<BlobId>,
    /// Whether the reports that are here already make a quorum.
    pub(crate) is_quorate: bool,
}

impl Reporting {
    /// Takes the reports that a block of the score window includes.
    pub(crate) fn observe(
        &mut self,
        snapshot: &Snapshot,
        (cycle, scope): (Cycle, Option<&Scope>),
        voters: &[Voter],
    ) {
        for (hotkey, record, said) in included(snapshot, voters) {
            let Some(body) = report_of(&said, cycle) else {
                continue;
            };
            let may_name_one = scope.is_some_and(|scope| scope.is_mirrored(hotkey));
            self.named.extend(body.filter(|_| may_name_one));
            match self.first.get(&hotkey) {
                None => {
                    self.first.insert(hotkey, record.clone());
                }
                Some(first) if first.bytes != record.bytes => {
                    let both = || [first.clone(), record.clone()];
                    self.equivocal.entry(hotkey).or_insert_with(both);
                }
                Some(_) => {}
            }
        }
    }

    /// Takes the score window's last block.
    pub(crate) fn close(&mut self, snapshot: &Arc<Snapshot>) {
        self.scored = Some(Arc::clone(snapshot));
    }

    /// Takes the block as of which attestations count.
    pub(crate) fn attested(&mut self, snapshot: &Arc<Snapshot>) {
        self.attested = Some(Arc::clone(snapshot));
    }

    /// Takes the reports that come too late to count.
    pub(crate) fn observe_late(&mut self, snapshot: &Snapshot, cycle: Cycle, voters: &[Voter]) {
        let reporting = included(snapshot, voters)
            .filter(|(_, _, said)| report_of(said, cycle).is_some())
            .map(|(hotkey, _, _)| hotkey);
        self.late.extend(reporting);
    }

    /// As of which block the reports are read.
    pub(crate) fn scored(&self) -> Option<&Arc<Snapshot>> {
        self.scored.as_ref()
    }

    /// Who reported only after the window.
    pub(crate) fn late(&self) -> &BTreeSet<Hotkey> {
        &self.late
    }

    /// Takes a body.
    pub(crate) fn take_body(&mut self, blob: BlobId, bytes: &[u8]) {
        let report = match Announcement::decode(bytes) {
            Some(Announcement::Scored(report)) => Some(report),
            _ => None,
        };
        self.bodies.insert(blob, report);
    }

    /// Bodies that are named and not here.
    pub(crate) fn wanted(&self) -> impl Iterator<Item = BlobId> {
        let named = self.named.iter().copied();
        named.filter(|blob| !self.bodies.contains_key(blob))
    }

    /// Reads the reports off the score window's last block, once it and the scope are known.
    pub(crate) fn read(&mut self, scope: &Scope, opens: Block, voters: &[Voter]) {
        if let (None, Some(scored)) = (&self.claims, &self.scored) {
            let mut claims = Claims::default();
            for voter in voters {
                claims.read(scope, voter, (scored, opens), &self.equivocal);
            }
            // Whatever else was named in the window does not matter any more.
            self.named = claims.mirrored.iter().map(|(_, body)| *body).collect();
            self.claims = Some(claims);
        }
    }

    /// The reports that count; `None` until everything that decides it is here.
    pub(crate) fn count(&self, scope: &Scope, opens: Block, voters: &[Voter]) -> Option<Counted> {
        let claims = self.claims.as_ref()?;
        if !claims.mirrored.is_empty() && self.attested.is_none() {
            return None;
        }
        let mut counted = Counted {
            reports: claims.inline.clone(),
            records: claims.records.clone(),
            faults: claims.faults.clone(),
            attested: None,
        };
        if !claims.mirrored.is_empty() {
            let attested = self.attested.as_ref()?;
            let attestations = claims.attestations(scope.cycle, (attested, opens), voters);
            for (voter, body) in &claims.mirrored {
                let report = match is_attested(voter, &attestations, voters) {
                    true => self.bodies.get(body)?.as_ref(),
                    false => None,
                };
                counted.enter(scope, voter, report);
            }
            let records = attestations.into_iter();
            let records = records.map(|(voter, record, _)| (voter.hotkey, record.clone()));
            counted.attested = Some((block_ref(attested), records.collect()));
            counted
                .reports
                .sort_by_key(|reported| reported.voter.hotkey);
        }
        Some(counted)
    }

    /// A body that counts and is not here.
    pub(crate) fn lacks(&self, scope: &Scope, opens: Block, voters: &[Voter]) -> Option<BlobId> {
        let (claims, attested) = (self.claims.as_ref()?, self.attested.as_ref()?);
        let attestations = claims.attestations(scope.cycle, (attested, opens), voters);
        let mut missing = claims.mirrored.iter().filter(|(voter, body)| {
            !self.bodies.contains_key(body) && is_attested(voter, &attestations, voters)
        });
        missing.next().map(|(_, body)| *body)
    }

    /// What can be attested; `None` before the score window has closed and where nothing is mirrored.
    pub(crate) fn attestable(&self, scope: &Scope, voters: &[Voter]) -> Option<Attestable> {
        let claims = self.claims.as_ref()?;
        if claims.mirrored.is_empty() {
            return None;
        }
        let mut held = vec![0; voters.len().div_ceil(8)];
        let mut missing = Vec::new();
        let mut stakes: Vec<u64> = claims.inline.iter().map(|r| r.voter.stake).collect();
        for (voter, body) in &claims.mirrored {
            let place = voters
                .binary_search_by_key(&voter.hotkey, |v| v.hotkey)
                .ok()?;
            match self.bodies.get(body) {
                None => missing.push(*body),
                Some(Some(report)) if scope.fits(voter.hotkey, report) => {
                    held[place / 8] |= 1 << (place % 8);
                    stakes.push(voter.stake);
                }
                Some(_) => {}
            }
        }
        Some(Attestable {
            attestation: Attestation {
                cycle: scope.cycle,
                bodies: claims.digest(scope.cycle),
                held,
            },
            missing,
            is_quorate: quorum(stakes.into_iter(), voters),
        })
    }
}

impl Claims {
    fn read(
        &mut self,
        scope: &Scope,
        voter: &Voter,
        (scored, opens): (&Snapshot, Block),
        equivocal: &BTreeMap<Hotkey, [Record; 2]>,
    ) {
        let hotkey = voter.hotkey;
        if equivocal.contains_key(&hotkey) {
            blame(&mut self.faults, [hotkey], Misconduct::Equivocation);
            return;
        }
        let said = scored.announcement(hotkey);
        let said = said.filter(|(record, said)| {
            record.block >= opens && report_of(said, scope.cycle).is_some()
        });
        let is_mirrored = scope.is_mirrored(hotkey);
        match said {
            Some((record, Announcement::Scored(report)))
                if !is_mirrored && scope.fits(hotkey, &report) =>
            {
                self.records.insert(hotkey, record.clone());
                self.inline.push(Reported {
                    voter: *voter,
                    report,
                });
            }
            Some((record, Announcement::Reported(mirrored)))
                if is_mirrored && mirrored.submissions == scope.digest =>
            {
                self.records.insert(hotkey, record.clone());
                self.mirrored.push((*voter, mirrored.body));
            }
            Some(_) => blame(&mut self.faults, [hotkey], Misconduct::ReportMismatch),
            None => blame(&mut self.faults, [hotkey], Misconduct::ReportMissing),
        }
    }

    /// Tells these bodies from any others, in an attestation.
    fn digest(&self, cycle: Cycle) -> BodiesDigest {
        let mut hasher = blake3::Hasher::new_derive_key("connito/1 mirrored reports");
        hasher.update(&cycle.0.to_le_bytes());
        for (voter, body) in &self.mirrored {
            hasher.update(&voter.hotkey.0).update(&body.0);
        }
        let mut digest = BodiesDigest::default();
        digest.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        digest
    }

    /// The voters that attested something about these bodies, with record and word.
    fn attestations<'a>(
        &self,
        cycle: Cycle,
        (attested, opens): (&'a Snapshot, Block),
        voters: &[Voter],
    ) -> Vec<Attesting<'a>> {
        let digest = self.digest(cycle);
        let read = voters
            .iter()
            .filter_map(|voter| match attested.announcement(voter.hotkey)? {
                (record, Announcement::Attested(said))
                    if record.block >= opens
                        && said.cycle == cycle
                        && said.bodies == digest
                        && said.held.len() == voters.len().div_ceil(8) =>
                {
                    Some((*voter, record, said))
                }
                _ => None,
            });
        read.collect()
    }
}

/// Whether voters with more than half of all stake attest a voter's body.
fn is_attested(voter: &Voter, attestations: &[Attesting<'_>], voters: &[Voter]) -> bool {
    let place = voters.binary_search_by_key(&voter.hotkey, |v| v.hotkey);
    place.is_ok_and(|place| {
        let holding = attestations
            .iter()
            .filter(|(_, _, said)| bit(&said.held, place));
        quorum(holding.map(|(voter, _, _)| voter.stake), voters)
    })
}

impl Counted {
    /// A mirrored report, if it counts and is what it should be.
    fn enter(&mut self, scope: &Scope, voter: &Voter, report: Option<&ScoreReport>) {
        match report.filter(|report| scope.fits(voter.hotkey, report)) {
            Some(report) => self.reports.push(Reported {
                voter: *voter,
                report: report.clone(),
            }),
            // Its record stays among the others: attestations are on all bodies that were named.
            None => blame(&mut self.faults, [voter.hotkey], Misconduct::ReportMismatch),
        }
    }
}

/// What voters wrote in this very block.
fn included<'a>(
    snapshot: &'a Snapshot,
    voters: &'a [Voter],
) -> impl Iterator<Item = (Hotkey, &'a Record, Announcement)> {
    voters.iter().filter_map(|voter| {
        let record = snapshot.records.get(&voter.hotkey)?;
        if record.block != snapshot.block {
            return None;
        }
        Some((voter.hotkey, record, Announcement::decode(&record.bytes)?))
    })
}

/// Whether an announcement is a report of the cycle, and the body that it names, if any.
fn report_of(said: &Announcement, cycle: Cycle) -> Option<Option<BlobId>> {
    match said {
        Announcement::Scored(report) if report.cycle == cycle => Some(None),
        Announcement::Reported(mirrored) if mirrored.cycle == cycle => Some(Some(mirrored.body)),
        _ => None,
    }
}

fn bit(bits: &[u8], place: usize) -> bool {
    bits.get(place / 8)
        .is_some_and(|byte| byte >> (place % 8) & 1 == 1)
}
