//! Under which name a link's commits are made, and the few words between the lanes, which commit, and the control thread,
//! which keeps the membership: who we are, doubts about it, and the wish to leave.

use std::time::Duration;

use tokio::sync::{Notify, watch};

/// A member of the group, as commits name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The member's id.
    pub id: String,
    /// Generation or member epoch: a commit under an older one is refused.
    pub epoch: i32,
    /// `group.instance.id` of a static member.
    pub instance: Option<String>,
}

/// What this process is to the link's group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Membership is switched off: commits come from outside.
    Outsider,
    /// Not a member, or not any more: nothing may be committed.
    Nobody,
    /// A member.
    Member(Member),
}

/// How far the leaving is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Stays,
    ShallLeave,
    Gone,
}

/// A link's standing in its group. One writer, the control thread; read by every lane.
#[derive(Debug)]
pub struct MemberCell {
    standing: watch::Sender<Standing>,
    stage: watch::Sender<Stage>,
    doubted: Notify,
}

impl MemberCell {
    /// A link that begins with this standing.
    pub fn new(standing: Standing) -> Self {
        let (standing, stage) = (watch::Sender::new(standing), watch::Sender::new(Stage::Stays));
        Self { standing, stage, doubted: Notify::new() }
    }

    /// The standing now.
    pub fn standing(&self) -> Standing {
        self.standing.borrow().clone()
    }

    /// Notes the standing.
    pub fn set(&self, standing: Standing) {
        self.standing.send_if_modified(|now| {
            let news = *now != standing;
            *now = standing;
            news
        });
    }

    /// Waits until the standing is another than this, at most for `limit`.
    pub async fn changed_from(&self, standing: &Standing, limit: Duration) {
        let mut now = self.standing.subscribe();
        let other = now.wait_for(|now| now != standing);
        // Whoever waited looks again, changed or not.
        drop(tokio::time::timeout(limit, other).await);
    }

    /// The broker did not take a commit of ours: the control thread asks at once what we are.
    pub fn doubt(&self) {
        self.doubted.notify_one();
    }

    /// Waits for a doubt.
    pub async fn doubted(&self) {
        self.doubted.notified().await;
    }

    /// Asks the control thread to leave the group.
    pub fn leave(&self) {
        self.stage.send_if_modified(|stage| {
            let stays = *stage == Stage::Stays;
            if stays {
                *stage = Stage::ShallLeave;
            }
            stays
        });
    }

    /// Waits until the group is to be left.
    pub async fn leaving(&self) {
        // The sender is ours: it cannot be gone.
        let _ = self.stage.subscribe().wait_for(|stage| *stage != Stage::Stays).await;
    }

    /// Nothing is left to be done for the group.
    pub fn set_gone(&self) {
        self.stage.send_replace(Stage::Gone);
    }

    /// Waits for that.
    pub async fn gone(&self) {
        let _ = self.stage.subscribe().wait_for(|stage| *stage == Stage::Gone).await;
    }
}
