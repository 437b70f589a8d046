// What the attention kernels share.
#pragma once
#include "backends/cuda/cache_page.cuh"

namespace quant {
namespace cuda {

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
