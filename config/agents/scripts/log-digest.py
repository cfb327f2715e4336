#!/usr/bin/env python3
"""Digests a log: lines by level, and the most frequent messages that need a look.

Shows the whole contract of a program under matins: input from MATINS_INPUT_FILE, a skill from
MATINS_SKILLS_DIR, steps to MATINS_EVENTS_FILE, the result to MATINS_RESULT_FILE.
"""

import collections
import json
import os
import pathlib
import re
import sys


def step(description):
    """Reports one step; it is seen while the run goes on."""
    with open(os.environ["MATINS_EVENTS_FILE"], "a", encoding="utf-8") as events:
        events.write(json.dumps({"type": "step", "description": description}) + "\n")


def plural(n, thing):
    return f"{n} {thing}{'' if n == 1 else 's'}"


def main():
    wanted = json.loads(pathlib.Path(os.environ["MATINS_INPUT_FILE"]).read_text(encoding="utf-8"))
    skill = pathlib.Path(os.environ["MATINS_SKILLS_DIR"], "log-triage")
    rules = json.loads((skill / "assets" / "levels.json").read_text(encoding="utf-8"))
    level_of = {word: level for level, words in rules["levels"].items() for word in words}

    # A relative path belongs to the agent file's directory; joining keeps an absolute one as it is.
    log = pathlib.Path(os.environ["MATINS_AGENT_DIR"], wanted["file"])
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        sys.exit(f"cannot read {log}: {error.strerror}")
    step(f"read {plural(len(lines), 'line')} of {log.name}")

    levels = collections.Counter()
    messages = collections.Counter()
    for line in filter(str.strip, lines):
        words = re.finditer(r"[A-Za-z]+", line[:120])
        found = next((word for word in words if word.group().lower() in level_of), None)
        level = level_of[found.group().lower()] if found else "other"
        levels[level] += 1
        if level in rules["attention"]:
            message = line[found.end():].strip(" \t:-]")
            messages[level, re.sub(r"\d+", "#", message)] += 1     # numbers differ, the message is the same
    step(f"counted {plural(sum(messages.values()), 'line')} that need a look")

    top = sorted(messages.items(), key=lambda item: (-item[1], item[0]))[: wanted.get("top", 5)]
    digest = {
        "file": log.name,
        "lines": sum(levels.values()),
        "levels": dict(levels.most_common()),
        "top_messages": [{"level": level, "message": text, "count": n} for (level, text), n in top],
    }
    pathlib.Path(os.environ["MATINS_RESULT_FILE"]).write_text(json.dumps(digest), encoding="utf-8")
    for entry in digest["top_messages"]:
        print(f"{entry['count']:>4}  {entry['level']:<8} {entry['message']}")


if __name__ == "__main__":
    main()
