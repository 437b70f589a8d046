#!/bin/sh
# symbols.sh NM LIBRARY: a release library must not end the process, print, or run iostream's initialiser, and a shared
# one exports quant_* only. In a static one, code compiled for a newer instruction set must not define inline functions
# that the linker could choose for everybody.
set -eu
nm=$1 library=$2 failed=0

complain() {
    echo "$library: $1:" >&2
    echo "$2" >&2
    failed=1
}

forbidden='abort|exit|_Exit|_exit|quick_exit|printf|fprintf|vprintf|vfprintf|puts|fputs|putchar|perror|stdout|stderr'
forbidden="$forbidden|__printf_chk|__fprintf_chk|__vfprintf_chk|__assert_fail|_ZSt4cout|_ZSt4cerr|_ZSt4clog"
forbidden="$forbidden|_ZNSt8ios_base4InitC1Ev"
case $library in
*.a)
    undefined=$("$nm" -A -u "$library" 2>/dev/null)
    weak=$("$nm" -A "$library" 2>/dev/null | grep -E '_(avx2|avxvnni|avx512|avx512_bf16|amx|neon|neon_dotprod|neon_i8mm)\.cpp\.o:' | grep -E ' [WVu] ' | c++filt || true)
    [ -z "$weak" ] || complain "inline functions compiled for a newer instruction set that baseline code could call" "$weak"
    ;;
*)
    undefined=$("$nm" -D -u "$library")
    exported=$("$nm" -D --defined-only "$library" | grep -vE ' (quant_[a-z0-9_]*|[A-Z_]+ A .*)$' || true)
    [ -z "$exported" ] || complain "exports more than quant_*" "$exported"
    ;;
esac
[ -n "$undefined" ] || complain "no undefined symbols at all: nm cannot read it" "$("$nm" "$library" 2>&1 | head -n 1)"
used=$(echo "$undefined" | grep -E " U _?($forbidden)(@.*)?\$" || true)
[ -z "$used" ] || complain "refers to what a library must not do" "$used"
exit $failed
