//! One cycle as it can be read off the chain, by anyone (P-14 to P-31).
//!
//! Facts are taken at fixed blocks: submissions and voters at the last blocks of the seal and reveal
//! windows, the seed at the first block after uploads close, reports at the last block of the score
//! window, attestations in the middle of the vote window. What a record says at any other time does not
//! matter, so all observers hold the same round; one that waits for a body holds it later.

mod reporting;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::announcement::{Announcement, Vote};
use crate::assignment::Assignment;
use crate::committee::{Drawing, Lot, Roster};
use crate::conduct::{self, Misconduct, Tolerance, blame};
use crate::consensus::{self, Hearing, Reported, Tally, Verdict};
use crate::ids::{BlobId, Block, BlockHash, Cycle, GroupId, Hotkey, StateId};
use crate::lineage::{self, Earlier};
use crate::manifest::{BlockRef, CycleArchive, Document, MergedUpdate, StateManifest};
use crate::memo::{Memo, SharedKey};
use crate::receipt::Graded;
use crate::received::ReadState;
use crate::review::{Docket, Past, Reviewed};
use crate::rewards::{CycleRewards, History, cycle_rewards, standings};
use crate::rules::{RewardRules, Rules};
use crate::schedule::{Schedule, Window};
use crate::seed::{Draw, seed};
use crate::snapshot::{Record, Snapshot, Voter};
use crate::submission::{self, Expected, Network, Submission};

use reporting::Counted;
pub(crate) use reporting::{Attestable, Reporting, Scope};

/// What has been observed of a cycle so far.
#[derive(Debug, Clone)]
pub(crate) struct Round {
    pub(crate) cycle: Cycle,
    /// The state that the cycle builds on; `None` for an observer that came too late to know.
    pub(crate) base: Option<StateId>,
    /// The first block of the cycle that was seen.
    pub(crate) first_seen: BlockRef,
    sealed: Option<Arc<Snapshot>>,
    revealed: Option<Arc<Snapshot>>,
    /// Whose reports count: known before the submissions, for which a manifest may be on its way.
    voters: Option<Vec<Voter>>,
    pub(crate) commits: Option<Arc<Commits>>,
    pub(crate) seeded: Option<BlockRef>,
    /// Who scores what: known with the commits, or where lots are drawn with the seed.
    pub(crate) scope: Option<Arc<Scope>>,
    pub(crate) reporting: Reporting,
    pub(crate) judgement: Option<Arc<Judgement>>,
}

/// What the Commit phase left on the chain.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Commits {
    sealed: BlockRef,
    revealed: BlockRef,
    seals: Arc<BTreeMap<Hotkey, Record>>,
    reveals: Arc<BTreeMap<Hotkey, Record>>,
    unregistered: BTreeSet<Hotkey>,
    pub(crate) submissions: Vec<Submission>,
    /// Whose reports count, in the order of their hotkeys.
    pub(crate) voters: Vec<Voter>,
    scopes: Memo<ScopeKey, Option<Arc<Scope>>>,
}

/// What the list of submissions depends on besides the last block of the reveal window.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CommitsKey {
    network: Network,
    task: BlobId,
    cycle: Cycle,
    base: StateId,
    earlier: Option<Vec<Earlier>>,
    older: Vec<StateId>,
    sealed: SharedKey<Snapshot>,
}

/// What the draw depends on besides the submissions: the seed and who is not drawn.
type ScopeKey = (Option<BlockHash>, Option<BTreeMap<Hotkey, Cycle>>);

/// What a judgement depends on besides the submissions and who scores them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct JudgementKey {
    base: Option<StateId>,
    begun: BlockRef,
    seeded: Option<BlockRef>,
    scored: Option<BlockRef>,
    counted: Counted,
    equivocal: BTreeMap<Hotkey, [Record; 2]>,
    docket: Option<Arc<Docket>>,
}

