#!/bin/sh
# run.sh BUILD: installs quant, static and shared, into BUILD and builds and runs a consumer of each kind against it:
# find_package and pkg-config, C and C++. All of them and the installed command must print the same text.
set -eu
mkdir -p "$1"
build=$(cd "$1" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
source=$here/../..
model=$source/models/tiny
cc=${CC:-cc} cxx=${CXX:-c++}
generator=$(command -v ninja >/dev/null 2>&1 && echo "-G Ninja" || true)
launcher=$(command -v ccache >/dev/null 2>&1 && echo "-DCMAKE_CXX_COMPILER_LAUNCHER=ccache" || true)

quietly() { "$@" >"$build/log" 2>&1 || { cat "$build/log" >&2; exit 1; }; }
expect() { # NAME COMMAND...: prints the text that the others print
    name=$1
    shift
    text=$("$@")
    [ -n "${first:-}" ] || first=$text
    [ "$text" = "$first" ] || { echo "$name printed '$text', not '$first'" >&2; exit 1; }
    echo "$name: ok"
}

for kind in static shared; do
    prefix=$build/$kind-prefix
    rm -rf "$prefix" "$build/$kind-moved" "$build/$kind-C" "$build/$kind-CXX"
    # shellcheck disable=SC2086
    quietly cmake -S "$source" -B "$build/$kind" $generator $launcher -DCMAKE_BUILD_TYPE=Release -DQUANT_BUILD_TESTS=OFF -DQUANT_CUDA=OFF \
        -DBUILD_SHARED_LIBS="$([ $kind = shared ] && echo ON || echo OFF)"
    quietly cmake --build "$build/$kind" -j "$(nproc 2>/dev/null || echo 2)"
    quietly cmake --install "$build/$kind" --prefix "$prefix"
    mv "$prefix" "$build/$kind-moved" # an installed copy may be moved
    prefix=$build/$kind-moved
    library=$(dirname "$(find "$prefix" -name 'libquant.*' | head -n 1)")
    LD_LIBRARY_PATH=$library
    DYLD_LIBRARY_PATH=$library
    PKG_CONFIG_PATH=$library/pkgconfig
    export LD_LIBRARY_PATH DYLD_LIBRARY_PATH PKG_CONFIG_PATH

    expect "$kind command" "$prefix/bin/quant" run "$model" -p Once -n 8 --temp 0 2>"$build/statistics"
    for language in C CXX; do
        # shellcheck disable=SC2086
        quietly cmake -S "$here/cmake" -B "$build/$kind-$language" $generator -DCMAKE_PREFIX_PATH="$prefix" -DLANGUAGE=$language
        quietly cmake --build "$build/$kind-$language"
        expect "$kind find_package, $language" "$build/$kind-$language/consumer" "$model"
    done

    flags=$([ $kind = static ] && echo --static || true)
    # shellcheck disable=SC2046,SC2086
    quietly $cc -std=c99 "$here/consumer.c" -o "$build/$kind-pkg-c" $(pkg-config --cflags --libs $flags quant)
    expect "$kind pkg-config, C" "$build/$kind-pkg-c" "$model"
    # shellcheck disable=SC2046,SC2086
    quietly $cxx -std=c++17 "$here/consumer.cpp" -o "$build/$kind-pkg-cpp" $(pkg-config --cflags --libs $flags quant)
    expect "$kind pkg-config, C++" "$build/$kind-pkg-cpp" "$model"
done
"$source/tests/symbols.sh" nm "$(find "$build/shared-moved" -name 'libquant.so*' -type f | head -n 1)"
