#!/bin/sh
# Prefill and decode of one GGUF file in turn with another engine's llama-bench: the medians of each, and their ratio.
#
#   bench/compare_peers.sh build/quant PEER/llama-bench MODEL.gguf [quant bench options] [-- llama-bench options]
#
# PAIRS (5), THREADS (2), PROMPT (512), TOKENS (64) and DEPTH (0: positions before decoding; the peer must know -gp)
# come from the environment; 0 leaves a phase out. The peer runs the file as it is; quant too, unless an option such as
# --scheme says otherwise.
set -eu
[ $# -ge 3 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }
quant=$1 peer=$2 model=$3
shift 3
ours='' theirs=''
while [ $# -gt 0 ] && [ "$1" != -- ]; do ours="$ours $1"; shift; done
[ $# -eq 0 ] || { shift; theirs=$*; }
pairs=${PAIRS:-5} threads=${THREADS:-2} prompt=${PROMPT:-512} tokens=${TOKENS:-64} depth=${DEPTH:-0}
results=$(mktemp)
trap 'rm -f "$results"' EXIT

number() { # NAME: its value in JSON on standard input, a field a line
    tr ',{}' '\n\n\n' | sed -n "s/^ *\"$1\": *\"\{0,1\}\([-0-9.e+]*\).*/\1/p" | tail -n 1
}
record() { [ -z "$3" ] || [ "$3" = null ] || echo "$1 $2 $3" >>"$results"; }

run_peer() {
    if [ "$prompt" -gt 0 ]; then
        record peer prefill "$("$peer" -m "$model" -t "$threads" -p "$prompt" -n 0 -r 1 -o json $theirs 2>/dev/null | number avg_ts)"
    fi
    if [ "$tokens" -gt 0 ]; then
        decode="-n $tokens"
        [ "$depth" -eq 0 ] || decode="-n 0 -gp $depth,$tokens"
        record peer decode "$("$peer" -m "$model" -t "$threads" -p 0 $decode -r 1 -o json $theirs 2>/dev/null | number avg_ts)"
    fi
}
run_quant() {
    json=$("$quant" bench "$model" --threads "$threads" -p "$prompt" -n "$tokens" -d "$depth" -r 1 --json $ours)
    record quant prefill "$(echo "$json" | number prefill_tokens_per_second)"
    record quant decode "$(echo "$json" | number decode_tokens_per_second)"
    record quant peak_fraction "$(echo "$json" | number prefill_peak_fraction)"
    record quant bandwidth_fraction "$(echo "$json" | number decode_bandwidth_fraction)"
}

i=0
while [ $i -lt "$pairs" ]; do
    run_peer
    run_quant
    i=$((i + 1))
done

median() { # ENGINE WHAT: median, least, most
    awk -v e="$1" -v w="$2" '$1 == e && $2 == w { print $3 }' "$results" | sort -g |
        awk '{ v[NR] = $1 } END { if (NR) printf "%g %g %g\n", NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2, v[1], v[NR] }'
}
echo "$(basename "$model"), $threads threads, $pairs pairs;$ours against $theirs"
for what in prefill decode; do
    echo "$what $(median quant $what) $(median peer $what)" | awk 'NF == 7 {
        printf "%-8s quant %8.2f t/s (%.2f to %.2f)   peer %8.2f t/s (%.2f to %.2f)   ratio %.2f\n", $1, $2, $3, $4, $5, $6, $7, $2 / $5 }'
done
echo "$(median quant peak_fraction) $(median quant bandwidth_fraction)" | awk 'NF == 6 {
    printf "quant    %.1f%% of the arithmetic peak in prefill, %.1f%% of the bandwidth in decode (medians)\n", 100 * $1, 100 * $4 }'
