//! An attempt in a control group of its own, for real: where root has a cgroup v2 to make one in.

use super::*;

/// A folder in which groups can be made; gone with the test.
struct Tree(PathBuf);

impl Tree {
    fn new() -> Option<Self> {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mount = mounts.lines().find(|line| line.contains(" - cgroup2 ") && line.contains(" / "))?;
        let root = Path::new(mount.split(' ').nth(4)?).join(format!("matins-test-{}", std::process::id()));
        std::fs::create_dir(&root).ok()?;
        Some(Self(root))
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[expect(clippy::print_stderr, reason = "a test that cannot show what it should says why")]
fn tree() -> Option<Tree> {
    let tree = Tree::new();
    if tree.is_none() {
        eprintln!("skipped: no control group can be made here");
    }
    tree
}

#[tokio::test]
async fn an_attempt_lives_in_its_group_which_goes_with_it() {
    let Some(tree) = tree() else { return };
    let path = tree.0.join("run-1");
    let a = Attempt::sh("cat /proc/self/cgroup; cat /proc/$PPID/cgroup; (setsid sleep 600 &)")
        .spec(|spec| spec.confine.group = Some(path.clone()));
    let report = a.run().await;
    assert_eq!(code(&report), (Reason::Exited, Some(0), None), "{report:?}");
    let groups: Vec<String> =
        a.stdout().lines().filter_map(|l| l.strip_prefix("0::")).map(str::to_owned).collect();
    assert_eq!(groups.len(), 2, "{groups:?}");
    assert!(groups[0].ends_with("/run-1"), "the program: {groups:?}");
    assert!(!groups[1].contains("matins-test"), "the launcher stays outside: {groups:?}");
    assert!(!path.exists(), "the group is removed");
    assert_eq!(report.log_error, None);
}

#[tokio::test]
async fn a_kill_reaches_the_whole_group() {
    let Some(tree) = tree() else { return };
    let path = tree.0.join("run-2");
    let a = Attempt::sh(
        "trap '' TERM; for i in 1 2 3 4; do setsid sh -c 'trap \"\" TERM; sleep 600' & done; echo up; wait",
    )
    .spec(|spec| {
        spec.confine.group = Some(path.clone());
        spec.kill_grace_ms = 1;
    });
    let mut live = a.start().await;
    a.until_stdout("up").await;
    assert!(std::fs::read_to_string(path.join("cgroup.events")).unwrap().contains("populated 1"));
    live.cancel().unwrap();
    assert_eq!(report(&mut live).await.reason, Reason::Cancelled);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_group_that_cannot_be_made_is_a_launch_error() {
    let a = Attempt::sh("true").spec(|spec| spec.confine.group = Some("/proc/none/run-3".into()));
    let report = a.run().await;
    assert!(!report.started);
    assert!(report.launch_error.unwrap().contains("cannot make the control group /proc/none/run-3"));
}
