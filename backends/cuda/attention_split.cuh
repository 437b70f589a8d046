// What kernels share in which a block reads a part of a sequence's positions for H query heads of one key head, and a
// warp 16 positions of a page at a time. Scores: lane 2 d + p has positions 8p..8p+7 and columns d, d + 16, ... of the
// keys. Values: a lane has 8 columns of every n-th position. Float32 arithmetic.
#pragma once
#include <math_constants.h>

#include "backends/cuda/attention.cuh"

namespace quant {
namespace cuda {

constexpr int unit_positions = 16;

// query: of the keys' column, [H].
template <int H, CacheKind kind>
__device__ __forceinline__ void add_key_column(float (&score)[H][8], const Eight<kind>& keys, const float* query) {
    float k[8];
    keys.to_floats(k);
#pragma unroll
    for (int h = 0; h < H; ++h) {
        const float x = query[h];
#pragma unroll
        for (int j = 0; j < 8; ++j) score[h][j] = __fmaf_rn(x, k[j], score[h][j]);
    }
}

// What a warp has of the softmax and the mean of the values so far.
template <int H, CacheKind kind>
struct SoftmaxSums {
    static constexpr bool codes = kind != CacheKind::f16;
    float largest[H], total[H], mean[H][8];

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int h = 0; h < H; ++h) {
            largest[h] = -CUDART_INF_F;
            total[h] = 0;
#pragma unroll
            for (int j = 0; j < 8; ++j) mean[h][j] = 0;
        }
    }
    // Positions [low, high) of the unit are visible. weights: [16][H], of the warp.
    __device__ __forceinline__ void add_scores(float (&score)[H][8], const float (&key_scale)[8], int low, int high,
                                               int lane, float* weights) {
#pragma unroll
        for (int h = 0; h < H; ++h) {
            float risen = largest[h];
#pragma unroll
            for (int j = 0; j < 8; ++j) {
                float v = score[h][j];
#pragma unroll
                for (int i = 2; i < 32; i *= 2) v += __shfl_xor_sync(0xffffffffu, v, i);
                if (codes) v *= key_scale[j];
                const int p = lane % 2 * 8 + j;
                score[h][j] = p >= low && p < high ? v : -CUDART_INF_F;
                risen = fmaxf(risen, score[h][j]);
            }
            risen = fmaxf(risen, __shfl_xor_sync(0xffffffffu, risen, 1));
            const float shrink = expf(largest[h] - risen);
            largest[h] = risen;
            float sum = 0;
#pragma unroll
            for (int j = 0; j < 8; ++j) {
                const float weight = expf(score[h][j] - risen);
                sum += weight;
                if (lane < 2) weights[(lane * 8 + j) * H + h] = weight;
            }
            sum += __shfl_xor_sync(0xffffffffu, sum, 1);
            total[h] = total[h] * shrink + sum;
#pragma unroll
            for (int j = 0; j < 8; ++j) mean[h][j] *= shrink;
        }
    }
    // weights: of the values' position, [H].
    __device__ __forceinline__ void add_values(const Eight<kind>& values, const float& value_scale,
                                               const float* weights) {
        float v[8];
        values.to_floats(v);
#pragma unroll
        for (int h = 0; h < H; ++h) {
            const float weight = codes ? weights[h] * value_scale : weights[h];
#pragma unroll
            for (int j = 0; j < 8; ++j) mean[h][j] = __fmaf_rn(weight, v[j], mean[h][j]);
        }
    }
};

// A split's part of the result: [H][dim + 2], sums, then largest score and total weight.
__device__ __forceinline__ void store_part(float* part, int h, int d, int dim, float value, float most, float weight) {
    part[h * (dim + 2) + d] = value;
    if (d == 0) {
        part[h * (dim + 2) + dim] = most;
        part[h * (dim + 2) + dim + 1] = weight;
    }
}
// Column d of head h, of all splits in their order.
template <int H, int dim>
__device__ __forceinline__ float combine_parts(const float* parts, int splits, int h, int d) {
    float most = -CUDART_INF_F, value = 0, weight = 0;
    for (int k = 0; k < splits; ++k) most = fmaxf(most, __ldcg(parts + (k * H + h) * (dim + 2) + dim));
    for (int k = 0; k < splits; ++k) {
        const float* part = parts + (k * H + h) * (dim + 2);
        const float factor = expf(__ldcg(part + dim) - most);
        weight = __fmaf_rn(factor, __ldcg(part + dim + 1), weight);
        value = __fmaf_rn(factor, __ldcg(part + d), value);
    }
    return value / weight;
}

}  // namespace cuda
}  // namespace quant
