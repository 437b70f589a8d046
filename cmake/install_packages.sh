#!/bin/sh
# install_packages.sh GROUP...: what is missing to build, test, bench, fuzz, format, for the Vulkan backend, to try the
# consumers, or to build for and test on arm or armv7. On Debian and its relatives the packages are installed, after
# saying which; elsewhere they are named.
set -eu

have_command() { command -v "$1" >/dev/null 2>&1; }
have_header() {
    for prefix in /usr /usr/local /opt/homebrew $(echo "${CMAKE_PREFIX_PATH:-}" | tr ':;' '  '); do
        [ -e "$prefix/include/$1" ] && return 0
    done
    return 1
}
can_fuzz() {
    echo 'extern "C" int LLVMFuzzerTestOneInput(const unsigned char*, unsigned long) { return 0; }' |
        clang++ -x c++ -fsanitize=fuzzer,address - -o /dev/null 2>/dev/null
}
missing=
need() { missing="$missing $1"; } # Debian's package name

for group in "$@"; do
    case $group in
    build)
        have_command "${CXX:-c++}" || need g++
        have_command cmake || need cmake
        have_command ninja || have_command make || need ninja-build
        have_header nlohmann/json.hpp || need nlohmann-json3-dev
        have_header CLI/CLI.hpp || need libcli11-dev
        ;;
    test) have_header catch2/catch.hpp || have_header catch2/catch_all.hpp || need catch2 ;;
    vulkan)
        have_header vulkan/vulkan_core.h || need libvulkan-dev
        have_command glslc || need glslc
        ;;
    arm)
        have_command aarch64-linux-gnu-g++ || need g++-aarch64-linux-gnu
        have_command qemu-aarch64 || need qemu-user
        ;;
    armv7)
        have_command arm-linux-gnueabihf-g++ || need g++-arm-linux-gnueabihf
        have_command qemu-arm || need qemu-user
        ;;
    bench) have_header benchmark/benchmark.h || need libbenchmark-dev ;;
    consumers) have_command pkg-config || need pkg-config ;;
    format) have_command clang-format || need clang-format ;;
    fuzz) can_fuzz || need "clang libclang-rt-dev" ;;
    *)
        echo "install_packages.sh: no group '$group'" >&2
        exit 2
        ;;
    esac
done
[ -n "$missing" ] || exit 0

if ! have_command apt-get; then
    echo "Not found, by Debian's names:$missing. If the build stops for want of them, install them and run make again." >&2
    exit 0
fi
if [ "$(id -u)" = 0 ]; then
    as_root=
elif have_command sudo; then
    as_root=sudo
else
    echo "Missing packages:$missing. As root, run: apt-get install$missing" >&2
    exit 1
fi
echo "Installing missing packages:$missing"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { $as_root apt-get update && $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
    $missing; } >"$log" 2>&1; then
    tail -n 5 "$log" >&2
    echo "Could not install:$missing. Install them by hand, then run make again." >&2
    exit 1
fi
