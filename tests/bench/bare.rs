//! The bare limits that the figures are held against: the same work without any promise beyond it.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::Connection;

/// A plain database with the schema of the bare life cycle, WAL and FULL.
pub fn database(path: &Path) -> Connection {
    let db = Connection::open(path).expect("a database");
    db.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
         CREATE TABLE run (id INTEGER PRIMARY KEY, agent TEXT, state TEXT, created INTEGER, started INTEGER, ended INTEGER);
         CREATE TABLE outbox (id INTEGER PRIMARY KEY, run INTEGER, body TEXT);",
    )
    .expect("a schema");
    db
}

/// Median time of a commit of one row, seconds.
pub fn commit(db: &Connection, times: usize) -> f64 {
    let mut took = Vec::with_capacity(times);
    for _ in 0..times {
        let begun = Instant::now();
        db.prepare_cached("INSERT INTO run (agent, state, created) VALUES ('a', 'PENDING', 1)")
            .and_then(|mut s| s.execute([]))
            .expect("an insert");
        took.push(begun.elapsed().as_secs_f64());
    }
    crate::median(took)
}

/// Life cycles a second (insert, update, update and outbox), `group` of them in each commit.
pub fn life_cycles(db: &Connection, group: usize, for_at_least: Duration) -> f64 {
    let begun = Instant::now();
    let mut done = 0_usize;
    let steps = [
        "INSERT INTO run (agent, state, created) VALUES ('a', 'PENDING', 1)",
        "UPDATE run SET state = 'RUNNING', started = 2 WHERE id = ?1 AND state = 'PENDING'",
        "UPDATE run SET state = 'COMPLETED', ended = 3 WHERE id = ?1 AND state = 'RUNNING'",
        "INSERT INTO outbox (run, body) VALUES (?1, '{\"type\":\"run.completed\"}')",
    ];
    while begun.elapsed() < for_at_least {
        let mut ids = Vec::with_capacity(group);
        for (stage, batch) in [(0, &steps[..1]), (1, &steps[1..2]), (2, &steps[2..])] {
            db.execute_batch("BEGIN IMMEDIATE").expect("begin");
            for index in 0..group {
                for sql in batch {
                    let mut statement = db.prepare_cached(sql).expect("a statement");
                    if stage == 0 {
                        statement.execute([]).expect("an insert");
                        ids.push(db.last_insert_rowid());
                    } else {
                        statement.execute([ids[index]]).expect("an update");
                    }
                }
            }
            db.execute_batch("COMMIT").expect("commit");
        }
        done += group;
    }
    #[expect(clippy::cast_precision_loss, reason = "a count")]
    let done = done as f64;
    done / begun.elapsed().as_secs_f64()
}
