#!/bin/sh
# Sends one picture of one part to JigSight and says pass or fail. Needs curl.
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

case "$1" in
    http://* | https://*) ;;
    *) echo "not judged: $1 is no address: it begins with http:// or https://" >&2; exit 2 ;;
esac

picture=$3
if [ ! -r "$3" ]; then
    echo "not judged: cannot read $3" >&2
    exit 2
fi

# Every byte as %41, so that a serial may hold anything.
encode() { printf %s "$1" | od -An -v -tx1 | tr -d '\n' | tr ' ' '%'; }

url="${1%/}/v1/categories/$(encode "$2")/inspections"
if [ $# -gt 3 ]; then url="$url?serial=$(encode "$4")"; fi

work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT

# One key for all attempts: had an earlier one been judged, its answer comes again, and no second inspection.
idempotency_key=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')

# What is secret comes to curl through standard input, for everybody on this machine can read the arguments.
secrets() {
    echo "header = \"Idempotency-Key: $idempotency_key\""
    if [ -n "${JIGSIGHT_KEY:-}" ]; then echo "header = \"Authorization: Bearer $JIGSIGHT_KEY\""; fi
}

# Prints the status; 000 without an answer, or with half of one.
attempt() {
    : >"$work/headers"
    : >"$work/answer"
    code=$(secrets | curl --config - --silent --show-error --max-time 10 \
        --header "Content-Type: application/octet-stream" --data-binary "@$picture" \
        --dump-header "$work/headers" --output "$work/answer" --write-out '%{http_code}' "$url") || code=000
    echo "$code"
}

# Seconds, where the server says how many.
retry_after() { tr 'A-Z\r' 'a-z ' <"$work/headers" | sed -n 's/^retry-after: *\([0-9][0-9]*\) *$/\1/p' | tail -n 1; }

deadline=$(($(date +%s) + 20))
pause=1
while true; do
    status=$(attempt)
    case "$status" in
        000 | 408 | 409 | 429 | 502 | 503 | 504) ;; # 409: an earlier try of ours is still being judged
        *) break ;;
    esac
    wait=$(retry_after)
    if [ -z "$wait" ]; then
        wait=$pause
        pause=$((pause < 4 ? 2 * pause : 5))
    fi
    if [ $(($(date +%s) + wait)) -gt "$deadline" ]; then
        echo "not judged: gave up on $1 after status $status: $(cat "$work/answer")" >&2
        exit 2
    fi
    sleep "$wait"
done

# Quotes inside a JSON string are escaped, so this can only be the field itself.
verdict=$(grep -o '"verdict" *: *"[a-z]*"' "$work/answer" | head -n 1 | cut -d '"' -f 4)
case "$status:$verdict" in
    2??:pass) echo pass; exit 0 ;;
    2??:fail) echo fail; exit 1 ;;
    *) echo "not judged: $status $(cat "$work/answer")" >&2; exit 2 ;;
esac
