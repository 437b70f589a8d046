// The kernels for AVX2, FMA and F16C. kernels.h says what this file must not contain.
#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>

#include "backends/cpu/simd.h"

namespace quant {
namespace {

#include "backends/cpu/simd_avx2.h"
constexpr int row_tile = 4, weight_tiles = 2;  // 8 sums, 2 weights, an activation and what a product needs, of 16
constexpr int float_row_tile = 6, float_weight_tiles = 2;  // 12 sums, 2 weights, an activation
constexpr int s8_row_tile = row_tile;
constexpr int code_streams = 8, float_streams = 4;
constexpr bool direct_rows = true;
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

#define QUANT_KERNELS kernels_avx2
#define QUANT_LAYOUT layout_rows8
#include "backends/cpu/kernel_list.inl"

}  // namespace quant
#endif
