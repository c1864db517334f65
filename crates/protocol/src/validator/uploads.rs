//! What the upload server may take, and the answer to an upload (P-16).
//!
//! Inputs are the chain as of this block and what was received before. Bytes are the server's affair.

use std::collections::BTreeMap;

use super::Validator;
use crate::announcement::Announcement;
use crate::event::UploadAnswer;
use crate::ids::{BlobId, Block, Cycle, Hotkey};
use crate::schedule::Window;

/// What the upload server may take at this moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    /// The current cycle.
    pub cycle: Cycle,
    /// Whether uploads are taken.
    pub uploads: Uploads,
    /// Who is listened to: while uploads are open, whoever has sealed; otherwise everyone who is
    /// registered, to be told when they open.
    pub eligible: Vec<Hotkey>,
    /// What was taken already.
    pub received: BTreeMap<Hotkey, BlobId>,
}

/// Whether uploads are taken (P-16).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Uploads {
    /// Not before this block, or they could be copied while seals are still taken.
    NotBefore(Block),
    /// Now.
    Open,
    /// Not any more in this cycle.
    Over,
}

impl Validator {
    /// What the upload server may take; `None` before the task begins.
    #[must_use]
    pub fn admission(&self) -> Option<Admission> {
        let (cycle, uploads) = self.uploads()?;
        let (now, _) = self.follower.live()?;
        let everyone = now.participants.iter().map(|p| p.hotkey);
        Some(Admission {
            cycle,
            uploads,
            eligible: everyone
                .filter(|hotkey| uploads != Uploads::Open || self.has_sealed(*hotkey, cycle))
                .collect(),
            received: self.work.received.clone(),
        })
    }

    fn uploads(&self) -> Option<(Cycle, Uploads)> {
        let (_, moment) = self.follower.live()?;
        let task = self.follower.task()?;
        let uploads = match moment.window {
            Window::Distribute | Window::Train | Window::Seal => {
                Uploads::NotBefore(task.schedule.opens(moment.cycle, Window::Reveal))
            }
            Window::Reveal => Uploads::Open,
            Window::Score | Window::Vote => Uploads::Over,
        };
        Some((moment.cycle, uploads))
    }

    /// One update a hotkey and cycle, inside the window, from whoever sealed (P-16, A-22).
    pub(super) fn take_upload(
        &mut self,
        hotkey: Hotkey,
        cycle: Cycle,
        blob: BlobId,
    ) -> UploadAnswer {
        // Not by way of `admission`, which looks at everybody: thousands upload at once.
        let Some((now, uploads)) = self.uploads() else {
            return UploadAnswer::TooEarly;
        };
        if cycle != now {
            return if cycle < now {
                UploadAnswer::TooLate
            } else {
                UploadAnswer::TooEarly
            };
        }
        match (self.work.received.get(&hotkey), uploads) {
            (Some(earlier), _) if *earlier == blob => UploadAnswer::Repeated,
            (_, Uploads::NotBefore(_)) => UploadAnswer::TooEarly,
            (_, Uploads::Over) => UploadAnswer::TooLate,
            (Some(_), Uploads::Open) => UploadAnswer::AlreadySubmitted,
            (None, Uploads::Open) if !self.has_sealed(hotkey, cycle) => UploadAnswer::NotSealed,
            (None, Uploads::Open) => {
                self.work.received.insert(hotkey, blob);
                self.follower.library.add(blob);
                UploadAnswer::Accepted
            }
        }
    }

    fn has_sealed(&self, hotkey: Hotkey, cycle: Cycle) -> bool {
        let said = self
            .follower
            .live()
            .and_then(|(now, _)| now.announcement(hotkey));
        said.is_some_and(|(_, said)| sealed_in(&said, cycle))
    }
}

fn sealed_in(said: &Announcement, now: Cycle) -> bool {
    match said {
        Announcement::Sealed { cycle, .. } | Announcement::Revealed { cycle, .. } => *cycle == now,
        Announcement::Task { .. }
        | Announcement::Scored(_)
        | Announcement::Voted(_)
        | Announcement::Reported(_)
        | Announcement::Attested(_) => false,
    }
}
