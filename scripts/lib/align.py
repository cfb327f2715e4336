#!/usr/bin/env python3
"""Aligns lines with tabs for people: align.py 'HEAD HEAD ..' < LINES. Without headings, none."""

import sys

rows = [line.rstrip("\n").split("\t") for line in sys.stdin]
headings = sys.argv[1].split()
if headings:
    rows.insert(0, headings)
widths = [max(map(len, column)) for column in zip(*(row[:-1] for row in rows if len(row) == len(rows[0])))]
for row in rows:
    cells = [cell.ljust(widths[i] if i < len(widths) else 0) for i, cell in enumerate(row[:-1])]
    print("  ".join([*cells, row[-1]]))
