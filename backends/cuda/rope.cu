// Rotary positions and the cache's write.
#include <algorithm>

#include "backends/cuda/cache_page.cuh"
#include "backends/cuda/emit.h"

namespace quant {
namespace cuda {
namespace {

__global__ void rope_angles(StepView step, const float* frequencies, float* out, int64_t stride, int half) {
    allow_next();
    wait_for_previous();
    const int row = blockIdx.x, i = threadIdx.x;
    if (row >= step.rows(false) || i >= half) return;
    const float angle = static_cast<float>(step.position(row)) * frequencies[i];
    double sine, cosine;
    sincos(static_cast<double>(angle), &sine, &cosine);
    out[row * stride + 2 * i] = static_cast<float>(cosine);
    out[row * stride + 2 * i + 1] = static_cast<float>(sine);
}

// As in formats/float_types.h: a NaN keeps its sign and first bits.
__device__ inline uint16_t f32_to_f16(float x) {
    const uint32_t u = __float_as_uint(x), a = u & 0x7fffffff;
    if (a > 0x7f800000u) return static_cast<uint16_t>(0x7e00 | (a >> 13 & 0x3ff) | (u >> 16 & 0x8000));
    return __half_as_ushort(__float2half_rn(x));
}

struct RopeArguments {
    const float *q, *k, *v, *angles;  // null: there is nothing to turn, or to write into the cache
    float* out;
    int64_t q_stride, k_stride, v_stride, angles_stride, out_stride;
    int heads, kv_heads, head_dim;
    bool adjacent, turn_k;
    CachePlaces cache;
};

// Pair i of a head, and its turn.
struct Pair {
    int first, second;
    float left, right;
    __device__ Pair(const RopeArguments& a, const float* x, int i)
        : first(a.adjacent ? 2 * i : i), second(a.adjacent ? 2 * i + 1 : i + a.head_dim / 2) {
        left = x[first];
        right = x[second];
    }
    __device__ void turn(const float* angles, int i) {
        const float cosine = angles[2 * i], sine = angles[2 * i + 1], l = left, r = right;
        left = l * cosine - r * sine;
        right = l * sine + r * cosine;
    }
};

__device__ inline uint8_t* page_of(const StepView& step, int row, int position) {
    return step.page(step.first_page(row) + position / page_positions);
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
    const int row = blockIdx.x, head = blockIdx.y / 2, half = a.head_dim / 2;
    if (row >= step.rows(false)) return;
    const bool is_key = blockIdx.y % 2 == 0;
    const float* x = (is_key ? a.k + row * a.k_stride : a.v + row * a.v_stride) + head * a.head_dim;
    const float* angles = a.angles + row * a.angles_stride;
    const int position = step.position(row), at = position % page_positions;
    const CachePage page = CachePage(page_of(step, row, position), a.cache, head);
    const auto number = [&](int i) {
        Pair pair(a, x, i);
        if (is_key && a.turn_k) pair.turn(angles, i);
        return pair;
    };
    float largest = 0;  // NaNs do not count
    for (int i = threadIdx.x; i < half; i += 32) {
        const Pair pair = number(i);
        largest = fmaxf(largest, fmaxf(fabsf(pair.left), fabsf(pair.right)));
    }
    const float limit = kind == CacheKind::s8 ? 127 : 448;
    const __half scale = __float2half_rn(fminf(warp_max(largest) / limit, 65504.0f));
    const float inverse = __half2float(scale) > 0 ? 1 / __half2float(scale) : 0;
    if (threadIdx.x == 0) (is_key ? page.key_scales : page.value_scales)[at] = scale;
    const auto write = [&](int i, float value) {
        const float q = value * inverse;
        uint8_t* to = is_key ? page.keys + i * page_positions + at : page.values + at * a.head_dim + i;
        if (kind == CacheKind::e4m3)
            *to = f32_to_e4m3(q);
        else
            *to = static_cast<uint8_t>(isnan(q) ? 0 : static_cast<int>(rintf(fminf(fmaxf(q, -127.0f), 127.0f))));
    };
    for (int i = threadIdx.x; i < half; i += 32) {
        const Pair pair = number(i);
        write(pair.first, pair.left);
        write(pair.second, pair.right);
    }
}

// ---- Host ---------------------------------------------------------------------------------------------------------

RopeArguments arguments(const Bound& b) {
    const Node& n = b.node;
    RopeArguments a{};
    a.heads = n.heads;
    a.kv_heads = n.kv_heads;
    a.head_dim = n.head_dim;
    a.adjacent = n.adjacent_pairs;
    a.cache = cache_places(n);
    if (n.out >= 0) {
        a.out = f32_pointer(b.out);
        a.out_stride = b.out.stride;
    }
    return a;
}

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

void set_operand(const Operand& o, const float*& pointer, int64_t& stride) {
    pointer = f32_pointer(o);
    stride = o.stride;
}

}  // namespace

void emit_rope_angles(Recorder& recorder, const Bound& b) {
    const int half = static_cast<int>(b.out.cols / 2);
    recorder.launch(rope_angles, dim3(recorder.max_rows), dim3((half + 31) / 32 * 32), 0, recorder.view(),
                    reinterpret_cast<const float*>(device_pointer(b.node.weight->data)), f32_pointer(b.out),
                    b.out.stride, half);
}

void emit_rope(Recorder& recorder, const Bound& b) {
    RopeArguments a = arguments(b);
    set_operand(b.in[0], a.q, a.q_stride);
    set_operand(b.in[1], a.angles, a.angles_stride);
    launch_rope(recorder, a);
}

void emit_cache_write(Recorder& recorder, const Bound& b) {
    RopeArguments a = arguments(b);
    set_operand(b.in[0], a.k, a.k_stride);
    set_operand(b.in[1], a.v, a.v_stride);
    launch_rope(recorder, a);
}

void emit_rope_cache_write(Recorder& recorder, const Bound& b) {
    RopeArguments a = arguments(b);
    a.turn_k = true;
    set_operand(b.in[0], a.q, a.q_stride);
    set_operand(b.in[1], a.k, a.k_stride);
    set_operand(b.in[2], a.v, a.v_stride);
    set_operand(b.in[3], a.angles, a.angles_stride);
    launch_rope(recorder, a);
}

}  // namespace cuda
}  // namespace quant
