// Rotary positions and the cache's write.
#include <algorithm>

#include "backends/cuda/emit.h"
#include "backends/cuda/rope.cuh"

namespace quant {
namespace cuda {
namespace {

__global__ void rope_angles(StepView step, const float* frequencies, float* out, int64_t stride, int half) {
    allow_next();
    wait_for_previous();
    const int row = blockIdx.x, i = threadIdx.x;
    if (row >= step.rows(false) || i >= half) return;
    const float2 angle = rope_angle(step.position(row), frequencies[i]);
    out[row * stride + 2 * i] = angle.x;
    out[row * stride + 2 * i + 1] = angle.y;
}

// Blocks [row][part]; a thread turns pairs of q, then (in a cache of kind f16) of k, and copies v.
__global__ void rope(StepView step, RopeArguments a) {
    allow_next();
    const int row = blockIdx.x, half = a.head_dim / 2;
    const bool idle = row >= step.rows(false);
    const float* angles = a.angles + row * a.angles_stride;
    const int position = idle ? 0 : step.position(row), at = position % page_positions;
    uint8_t* page = idle || !a.v ? nullptr : page_of(step, row, position);
    wait_for_previous();
    if (idle) return;
    const int q_pairs = a.q ? a.heads * half : 0, k_pairs = a.k ? a.kv_heads * half : 0;
    for (int n = blockIdx.y * blockDim.x + threadIdx.x; n < q_pairs + k_pairs; n += gridDim.y * blockDim.x) {
        const bool is_q = n < q_pairs;
        const int number = is_q ? n : n - q_pairs, head = number / half, i = number % half;
        Pair pair(a, (is_q ? a.q + row * a.q_stride : a.k + row * a.k_stride) + head * a.head_dim, i);
        if (is_q || a.turn_k) pair.turn(angles, i);
        if (is_q) {
            float* y = a.out + row * a.out_stride + head * a.head_dim;
            y[pair.first] = pair.left;
            y[pair.second] = pair.right;
        } else {
            uint16_t* y = reinterpret_cast<uint16_t*>(CachePage(page, a.cache, head).keys) + at;
            y[pair.first * page_positions] = f32_to_f16(pair.left);
            y[pair.second * page_positions] = f32_to_f16(pair.right);
        }
    }
    if (!a.v) return;
    for (int n = blockIdx.y * blockDim.x + threadIdx.x; n < a.kv_heads * a.head_dim; n += gridDim.y * blockDim.x) {
        const int head = n / a.head_dim, i = n % a.head_dim;
        uint16_t* y = reinterpret_cast<uint16_t*>(CachePage(page, a.cache, head).values);
        y[at * a.head_dim + i] = f32_to_f16(a.v[row * a.v_stride + n]);
    }
}

// Keys of many rows into a cache of kind f16, where the positions of a dimension lie side by side: a block turns 64
// rows of one head and writes them dimension by dimension.
constexpr int key_rows = 64, key_pitch = key_rows + 2;
__global__ void __launch_bounds__(256) write_keys(StepView step, RopeArguments a) {
    extern __shared__ uint16_t turned[];  // [head_dim][key_pitch]
    allow_next();
    wait_for_previous();
    const int first_row = blockIdx.x * key_rows, count = min(key_rows, step.rows(false) - first_row);
    const int head = blockIdx.y, half = a.head_dim / 2;
    for (int n = threadIdx.x; n < count * half; n += blockDim.x) {
        const int r = n / half, i = n % half, row = first_row + r;
        Pair pair(a, a.k + row * a.k_stride + head * a.head_dim, i);
        if (a.turn_k) pair.turn(a.angles + row * a.angles_stride, i);
        turned[pair.first * key_pitch + r] = f32_to_f16(pair.left);
        turned[pair.second * key_pitch + r] = f32_to_f16(pair.right);
    }
    __syncthreads();
    const int r = threadIdx.x % key_rows, row = first_row + r;
    if (r >= count) return;
    const int position = step.position(row);
    uint16_t* keys = reinterpret_cast<uint16_t*>(CachePage(page_of(step, row, position), a.cache, head).keys) +
                     position % page_positions;
    for (int i = threadIdx.x / key_rows; i < a.head_dim; i += blockDim.x / key_rows)
        keys[i * page_positions] = turned[i * key_pitch + r];
}

// A warp for the keys or the values of a row and KV head.
template <CacheKind kind>
__global__ void __launch_bounds__(32) write_codes(StepView step, RopeArguments a) {
    allow_next();
    wait_for_previous();
    const int row = blockIdx.x, head = blockIdx.y / 2;
    if (row >= step.rows(false)) return;
    const bool is_key = blockIdx.y % 2 == 0;
    const float* x = (is_key ? a.k + row * a.k_stride : a.v + row * a.v_stride) + head * a.head_dim;
    const int position = step.position(row);
    write_head<kind>(a, CachePage(page_of(step, row, position), a.cache, head), position % page_positions, is_key, x,
                     a.angles + row * a.angles_stride);
}

// ---- Host ---------------------------------------------------------------------------------------------------------

void launch_rope(Recorder& recorder, RopeArguments a) {
    const int rows = recorder.max_rows;
    const bool many = rows > key_rows;
    if (a.k && a.cache.kind != CacheKind::f16) {
        recorder.launch(a.cache.kind == CacheKind::s8 ? write_codes<CacheKind::s8> : write_codes<CacheKind::e4m3>,
                        dim3(rows, 2 * a.kv_heads), dim3(32), 0, recorder.view(), a);
        a.k = a.v = nullptr;
        if (!a.q) return;
    } else if (a.k && many) {
        recorder.launch(write_keys, dim3((rows + key_rows - 1) / key_rows, a.kv_heads), dim3(256),
                        a.head_dim * key_pitch * sizeof(uint16_t), recorder.view(), a);
        a.k = nullptr;
    }
    const int pairs = ((a.q ? a.heads : 0) + (a.v ? a.kv_heads : 0)) * a.head_dim / 2;
    const int parts = (pairs + 255) / 256;
    recorder.launch(rope, dim3(rows, many ? std::min(parts, 4) : parts), dim3(256), 0, recorder.view(), a);
}

}  // namespace

void emit_rope_angles(Recorder& recorder, const Bound& b) {
    const int half = static_cast<int>(b.out.cols / 2);
    recorder.launch(rope_angles, dim3(recorder.max_rows), dim3((half + 31) / 32 * 32), 0, recorder.view(),
                    reinterpret_cast<const float*>(device_pointer(b.node.weight->data)), f32_pointer(b.out),
                    b.out.stride, half);
}

void emit_rope(Recorder& recorder, const Bound& b) {
    launch_rope(recorder, rope_arguments(b));
}

void emit_cache_write(Recorder& recorder, const Bound& b) {
    launch_rope(recorder, rope_arguments(b));
}

void emit_rope_cache_write(Recorder& recorder, const Bound& b) {
    launch_rope(recorder, rope_arguments(b));
}

}  // namespace cuda
}  // namespace quant
