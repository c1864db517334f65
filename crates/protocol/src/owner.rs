//! The owner: announces the task and serves its blobs. Needed to begin, never to go on; and
//! again when another task is to follow (P-39).

use crate::announcement::Announcement;
use crate::event::{Effects, Event};
use crate::follow::{Follower, Identity, Reads};
use crate::ids::{BlobId, StateId};

/// The owner's state.
#[derive(Debug, Clone)]
pub struct Owner {
    follower: Follower,
    task: BlobId,
}

impl Owner {
    /// An owner whose task is already in its store.
    #[must_use]
    pub fn new(identity: Identity, task: BlobId) -> Self {
        Self {
            follower: Follower::new(identity, Reads::Votes),
            task,
        }
    }

    /// Takes an event, gives what is to be done.
    pub fn handle(&mut self, event: &Event) -> Effects {
        let mut effects = Effects::default();
        self.follower.note(event, &mut effects);
        if let Event::TaskGiven { task } = event {
            self.task = *task;
        }
        if let Event::Block(snapshot) = event
            && snapshot.block >= snapshot.head
            && snapshot
                .participant(self.follower.identity.hotkey)
                .is_some()
        {
            let announcement = Announcement::Task { task: self.task };
            self.follower.announce(&announcement, &mut effects);
        }
        effects
    }

    pub(crate) fn canonical(&self) -> Option<StateId> {
        self.follower.canonical()
    }
}
