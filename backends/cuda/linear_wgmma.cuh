// Products of many rows on Hopper: the transposed result, weights as the operand in registers, activations in shared
// memory. Two warpgroups of 64 weight rows each expand their weights while the other's products run; a third copies
// codes and activations, which a kernel before this one has laid out as the products want them.
#pragma once
#include "backends/cuda/fragments.cuh"
#include "backends/cuda/linear.h"
#include "backends/cuda/wgmma.cuh"

namespace quant {
namespace cuda {
namespace many {

constexpr int consumers = many_tiles / 4, threads = 128 * (consumers + 1), chunk_bytes = 128;

using Mode = ManyMode;

template <class Codec, Mode mode, int NB>  // tokens in a tile: NB * 128
struct Kernel {
    static constexpr bool is_e4m3 = mode == Mode::e4m3 || mode == Mode::e4m3_groups;
    static constexpr bool bytes = mode == Mode::integer || is_e4m3;
    static constexpr bool scales_sums = mode == Mode::promoted || mode == Mode::e4m3_groups;
    static constexpr bool promotes = scales_sums || is_e4m3;                 // sums to float32, after each wait
    static constexpr int together = scales_sums ? 1 : many_chunks_together;  // chunks whose products are waited for
    using Sum = typename std::conditional<mode == Mode::integer, int, float>::type;
    static constexpr int chunk_cols = bytes ? 128 : 64;  // columns of a chunk, 128 bytes of a token
    static constexpr int blocks = chunk_cols / 32;       // of 32 columns
    static constexpr int tile_bytes = NB * 128 * chunk_bytes;
    static constexpr int lane_vectors = blocks * 2 / Codec::blocks;  // of 16 bytes of a chunk's codes
    static constexpr int code_bytes = lane_vectors * 512;            // of a weight tile's chunk
    static constexpr int slot_bytes = tile_bytes + many_tiles * code_bytes;
    static constexpr int depth = (224 << 10) / slot_bytes < 8 ? (224 << 10) / slot_bytes : 8;  // chunks in flight
    static constexpr int shared_bytes = depth * slot_bytes + 1024;
    static_assert(slot_bytes % 1024 == 0, "operands of products begin at multiples of 1024");

    struct Raw {
        uint4 v[lane_vectors];
    };

