// What every kernels_<instruction set>.cpp needs around its vector vocabulary. Included outside of any namespace.
#pragma once
#include <cstring>
#include <type_traits>
#include <utility>

#include "backends/cpu/kernels.h"

#if defined(_MSC_VER)
#define QUANT_INLINE __forceinline
#define QUANT_INLINE_LAMBDA
#define QUANT_NOINLINE __declspec(noinline)
#define QUANT_UNROLL
#else
#define QUANT_INLINE inline __attribute__((always_inline))
#define QUANT_INLINE_LAMBDA __attribute__((always_inline))
#define QUANT_NOINLINE __attribute__((noinline))
#if defined(__clang__)
#define QUANT_UNROLL _Pragma("clang loop unroll(full)")
#else
#define QUANT_UNROLL _Pragma("GCC unroll 32")
#endif
#endif
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"  // GCC's own AVX-512 headers
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
