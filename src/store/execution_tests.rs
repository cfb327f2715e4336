//! Executions and tasks against a real file: what is kept of them agrees with the rows, whatever becomes of them.

use rusqlite::types::Value as Sql;

use super::*;
use crate::ids::{AgentId, RunId, SeededEntropy};
use crate::model::{
    Failure, FailureCode, Outcome, Overlap, Overrides, ResponseFormat, RunState, TaskRequest,
};

struct Fixture {
    store: Store,
    _dir: tempfile::TempDir,
    entropy: SeededEntropy,
    agents: Vec<AgentRow>,
}

async fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let (store, _threads) = Store::open(&dir.path().join("matins.db")).unwrap();
    let sync = |(id, sha): (&str, u8)| AgentSync {
        id: id.parse::<AgentId>().unwrap(),
        definition: Some((format!("{{\"a\": {sha}}}"), [sha; 32])),
        schedules: Vec::new(),
    };
    let agents = store.sync_definitions([("a", 1), ("b", 2)].map(sync).to_vec(), 1).await.unwrap();
    Fixture { store, _dir: dir, entropy: SeededEntropy::new(1), agents }
}

fn filter(user: &str) -> ExecutionFilter {
    ExecutionFilter { user: user.to_owned(), limit: 25, ..ExecutionFilter::default() }
}

impl Fixture {
    fn asked(&self, agent: usize, user: &str, key: Option<&str>) -> Manual {
        let row = &self.agents[agent];
        let id = RunId::generate(1, &self.entropy);
        let run = NewRun::plain(id, row.number, row.definition.unwrap(), Overlap::Allow);
        let overrides = Overrides { execution_key: key.map(Into::into), ..Overrides::default() };
        Manual { run, user: Some(user.to_owned()), overrides, key: None }
    }

    async fn admit(&self, agent: usize, user: &str, key: Option<&str>) -> i64 {
        let manual = self.asked(agent, user, key);
        self.store.admit_manual(manual, 2_000).await.unwrap().unwrap().number
    }

    async fn claim(&self) -> Claimed {
        let room = Room { runs: 1, catch_ups: 1, ..Room::default() };
        self.store.claim_next(room, 2_500).await.unwrap().runs.pop().unwrap()
    }

    async fn start(&self, claimed: &Claimed) {
        let boot_id = crate::ids::BootId::new("b");
        let identity = crate::proc::Identity { boot_id, pid: 7, start_ticks: 8, pidfd_inode: 9 };
        let started =
            self.store.start(claimed.number, claimed.id, claimed.epoch, identity, Vec::new(), 3_000);
        assert_eq!(started.await.unwrap(), Wanted::Yes);
    }

    async fn finish(&self, claimed: &Claimed, outcome: Outcome) {
        let finish = Finish {
            number: claimed.number,
            id: claimed.id,
            epoch: claimed.epoch,
            outcome,
            deliveries: Vec::new(),
            breaker: BreakerStep::default(),
            changed: None,
            compared: Compared::Nothing,
            at_ms: 4_000,
        };
        let done = self.store.finish(finish).await.unwrap();
        assert_eq!(done, Finished::Done { breaker_opened: false });
    }

    /// Fails where a count is not that of the rows.
    async fn check(&self) {
        let rows =
            "SELECT user, agent, state, count(*) FROM runs WHERE execution_key IS NOT NULL GROUP BY 1, 2, 3";
        let kept = "SELECT user, agent, state, count FROM execution_counts WHERE count <> 0 ORDER BY 1, 2, 3";
        let read = async |sql: &'static str| {
            let ask = move |db: &Connection| {
                let mut statement = db.prepare(sql)?;
                let row = |row: &rusqlite::Row<'_>| {
                    (0..4).map(|at| row.get::<_, Sql>(at)).collect::<Result<Vec<_>, _>>()
                };
                Ok(statement.query_map([], row)?.collect::<Result<Vec<_>, _>>()?)
            };
            self.store.readers.read(ask).await.unwrap()
        };
        assert_eq!(read(kept).await, read(rows).await);
    }
}

#[tokio::test]
async fn the_counts_are_those_of_the_rows_in_every_state() {
    let f = fixture().await;
    for (agent, user, key) in [
        (0, "ann", Some("k")),
        (0, "ann", None),
        (1, "ann", Some("k")),
        (0, "bob", Some("l")),
        (0, "ann", Some("k")),
    ] {
        f.admit(agent, user, key).await;
        f.check().await;
    }
    let (_, count) = f.store.executions(filter("ann")).await.unwrap();
    assert_eq!(count, 3, "a run without a key is none");
    for n in 0..4 {
        let claimed = f.claim().await;
        f.check().await;
        f.start(&claimed).await;
        f.check().await;
        if n == 0 {
            let given_back = f.store.unstart(claimed.number, claimed.id, claimed.epoch, 3_500).await.unwrap();
            assert_eq!(given_back, Wanted::Yes);
            f.check().await;
            continue;
        }
        let failed = Outcome::failed(Failure::new(FailureCode::Timeout, "late"));
        f.finish(&claimed, if n == 1 { failed } else { Outcome::default() }).await;
        f.check().await;
    }
    let of = |state| ExecutionFilter { state: Some(state), ..filter("ann") };
    let mut in_all = 0;
    for state in RunState::ALL {
        let (rows, count) = f.store.executions(of(*state)).await.unwrap();
        assert_eq!(rows.len() as u64, count, "{state}");
        assert!(rows.iter().all(|row| row.state == *state), "{state}");
        in_all += count;
    }
    assert_eq!(in_all, 3);
    let ended: Vec<i64> = vec![1, 2, 3, 4, 5];
    assert!(f.store.remove_runs(ended).await.unwrap() > 0);
    f.check().await;
}