    // A lane's codes of one chunk of `tile`, in shared memory; zero past the end.
    __device__ static Raw load(uint32_t tile, int64_t bytes_left, int lane) {
        Raw raw;
#pragma unroll
        for (int i = 0; i < lane_vectors; ++i) {
            raw.v[i] = make_uint4(0, 0, 0, 0);
            if (i * 512 < bytes_left) raw.v[i] = wgmma::load_shared(tile + i * 512 + lane * 16);
        }
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
                if constexpr (bytes) {
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

    // Which weight tile the block's i-th is; past the end the last one, whose results are not written.
    __device__ static const uint8_t* weight_tile(const LinearArguments& a, int i) {
        return a.tiles + min(static_cast<int64_t>(blockIdx.y) * many_tiles + i, a.tile_count - 1) * a.tile_bytes;
    }

    // Copies codes and activations of each chunk once both consumers are done with what was there.
    __device__ static void produce(const LinearArguments& a, uint32_t slots, uint32_t full, uint32_t empty,
                                   int chunks) {
        const uint8_t* tokens = a.tokens + static_cast<int64_t>(blockIdx.x) * chunks * tile_bytes;
        const uint8_t* codes_at = weight_tile(a, 0);
        const int last = static_cast<int>(a.tile_count - 1 - static_cast<int64_t>(blockIdx.y) * many_tiles);
        for (int i = 0; i < chunks; ++i) {
            const uint32_t slot = slots + i % depth * slot_bytes, barrier = full + 8 * (i % depth);
            const int codes = max(0, min(code_bytes, a.parameters_at - i * code_bytes));
            if (i >= depth) wgmma::barrier_wait(empty + 8 * (i % depth), (i / depth - 1) & 1);
            wgmma::barrier_expect(barrier, tile_bytes + many_tiles * codes);
            wgmma::bulk_copy(slot, tokens, tile_bytes, barrier);
            for (int j = 0; j < many_tiles && codes > 0; ++j)
                wgmma::bulk_copy(slot + tile_bytes + j * code_bytes, codes_at + min(j, last) * a.tile_bytes, codes,
                                 barrier);
            tokens += tile_bytes;
            codes_at += code_bytes;
        }
    }

    __device__ static float finish(const LinearArguments& a, int64_t token, float2 p, const RowScale& x, Sum sum) {
        float y;
        if constexpr (mode == Mode::integer) {  // each operation rounded once, in this order, on every device
            if (a.is_minimum) {
                const float product = __fmul_rn(__fmul_rn(__int2float_rn(sum), x.scale), p.x);
                y = __fadd_rn(product, __fmul_rn(__fmul_rn(__int2float_rn(x.sum), x.scale), p.y));
            } else {
                sum -= static_cast<int>(p.y) * x.sum;
                y = __fmul_rn(__fmul_rn(__int2float_rn(sum), x.scale), p.x);
            }
        } else {
            y = sum;
            if (mode == Mode::e4m3) y = y * p.x;
            if (mode == Mode::codes && Codec::codes) {
                y = y * (p.x * (1 / Codec::unit));
                if (a.has_offsets) y = __fmaf_rn(a.is_minimum ? p.y : -p.y * p.x, __ldg(a.token_sums + token), y);
            }
            if (a.row_scales) y = y * x.scale;
        }
        return y;
    }

    __device__ static float2 parameters(const LinearArguments& a, const uint8_t* tile, int64_t pair) {
        const uint8_t* at = tile + a.parameters_at;
        if (a.half_parameters) return __half22float2(reinterpret_cast<const __half2*>(at)[pair]);
        return reinterpret_cast<const float2*>(at)[pair];
    }

    // Adds a chunk's sums, scaled if the weight has groups.
    __device__ static void promote(const LinearArguments& a, const uint8_t* tile, int chunk, int g,
                                   const Sum (&sum)[NB][64], float (&total)[promotes ? NB : 1][64]) {
        float scale[2] = {1, 1};
        if constexpr (scales_sums) {
            const int group = min(chunk * blocks / a.group_blocks, a.last_group);
            const float unit = mode == Mode::promoted ? 1 / Codec::unit : 1;
            for (int i = 0; i < 2; ++i) scale[i] = parameters(a, tile, group * 16 + 2 * g + i).x * unit;
        }
#pragma unroll
        for (int n = 0; n < NB; ++n)
#pragma unroll
            for (int j = 0; j < 64; ++j) total[n][j] = __fmaf_rn(sum[n][j], scale[j / 2 % 2], total[n][j]);
    }

    __device__ static void consume(const LinearArguments& a, uint32_t slots, uint32_t full, uint32_t empty, int chunks,
                                   int rows, int warpgroup) {
        const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
        const int in_block = warpgroup * 4 + threadIdx.x / 32 % 4;
        const int64_t wanted = static_cast<int64_t>(blockIdx.y) * many_tiles + in_block;
        const uint8_t* tile = weight_tile(a, in_block);

        Sum sum[NB][64];
        float total[promotes ? NB : 1][64];
        if constexpr (promotes)
#pragma unroll
            for (int n = 0; n < NB; ++n)
#pragma unroll
                for (int i = 0; i < 64; ++i) total[n][i] = 0;
        uint2 scales[together][2];
        if constexpr (mode == Mode::scaled)
#pragma unroll
            for (int c = 0; c < together; ++c) load_scales(a, tile, c, g, scales[c]);
        for (int first = 0; first < chunks; first += together) {
            uint32_t operand[together][4][4];
#pragma unroll
            for (int c = 0; c < together; ++c) {
                const int i = first + c;
                wgmma::barrier_wait(full + 8 * (i % depth), i / depth & 1);
                expand(load(slots + i % depth * slot_bytes + tile_bytes + in_block * code_bytes,
                            a.parameters_at - i * code_bytes, lane),
                       operand[c]);
                if constexpr (mode == Mode::scaled) apply_scales(a, scales[c], operand[c]);
            }
            // In turns: while one multiplies, the other gets ready.
            if (first == 0 && warpgroup > 0) wgmma::turn_wait();
            wgmma::fence();
#pragma unroll
            for (int c = 0; c < together; ++c)
#pragma unroll
                for (int k = 0; k < 4; ++k)
#pragma unroll
                    for (int n = 0; n < NB; ++n) {
                        const uint32_t slot = slots + (first + c) % depth * slot_bytes;
                        const uint64_t b = wgmma::descriptor(slot + n * 128 * chunk_bytes + k * 32);
                        const int add = c > 0 || k > 0 || (first > 0 && !promotes);
                        if constexpr (mode == Mode::integer)
                            wgmma::product_int8<Codec::is_signed>(sum[n], operand[c][k], b, add);
                        else if constexpr (is_e4m3)
                            wgmma::product_e4m3(sum[n], operand[c][k], b, add);
                        else if constexpr (Codec::bf16)
                            wgmma::product_bf16(sum[n], operand[c][k], b, add);
                        else
                            wgmma::product_f16(sum[n], operand[c][k], b, add);
                    }
            wgmma::commit();
            if (first == 0 && warpgroup == 0) wgmma::turn_give();
            if constexpr (mode == Mode::scaled)
#pragma unroll
                for (int c = 0; c < together; ++c) load_scales(a, tile, first + together + c, g, scales[c]);
            wgmma::wait();
#pragma unroll
            for (int c = 0; c < together; ++c) {
                wgmma::keep(operand[c]);  // until here the products read these registers
                if (lane == 0) wgmma::barrier_arrive(empty + 8 * ((first + c) % depth));
            }
            if constexpr (promotes) promote(a, tile, first, g, sum, total);
        }

        // The results of a few tokens at a time, all that they need loaded before the first is stored.
        const int first_token = blockIdx.x * NB * 128;
        float2 p[2] = {make_float2(1, 0), make_float2(1, 0)};
        float bias[2] = {0, 0};
        int64_t weight_rows[2];
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            weight_rows[half] = wanted * 16 + half * 8 + g;
            if (Codec::codes && (mode == Mode::codes || mode == Mode::integer || mode == Mode::e4m3))
                p[half] = parameters(a, tile, 2 * g + half);
            if (a.bias && weight_rows[half] < a.weight_rows) bias[half] = a.bias[weight_rows[half]];
        }
        constexpr int batch = 4;
#pragma unroll
        for (int n = 0; n < NB; ++n)
#pragma unroll
            for (int first = 0; first < 16; first += batch) {
                RowScale x[batch][2];
                float add[batch][2][2];
#pragma unroll
                for (int j = 0; j < batch; ++j)
#pragma unroll
                    for (int e = 0; e < 2; ++e) {
                        const int64_t token = min(first_token + n * 128 + (first + j) * 8 + 2 * t + e, rows - 1);
                        if (a.row_scales) {
                            const uint2 both = __ldg(reinterpret_cast<const uint2*>(a.row_scales) + token);
                            x[j][e] = {__uint_as_float(both.x), static_cast<int>(both.y)};
                        }
#pragma unroll
                        for (int half = 0; half < 2; ++half)
                            if (a.add)
                                add[j][e][half] =
                                    __ldg(a.add + token * a.add_stride + min(weight_rows[half], a.weight_rows - 1));
                    }
#pragma unroll
                for (int j = 0; j < batch; ++j)
#pragma unroll
                    for (int e = 0; e < 2; ++e)
#pragma unroll
                        for (int half = 0; half < 2; ++half) {
                            const int64_t token = first_token + n * 128 + (first + j) * 8 + 2 * t + e;
                            const int place = (first + j) * 4 + half * 2 + e;
                            if (token >= rows || weight_rows[half] >= a.weight_rows) continue;
                            float y;
                            if constexpr (promotes)
                                y = finish(a, token, p[half], x[j][e], total[n][place]);
                            else
                                y = finish(a, token, p[half], x[j][e], sum[n][place]);
                            if (a.bias) y = __fadd_rn(y, bias[half]);
                            if (a.add) y = __fadd_rn(y, add[j][e][half]);
                            a.out[token * a.out_stride + weight_rows[half]] = y;
                        }
            }
    }
};

template <class Codec, Mode mode, int NB>
__global__ void __launch_bounds__(threads, 1) linear_many(StepView step, LinearArguments a) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    using K = Kernel<Codec, mode, NB>;
    extern __shared__ uint8_t memory[];
    __shared__ uint64_t barriers[2 * K::depth];
    allow_next();
    const uint32_t tiles = (static_cast<uint32_t>(__cvta_generic_to_shared(memory)) + 1023) / 1024 * 1024;
    const uint32_t full = static_cast<uint32_t>(__cvta_generic_to_shared(barriers)), empty = full + 8 * K::depth;
    if (threadIdx.x == 0) {
        for (int i = 0; i < K::depth; ++i) {
            wgmma::barrier_init(full + 8 * i, 1);
            wgmma::barrier_init(empty + 8 * i, 4 * consumers);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    wait_for_previous();
    const int rows = step.rows(a.outputs);
    if (static_cast<int>(blockIdx.x) * NB * 128 >= rows) return;
    __syncthreads();
    const int chunks = static_cast<int>(many_chunks(a.cols, K::chunk_cols));
    const int warpgroup = threadIdx.x / 128;
    if (warpgroup == consumers) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
        if (threadIdx.x == 128 * consumers) K::produce(a, tiles, full, empty, chunks);
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
        K::consume(a, tiles, full, empty, chunks, rows, warpgroup);
    }
#endif
}

template <class Codec, Mode mode>
ManyKernel choose(bool wide) {
    if constexpr (!Kernel<Codec, mode, 1>::promotes)
        if (wide) return {linear_many<Codec, mode, 2>, 256, Kernel<Codec, mode, 2>::shared_bytes};
    return {linear_many<Codec, mode, 1>, 128, Kernel<Codec, mode, 1>::shared_bytes};
}

}  // namespace many
}  // namespace cuda
}  // namespace quant
