// The most likely tokens of a row of logits, in the reference's order.
#include "backends/cuda/device.cuh"
#include "backends/cuda/emit.h"
#include "core/backend.h"

namespace quant {
namespace cuda {
namespace {

using Key = unsigned long long;
constexpr int threads = 1024;

// Keys descend in the reference's order and are all different: bits of the value that compare like integers (equal for
// both zeros, 0 for NaN), then the column, the lowest first. 0 is below every key.
__device__ inline Key key_of(const float* x, uint32_t column) {
    const uint32_t bits = __float_as_uint(x[column] + 0.f);
    const uint32_t ordered = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return static_cast<Key>(isnan(x[column]) ? 0 : ordered) << 32 | ~column;
}

__device__ inline Key larger(Key a, Key b) {
    return a > b ? a : b;
}
__device__ inline Key warp_max(Key x) {
    for (int i = 16; i > 0; i >>= 1) x = larger(x, __shfl_xor_sync(0xffffffffu, x, i));
    return x;
}

// Sorts one key of each thread, the largest to thread 0 (bitonic).
__device__ inline Key sort(Key key, Key* shared) {
    const int thread = static_cast<int>(threadIdx.x);
    for (int size = 2; size <= threads; size *= 2)
        for (int stride = size / 2; stride > 0; stride /= 2) {
            Key other;
            if (stride < 32) {
                other = __shfl_xor_sync(0xffffffffu, key, stride);
            } else {
                __syncthreads();
                shared[thread] = key;
                __syncthreads();
                other = shared[thread ^ stride];
            }
            const bool descends = (thread & size) == 0, first = (thread & stride) == 0;
            if ((other > key) == (descends == first)) key = other;
        }
    return key;
}

__device__ inline void write_pair(float* out, int at, const float* x, uint32_t column) {
    out[2 * at] = x[column];
    out[2 * at + 1] = static_cast<float>(column);
}

// One block a row. Each thread has the largest of its columns. At least k columns reach the k-th largest of those, and
// they are columns of k threads: few enough to count for each how many are larger.
__global__ void __launch_bounds__(threads) top_k(StepView step, bool outputs, const float* in, int64_t in_stride,
                                                 uint32_t cols, float* out, int64_t out_stride, int k) {
    extern __shared__ Key shared[];
    __shared__ Key least;
    __shared__ uint32_t count;
    allow_next();
    wait_for_previous();
    const int row = blockIdx.x;
    if (row >= step.rows(outputs)) return;
    const float* x = in + row * in_stride;
    out += row * out_stride;
    const int thread = static_cast<int>(threadIdx.x);

    Key largest = 0;
#pragma unroll 8
    for (uint32_t c = thread; c < cols; c += threads) largest = larger(largest, key_of(x, c));
    if (k == 1) {
        largest = block_reduce(largest, shared, Key{0}, [](Key key) { return warp_max(key); });
        if (thread == 0) write_pair(out, 0, x, ~static_cast<uint32_t>(largest));
        return;
    }

    const Key sorted = sort(largest, shared);
    if (thread == k - 1) least = sorted;
    if (thread == 0) count = 0;
    __syncthreads();
    uint32_t* columns = reinterpret_cast<uint32_t*>(shared);
    if (largest >= least)
        for (uint32_t c = thread; c < cols; c += threads)
            if (key_of(x, c) >= least) columns[atomicAdd(&count, 1u)] = c;
    __syncthreads();
    for (uint32_t i = thread; i < count; i += threads) {
        const Key key = key_of(x, columns[i]);
        int before = 0;
        for (uint32_t j = 0; j < count; ++j) before += key_of(x, columns[j]) > key;
        if (before < k) write_pair(out, before, x, columns[i]);
    }
}

}  // namespace

void emit_top_k(Recorder& recorder, const Bound& b) {
    const int64_t k = b.out.cols / 2, each = (b.in[0].cols + threads - 1) / threads;
    const size_t sorting = threads * sizeof(Key), columns = static_cast<size_t>(k * each) * sizeof(uint32_t);
    const int64_t rows = static_cast<int64_t>(b.out.data.bytes / sizeof(float)) / b.out.stride;
    recorder.launch(top_k, dim3(static_cast<unsigned>(rows)), dim3(threads),
                    k == 1 || sorting > columns ? sorting : columns, recorder.view(), b.out.rows == Rows::outputs,
                    f32_pointer(b.in[0]), b.in[0].stride, static_cast<uint32_t>(b.in[0].cols), f32_pointer(b.out),
                    b.out.stride, static_cast<int>(k));
}

}  // namespace cuda
}  // namespace quant
