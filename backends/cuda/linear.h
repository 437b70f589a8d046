// Linears with weights in layout "fragments": the arguments of their kernels and which kernel is chosen.
#pragma once
#include "backends/cuda/device_step.h"
#include "backends/cuda/layouts.h"
#include "backends/cuda/recorder.h"
#include "backends/cuda/tensor_map.h"

namespace quant {
namespace cuda {

constexpr int row_warps = 16;          // of a block of linear_rows.cuh
constexpr int most_rows_repeated = 2;  // whose input linear_rows.cuh may compute: each of its blocks repeats that
constexpr int row_quads = 3;           // of four columns, of a row, that a thread of it has in flight
// linear_wgmma.cuh: weight tiles of a block; columns are counted in chunks, and an even number of those.
constexpr int many_tiles = 8, many_chunks_together = 2, many_threads = 384;
// linear_few.cu: threads of a block, blocks of a multiprocessor, and shares of the next weight that a block prefetches.
constexpr int few_threads = 160, few_blocks = 3, few_shares = 4;
QUANT_HOST_DEVICE inline int64_t many_chunks(int64_t cols, int chunk_cols) {
    const int64_t wide = int64_t{many_chunks_together} * chunk_cols;
    return (cols + wide - 1) / wide * many_chunks_together;
}

struct LinearArguments {
    // Weights.
    const uint8_t* tiles;
    int64_t tile_bytes, tile_count, weight_rows, cols;
    int stages, parameters_at, group_blocks, last_group;
    bool half_parameters, has_offsets, is_minimum;  // is_minimum: q s + m, else (q - z) s
    const float* bias;
    // Activations.
    const uint8_t* in;
    int64_t in_stride;  // elements (f32) or bytes (codes)
    ValueType in_type;
    bool in_aligned;  // 16 bytes at a time
    const RowScale* row_scales;
    const float* norm_gain;  // the input is rmsnorm(in) with this gain; null: it is `in`
    float norm_eps;
    bool rounds;      // linear_rows.cuh: the input, or its rmsnorm, is rounded to codes (can_round_input)
    const float* up;  // the input is silu(in) * up; null: it is `in`
    int64_t up_stride;
    const float* add;  // linear_add
    int64_t add_stride;
    float* out;
    int64_t out_stride;
    bool out_aligned;  // 16 bytes at a time, and `add`
    bool outputs;      // rows are the step's outputs
    bool pairs;        // linear_rows.cuh: out is silu(first half of the rows) * second half
    // linear_rows.cuh: how blocks and warps share the work.
    int parts, groups, group_tiles, segments;
    int x_rows, x_pitch, x_sums;
    // The next linear's weights, of which each warp prefetches the beginning of its share.
    const uint8_t* next;
    int64_t next_shares, next_stride, next_part_stride;
    int next_parts, next_bytes;  // of a share
    void* partial;
    uint32_t* arrived;
    // linear_wgmma.cuh: activations laid out by lay_out_halves.
    const uint8_t* tokens;
    float* token_sums;  // of codes' rows, for offsets
    int cluster;        // blocks that share the weights' codes
};

// What kernels of every layout are told of a linear's values.
template <class Arguments>
void set_linear_values(Arguments& a, const Bound& b) {
    a.weight_rows = b.node.weight->rows;
    a.cols = b.node.weight->cols;
    a.bias = bias_of(*b.node.weight);
    a.in = device_pointer(b.in[0].data);
    a.in_stride = b.in[0].stride;
    if (b.in[0].type != ValueType::f32) a.row_scales = row_scales(b.in[0]);
    if (b.node.op == Op::linear_add) {
        a.add = f32_pointer(b.in[1]);
        a.add_stride = b.in[1].stride;
    }
    a.out = f32_pointer(b.out);
    a.out_stride = b.out.stride;
    a.outputs = b.out.rows == Rows::outputs;
}
LinearArguments linear_arguments(const Bound& bound);
// 0 none, 1 one per row, 2 groups of whole stages, 3 any group of whole blocks.
int linear_scales(const Weight& weight);
// Of int8 codes, with integer sums.
bool is_integer_product(const Bound& linear);

using LinearKernel = void (*)(StepView, LinearArguments);

// scales: of linear_scales. tiles_of_8: 1, 2 or 4.
LinearKernel rows_kernel_16(bool bf16, int tiles_of_8);
LinearKernel rows_kernel_s8(int tiles_of_8, int scales);
LinearKernel rows_kernel_u8(int tiles_of_8, int scales);
LinearKernel rows_kernel_e4m3(int tiles_of_8, int scales, bool rounds);
LinearKernel rows_kernel_u4(int tiles_of_8, int scales);
LinearKernel rows_kernel_integer(Element element, int tiles_of_8, bool rounds);
// Whether there is a kernel of few rows that rounds the linear's input to its codes.
bool can_round_input(const Bound& linear);

// Whether a linear of that many rows has its activations laid out by a kernel of its own (linear_wgmma.cuh).
bool has_tokens_laid_out(const DeviceTraits& traits, int max_rows, const Bound& linear);

// codes: exact codes in 16 bits, scaled at the end; promoted: the same, but sums are scaled every 64 columns; scaled:
// each weight rounded to f16; integer: int8; e4m3: Hopper's own products, which keep about 14 bits of a sum, each sum
// of 256 columns added in float32; e4m3_groups: of 128, scaled.
enum class ManyMode { none = -1, codes, promoted, scaled, integer, e4m3, e4m3_groups };  // none: linear_rows.cuh

// Where those kernels find the activations, as token_kernel lays them out, tiles of a chunk of columns of `tokens`
// tokens, or in their own rows, and the codes of the weight tiles.
struct ManyMaps {
    CUtensorMap tokens, weights;
};
struct ManyKernel {
    void (*kernel)(StepView, LinearArguments, ManyMaps);
    int tokens;        // of a tile of the result
    int copied_bytes;  // of a weight tile by one copy
    int shared_bytes;
};
// Whether both operands are multiplied from shared memory, bytes as they lie in memory.
QUANT_HOST_DEVICE constexpr bool multiplies_bytes(FragmentKind kind, ManyMode mode) {
    return kind == FragmentKind::bits8 && mode >= ManyMode::integer;
}
// The kernel whose tiles are of that many tokens, or of 128.
ManyKernel many_kernel(Element element, ManyMode mode, int tokens);
// linear_few.cu: for as many rows; the mode is one of those that multiply bytes.
ManyKernel few_kernel(Element element, ManyMode mode, int rows);
// Kernel that lays activations out for a mode; bf16 and the order of columns follow from the weights. Null: their own
// rows are as the products want them.
LinearKernel token_kernel(Element element, ManyMode mode);

}  // namespace cuda
}  // namespace quant
