// The integer linears for AVX-VNNI (256 bit); the rest of that device's kernels are those for AVX2. kernels.h says what
// this file must not contain.
#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>

#include "backends/cpu/simd.h"

namespace quant {
namespace {

#define QUANT_AVX_VNNI
#include "backends/cpu/simd_avx2.h"
constexpr int row_tile = 6, weight_tiles = 2;  // 12 sums, 2 weights, an activation, of 16 registers
constexpr int s8_row_tile = row_tile;
constexpr int code_streams = 8;
constexpr bool direct_rows = true;
// In this order: each uses what is above it.
#include "backends/cpu/codes.inl"
//
#include "backends/cpu/linear.inl"
//
#include "backends/cpu/linear_int8.inl"

constexpr CpuKernels integer_linears() {  // constant: nothing here may run on another processor
    CpuKernels k{};
    k.layout = &layout_rows8;
    k.lanes = lanes;
    k.code_bias = code_bias;
    k.prepare_int8 = prepare_int8;
    k.prepare_s8 = prepare_s8;
    k.linear_int8 = {linear_int8, tiles_together_int8, scratch_int8, row_tile, weight_tiles};
    k.linear_s8 = {linear_s8, tiles_together_int8, scratch_s8, s8_row_tile, weight_tiles};
    return k;
}

}  // namespace

const CpuKernels kernels_avxvnni = integer_linears();

}  // namespace quant
#endif
