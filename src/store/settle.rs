//! What a start finds of the daemon before it: runs that were under way. Each is settled by the
//! identity of its launcher, never by age and never by pid alone.

use super::{Claim, Error, Gone, Store, run_id};
use crate::ids::{BootId, Epoch, RunId};
use crate::proc::Identity;

/// A run that was RUNNING when the daemon before ended.
#[derive(Debug, Clone)]
pub struct Unsettled {
    /// Its number.
    pub number: i64,
    /// Its id.
    pub id: RunId,
    /// The agent's number.
    pub agent: i64,
    /// The definition's number.
    pub definition: i64,
    /// The epoch it was started under.
    pub epoch: Epoch,
    /// Its attempt.
    pub attempt: i64,
    /// Its launcher.
    pub launcher: Identity,
    /// Who asked for its end, if anybody did.
    pub cancel_by: Option<String>,
    /// Whether it is a catch-up.
    pub catch_up: bool,
}

impl Store {
    /// Gives back every claim that had not become a start, of a first or a later attempt, except those
    /// that were taken to end a run, which are returned.
    pub async fn release_claims(&self, now_ms: i64) -> Result<Vec<(Claim, Gone)>, Error> {
        self.writer
            .write(move |db| {
                let sql = "UPDATE runs SET claimed_at = NULL, updated_at = ?1
                           WHERE completed_at IS NULL AND claimed_at IS NOT NULL
                             AND (state = 'PENDING' OR not_before IS NOT NULL)
                             AND cancel_by IS NULL AND displaced_by IS NULL";
                db.prepare_cached(sql)?.execute([now_ms])?;
                super::overlap::unfinished(db, i64::MAX)
            })
            .await
    }

    /// Every run that is RUNNING; one between two attempts is not under way.
    pub async fn unsettled(&self) -> Result<Vec<Unsettled>, Error> {
        self.readers
            .read(|db| {
                let sql = "SELECT number, id, agent, definition, epoch, attempt, boot_id, pid, start_ticks, pidfd_inode,
                                  cancel_by, trigger = 'catch_up'
                           FROM runs WHERE completed_at IS NULL AND state = 'RUNNING' AND not_before IS NULL ORDER BY number";
                let mut statement = db.prepare_cached(sql)?;
                let rows = statement.query_map([], |row| {
                    Ok(Unsettled {
                        number: row.get(0)?,
                        id: run_id(row, "id")?,
                        agent: row.get(2)?,
                        definition: row.get(3)?,
                        epoch: Epoch(row.get(4)?),
                        attempt: row.get(5)?,
                        launcher: Identity {
                            boot_id: BootId::new(row.get_ref(6)?.as_str()?),
                            pid: row.get(7)?,
                            start_ticks: row.get::<_, i64>(8)?.cast_unsigned(),
                            pidfd_inode: row.get::<_, i64>(9)?.cast_unsigned(),
                        },
                        cancel_by: row.get(10)?,
                        catch_up: row.get(11)?,
                    })
                })?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await
    }
}
