// How the CUDA kernels want weights in memory.
#pragma once
#include "core/backend.h"

#ifdef __CUDACC__
#define QUANT_HOST_DEVICE __host__ __device__
#else
#define QUANT_HOST_DEVICE
#endif

namespace quant {
namespace cuda {

// "plain": per tile of 16 rows: codes a byte each (float elements: their bytes) [16][cols], then for quantized elements
// scales [16][groups] and offsets [16][groups] in float32, as unpack_row gives them. Any format.
extern const Layout layout_plain;
struct PlainTile {
    size_t row_bytes, scales_at, offsets_at, bytes;
    int64_t groups;
};
PlainTile plain_tile(const Format& format, int64_t cols);

// "fragments": per tile of 16 rows, codes in the order in which tensor cores take an operand: stage after stage of 1024
// bytes. Codes of 16 and 4 bits lie as the lanes of a warp hold them: a stage is two loads of 16 bytes by 32 lanes.
// Codes of 8 bits lie as Hopper's products and ldmatrix take them from shared memory: in matrices of 8 rows by 16
// columns, 16 bytes a row. In registers, lane 4 g + t holds rows g and g + 8, and of each block of 32 columns the 8
// that fragment_column(kind, t, 0..7) names:
//
//     16 bit   stage = 32 columns    load 0: row g, load 1: row g + 8
//      8 bit   stage = 64 columns    four matrices side by side of rows 0 to 7, then four of rows 8 to 15
//      4 bit   stage = 128 columns   load j: words (block 2j: row g, row g + 8; block 2j + 1: row g, row g + 8), each
//                                    with columns 0 2 4 6 1 3 5 7 in its nibbles, lowest first
//
// then (quantized elements) per group and g the (scale, offset) pairs of rows g and g + 8, as unpack_row gives them, in
// f16 if the format's scale is a plain f16, else in float32.
extern const Layout layout_fragments;
enum class FragmentKind : uint8_t { bits16, bits8, bits4 };
struct FragmentTile {
    FragmentKind kind;
    int stage_cols, stages;
    bool half_parameters;
    int group_blocks;  // blocks of 32 columns in a group; the whole row if there is one group
    int groups;
    size_t parameters_at, bytes;
};
constexpr int matrix_bytes = 128;  // of 8 bit codes; two of them, side by side, are a block of 32 columns
bool fragments_hold(const Format& format);
FragmentTile fragment_tile(const Format& format, int64_t cols);
QUANT_HOST_DEVICE constexpr int fragment_column(FragmentKind kind, int t, int i) {
    return kind == FragmentKind::bits8 ? (i < 4 ? 4 * t + i : 16 + 4 * t + i - 4) : 8 * t + i;
}

}  // namespace cuda
}  // namespace quant
