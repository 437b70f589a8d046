// What an instruction set implements: plain functions over plain arguments. The files kernels_avx2.cpp,
// kernels_neon.cpp and so on, which hold them, must define no symbol that another file could be linked to (no inline
// function or template with external linkage: the linker may keep the copy that only a newer processor runs). So
// everything with standard library types is in kernels.cpp, and helpers that both sides use are `static inline`.
#pragma once
#include <cstddef>
#include <cstdint>

#include "core/backend.h"
#include "formats/layout_rows.h"

#if defined(__aarch64__) || defined(_M_ARM64)
#define QUANT_ARM_64
#endif
#if defined(QUANT_ARM_64) || (defined(__arm__) && defined(__ARM_FP) && __ARM_ARCH >= 7)
#define QUANT_ARM
#endif

namespace quant {

// The rows of a step, cut into tiles of almost equal size of at most `most` rows.
struct RowTiles {
    int rows, tiles;
};
static inline RowTiles row_tiles(int rows, int most) {
    return {rows, (rows + most - 1) / most};
}
static inline int tile_first(RowTiles t, int i) {
    int extra = t.rows % t.tiles;
    return i * (t.rows / t.tiles) + (i < extra ? i : extra);
}
static inline int tile_count(RowTiles t, int i) {
    return t.rows / t.tiles + (i < t.rows % t.tiles ? 1 : 0);
}

// Activations of a tile of C rows as int8 with a scale per 32 columns: per block
//     int8 codes[C][32], float scale[C], int32 start[2][C], float group_sum[C]
// start: -zero * sum of codes, what the integer sum of products starts from (of each half if a group is 16 columns,
// else of the block in [0]); group_sum: sum of code * scale over the group that ends in this block, for minima.
constexpr int int8_block_bytes = 48;  // per row

struct Int8Activations {
    const float* in;
    int64_t in_stride, cols;
    int blocks, zero, group_halves;
};

struct LinearOutput {
    const float* bias;  // or null
    const float* add;   // a matrix to add, or null
    float* out;
    int64_t add_stride, out_stride, rows;  // rows of the weight = columns of out
};
struct LinearInput {
    const uint8_t* activations;  // prepared; tile i of row_tiles(rows, LinearKernel::row_tile) after tile i-1
    size_t row_bytes;            // of prepared activations
    const RowScale* row_scales;  // null for float input
    int rows;
};
struct LinearWeights {
    const TileShape* shape;
    const uint8_t* tiles;
    bool one_stream;  // Processor::one_stream: one row is multiplied with one tile at a time
};

struct AttentionTile {  // some rows of one sequence, the query heads of one KV head
    const float* q;     // of the first row and head; heads are head_dim apart
    float* out;
    int64_t q_stride, out_stride;
    int rows, heads, head_dim, window;
    int first_position;  // of the first row
    float scale;
    const uint8_t* (*page)(const void* context, int page);  // this layer's memory in the page of those positions
    const void* context;
    CacheKind kind;
    size_t keys, values, key_scales, value_scales;  // this KV head's, in a layer's memory
};

// Multiplies prepared activations with a run of weight tiles.
struct LinearKernel {
    void (*run)(const LinearWeights& weights, const LinearInput& in, const LinearOutput& out, int first_tile, int tiles,
                uint8_t* scratch);
    int (*tiles_together)(const TileShape& shape);  // that stay in the cache while all rows pass by
    size_t (*scratch)(const TileShape& shape, int max_rows);
    int row_tile;      // activation rows multiplied together
    int weight_tiles;  // tiles of a weight multiplied together
};

struct CpuKernels {
    const Layout* layout;
    int lanes;                 // rows of a tile
    int code_streams;          // the same with one row, unless one_stream; of floats as many or fewer
    bool direct_rows;          // linear_float takes one row of float activations as it is, not prepared
    size_t float_block_bytes;  // of prepared activations of linear_float, a row's block of columns

    int (*code_bias)(const TileShape& shape);  // that is in the codes of linear_int8's products

    // Linears. A first phase prepares the activations tile by tile, a second multiplies them with runs of weight tiles.
    void (*prepare_int8)(const Int8Activations& from, int first_row, int rows, uint8_t* to);
    void (*prepare_s8)(const uint8_t* codes, int64_t stride, int blocks, int first_row, int rows, uint8_t* to);
    void (*prepare_f32)(const float* in, int64_t stride, int64_t cols, int blocks, int first_row, int rows,
                        uint8_t* to);
    void (*prepare_e4m3)(const uint8_t* codes, int64_t stride, int blocks, int first_row, int rows, uint8_t* to);
    LinearKernel linear_int8, linear_s8, linear_float;

    // Rows. Quantized outputs: codes padded with zeros to codes_stride(cols).
    void (*rmsnorm)(const float* in, const float* weight, float eps, int64_t cols, float* out);
    void (*silu_mul)(const float* gate, const float* up, int64_t cols, float* out);
    void (*add)(const float* a, const float* b, int64_t cols, float* out);
    void (*quantize_s8)(const float* in, int64_t cols, uint8_t* codes, RowScale* scale);
    void (*quantize_e4m3)(const float* in, int64_t cols, uint8_t* codes, RowScale* scale);
    void (*rope)(const float* in, const float* angles, int heads, int head_dim, bool adjacent_pairs, float* out);
    void (*to_f16)(const float* in, int64_t n, uint16_t* out);
    // One KV head's values at one position as the cache keeps them; their f16 scale is returned.
    uint16_t (*head_s8)(const float* in, int64_t n, uint8_t* codes);
    uint16_t (*head_e4m3)(const float* in, int64_t n, uint8_t* codes);

    void (*attention)(const AttentionTile& tile, uint8_t* scratch);
    size_t (*scratch_attention)(int max_queries, int head_dim);
};

extern const CpuKernels kernels_baseline;
#if defined(__x86_64__) || defined(_M_X64)
extern const CpuKernels kernels_avx2, kernels_avx512;
extern const CpuKernels kernels_avxvnni;  // integer linears only, over the layout of kernels_avx2
// linear_float and what prepares its activations only: bf16 weights with activations rounded to bf16, and e4m3 weights
// with e4m3 activations; over the layout of kernels_avx512.
extern const CpuKernels kernels_avx512_bf16;
// Linears only: those of integer weights for many rows, with the results of kernels_avx512, and linear_float of bf16
// weights with activations rounded to bf16; over the layout of kernels_avx512.
extern const CpuKernels kernels_amx;
#endif
#if defined(QUANT_ARM)
extern const CpuKernels kernels_neon;
#endif
#if defined(QUANT_ARM_64)
extern const CpuKernels kernels_neon_dotprod, kernels_neon_i8mm;
#endif

}  // namespace quant
