// The linears for AMX INT8 and BF16; the rest of that device's kernels are those for AVX-512. kernels.h says what this
// file must not contain.
#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>

#include "backends/cpu/simd.h"

namespace quant {
namespace {

#include "backends/cpu/simd_avx512.h"
//
#include "backends/cpu/simd_avx512_bf16.h"
constexpr int row_tile = 16, weight_tiles = 2;  // 4 tiles of sums, 2 of activations, 2 of weights
constexpr int code_streams = 1;
// In this order: each uses what is above it.
#include "backends/cpu/codes.inl"
//
#include "backends/cpu/tile_reader.inl"
//
#include "backends/cpu/linear.inl"
//
#include "backends/cpu/linear_amx.inl"

int no_bias(const TileShape&) {
    return 0;
}

constexpr CpuKernels amx_linears() {  // constant: nothing here may run on another processor
    CpuKernels k{};
    k.layout = &layout_rows16;
    k.lanes = lanes;
    k.float_block_bytes = tile_row_bytes;
    k.code_bias = no_bias;
    k.prepare_s8 = prepare_s8_tiles;
    k.prepare_f32 = prepare_bf16_tiles;
    k.linear_int8 = {linear_int8_tiles, tiles_together_int8_tiles, scratch_int8_tiles, row_tile, weight_tiles};
    k.linear_s8 = {linear_s8_tiles, tiles_together_s8_tiles, no_scratch, row_tile, weight_tiles};
    k.linear_float = {linear_bf16_tiles, tiles_together_bf16_tiles, scratch_bf16_tiles, row_tile, weight_tiles};
    return k;
}

}  // namespace

const CpuKernels kernels_amx = amx_linears();

}  // namespace quant
#endif
