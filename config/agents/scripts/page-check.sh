#!/bin/sh
# page-check.sh URL [TEXT]: fetches URL, prints what came back as JSON.
# Exits with 1 and one sentence on stderr where the page cannot be had or TEXT is not on it.
set -u
url=$1
expect=${2-}
page=$TMPDIR/page

# -f is left out on purpose: a 404 is an answer, and the sentence below names it.
if ! seen=$(curl -sS --globoff --max-time 20 --max-filesize 10000000 -o "$page" \
                 -w '%{http_code} %{size_download} %{time_total}' -- "$url"); then
  exit 1    # curl has said why
fi
read -r status bytes seconds <<EOF
$seen
EOF
case $status in
  2??) ;;
  *) echo "$url answered $status" >&2; exit 1 ;;
esac
if [ -n "$expect" ] && ! grep -qF -e "$expect" "$page"; then
  echo "$url does not hold the text \"$expect\"" >&2
  exit 1
fi
awk -v url="$url" -v status="$status" -v bytes="$bytes" -v seconds="$seconds" 'BEGIN {
  gsub(/"/, "%22", url)
  printf "{\"url\":\"%s\",\"status\":%d,\"bytes\":%.0f,\"milliseconds\":%.0f}\n", url, status, bytes, seconds * 1000
}'
