// What the attention kernels share.
#pragma once
#include "backends/cuda/device.cuh"
#include "backends/cuda/recorder.h"

namespace quant {
namespace cuda {

struct AttentionArguments {
    const float* q;
    float* out;
    int64_t q_stride, out_stride;
    int heads, kv_heads, head_dim, window;
    float scale;
    int64_t layer_at, values_at;  // bytes, in a page
};
AttentionArguments attention_arguments(const Bound& bound);

// The positions that a row sees.
struct Range {
    int begin, end;
};
__device__ inline Range visible(const StepView& step, int row, int window) {
    const int end = step.position(row) + 1;
    return {window ? max(0, end - window) : 0, end};
}

// One key head's part of a page: keys [head_dim][64], values [64][head_dim].
struct CachePage {
    const __half *keys, *values;
    __device__ CachePage(const StepView& step, int first_page, int page, const AttentionArguments& a, int kv_head) {
        const uint8_t* layer = step.page(first_page + page) + a.layer_at;
        const int64_t head = static_cast<int64_t>(kv_head) * a.head_dim * page_positions;
        keys = reinterpret_cast<const __half*>(layer) + head;
        values = reinterpret_cast<const __half*>(layer + a.values_at) + head;
    }
};

}  // namespace cuda
}  // namespace quant
