//! What a miner owes the network: the residual of the last update that was merged (P-38).
//!
//! ```text
//! Trained ──▶ proposed ──▶ does a state that the network builds on list the update? ──▶ kept
//!                └── the next update is trained before one does ──▶ dropped
//! ```
//!
//! A proposed residual is what is left once its update has been merged. If it was not, the state has not
//! moved by it: what the update held is learnt again from the same state, and what was owed before it is
//! owed still. So the kept residual changes with the state, and never otherwise. Inputs are training
//! results and the manifests of canonical states, which say what was merged into them; both are in the
//! journal, so a restart owes the same. Knows names of residuals, not what is in them, and nothing of how
//! an update was judged.

use crate::ids::{BlobId, Cycle, Hotkey};
use crate::job::Trained;
use crate::merged::Merged;

/// A miner's account of what it owes.
#[derive(Debug, Clone)]
pub(crate) struct Residual {
    hotkey: Hotkey,
    kept: Option<BlobId>,
    proposed: Option<Proposed>,
    /// The first cycle of the state that was looked through last.
    read: Option<Cycle>,
}

/// What would be owed once an update has been merged.
#[derive(Debug, Clone, Copy)]
struct Proposed {
    cycle: Cycle,
    update: BlobId,
    residual: Option<BlobId>,
}

impl Residual {
    pub(crate) fn new(hotkey: Hotkey) -> Self {
        Self {
            hotkey,
            kept: None,
            proposed: None,
            read: None,
        }
    }

    /// The residual that the next update starts from.
    pub(crate) fn kept(&self) -> Option<BlobId> {
        self.kept
    }