/// A judgement and what it was read from.
pub(crate) type Judged = (Arc<Judgement>, Arc<Archived>);

/// What the validators' reports amount to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Judgement {
    pub(crate) quorum: bool,
    pub(crate) verdicts: Vec<Verdict>,
    /// The same with what followed from each, for receipts.
    pub(crate) graded: Arc<Graded>,
    pub(crate) rewards: CycleRewards,
    /// The name of the document that says what it was read from.
    pub(crate) archive: BlobId,
    /// What became of the cycle before in review; `None` for an observer that does not know what was
    /// to be reviewed.
    pub(crate) reviewed: Option<Vec<Reviewed>>,
    reports: Vec<Reported>,
    faults: BTreeMap<Hotkey, Misconduct>,
    dockets: Memo<BlockHash, Arc<Docket>>,
    /// What everybody has earned with this cycle, by what they had earned before it.
    pub(crate) histories: Memo<SharedKey<History>, Arc<History>>,
    /// States that may follow, as documents.
    pub(crate) successors: Memo<StateManifest, Written>,
}

/// A state's manifest as a document.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Written {
    pub(crate) id: StateId,
    pub(crate) bytes: Arc<[u8]>,
    pub(crate) state: ReadState,
}

impl Written {
    pub(crate) fn new(manifest: &StateManifest) -> Self {
        let bytes = manifest.to_bytes();
        Self {
            id: StateId::of(&bytes),
            bytes: bytes.into(),
            state: ReadState::new(manifest.clone()),
        }
    }
}

/// What a judgement was read from: thousands of records.
#[derive(Debug, PartialEq)]
pub(crate) struct Archived {
    pub(crate) archive: CycleArchive,
    /// The same as a document, and its name.
    pub(crate) bytes: Arc<[u8]>,
    pub(crate) document: BlobId,
}

/// What an observer knows beforehand.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known<'a> {
    pub(crate) network: Network,
    /// The task, which decides schedule, groups, rules and who trains what.
    pub(crate) task: BlobId,
    pub(crate) schedule: &'a Schedule,
    pub(crate) groups: &'a [GroupId],
    pub(crate) assignment: &'a Assignment,
    /// Manifests of the base and of the states before it, as far as they are here.
    pub(crate) manifests: &'a BTreeMap<StateId, Arc<StateManifest>>,
    pub(crate) older: &'a [StateId],
    pub(crate) rules: &'a Rules,
    /// Who is not drawn, as the base says; `None` until its manifest is here.
    pub(crate) excluded: Option<&'a BTreeMap<Hotkey, Cycle>>,
    /// What of the cycle before is reviewed; `None` for an observer that did not see it judged.
    pub(crate) docket: Option<&'a Arc<Docket>>,
}

impl Known<'_> {
    pub(crate) fn tolerance(&self) -> Tolerance {
        tolerance(self.rules)
    }

    fn attests(&self, cycle: Cycle) -> Block {
        attests(self.schedule, self.rules, cycle)
    }
}

/// The block as of which attestations count: the last of the vote window's first half.
pub(crate) fn attests(schedule: &Schedule, rules: &Rules, cycle: Cycle) -> Block {
    let opens = schedule.opens(cycle, Window::Vote);
    let first_half = rules.windows.vote.div_ceil(2);
    Block(opens.0.saturating_add(first_half.saturating_sub(1)))
}

/// The rules' idea of what two measurements may differ by.
pub(crate) fn tolerance(rules: &Rules) -> Tolerance {
    Tolerance {
        significance: rules.scoring.significance,
        agreement: rules.scoring.agreement,
    }
}

impl Judgement {
    /// The verdicts with weight and the updates that they are on.
    pub(crate) fn accepted(&self) -> impl Iterator<Item = (&Verdict, BlobId)> {
        let weighty = self.verdicts.iter().filter(|verdict| verdict.weight > 0.0);
        weighty.filter_map(|verdict| Some((verdict, verdict.update?)))
    }

