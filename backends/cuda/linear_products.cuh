// What Hopper's products of linears have in common, for many rows (linear_wgmma.cuh) and few (linear_few.cuh): a warp's
// weights as operands in registers, the scales of groups, and how sums become results.
#pragma once
#include "backends/cuda/fragments.cuh"
#include "backends/cuda/linear.h"
#include "backends/cuda/wgmma.cuh"

namespace quant {
namespace cuda {

constexpr int chunk_bytes = 128;  // of a token, in shared memory

template <class Codec, ManyMode mode>
struct Products {
    using Mode = ManyMode;
    static constexpr bool is_e4m3 = mode == Mode::e4m3 || mode == Mode::e4m3_groups;
    static constexpr bool bytes = mode == Mode::integer || is_e4m3;
    static constexpr bool scales_sums = mode == Mode::promoted || mode == Mode::e4m3_groups;
    static constexpr bool promotes = scales_sums || is_e4m3;  // sums to float32
    // Both operands are multiplied from shared memory, activations copied from their own rows.
    static constexpr bool both_shared = multiplies_bytes(Codec::kind, mode);
    using Sum = typename std::conditional<mode == Mode::integer, int, float>::type;
    static constexpr int chunk_cols = bytes ? 128 : 64;              // columns of a chunk
    static constexpr int blocks = chunk_cols / 32;                   // of 32 columns
    static constexpr int lane_vectors = blocks * 2 / Codec::blocks;  // of 16 bytes of a chunk's codes
    static constexpr int code_bytes = lane_vectors * 512;            // of a weight tile's chunk

    __device__ static int lane_of_warp() { return threadIdx.x % 32; }

    // ---- Weights in registers --------------------------------------------------------------------------------------

    struct Raw {
        uint4 v[lane_vectors];
    };

    // A lane's codes of one chunk of a tile, in shared memory.
    __device__ static Raw load(uint32_t tile, int lane) {
        const int at_lane = fragment_lane_offset(Codec::kind, lane);
        Raw raw;
#pragma unroll
        for (int i = 0; i < lane_vectors; ++i)
            raw.v[i] = load_fragment<Codec::kind>(tile + i / 2 * 1024, at_lane, i % 2);
        return raw;
    }

    // The operands of a chunk's four products.
    __device__ static void expand(const Raw& raw, uint32_t (&operand)[4][4]) {
        if constexpr (lane_vectors == 1) {  // half a stage
            StageLoad stage;
            stage.v[0] = stage.v[1] = raw.v[0];
#pragma unroll
            for (int b = 0; b < 2; ++b) {
                uint32_t a[2][4];
                Codec::expand(stage, b, a);
#pragma unroll
                for (int i = 0; i < 4; ++i) operand[2 * b][i] = a[0][i], operand[2 * b + 1][i] = a[1][i];
            }
        } else {
#pragma unroll
            for (int b = 0; b < blocks; ++b) {
                StageLoad stage;
                stage.v[0] = raw.v[b / Codec::blocks * 2];
                stage.v[1] = raw.v[b / Codec::blocks * 2 + 1];
                if constexpr (is_e4m3) {
                    Codec::e4m3(stage, b % Codec::blocks, operand[b]);
                } else if constexpr (bytes) {
                    Codec::bytes(stage, b % Codec::blocks, operand[b]);
                } else {
                    uint32_t a[2][4];
                    Codec::expand(stage, b % Codec::blocks, a);
#pragma unroll
                    for (int i = 0; i < 4; ++i) operand[2 * b][i] = a[0][i], operand[2 * b + 1][i] = a[1][i];
                }
            }
        }
    }

    // The (scale, offset) pairs of rows g and g + 8 for each block of a chunk.
    __device__ static void load_scales(const LinearArguments& a, const uint8_t* tile, int chunk, int g,
                                       uint2 (&scales)[2]) {
#pragma unroll
        for (int b = 0; b < 2; ++b) {
            const int group = min((chunk * 2 + b) / a.group_blocks, a.last_group);
            scales[b] = __ldg(reinterpret_cast<const uint2*>(tile + a.parameters_at) + group * 8 + g);
        }
    }

    // (q - z) s or q s + m in f16, of rows g (even operands) and g + 8.
    __device__ static void apply_scales(const LinearArguments& a, const uint2 (&scales)[2], uint32_t (&operand)[4][4]) {
#pragma unroll
        for (int b = 0; b < 2; ++b)
#pragma unroll
            for (int row = 0; row < 2; ++row) {
                const uint32_t word = row ? scales[b].y : scales[b].x;
                const __half2 both = *reinterpret_cast<const __half2*>(&word);
                const __half2 scale = __half2half2(__low2half(both)), offset = __half2half2(__high2half(both));
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    uint32_t& x = operand[2 * b + i / 2][i % 2 * 2 + row];
                    const __half2 q = *reinterpret_cast<const __half2*>(&x);
                    const __half2 w = a.is_minimum ? __hfma2(q, scale, offset) : __hmul2(__hsub2(q, offset), scale);
                    x = *reinterpret_cast<const uint32_t*>(&w);
                }
            }
    }

