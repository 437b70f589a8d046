#!/bin/sh
# run.sh BUILD SECONDS: every fuzzer for that long, two at a time, from tests/fuzz/seeds/NAME if there are any. Inputs
# that fail stay in BUILD/findings.
set -eu
build=$1 seconds=$2
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$build/findings"

fuzz() {
    name=$(basename "$1")
    corpus=$build/corpus/$name
    mkdir -p "$corpus"
    [ ! -d "$here/seeds/$name" ] || cp "$here/seeds/$name"/* "$corpus"/
    if "$1" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -artifact_prefix="$build/findings/$name-" \
        "$corpus" >"$build/$name.log" 2>&1; then
        echo "$name: clean, $(grep -o 'Done [0-9]* runs' "$build/$name.log" || echo 'no runs counted')"
    else
        tail -n 25 "$build/$name.log" >&2
        echo "$name: FAILED, see $build/$name.log" >&2
        touch "$build/failed"
    fi
}

rm -f "$build/failed"
running=0
for fuzzer in "$build"/tests/fuzz/*_fuzz; do
    [ -x "$fuzzer" ] || { echo "run.sh: no fuzzers in $build" >&2; exit 1; }
    fuzz "$fuzzer" &
    running=$((running + 1))
    if [ $((running % 2)) = 0 ]; then wait; fi
done
wait
[ ! -e "$build/failed" ]
