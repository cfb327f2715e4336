//! What an attempt may use up: its control group where the daemon was given one, else a limit of each process.

use std::path::PathBuf;

use super::super::confine::Confine;
use crate::proc::Group;

/// The limits of one attempt, as they are kept.
#[derive(Debug, Default)]
pub(super) struct Caps {
    /// Its group, if it has one.
    pub(super) group: Option<Group>,
    /// Where that is.
    pub(super) joined: Option<PathBuf>,
    /// Most bytes of data of each process (`RLIMIT_DATA`), where no group keeps the limit.
    pub(super) data: Option<u64>,
}

/// Makes the group. Limits that nothing can keep are left out: the daemon says so at its start.
pub(super) fn set(confine: &Confine) -> Result<Caps, String> {
    let Some(path) = &confine.group else {
        return Ok(Caps { data: confine.limits.memory, ..Caps::default() });
    };
    let (group, unkept) = Group::make(path, &confine.limits)
        .map_err(|e| format!("cannot make the control group {}: {e}", path.display()))?;
    Ok(Caps { group: Some(group), joined: Some(path.clone()), data: unkept.memory })
}

impl Caps {
    /// Most bytes of the tree, where the kernel ended it for more.
    pub(super) fn exceeded(&self, confine: &Confine) -> Option<u64> {
        let over = self.group.as_ref().is_some_and(Group::ran_out_of_memory);
        confine.limits.memory.filter(|_| over)
    }

    /// Kills every process of the group at once, where there is one; the tree below the launcher is killed beside that.
    pub(super) fn kill(&self) {
        if let Some(group) = &self.group {
            group.kill();
        }
    }

    /// Removes the group; a sentence where it stays.
    pub(super) fn remove(&self) -> Option<String> {
        let stays = self.group.as_ref().is_some_and(|group| !group.remove());
        let path = self.joined.as_ref().filter(|_| stays)?;
        Some(format!("the control group {} could not be removed", path.display()))
    }
}