    // The operands of a chunk's four products, scaled if they are to be, from a tile's codes in shared memory.
    __device__ static void get_operands(const LinearArguments& a, uint32_t codes, const uint2 (&scales)[2],
                                        uint32_t (&operand)[4][4]) {
        expand(load(codes, lane_of_warp()), operand);
        if constexpr (mode == Mode::scaled) apply_scales(a, scales, operand);
    }

    // A chunk's product number k, of operands in registers, with the tokens that `b` describes.
    template <int n>
    __device__ static void multiply(Sum (&sum)[n], const uint32_t (&operand)[4], uint64_t b, int add) {
        if constexpr (mode == Mode::integer)
            wgmma::product_int8(sum, operand, b, add);
        else if constexpr (is_e4m3)
            wgmma::product_e4m3(sum, operand, b, add);
        else if constexpr (Codec::bf16)
            wgmma::product_bf16(sum, operand, b, add);
        else
            wgmma::product_f16(sum, operand, b, add);
    }
    // The same, both operands in shared memory.
    template <int n>
    __device__ static void multiply(Sum (&sum)[n], uint64_t a, uint64_t b, int add) {
        if constexpr (mode == Mode::integer)
            wgmma::product_int8<Codec::is_signed>(sum, a, b, add);
        else
            wgmma::product_e4m3(sum, a, b, add);
    }

    // ---- Sums ------------------------------------------------------------------------------------------------------

    // The scales that a chunk's sums are multiplied with, of rows g and g + 8: as they lie in memory, and as floats.
    __device__ static uint4 load_sum_scales(const LinearArguments& a, const uint8_t* tile, int chunk) {
        if constexpr (!scales_sums) return {};
        return load_parameters(tile + a.parameters_at, a.half_parameters,
                               min(chunk * blocks / a.group_blocks, a.last_group), lane_of_warp() / 4);
    }
    __device__ static float2 sum_scales(const LinearArguments& a, const uint4& loaded) {
        if constexpr (!scales_sums) return make_float2(1, 1);
        float unit = Codec::unit;
        if constexpr (is_e4m3) unit = Codec::e4m3_unit;
        const GroupParameters p = group_parameters(loaded, a.half_parameters);
        return make_float2(p.scale[0] * (1 / unit), p.scale[1] * (1 / unit));
    }

    template <int n>
    __device__ static void promote(const float2& scales, const Sum (&sum)[n], float (&total)[n]) {
#pragma unroll
        for (int j = 0; j < n; ++j) total[j] = __fmaf_rn(sum[j], j / 2 % 2 ? scales.y : scales.x, total[j]);
    }

    // ---- Results ---------------------------------------------------------------------------------------------------

    __device__ static float2 parameters(const LinearArguments& a, const uint8_t* tile, int64_t pair) {
        const uint8_t* at = tile + a.parameters_at;
        if (a.half_parameters) return __half22float2(reinterpret_cast<const __half2*>(at)[pair]);
        return reinterpret_cast<const float2*>(at)[pair];
    }

    // How offsets enter a result. minimum: the row's, times the sum of the token's values.
    enum class Offsets { none, zero, minimum };
    struct Row {
        float scale, minimum;
        int zero;
    };
    // What a row of activations has of its own: RowScale, or the sum of its values.
    struct Token {
        float scale = 1;
        Sum sum = 0;
    };
    __device__ static Row row_parameters(const LinearArguments& a, const uint8_t* tile, int64_t pair) {
        if constexpr (!Codec::codes || (mode != Mode::codes && mode != Mode::integer && mode != Mode::e4m3)) {
            return {1, 0, 0};
        } else {
            const float2 p = parameters(a, tile, pair);
            if constexpr (mode == Mode::e4m3) return {p.x * (1 / Codec::e4m3_unit), 0, 0};
            if constexpr (mode == Mode::codes) return {p.x * (1 / Codec::unit), a.is_minimum ? p.y : -p.y * p.x, 0};
            return {p.x, p.y, static_cast<int>(p.y)};
        }
    }
    // Of what the linear multiplies.
    __device__ static Token load_token(const LinearArguments& a, int64_t token) {
        Token t;
        if (a.row_scales) t.scale = a.row_scales[token].scale;
        if (!a.has_offsets) return t;
        if constexpr (mode == Mode::integer) t.sum = a.row_scales[token].sum;
        if constexpr (mode == Mode::codes && Codec::codes) t.sum = a.token_sums[token];
        return t;
    }

    template <Offsets offsets>
    __device__ static float finish(const Row& r, const Token& x, Sum total) {
        if constexpr (mode == Mode::integer) {  // each operation rounded once, in this order, on every device
            if (offsets == Offsets::zero) total -= r.zero * x.sum;
            const float product = __fmul_rn(__fmul_rn(__int2float_rn(total), x.scale), r.scale);
            if (offsets != Offsets::minimum) return product;
            return __fadd_rn(product, __fmul_rn(__fmul_rn(__int2float_rn(x.sum), x.scale), r.minimum));
        } else {
            float y = total * r.scale;
            if (offsets != Offsets::none) y = __fmaf_rn(r.minimum, x.sum, y);
            return y * x.scale;
        }
    }
};

}  // namespace cuda
}  // namespace quant
