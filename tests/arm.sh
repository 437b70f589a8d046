#!/bin/sh
# arm.sh ARCHITECTURE BUILD [reduced]: the tests of a cross-compiled build under qemu, once for each feature level of
# aarch64 or armv7, on a processor that has this level and no more and on the device that it chooses. `reduced`, for
# continuous integration: what differs from level to level, every row of the device's kernel table, and whole networks
# on the first level, without the slow tests. The levels of aarch64 do not differ in attention, the slowest of all here.
set -eu
architecture=$1 build=$2 extent=${3:-whole}
case $architecture in
aarch64)
    emulator="qemu-aarch64 -L /usr/aarch64-linux-gnu"
    levels="cortex-a57=cpu:neon neoverse-n1=cpu:neon_dotprod max=cpu:neon_i8mm"
    ;;
armv7)
    emulator="qemu-arm -L /usr/arm-linux-gnueabihf"
    levels="cortex-a15=cpu:neon cortex-a9=cpu:baseline" # Cortex-A9: no VFPv4
    ;;
*)
    echo "arm.sh: no architecture \"$architecture\"" >&2
    exit 2
    ;;
esac

first=yes
for level in $levels; do
    export QEMU_CPU="${level%%=*}" QUANT_DEVICE="${level#*=}"
    best=$($emulator "$build/quant" devices | awk '/^cpu:/ && !/not usable/ { print $1; exit }')
    if [ "$best" != "$QUANT_DEVICE" ]; then
        echo "arm.sh: a $QEMU_CPU should choose $QUANT_DEVICE, but chooses \"$best\"" >&2
        exit 1
    fi
    one="[kernels]" other="~[kernels]" # two halves, for two processors
    if [ $extent = reduced ]; then
        one="[kernels]~[linear]~[slow]" other="[kernels][linear]~[slow]"
        [ $first = no ] || other="$other,[llama]~[slow]"
        [ $first = yes ] || [ $architecture = armv7 ] || one="$one~[attention]"
    fi
    echo "== $architecture, $QEMU_CPU, $QUANT_DEVICE: $one and $other"
    $emulator "$build/tests/quant_tests" "$one" -d "${DURATIONS:-no}" &
    half=$!
    $emulator "$build/tests/quant_tests" "$other" -d "${DURATIONS:-no}"
    wait $half
    [ $first = no ] || [ $extent = reduced ] || (cd "$build" && ctest --output-on-failure -E '^(kernels|tests)$')
    first=no
done