    /// What the state that follows says it merged. Of how many bytes each update is, no record tells.
    pub(crate) fn merged(&self, mut bytes: impl FnMut(BlobId) -> u64) -> Vec<MergedUpdate> {
        let merged = |(verdict, update): (&Verdict, BlobId)| MergedUpdate {
            group: verdict.group,
            hotkey: verdict.hotkey,
            update,
            bytes: bytes(update),
            weight: verdict.weight,
        };
        self.accepted().map(merged).collect()
    }

    /// What everybody has earned, with this cycle and with what a review in it took back.
    pub(crate) fn entered(&self, mut history: History, rules: &RewardRules) -> History {
        let reviewed = self.reviewed.iter().flatten();
        // Before this cycle is entered: what is taken back was entered last.
        for review in reviewed.filter(|review| review.unearned > 0.0) {
            history.take_back(rules, review.hotkey, review.unearned);
        }
        if self.quorum {
            history.enter(rules, &self.verdicts, &self.rewards);
        }
        history
    }

    /// Who is not drawn in the cycle after this one: who was not and still is not, and whoever a review
    /// contradicted. `None` where that is not known.
    pub(crate) fn excluded(
        &self,
        before: &BTreeMap<Hotkey, Cycle>,
        (next, exclusion): (Cycle, u64),
    ) -> Option<BTreeMap<Hotkey, Cycle>> {
        let until = Cycle(next.0.saturating_add(exclusion));
        let contradicted = self.reviewed.as_ref()?.iter().flat_map(|r| &r.contradicted);
        let mut excluded = before.clone();
        excluded.extend(contradicted.map(|hotkey| (*hotkey, until)));
        excluded.retain(|_, until| *until > next);
        Some(excluded)
    }
}

impl Commits {
    fn read(expected: &Expected<'_>, sealed: &Snapshot, revealed: &Snapshot) -> Option<Self> {
        let submissions = submission::collect(expected, sealed, revealed)?;
        let submitters: BTreeSet<Hotkey> = submissions.iter().map(|s| s.hotkey).collect();
        let of_submitters = |records: &BTreeMap<Hotkey, Record>| {
            let theirs = records.iter().filter(|(who, _)| submitters.contains(who));
            Arc::new(theirs.map(|(who, record)| (*who, record.clone())).collect())
        };
        Some(Self {
            sealed: block_ref(sealed),
            revealed: block_ref(revealed),
            seals: of_submitters(&sealed.records),
            reveals: of_submitters(&revealed.records),
            unregistered: submissions
                .iter()
                .map(|submission| submission.hotkey)
                .filter(|hotkey| revealed.participant(*hotkey).is_none())
                .collect(),
            submissions,
            voters: revealed.voters().to_vec(),
            scopes: Memo::default(),
        })
    }
}

impl Round {
    pub(crate) fn new(cycle: Cycle, base: Option<StateId>, snapshot: &Snapshot) -> Self {
        Self {
            cycle,
            base,
            first_seen: block_ref(snapshot),
            sealed: None,
            revealed: None,
            voters: None,
            commits: None,
            seeded: None,
            scope: None,
            reporting: Reporting::default(),
            judgement: None,
        }
    }

