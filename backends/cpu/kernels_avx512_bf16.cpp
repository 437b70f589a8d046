// The linears of bf16 and e4m3 for AVX-512 BF16; the rest of that device's kernels are those for AVX-512. kernels.h
// says what this file must not contain.
#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>

#include "backends/cpu/simd.h"

namespace quant {
namespace {

#include "backends/cpu/simd_avx512.h"
//
#include "backends/cpu/simd_avx512_bf16.h"
constexpr int row_tile = 8, weight_tiles = 3;  // 24 sums, 3 weights, an activation: 28 registers
constexpr int float_row_tile = row_tile, float_weight_tiles = weight_tiles;
constexpr int code_streams = 8, float_streams = 4;
// In this order: each uses what is above it.
#include "backends/cpu/codes.inl"
//
#include "backends/cpu/tile_reader.inl"
//
#include "backends/cpu/linear.inl"
//
#include "backends/cpu/linear_decoded.inl"
//
#include "backends/cpu/linear_bf16.inl"

constexpr CpuKernels bf16_linears() {  // constant: nothing here may run on another processor
    CpuKernels k{};
    k.layout = &layout_rows16;
    k.lanes = lanes;
    k.float_block_bytes = sizeof(float) * pair_words;
    k.prepare_f32 = prepare_bf16;
    k.prepare_e4m3 = prepare_e4m3_pairs;
    k.linear_float = {linear_pairs, tiles_together_decoded, scratch_pairs, row_tile, weight_tiles};
    return k;
}

}  // namespace

const CpuKernels kernels_avx512_bf16 = bf16_linears();

}  // namespace quant
#endif