    /// Every residual that an update may still start from.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = BlobId> {
        let proposed = self.proposed.as_ref();
        let proposed = proposed.and_then(|proposed| proposed.residual);
        self.kept.into_iter().chain(proposed)
    }

    /// Takes in a new update, in the place of one that no state has listed so far.
    pub(crate) fn on_trained(&mut self, trained: &Trained) {
        if trained.residual_dropped.is_some() {
            self.kept = None;
        }
        self.proposed = Some(Proposed {
            cycle: trained.cycle,
            update: trained.update,
            residual: trained.residual,
        });
    }

    /// Takes in the state that the network builds on, any number of times.
    pub(crate) fn on_base(&mut self, base: Cycle, merged: &Merged) {
        // What is trained after a state was read is not listed there.
        if self.read.replace(base) == Some(base) {
            return;
        }
        let is_merged = |proposed: &mut Proposed| {
            // A state from before the update can list only an older one of the same bytes.
            base > proposed.cycle && merged.names_of(proposed.update, self.hotkey)
        };
        if let Some(proposed) = self.proposed.take_if(is_merged) {
            self.kept = proposed.residual;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Effect, Event};
    use crate::ids::GroupId;
    use crate::job::{Job, Outcome};
    use crate::manifest::{MergedUpdate, StateManifest};

    const HOTKEY: Hotkey = Hotkey([4; 32]);

    fn blob(number: u64) -> BlobId {
        BlobId::of(&number.to_le_bytes())
    }

    /// The update of a cycle, and the residual that goes with it.
    fn trained(cycle: u64) -> Trained {
        Trained {
            cycle: Cycle(cycle),
            update: blob(cycle),
            bytes: 1,
            experts: 1,
            steps: 1,
            tokens: 1,
            loss_first: 2.0,
            loss_last: 1.0,
            residual: Some(blob(100 + cycle)),
            residual_dropped: None,
        }
    }

    fn on_base(residual: &mut Residual, base: &StateManifest) {
        residual.on_base(base.cycle, &Merged::of(base));
    }

    /// The state that a cycle builds on, with these updates in it.
    fn base(cycle: u64, merged: &[(Hotkey, BlobId)]) -> StateManifest {
        let merged = merged.iter().map(|(hotkey, update)| MergedUpdate {
            group: GroupId(0),
            hotkey: *hotkey,
            update: *update,
            bytes: 1,
            weight: 0.5,
        });
        StateManifest {
            format: StateManifest::FORMAT,
            cycle: Cycle(cycle),
            parent: None,
            archive: None,
            groups: Vec::new(),
            merged: merged.collect(),
            excluded: std::collections::BTreeMap::new(),
        }
    }

    #[test]
    fn what_is_owed_changes_when_the_update_is_merged_and_not_before() {
        let mut residual = Residual::new(HOTKEY);
        on_base(&mut residual, &base(1, &[]));
        residual.on_trained(&trained(1));
        assert_eq!(residual.kept(), None, "trained is not merged");
        on_base(&mut residual, &base(1, &[]));
        assert_eq!(residual.kept(), None, "the state is still the old one");
        on_base(
            &mut residual,
            &base(2, &[(Hotkey([5; 32]), blob(9)), (HOTKEY, blob(1))]),
        );
        assert_eq!(residual.kept(), Some(blob(101)));
        on_base(&mut residual, &base(2, &[(HOTKEY, blob(1))]));
        assert_eq!(residual.kept(), Some(blob(101)), "told twice is told once");
    }

    /// What should happen: what was owed before is owed still. What should not: that the unsent part of
    /// an update counts that had no part in the state, and is learnt a second time.
    #[test]
    fn an_update_that_is_not_merged_leaves_what_was_owed() {
        let mut residual = Residual::new(HOTKEY);
        residual.on_trained(&trained(1));
        on_base(&mut residual, &base(2, &[(HOTKEY, blob(1))]));
        for (cycle, merged, why) in [
            (2, vec![], "the candidate was refused"),
            (3, vec![(HOTKEY, blob(2))], "another update"),
            (4, vec![(Hotkey([5; 32]), blob(4))], "another miner"),
        ] {
            residual.on_trained(&trained(cycle));
            on_base(&mut residual, &base(cycle + 1, &merged));
            assert_eq!(residual.kept(), Some(blob(101)), "{why}");
        }
        residual.on_trained(&trained(5));
        on_base(&mut residual, &base(6, &[(HOTKEY, blob(5))]));
        assert_eq!(residual.kept(), Some(blob(105)));
    }

    /// Two cycles with the same bytes, as when nothing is learnt: the second is not in the state that
    /// lists the first.
    #[test]
    fn an_update_is_not_taken_for_an_older_one_of_the_same_bytes() {
        let mut residual = Residual::new(HOTKEY);
        let merged = [(HOTKEY, blob(1))];
        residual.on_trained(&trained(1));
        on_base(&mut residual, &base(2, &merged));
        residual.on_trained(&Trained {
            cycle: Cycle(2),
            residual: Some(blob(7)),
            ..trained(1)
        });
        on_base(&mut residual, &base(2, &merged));
        assert_eq!(residual.kept(), Some(blob(101)));
        on_base(&mut residual, &base(3, &merged));
        assert_eq!(residual.kept(), Some(blob(7)));
    }

    #[test]
    fn what_cannot_be_read_is_owed_no_more_and_what_is_exact_owes_nothing() {
        let mut residual = Residual::new(HOTKEY);
        residual.on_trained(&trained(1));
        on_base(&mut residual, &base(2, &[(HOTKEY, blob(1))]));
        residual.on_trained(&Trained {
            residual_dropped: Some("gone".to_owned()),
            ..trained(2)
        });
        assert_eq!(residual.kept(), None);
        on_base(&mut residual, &base(3, &[(HOTKEY, blob(2))]));
        assert_eq!(residual.kept(), Some(blob(102)), "and owes anew");

        residual.on_trained(&Trained {
            residual: None,
            ..trained(3)
        });
        on_base(&mut residual, &base(4, &[(HOTKEY, blob(3))]));
        assert_eq!(residual.kept(), None);
    }

    #[test]
    fn a_journal_of_a_time_without_residuals_still_reads() {
        let zeros = "00".repeat(32);
        let job = format!(
            r#"{{"effect":"run","job":"train","cycle":3,"task":"{zeros}","state":"{zeros}","group":0,"seed":"{zeros}","stop_at":38}}"#
        );
        let Ok(Effect::Run(Job::Train(read))) = serde_json::from_str(&job) else {
            panic!("a job that names no residual");
        };
        assert_eq!(read.residual, None);
        let written = serde_json::to_string(&Effect::Run(Job::Train(read))).unwrap();
        assert_eq!(
            written, job,
            "and is written as it was, so that a replay agrees"
        );

        let outcome = format!(
            r#"{{"event":"finished","outcome":{{"outcome":"trained","cycle":3,"update":"{zeros}","bytes":9,"experts":1,"steps":2,"tokens":3,"loss_first":2.0,"loss_last":1.0}},"entropy":"{}"}}"#,
            "00".repeat(16)
        );
        let read: Event = serde_json::from_str(&outcome).unwrap();
        assert!(matches!(
            &read,
            Event::Finished { outcome: Outcome::Trained(trained), .. } if trained.residual.is_none()
        ));
        assert_eq!(serde_json::to_string(&read).unwrap(), outcome);
    }
}
