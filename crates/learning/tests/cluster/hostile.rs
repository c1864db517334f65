//! What validators do that they should not: lie, keep bodies back, say two things at once.
//!
//! The machines stay the real ones; their measurements are twisted on the way back, their blobs are
//! served to some only, and records are written that they never asked for.

use std::collections::{BTreeMap, BTreeSet};

use connito_protocol::announcement::Announcement;
use connito_protocol::event::Milestone;
use connito_protocol::ids::{BlobId, Cycle, Hotkey};
use connito_protocol::job::{Finding, Job, Outcome};
use connito_protocol::report::Measurement;

use crate::network::{Network, Who};

/// What validators do that they should not.
#[derive(Default)]
pub(crate) struct Hostile {
    /// Who praises, and whose updates.
    pub(crate) praise: BTreeMap<Who, Hotkey>,
    /// Whose reports' bodies cannot be had, and by whom.
    pub(crate) withhold: BTreeMap<Who, Vec<Who>>,
    withheld: BTreeMap<BlobId, Vec<Who>>,
}

impl Hostile {
    pub(crate) fn note(&mut self, who: Who, announcement: &Announcement) {
        if let (Announcement::Reported(mirrored), Some(deprived)) =
            (announcement, self.withhold.get(&who))
        {
            self.withheld.insert(mirrored.body, deprived.clone());
        }
    }

    pub(crate) fn withholds(&self, blob: BlobId, from: Who) -> bool {
        let deprived = self.withheld.get(&blob);
        deprived.is_some_and(|deprived| deprived.contains(&from))
    }

    /// Everything can be had again.
    pub(crate) fn relent(&mut self) {
        self.withheld.clear();
    }

    pub(crate) fn twist(&self, who: Who, job: &Job, mut outcome: Outcome) -> Outcome {
        if let (Some(friend), Job::Score(job), Outcome::Scored { findings, .. }) =
            (self.praise.get(&who), job, &mut outcome)
        {
            for (candidate, finding) in job.updates.iter().zip(findings) {
                if candidate.hotkey == *friend {
                    *finding = Finding::Measured {
                        measurement: Measurement {
                            utility: 5.0,
                            standard_error: 0.0,
                        },
                        loss_before: 9.0,
                        loss_after: 4.0,
                    };
                }
            }
        }
        // Equal measurements would have equal bodies, and an author's could be had from anybody.
        if let (true, Outcome::Scored { findings, .. }) =
            (self.withhold.contains_key(&who), &mut outcome)
        {
            for finding in findings {
                if let Finding::Measured { measurement, .. } = finding {
                    measurement.utility += 1e-5;
                }
            }
        }
        outcome
    }
}

impl Network {
    /// What somebody's record says.
    pub(crate) fn said(&self, who: Who) -> Option<Announcement> {
        let newest = self.history.last()?;
        let (_, said) = newest.announcement(self.hotkeys()[&who])?;
        Some(said)
    }

    /// Writes a record in somebody's name that its machine did not ask for.
    pub(crate) fn write(&mut self, who: Who, announcement: &Announcement) {
        let hotkey = self.hotkeys()[&who];
        self.pending.push((hotkey, announcement.encode()));
    }

    /// Whose updates each validator measured in a cycle.
    pub(crate) fn measured(&self, cycle: Cycle) -> BTreeMap<Who, BTreeSet<Hotkey>> {
        let told = self.told.iter().filter_map(|(who, told)| match told {
            Milestone::Measured {
                cycle: of,
                findings,
            } if *of == cycle => {
                let hotkeys = findings.iter().map(|(hotkey, _)| *hotkey);
                Some((*who, hotkeys.collect()))
            }
            _ => None,
        });
        told.collect()
    }
}