    /// Takes what this block fixes. Blocks come in order.
    pub(crate) fn observe(&mut self, snapshot: &Arc<Snapshot>, known: &Known<'_>) {
        let Some(moment) = known.schedule.at(snapshot.block) else {
            return;
        };
        if snapshot.block == known.schedule.opens(self.cycle, Window::Score) {
            self.seeded = Some(block_ref(snapshot));
        }
        if (moment.window, moment.closes_window) == (Window::Reveal, true) {
            self.revealed = Some(Arc::clone(snapshot));
        }
        if self.commits.is_none() {
            // Again with every block: a manifest that it takes may be on its way.
            self.commits = self.collect(known);
            if self.commits.is_some() {
                (self.sealed, self.revealed) = (None, None);
            }
        }
        if moment.closes_window {
            match moment.window {
                Window::Seal => self.sealed = Some(Arc::clone(snapshot)),
                Window::Reveal => self.voters = Some(snapshot.voters().to_vec()),
                Window::Distribute | Window::Train | Window::Score | Window::Vote => {}
            }
        }
        let Some(voters) = &self.voters else {
            return;
        };
        match moment.window {
            Window::Score => {
                let of_cycle = (self.cycle, self.scope.as_deref());
                self.reporting.observe(snapshot, of_cycle, voters);
            }
            Window::Vote => self.reporting.observe_late(snapshot, self.cycle, voters),
            Window::Distribute | Window::Train | Window::Seal | Window::Reveal => {}
        }
        if moment.closes_window && moment.window == Window::Score {
            self.reporting.close(snapshot);
        }
        if snapshot.block == known.attests(self.cycle) {
            self.reporting.attested(snapshot);
        }
    }

    /// Draws and judges as soon as what it takes is here. When this call judged, what it was read from.
    pub(crate) fn settle(&mut self, known: &Known<'_>) -> Option<Arc<Archived>> {
        if self.judgement.is_some() {
            return None;
        }
        if self.scope.is_none() {
            self.scope = self.enrol(known);
        }
        let (scope, commits) = (self.scope.as_ref()?, self.commits.as_ref()?);
        let opens = known.schedule.opens(self.cycle, Window::Score);
        self.reporting.read(scope, opens, &commits.voters);
        let opens = known.schedule.opens(self.cycle, Window::Vote);
        let counted = self.reporting.count(scope, opens, &commits.voters)?;
        let key = JudgementKey {
            base: self.base,
            begun: self.first_seen,
            seeded: self.seeded,
            scored: self.reporting.scored().map(|scored| block_ref(scored)),
            equivocal: self.reporting.equivocal.clone(),
            docket: known.docket.cloned(),
            counted: counted.clone(),
        };
        let (judgement, archived) = scope.judged.get(key, |_| self.judged(&counted, known))?;
        self.judgement = Some(judgement);
        Some(archived)
    }

    fn judged(&self, counted: &Counted, known: &Known<'_>) -> Option<Judged> {
        let archive = self.archive(counted, known)?;
        let bytes: Arc<[u8]> = archive.to_bytes().into();
        let document = BlobId::of(&bytes);
        let judgement = self.judge(counted, document, known)?;
        let archived = Archived {
            archive,
            bytes,
            document,
        };
        Some((Arc::new(judgement), Arc::new(archived)))
    }

    /// A body that counts and is not here, if the judgement waits for one.
    pub(crate) fn lacks(&self, known: &Known<'_>) -> Option<BlobId> {
        let (scope, commits) = (self.scope.as_ref()?, self.commits.as_ref()?);
        let opens = known.schedule.opens(self.cycle, Window::Vote);
        self.reporting.lacks(scope, opens, &commits.voters)
    }

    fn enrol(&self, known: &Known<'_>) -> Option<Arc<Scope>> {
        let commits = self.commits.as_ref()?;
        let seeded = self.seeded.map(|seeded| seeded.hash);
        let key = (seeded, known.excluded.cloned());
        let draw = |_: &ScopeKey| self.draw(commits, known).map(Arc::new);
        commits.scopes.get(key, draw)
    }

    fn draw(&self, commits: &Commits, known: &Known<'_>) -> Option<Scope> {
        let scoring = &known.rules.scoring;
        let drawing = Drawing {
            cycle: self.cycle,
            groups: known.groups,
            voters: &commits.voters,
            scorers: scoring.scorers_per_update,
            updates: scoring.updates_per_group,
        };
        let lot = self.seeded.zip(known.excluded);
        let lot = lot.map(|(seeded, excluded)| Lot {
            seeded: seeded.hash,
            excluded,
        });
        let roster = Roster::new(&drawing, &commits.submissions, lot)?;
        let digest = submission::digest(self.cycle, &commits.submissions);
        let with_voters = (roster, commits.voters.as_slice());
        Some(Scope::new(self.cycle, digest, with_voters, known.rules))
    }

