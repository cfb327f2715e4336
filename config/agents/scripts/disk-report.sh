#!/bin/sh
# Prints how full each file system is, as one JSON object.
# df exits with 1 where a single mount cannot be read; the others still count.
set -u
report=$(LC_ALL=C df -P -k 2>/dev/null)
printf '%s\n' "$report" | awk '
  NR > 1 && $2 ~ /^[0-9]+$/ && $2 > 0 {
    mount = $6
    for (i = 7; i <= NF; i++) mount = mount " " $i      # a mount point may hold spaces
    if (seen[mount]++) next
    percent = int(($3 * 100 + $2 - 1) / $2)             # of all blocks, rounded up
    if (percent > 100) percent = 100
    if (!n || percent > worst) { worst = percent; fullest = mount }
    # %.0f, for the %d of some awks ends at 2 GiB
    rows[n++] = sprintf("{\"mount\":\"%s\",\"size_bytes\":%.0f,\"used_bytes\":%.0f,\"used_percent\":%d}",
                        quoted(mount), $2 * 1024, $3 * 1024, percent)
  }
  function quoted(text) {
    gsub(/\\/, "\\\\", text)
    gsub(/"/, "\\\"", text)
    return text
  }
  END {
    if (!n) { print "df shows no file system" > "/dev/stderr"; exit 1 }
    printf "{\"fullest\":\"%s\",\"file_systems\":[", quoted(fullest)
    for (i = 0; i < n; i++) printf "%s%s", (i ? "," : ""), rows[i]
    print "]}"
  }'
