#!/usr/bin/env python3
"""Judges the result of log-advice: each line that it quotes must stand in the log.

A validator gets the result on stdin. Exit code 0 accepts it; with another one the model is told what is printed here
and corrects itself.
"""

import json
import os
import pathlib
import sys

log = pathlib.Path(os.environ["MATINS_AGENT_DIR"], sys.argv[1])
lines = {line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()}
invented = [one["line"] for one in json.load(sys.stdin)["advice"] if one["line"].strip() not in lines]
for line in invented:
    print(f"no line of {log.name} is: {line}")
sys.exit(1 if invented else 0)