    /// What this validator can attest; `None` where there is nothing to attest, or not at this time.
    pub(crate) fn attestable(&self, known: &Known<'_>, next: Block) -> Option<Attestable> {
        if next > known.attests(self.cycle) {
            return None;
        }
        let (scope, commits) = (self.scope.as_ref()?, self.commits.as_ref()?);
        self.reporting.attestable(scope, &commits.voters)
    }

    /// Whether the next block is the last one in which an attestation counts.
    pub(crate) fn is_last_to_attest(&self, known: &Known<'_>, next: Block) -> bool {
        next == known.attests(self.cycle)
    }

    /// What is reviewed in the next cycle, drawn by a block of it; `None` without a judgement.
    pub(crate) fn docket(&self, block: BlockHash, rules: &Rules) -> Option<Arc<Docket>> {
        let (scope, commits) = (self.scope.as_ref()?, self.commits.as_ref()?);
        let judgement = self.judgement.as_ref()?;
        if !scope.roster.is_drawn() || !judgement.quorum {
            return Some(Arc::default());
        }
        let past = Past {
            cycle: self.cycle,
            base: self.base?,
            seed: seed(Draw::Scoring, self.seeded?.hash, self.cycle),
            hearing: Hearing {
                submissions: &commits.submissions,
                roster: &scope.roster,
                reports: &judgement.reports,
            },
            verdicts: &judgement.verdicts,
            rewards: &judgement.rewards,
        };
        let most = rules.scoring.reviews as usize;
        let draw = |_: &BlockHash| Arc::new(Docket::draw(&past, most, block, &tolerance(rules)));
        Some(judgement.dockets.get(block, draw))
    }

    /// What voters did wrong in this cycle, once it has been judged and decided (P-45).
    pub(crate) fn conduct(
        &self,
        votes: &[(Voter, Vote)],
        tally: Option<&Tally>,
    ) -> BTreeMap<Hotkey, Misconduct> {
        let Some(judgement) = &self.judgement else {
            return BTreeMap::new();
        };
        let mut faults = judgement.faults.clone();
        for (hotkey, fault) in &mut faults {
            if *fault == Misconduct::ReportMissing && self.reporting.late().contains(hotkey) {
                *fault = Misconduct::ReportLate;
            }
        }
        if let Some(tally) = tally {
            let elsewhere = votes
                .iter()
                .filter(|(_, vote)| (vote.candidate, vote.fallback) != tally.vote);
            let elsewhere = elsewhere.map(|(voter, _)| voter.hotkey);
            blame(&mut faults, elsewhere, Misconduct::StateMismatch);
        }
        faults
    }

    fn collect(&self, known: &Known<'_>) -> Option<Arc<Commits>> {
        let (sealed, revealed) = (self.sealed.as_ref()?, self.revealed.as_ref()?);
        let base = self.base?;
        let earlier = lineage::earlier(
            base,
            (self.cycle, known.rules.scoring.rebase_window),
            |state| known.manifests.get(&state).map(Arc::as_ref),
        );
        let earlier = earlier.ok();
        let expected = Expected {
            network: known.network,
            cycle: self.cycle,
            base,
            earlier: earlier.as_deref(),
            older: known.older,
            assignment: known.assignment,
            schedule: known.schedule,
        };
        let read = |_: &CommitsKey| Commits::read(&expected, sealed, revealed).map(Arc::new);
        let key = CommitsKey {
            network: known.network,
            task: known.task,
            cycle: self.cycle,
            base,
            earlier: earlier.clone(),
            older: known.older.to_vec(),
            sealed: SharedKey(Arc::clone(sealed)),
        };
        revealed.readings.commits.get(key, read)
    }

