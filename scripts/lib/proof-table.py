#!/usr/bin/env python3
"""Makes one table of the lines `proof: NAME key=value ..` in the files that are named, or in stdin.

Columns of their own: count, lost, double, orphans, false_completed, seconds, verdict. Every other key stands
in the last column. The exit code is 1 where a verdict is FAILED or SKIPPED, or nothing was proven.
"""
import fileinput
import re
import sys

COLUMNS = ["count", "lost", "double", "orphans", "false_completed", "seconds", "verdict"]
MUST_BE_NOUGHT = ["lost", "double", "orphans", "false_completed"]


def rows(lines):
    for line in lines:
        found = re.search(r"proof: (\S+)((?: [a-z0-9_]+=\S*)*)", line)
        if not found:
            continue
        values = dict(pair.split("=", 1) for pair in found[2].split())
        wrong = [name for name in MUST_BE_NOUGHT if values.get(name, "0") != "0"]
        if wrong:
            values["verdict"] = "FAILED"
        rest = " ".join(f"{k}={v}" for k, v in values.items() if k not in COLUMNS)
        yield [found[1]] + [values.get(name, "") for name in COLUMNS] + [rest]


def main():
    table = list(rows(fileinput.input(encoding="utf-8", errors="replace")))
    head = ["proof"] + [name.replace("_", " ") for name in COLUMNS] + ["and"]
    proven = [row for row in table if not row[0].startswith("section:")]
    ran = [row for row in table if row[0].startswith("section:")]
    rule = ["-" * len(name) for name in head]
    lines = [head, rule, *proven, *([rule] if ran else []), *ran]
    widths = [max(len(row[i]) for row in lines) for i in range(len(head))]
    for row in lines:
        cells = [cell.rjust(w) if 0 < i < 7 else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths))]
        print("  ".join(cells).rstrip())
    failed = [row[0] for row in table if row[7] in ("FAILED", "SKIPPED")]
    if failed:
        sys.exit(f"\nnot proven: {', '.join(failed)}")
    if not proven:
        sys.exit("\nnothing was proven")


main()
