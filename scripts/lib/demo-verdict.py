#!/usr/bin/env python3
"""Judges the demo from two records: what the daemon says it ran (events.json) and what the webhook
receiver saw (deliveries.ndjson).

    demo-verdict.py ready DIR       exit 0 once everything that the demo waits for has happened
    demo-verdict.py verdict DIR     prints the counts and every contradiction; exit 0 if there is none
"""

import collections
import json
import pathlib
import sys

# Completed runs that each agent must at least have by the clock.
BY_CLOCK = {"hello": 8, "disk-report": 1, "log-digest": 1}
MEANT_TO_FAIL = {"fails-on-purpose", "page-check"}


def read(directory):
    events = json.loads((directory / "events.json").read_text(encoding="utf-8"))
    events = events["data"] if isinstance(events, dict) else events
    record = directory / "deliveries.ndjson"
    lines = record.read_text(encoding="utf-8").splitlines() if record.exists() else []
    return events, [json.loads(line) for line in lines]


def ended(events):
    return [e for e in events if e["status"] in ("COMPLETED", "FAILED")]


def delivered(deliveries):
    return {d["run"] for d in deliveries if d["verified"] and d["answered"] == 204}


def ready(events, deliveries):
    completed = collections.Counter(
        e["agentId"] for e in events if e["status"] == "COMPLETED" and e["trigger"] == "schedule"
    )
    refused = {d["id"] for d in deliveries if d["answered"] == 503}
    came_again = {d["id"] for d in deliveries if d["answered"] == 204}
    # A moment between two runs: everything has ended and somebody was told of it.
    quiet = {e["id"] for e in events} <= delivered(deliveries)
    return all(completed[agent] >= least for agent, least in BY_CLOCK.items()) and refused <= came_again and quiet


def verdict(events, deliveries):
    problems = []
    rows = collections.defaultdict(collections.Counter)
    for event in events:
        rows[event["agentId"], event["trigger"]][event["status"]] += 1
    print(f"{'AGENT':<18}{'TRIGGER':<10}{'COMPLETED':>10}{'FAILED':>8}")
    for (agent, trigger), by_status in sorted(rows.items()):
        print(f"{agent:<18}{trigger:<10}{by_status['COMPLETED']:>10}{by_status['FAILED']:>8}")
        for status in by_status.keys() - {"COMPLETED", "FAILED"}:
            problems.append(f"{by_status[status]} runs of {agent} are still {status}")
    for event in events:
        if event["status"] == "FAILED" and event["agentId"] not in MEANT_TO_FAIL:
            problems.append(f"run {event['id']} of {event['agentId']} failed: {event['error']}")
    for agent, least in BY_CLOCK.items():
        if rows[agent, "schedule"]["COMPLETED"] < least:
            problems.append(f"{agent} ran less than {least} times by the clock")
    slots = collections.Counter((e["agentId"], e["scheduledFor"]) for e in events if e["scheduledFor"])
    problems += [f"slot {instant} of {agent} ran {n} times" for (agent, instant), n in slots.items() if n > 1]

    forged = [d for d in deliveries if not d["verified"]]
    problems += [f"delivery {d['id']} of run {d.get('run')} was not verified: {d['problem']}" for d in forged]
    ids = collections.defaultdict(set)
    for delivery in deliveries:
        ids[delivery.get("run")].add(delivery["id"])
    problems += [f"run {run} was announced under {len(named)} ids" for run, named in ids.items() if len(named) > 1]
    heard = delivered(deliveries)
    silent = [e for e in ended(events) if e["id"] not in heard]
    problems += [f"nobody was told of run {e['id']} of {e['agentId']}" for e in silent]

    accepted = sum(d["answered"] == 204 for d in deliveries)
    refused = sum(d["answered"] == 503 for d in deliveries)
    print(f"\n{len(ended(events))} runs ended; {accepted} deliveries verified by HMAC-SHA256 and accepted, "
          f"{refused} refused once and sent again, {len(forged)} not verified")
    for problem in problems:
        print(f"NOT OK: {problem}")
    return not problems


def main():
    judge = {"ready": ready, "verdict": verdict}[sys.argv[1]]
    return 0 if judge(*read(pathlib.Path(sys.argv[2]))) else 1


if __name__ == "__main__":
    sys.exit(main())
