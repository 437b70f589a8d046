// The kernels for any processor.
#include <cmath>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "backends/cpu/simd.h"
#include "formats/float_types.h"

#if defined(__GNUC__)
#pragma GCC diagnostic ignored "-Wpsabi"  // vectors wider than the processor's are only passed within this file
#endif

namespace quant {
namespace {

#include "backends/cpu/simd_portable.h"
constexpr int row_tile = 2, weight_tiles = 1;
constexpr int float_row_tile = 2, float_weight_tiles = 1;
constexpr int s8_row_tile = row_tile;
constexpr int code_streams = 1, float_streams = 1;
constexpr bool direct_rows = false;  // smaller code
// In this order: each uses what is above it.
#include "backends/cpu/codes.inl"
//
#include "backends/cpu/linear.inl"
//
#include "backends/cpu/linear_int8.inl"
//
#include "backends/cpu/tile_reader.inl"
//
#include "backends/cpu/linear_decoded.inl"
//
#include "backends/cpu/linear_float.inl"
//
#include "backends/cpu/rowwise.inl"
//
#include "backends/cpu/attention.inl"

}  // namespace

#define QUANT_KERNELS kernels_baseline
#define QUANT_LAYOUT layout_rows8
#include "backends/cpu/kernel_list.inl"

}  // namespace quant
