// What the attention kernels share.
#pragma once
#include "backends/cuda/cache_page.cuh"
#include "backends/cuda/recorder.h"

namespace quant {
namespace cuda {

struct AttentionArguments {
    const float* q;
    float* out;
    int64_t q_stride, out_stride;
    int heads, kv_heads, head_dim, window;
    float scale;
    CachePlaces cache;
    bool short_sequences;  // only the rows of sequences with fewer than fewest_mma_rows
};

// attention_mma.cu: head dimensions 64 and 128, all rows but those of short sequences.
constexpr int fewest_mma_rows = 8;
void launch_attention_mma(Recorder& recorder, const AttentionArguments& a);

// The positions that a row sees.
struct Range {
    int begin, end;
};
__device__ inline Range visible(const StepView& step, int row, int window) {
    const int end = step.position(row) + 1;
    return {window ? max(0, end - window) : 0, end};
}

}  // namespace cuda
}  // namespace quant