#[tokio::test]
async fn a_page_is_the_same_by_each_index() {
    let f = fixture().await;
    for n in 0..60 {
        f.admit(n % 2, if n % 3 == 0 { "bob" } else { "ann" }, Some("k")).await;
    }
    let all = ExecutionFilter { limit: 1_000, ..filter("ann") };
    let (rows, count) = f.store.executions(all.clone()).await.unwrap();
    assert_eq!((rows.len(), count), (40, 40));
    assert!(rows.windows(2).all(|pair| pair[0].number > pair[1].number), "newest first");
    let numbers: Vec<i64> = f.agents.iter().map(|agent| agent.number).collect();
    for (agents, state) in [
        (Some(vec![numbers[0]]), None),
        (Some(numbers.clone()), None),
        (Some(numbers), Some(RunState::Pending)),
        (Some(vec![1]), Some(RunState::Pending)),
        (Some(Vec::new()), None),
        (None, Some(RunState::Pending)),
        (None, Some(RunState::Failed)),
    ] {
        let fits = |row: &&ExecutionRow| {
            agents.as_ref().is_none_or(|agents| agents.contains(&row.agent))
                && state.is_none_or(|s| s == row.state)
        };
        let wanted: Vec<i64> = rows.iter().filter(fits).map(|row| row.number).collect();
        let mut found = Vec::new();
        for offset in (0..60).step_by(7) {
            let page = ExecutionFilter { agents: agents.clone(), state, offset, limit: 7, ..filter("ann") };
            let (rows, count) = f.store.executions(page).await.unwrap();
            assert_eq!(count, wanted.len() as u64, "{agents:?} {state:?}");
            found.extend(rows.iter().map(|row| row.number));
        }
        assert_eq!(found, wanted, "{agents:?} {state:?}");
    }
}

#[tokio::test]
async fn a_long_body_is_left_out_of_a_list_alone() {
    let f = fixture().await;
    let mut manual = f.asked(0, "ann", Some("k"));
    manual.overrides.input = Some(serde_json::json!({ "long": "x".repeat(LISTED_BODY_MAX) }));
    f.store.admit_manual(manual, 2_000).await.unwrap().unwrap();
    let (rows, _) = f.store.executions(filter("ann")).await.unwrap();
    assert!(rows[0].cut && rows[0].input.is_none());
    let whole = f.store.execution("1".to_owned(), "ann".to_owned()).await.unwrap().unwrap();
    assert!(!whole.cut && whole.input.is_some());
    let id = whole.id.to_string();
    assert!(f.store.execution(id, "ann".to_owned()).await.unwrap().is_some());
    for (name, user) in [("1", "bob"), ("2", "ann"), ("x", "ann")] {
        assert!(
            f.store.execution(name.to_owned(), user.to_owned()).await.unwrap().is_none(),
            "{name} {user}"
        );
    }
}

#[tokio::test]
async fn a_task_goes_with_its_last_run_and_its_number_stays_its_own() {
    let f = fixture().await;
    let admit = async |of| {
        let manual = f.asked(0, "ann", None);
        f.store.admit_of_task(manual, of, ResponseFormat::Json, 2_000).await.unwrap().unwrap()
    };
    let request = TaskRequest { prompt: Some("abc".into()), ..TaskRequest::default() };
    let (first, task) = admit(OfTask::New(Box::new(request.clone()))).await;
    let (second, again) = admit(OfTask::Known(task)).await;
    assert_eq!((first.number, second.number, task, again), (1, 2, 1, 1));
    let row = f.store.task(task).await.unwrap().unwrap();
    assert_eq!((row.request, row.runs.len(), row.user.as_deref()), (request.clone(), 2, Some("ann")));
    assert_eq!(f.store.task_of(2).await.unwrap(), Some((1, ResponseFormat::Json)));
    f.admit(0, "ann", None).await;
    for gone in [1, 2] {
        let claimed = f.claim().await;
        f.start(&claimed).await;
        f.finish(&claimed, Outcome::default()).await;
        assert!(f.store.task(task).await.unwrap().is_some());
        assert_eq!(f.store.remove_runs(vec![gone]).await.unwrap(), 1);
    }
    assert!(f.store.task(task).await.unwrap().is_none());
    assert_eq!(f.store.task_of(2).await.unwrap(), None);
    let (_, next) = admit(OfTask::New(Box::new(request))).await;
    assert_eq!(next, 2, "a number never comes again");
}

#[tokio::test]
async fn what_lists_executions_reads_no_other_row() {
    let f = fixture().await;
    let sqls = ["executions_by_user", "executions_by_state", "executions_by_agent"].map(|index| {
        let by = match index {
            "executions_by_user" => "",
            "executions_by_state" => " AND state = 'PENDING'",
            _ => " AND agent = 1",
        };
        format!(
            "EXPLAIN QUERY PLAN SELECT number FROM runs INDEXED BY {index}
             WHERE user = 'ann' AND execution_key IS NOT NULL{by} ORDER BY number DESC LIMIT 25"
        )
    });
    for sql in sqls {
        let shown = sql.clone();
        let ask = move |db: &Connection| {
            let mut statement = db.prepare(&sql)?;
            Ok(statement.query_map([], |row| row.get::<_, String>(3))?.collect::<Result<Vec<_>, _>>()?)
        };
        let plan = f.store.readers.read(ask).await.unwrap();
        assert!(plan.len() == 1 && plan[0].contains("SEARCH"), "{shown}: {plan:?}");
    }
}
