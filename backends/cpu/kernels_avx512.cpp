// The kernels for AVX-512 F, BW, VL, DQ and VNNI. kernels.h says what this file must not contain.
#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>

#include "backends/cpu/simd.h"

namespace quant {
namespace {

#include "backends/cpu/simd_avx512.h"
constexpr int row_tile = 6, weight_tiles = 2;  // 12 integer and 12 float sums, 2 weights, an activation: 27 registers
constexpr int float_row_tile = 8, float_weight_tiles = 3;  // 24 sums, 3 weights, an activation
constexpr int s8_row_tile = 8;                             // 16 sums, 2 weights, an activation
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

#define QUANT_KERNELS kernels_avx512
#define QUANT_LAYOUT layout_rows16
#include "backends/cpu/kernel_list.inl"

}  // namespace quant
#endif
