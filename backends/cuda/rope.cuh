// Rotary positions and the cache's write, of one row: shared by the kernels of rope.cu and the persistent kernel.
#pragma once
#include "backends/cuda/cache_page.cuh"

namespace quant {
namespace cuda {

// As in formats/float_types.h: a NaN keeps its sign and first bits.
__device__ inline uint16_t f32_to_f16(float x) {
    const uint32_t u = __float_as_uint(x), a = u & 0x7fffffff;
    if (a > 0x7f800000u) return static_cast<uint16_t>(0x7e00 | (a >> 13 & 0x3ff) | (u >> 16 & 0x8000));
    return __half_as_ushort(__float2half_rn(x));
}

// cos, sin of a position's i-th angle.
__device__ inline float2 rope_angle(int position, float frequency) {
    const float angle = static_cast<float>(position) * frequency;
    double sine, cosine;
    sincos(static_cast<double>(angle), &sine, &cosine);
    return make_float2(static_cast<float>(cosine), static_cast<float>(sine));
}

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

// A warp writes the keys or the values of a row and KV head, `x`, to place `at` of the page.
template <CacheKind kind>
__device__ inline void write_head(const RopeArguments& a, const CachePage& page, int at, bool is_key, const float* x,
                                  const float* angles) {
    const int half = a.head_dim / 2, lane = threadIdx.x % 32;
    const auto number = [&](int i) {
        Pair pair(a, x, i);
        if (is_key && a.turn_k) pair.turn(angles, i);
        return pair;
    };
    const auto place = [&](int i) { return is_key ? i * page_positions + at : at * a.head_dim + i; };
    if constexpr (kind == CacheKind::f16) {
        uint16_t* to = reinterpret_cast<uint16_t*>(is_key ? page.keys : page.values);
        for (int i = lane; i < half; i += 32) {
            const Pair pair = number(i);
            to[place(pair.first)] = f32_to_f16(pair.left);
            to[place(pair.second)] = f32_to_f16(pair.right);
        }
    } else {
        float largest = 0;  // NaNs do not count
        for (int i = lane; i < half; i += 32) {
            const Pair pair = number(i);
            largest = fmaxf(largest, fmaxf(fabsf(pair.left), fabsf(pair.right)));
        }
        const float limit = kind == CacheKind::s8 ? 127 : 448;
        const __half scale = __float2half_rn(fminf(warp_max(largest) / limit, 65504.0f));
        const float inverse = __half2float(scale) > 0 ? 1 / __half2float(scale) : 0;
        if (lane == 0) (is_key ? page.key_scales : page.value_scales)[at] = scale;
        const auto write = [&](int i, float value) {
            const float q = value * inverse;
            uint8_t* to = (is_key ? page.keys : page.values) + place(i);
            if (kind == CacheKind::e4m3)
                *to = f32_to_e4m3(q);
            else
                *to = static_cast<uint8_t>(isnan(q) ? 0 : static_cast<int>(rintf(fminf(fmaxf(q, -127.0f), 127.0f))));
        };
        for (int i = lane; i < half; i += 32) {
            const Pair pair = number(i);
            write(pair.first, pair.left);
            write(pair.second, pair.right);
        }
    }
}

}  // namespace cuda
}  // namespace quant
