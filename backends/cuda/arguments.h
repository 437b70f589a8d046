// What kernels are told of a bound node: addresses, strides and sizes. Linears: linear.h.
#pragma once
#include "backends/cuda/recorder.h"

namespace quant {
namespace cuda {

// Where a layer's keys and values lie in a page of the cache (CacheShape in core/backend.h).
struct CachePlaces {
    CacheKind kind;
    int64_t layer_at, head_bytes, values_at, key_scales_at, value_scales_at;  // bytes; the first in a page
};

struct AttentionArguments {
    const float* q;
    float* out;
    int64_t q_stride, out_stride;
    int heads, kv_heads, head_dim, window;
    float scale;
    CachePlaces cache;
    bool short_sequences;  // only the rows of sequences with fewer than fewest_mma_rows
};
AttentionArguments attention_arguments(const Bound& bound);

struct RopeArguments {
    const float *q, *k, *v, *angles;  // null: there is nothing to turn, or to write into the cache
    float* out;
    int64_t q_stride, k_stride, v_stride, angles_stride, out_stride;
    int heads, kv_heads, head_dim;
    bool adjacent, turn_k;
    CachePlaces cache;
};
RopeArguments rope_arguments(const Bound& bound);  // of rope, cache_write or rope_cache_write

// An embedding table: a matrix in layout_stored (see formats/format.h for the bytes).
struct Table {
    const uint8_t *codes, *scales, *zeros;
    Format format;
    int64_t rows, cols, row_bytes, groups;
    int64_t block_bytes;  // GGUF's blocks only
};
Table embedding_table(const Weight& weight);

}  // namespace cuda
}  // namespace quant
