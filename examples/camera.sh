#!/bin/sh
# Sends one picture of one part to JigSight and says pass or fail. Needs curl 7.71 or newer.
#
#   camera.sh http://127.0.0.1:8000 bracket part.png A-17
#
# Exit code 0: pass. 1: fail. 2: not judged, which is never a pass: set the part aside. A key, if the server asks for
# one, is taken from JIGSIGHT_KEY.
set -u

if [ $# -lt 3 ]; then
    echo "usage: $0 ADDRESS CATEGORY PICTURE [SERIAL]" >&2
    exit 2
fi

if [ ! -r "$3" ]; then
    echo "not judged: cannot read $3" >&2
    exit 2
fi

# Every byte as %41, so that a serial may hold anything.
encode() { printf %s "$1" | od -An -v -tx1 | tr -d '\n' | tr ' ' '%'; }

url="${1%/}/v1/categories/$(encode "$2")/inspections"
if [ $# -gt 3 ]; then url="$url?serial=$(encode "$4")"; fi

answer=$(mktemp) || exit 2
trap 'rm -f "$answer"' EXIT

# curl waits as Retry-After says. It tries again after 408, 429, 500, 502, 503, 504 and failed connections, always with
# the same Idempotency-Key: had an earlier try been judged, its answer comes again. What is secret comes through standard
# input, for everybody on this machine can read the arguments.
status=$(
    {
        echo "header = \"Idempotency-Key: $(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')\""
        if [ -n "${JIGSIGHT_KEY:-}" ]; then echo "header = \"Authorization: Bearer $JIGSIGHT_KEY\""; fi
    } | curl --config - --silent --show-error \
        --retry "${JIGSIGHT_RETRIES:-8}" --retry-all-errors --retry-max-time 20 --max-time 10 \
        --header "Content-Type: application/octet-stream" --data-binary "@$3" \
        --output "$answer" --write-out '%{http_code}' "$url"
) || { echo "not judged: no answer from $1" >&2; exit 2; }

# Quotes inside a JSON string are escaped, so this can only be the field itself.
verdict=$(grep -o '"verdict" *: *"[a-z]*"' "$answer" | head -n 1 | cut -d '"' -f 4)
case "$status:$verdict" in
    2??:pass) echo pass; exit 0 ;;
    2??:fail) echo fail; exit 1 ;;
    *) echo "not judged: $status $(cat "$answer")" >&2; exit 2 ;;
esac