    fn judge(&self, counted: &Counted, archive: BlobId, known: &Known<'_>) -> Option<Judgement> {
        let (commits, scope) = (self.commits.as_ref()?, self.scope.as_ref()?);
        let stakes = counted.reports.iter().map(|r| r.voter.stake);
        let quorum = consensus::quorum(stakes, &commits.voters);
        let hearing = Hearing {
            submissions: &commits.submissions,
            roster: &scope.roster,
            // Without a quorum nobody is judged: no reports leave everyone unscored.
            reports: if quorum { &counted.reports } else { &[] },
        };
        let tolerance = known.tolerance();
        let verdicts = consensus::verdicts(&hearing, tolerance.significance);
        let rewards = cycle_rewards(&verdicts, known.groups);
        let mut faults = counted.faults.clone();
        let outliers = conduct::outliers(&hearing, &verdicts, &tolerance);
        blame(&mut faults, outliers, Misconduct::ReportOutlier);
        Some(Judgement {
            quorum,
            graded: Arc::new(Graded::new(&verdicts, standings(&verdicts, &rewards))),
            rewards,
            verdicts,
            archive,
            reviewed: self.review(scope, hearing.reports, known),
            reports: counted.reports.clone(),
            faults,
            dockets: Memo::default(),
            histories: Memo::default(),
            successors: Memo::default(),
        })
    }

    fn review(
        &self,
        scope: &Scope,
        reports: &[Reported],
        known: &Known<'_>,
    ) -> Option<Vec<Reviewed>> {
        if !scope.roster.is_drawn() {
            return Some(Vec::new());
        }
        let docket = known.docket?;
        let voters = &self.commits.as_ref()?.voters;
        let entries = |hotkey| scope.roster.entries(hotkey);
        Some(docket.resolve(reports, (voters, &entries), &known.tolerance()))
    }

    fn archive(&self, counted: &Counted, known: &Known<'_>) -> Option<CycleArchive> {
        let (commits, scope) = (self.commits.as_ref()?, self.scope.as_ref()?);
        let docket = known.docket.filter(|_| scope.roster.is_drawn());
        let has_cases = docket.is_some_and(|docket| !docket.cases.is_empty());
        let attested = counted.attested.as_ref();
        Some(CycleArchive {
            format: CycleArchive::FORMAT,
            cycle: self.cycle,
            base: self.base?,
            begun: has_cases.then_some(self.first_seen),
            sealed: commits.sealed,
            revealed: commits.revealed,
            seeded: self.seeded?,
            scored: block_ref(self.reporting.scored()?),
            attested: attested.map(|(block, _)| *block),
            voters: commits.voters.clone(),
            seals: Arc::clone(&commits.seals),
            reveals: Arc::clone(&commits.reveals),
            unregistered: commits.unregistered.clone(),
            reports: counted.records.clone(),
            attestations: attested.map_or_else(BTreeMap::new, |(_, records)| records.clone()),
            equivocations: self.reporting.equivocal.clone(),
        })
    }
}

/// The votes that count, as of the last block of the vote window (P-14, P-33).
pub(crate) fn votes(snapshot: &Snapshot, schedule: &Schedule, cycle: Cycle) -> Vec<(Voter, Vote)> {
    let opens = schedule.opens(cycle, Window::Vote);
    let voted = |voter: &Voter| match snapshot.announcement(voter.hotkey)? {
        (record, Announcement::Voted(vote)) if record.block >= opens && vote.cycle == cycle => {
            Some((*voter, vote))
        }
        _ => None,
    };
    snapshot.voters().iter().filter_map(voted).collect()
}

fn block_ref(snapshot: &Snapshot) -> BlockRef {
    BlockRef {
        number: snapshot.block,
        hash: snapshot.hash,
    }
}
