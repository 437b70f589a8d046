// Products of many rows on Hopper: the transposed result, weights as the operand in registers, activations in shared
// memory. Two warpgroups of 64 weight rows each expand their weights while the other's products run; a third copies
// codes and activations, bytes from their own rows, others as a kernel before this one has laid them out. As many
// blocks as there are multiprocessors take one tile of the result after another, and the next tile's first chunks are
// copied while the results of this one are written.
#pragma once
#include "backends/cuda/fragments.cuh"
#include "backends/cuda/linear.h"
#include "backends/cuda/wgmma.cuh"

namespace quant {
namespace cuda {
namespace many {

constexpr int consumers = many_tiles / 4, threads = 128 * (consumers + 1), chunk_bytes = 128;
static_assert(threads == many_threads, "two warpgroups that multiply, one that copies");

using Mode = ManyMode;

// Bytes that are multiplied in their own order.
constexpr bool reads_own_rows(FragmentKind kind, Mode mode) {
    return kind == FragmentKind::bits8 && mode >= Mode::integer;
}

template <class Codec, Mode mode, int NB>  // tokens in a tile: NB * 128
struct Kernel {
    static constexpr bool is_e4m3 = mode == Mode::e4m3 || mode == Mode::e4m3_groups;
    static constexpr bool bytes = mode == Mode::integer || is_e4m3;
    static constexpr bool scales_sums = mode == Mode::promoted || mode == Mode::e4m3_groups;
    static constexpr bool promotes = scales_sums || is_e4m3;  // sums to float32, after each wait
    static constexpr int summed = scales_sums ? 1 : 2;        // chunks whose sums are promoted together
    // Activations are copied from their own rows, not from tiles that a kernel before this one has laid out.
    static constexpr bool own_rows = reads_own_rows(Codec::kind, mode);
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

    // A lane's codes of one chunk of a tile, in shared memory.
    __device__ static Raw load(uint32_t tile, int lane) {
        Raw raw;
#pragma unroll
        for (int i = 0; i < lane_vectors; ++i) raw.v[i] = wgmma::load_shared(tile + i * 512 + lane * 16);
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

    // A tile of the result: NB * 128 tokens by the rows of many_tiles weight tiles. It may lie past the last token:
    // then its block works for the other of its pair, and its results are not written.
    struct Place {
        int tokens, weights;
        __device__ int64_t weight_tile(int i) const { return static_cast<int64_t>(weights) * many_tiles + i; }
    };
    // The block's tiles, in turn: all tokens of the same weights after each other, the blocks of a cluster side by
    // side.
    template <class Each>
    __device__ static void each_tile(const LinearArguments& a, int rows, Each each) {
        constexpr int tokens = NB * 128;
        const int across = (rows + tokens * a.cluster - 1) / (tokens * a.cluster);
        const int tiles = across * static_cast<int>((a.tile_count + many_tiles - 1) / many_tiles);
        for (int i = blockIdx.x / a.cluster; i < tiles; i += gridDim.x / a.cluster)
            each(Place{i % across * a.cluster + static_cast<int>(blockIdx.x) % a.cluster, i / across});
    }
    // Past the end the last one.
    __device__ static const uint8_t* weight_tile(const LinearArguments& a, int64_t tile) {
        return a.tiles + min(tile, a.tile_count - 1) * a.tile_bytes;
    }

    // Where producer and consumers are in the ring of chunks, which goes on from tile to tile.
    struct Ring {
        uint32_t slots, full, empty;
        int at = 0;  // chunks before
        __device__ uint32_t memory(int i) const { return slots + (at + i) % depth * slot_bytes; }
        __device__ uint32_t full_barrier(int i) const { return full + (at + i) % depth * 8; }
        __device__ uint32_t empty_barrier(int i) const { return empty + (at + i) % depth * 8; }
        __device__ uint32_t parity(int i) const { return (at + i) / depth & 1; }
    };

    // Copies each chunk's activations, and of its codes the block's part to all blocks of the cluster, once the
    // consumers of them all are done with what was there.
    __device__ static void produce(const LinearArguments& a, const ManyMaps& maps, Ring& ring, const Place& place,
                                   int chunks) {
        const int weight_tiles = many_tiles / a.cluster, tile = blockIdx.x % a.cluster * weight_tiles;
        const int first_tile = place.weights * many_tiles + tile;
        for (int i = 0; i < chunks; ++i, ++ring.at) {
            const uint32_t tokens = ring.memory(0), codes = tokens + tile_bytes + tile * code_bytes;
            const uint32_t barrier = ring.full_barrier(0);
            const int code_row = i * (code_bytes / chunk_bytes);
            wgmma::barrier_wait(ring.empty_barrier(0), ring.parity(0) ^ 1);  // at once in the first turn
            wgmma::barrier_expect(barrier, slot_bytes);
            if (own_rows)
                wgmma::copy_box(tokens, maps.tokens, i * chunk_bytes, place.tokens * NB * 128, 0, barrier);
            else
                wgmma::copy_box(tokens, maps.tokens, 0, 0, place.tokens * chunks + i, barrier);
            if (a.cluster > 1)
                wgmma::copy_box(codes, maps.weights, 0, code_row, first_tile, barrier, (1 << a.cluster) - 1);
            else
                wgmma::copy_box(codes, maps.weights, 0, code_row, first_tile, barrier);
        }
    }

    __device__ static float2 parameters(const LinearArguments& a, const uint8_t* tile, int64_t pair) {
        const uint8_t* at = tile + a.parameters_at;
        if (a.half_parameters) return __half22float2(reinterpret_cast<const __half2*>(at)[pair]);
        return reinterpret_cast<const float2*>(at)[pair];
    }

    // The scales that a chunk's sums are multiplied with, of rows 2g and 2g + 1 of the parameters: g and g + 8.
    __device__ static float2 sum_scales(const LinearArguments& a, const uint8_t* tile, int chunk, int g) {
        if constexpr (scales_sums) {
            float unit = Codec::unit;
            if constexpr (is_e4m3) unit = Codec::e4m3_unit;
            const int group = min(chunk * blocks / a.group_blocks, a.last_group);
            return make_float2(parameters(a, tile, group * 16 + 2 * g).x * (1 / unit),
                               parameters(a, tile, group * 16 + 2 * g + 1).x * (1 / unit));
        }
        return make_float2(1, 1);
    }

    // Adds a chunk's sums.
    __device__ static void promote(const float2& scales, const Sum (&sum)[NB][64],
                                   float (&total)[promotes ? NB : 1][64]) {
#pragma unroll
        for (int n = 0; n < NB; ++n)
#pragma unroll
            for (int j = 0; j < 64; ++j)
                total[n][j] = __fmaf_rn(sum[n][j], j / 2 % 2 ? scales.y : scales.x, total[n][j]);
    }

    // Waits for the chunk `ahead` of the ring's, and expands its codes.
    __device__ static void get_ready(const LinearArguments& a, const Ring& ring, int ahead, int in_block,
                                     const uint2 (&scales)[2], uint32_t (&operand)[4][4]) {
        wgmma::barrier_wait(ring.full_barrier(ahead), ring.parity(ahead));
        expand(load(ring.memory(ahead) + tile_bytes + in_block * code_bytes, lane_of_warp()), operand);
        if constexpr (mode == Mode::scaled) apply_scales(a, scales, operand);
    }
    __device__ static int lane_of_warp() {
        return threadIdx.x % 32;
    }

    // first_tile: of the block.
    __device__ static void consume(const LinearArguments& a, Ring& ring, const Place& place, int chunks, int rows,
                                   int warpgroup, bool first_tile) {
        const int lane = lane_of_warp(), g = lane / 4;
        const int in_block = warpgroup * 4 + threadIdx.x / 32 % 4;
        const uint8_t* tile = weight_tile(a, place.weight_tile(in_block));

        Sum sum[NB][64];
        float total[promotes ? NB : 1][64];
        if constexpr (promotes)
#pragma unroll
            for (int n = 0; n < NB; ++n)
#pragma unroll
                for (int i = 0; i < 64; ++i) total[n][i] = 0;
        uint2 scales[2];
        const auto get_scales = [&](int chunk) {
            if constexpr (mode == Mode::scaled) load_scales(a, tile, chunk, g, scales);
        };
        // Multiplies a chunk with `operand`; while the products run, the next chunk's operand becomes ready.
        const auto step = [&](int chunk, bool second, uint32_t(&operand)[4][4], uint32_t(&next)[4][4]) {
            const bool begins = first_tile && chunk == 0;
            if (begins && warpgroup > 0) wgmma::turn_wait();  // the warpgroups take turns
            wgmma::fence();
            const bool adds = promotes ? second && summed == 2 : chunk > 0;
#pragma unroll
            for (int k = 0; k < 4; ++k)
#pragma unroll
                for (int n = 0; n < NB; ++n) {
                    const uint64_t b = wgmma::descriptor(ring.memory(0) + n * 128 * chunk_bytes + k * 32);
                    const int add = k > 0 || adds;
                    if constexpr (mode == Mode::integer)
                        wgmma::product_int8<Codec::is_signed>(sum[n], operand[k], b, add);
                    else if constexpr (is_e4m3)
                        wgmma::product_e4m3(sum[n], operand[k], b, add);
                    else if constexpr (Codec::bf16)
                        wgmma::product_bf16(sum[n], operand[k], b, add);
                    else
                        wgmma::product_f16(sum[n], operand[k], b, add);
                }
            wgmma::commit();
            if (begins && warpgroup == 0) wgmma::turn_give();
            const float2 to_total = sum_scales(a, tile, chunk, g);
            if (chunk + 1 < chunks) {
                get_ready(a, ring, 1, in_block, scales, next);
                get_scales(chunk + 2);
            }
            wgmma::wait();
            wgmma::keep(operand);  // until here the products read these registers
            if (lane < a.cluster) wgmma::barrier_arrive(ring.empty_barrier(0), lane);
            ++ring.at;
            if constexpr (promotes)
                if (second || summed == 1) promote(to_total, sum, total);
        };
        uint32_t operands[2][4][4];
        get_scales(0);
        get_ready(a, ring, 0, in_block, scales, operands[0]);
        get_scales(1);
        for (int chunk = 0; chunk < chunks; chunk += 2) {
            step(chunk, false, operands[0], operands[1]);
            step(chunk + 1, true, operands[1], operands[0]);
        }
        if constexpr (promotes)
            write(a, place, in_block, rows, total);
        else
            write(a, place, in_block, rows, sum);
    }

    // What a row of activations has of its own: RowScale, or the sum of its values.
    struct Token {
        float scale;
        Sum sum;
    };
    // Scale and offset of a weight row as `finish` wants them.
    __device__ static float2 row_parameters(const LinearArguments& a, const uint8_t* tile, int64_t pair) {
        if constexpr (!Codec::codes || (mode != Mode::codes && mode != Mode::integer && mode != Mode::e4m3)) {
            return make_float2(1, 0);
        } else {
            const float2 p = parameters(a, tile, pair);
            if constexpr (mode == Mode::e4m3) return make_float2(p.x * (1 / Codec::e4m3_unit), 0);
            if constexpr (mode == Mode::codes)
                return make_float2(p.x * (1 / Codec::unit), a.is_minimum ? p.y : -p.y * p.x);
            return p;
        }
    }
    template <class Total>
    __device__ static float finish(const LinearArguments& a, const float2& p, const Token& x, Total total) {
        if constexpr (mode == Mode::integer) {  // each operation rounded once, in this order, on every device
            if (a.is_minimum) {
                const float product = __fmul_rn(__fmul_rn(__int2float_rn(total), x.scale), p.x);
                return __fadd_rn(product, __fmul_rn(__fmul_rn(__int2float_rn(x.sum), x.scale), p.y));
            }
            return __fmul_rn(__fmul_rn(__int2float_rn(total - static_cast<int>(p.y) * x.sum), x.scale), p.x);
        } else {
            float y = total;
            if (mode == Mode::e4m3 || (mode == Mode::codes && Codec::codes)) y = y * p.x;
            if (mode == Mode::codes && Codec::codes && a.has_offsets) y = __fmaf_rn(p.y, x.sum, y);
            return a.row_scales ? y * x.scale : y;
        }
    }

    // Writes a tile's results. What they need is loaded for many tokens at a time, since each wait for it is as long as
    // the products of several chunks.
    template <class Total>
    __device__ static void write(const LinearArguments& a, const Place& place, int in_block, int rows,
                                 const Total (&total)[NB][64]) {
        const int lane = lane_of_warp(), g = lane / 4, t = lane % 4;
        const int first_token = place.tokens * NB * 128 + 2 * t;
        const uint8_t* tile = weight_tile(a, place.weight_tile(in_block));
        const int64_t weight_row = place.weight_tile(in_block) * 16 + g;
        const bool inside[2] = {weight_row < a.weight_rows, weight_row + 8 < a.weight_rows};
        const float2 p[2] = {row_parameters(a, tile, 2 * g), row_parameters(a, tile, 2 * g + 1)};
        float bias[2] = {0, 0};
        for (int half = 0; half < 2; ++half)
            if (a.bias && inside[half]) bias[half] = a.bias[weight_row + half * 8];
        const int out_stride = static_cast<int>(a.out_stride), add_stride = static_cast<int>(a.add_stride);
        float* const out = a.out + weight_row;
        const float* const addend = a.add + weight_row;
        // A thread's tokens come in pairs, 8 apart: the scales of `octets` of them, the addends of `added` are on their
        // way together.
        constexpr int octets = 8, added = 4;
#pragma unroll
        for (int begin = 0; begin < NB * 16; begin += octets) {
            const int token0 = first_token + begin * 8;
            Token x[octets][2];
#pragma unroll
            for (int j = 0; j < octets; ++j)
#pragma unroll
                for (int e = 0; e < 2; ++e) {
                    const int token = token0 + j * 8 + e;
                    x[j][e] = {1, 0};
                    if (token >= rows) continue;
                    if (a.row_scales) x[j][e].scale = a.row_scales[token].scale;
                    if (!a.has_offsets) continue;
                    if constexpr (mode == Mode::integer) x[j][e].sum = a.row_scales[token].sum;
                    if constexpr (mode == Mode::codes && Codec::codes) x[j][e].sum = a.token_sums[token];
                }
#pragma unroll
            for (int first = 0; first < octets; first += added) {
                float add[added][2][2];
                if (a.add)
#pragma unroll
                    for (int j = 0; j < added; ++j)
#pragma unroll
                        for (int e = 0; e < 2; ++e) {
                            const int token = token0 + (first + j) * 8 + e;
                            const float* const from = addend + static_cast<int64_t>(token) * add_stride;
#pragma unroll
                            for (int half = 0; half < 2; ++half)
                                add[j][e][half] = token < rows && inside[half] ? from[half * 8] : 0;
                        }
#pragma unroll
                for (int j = 0; j < added; ++j)
#pragma unroll
                    for (int e = 0; e < 2; ++e) {
                        const int token = token0 + (first + j) * 8 + e;
                        if (token >= rows) continue;
                        float* const to = out + static_cast<int64_t>(token) * out_stride;
#pragma unroll
                        for (int half = 0; half < 2; ++half) {
                            float y =
                                finish(a, p[half], x[first + j][e],
                                       total[(begin + first + j) / 16][(begin + first + j) % 16 * 4 + half * 2 + e]);
                            if (a.bias) y = __fadd_rn(y, bias[half]);
                            if (a.add) y = __fadd_rn(y, add[j][e][half]);
                            if (inside[half]) to[half * 8] = y;
                        }
                    }
            }
        }
    }
};

template <class Codec, Mode mode, int NB>
__global__ void __launch_bounds__(threads, 1)
    linear_many(StepView step, LinearArguments a, const __grid_constant__ ManyMaps maps) {
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
            wgmma::barrier_init(empty + 8 * i, 4 * consumers * a.cluster);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    wait_for_previous();
    const int rows = step.rows(a.outputs);
    wgmma::cluster_barrier();
    const int chunks = static_cast<int>(many_chunks(a.cols, K::chunk_cols));
    const int warpgroup = threadIdx.x / 128;
    typename K::Ring ring{tiles, full, empty};
    if (warpgroup == consumers) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
        if (threadIdx.x == 128 * consumers)
            K::each_tile(a, rows, [&](const typename K::Place& place) { K::produce(a, maps, ring, place, chunks); });
        __syncwarp();
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
        bool first_tile = true;
        K::each_tile(a, rows, [&](const typename K::Place& place) {
            K::consume(a, ring, place, chunks, rows, warpgroup, first_tile);
            first_tile = false;
        });
    }
    wgmma::cluster_barrier();  // a block's memory must stay while others copy to it
#endif
}

template <class Codec, Mode mode>
ManyKernel choose(bool wide) {
    if constexpr (!Kernel<Codec, mode, 1>::promotes)
        if (wide)
            return {linear_many<Codec, mode, 2>, 256, Kernel<Codec, mode, 2>::code_bytes,
                    Kernel<Codec, mode, 2>::shared_bytes};
    return {linear_many<Codec, mode, 1>, 128, Kernel<Codec, mode, 1>::code_bytes, Kernel<Codec, mode, 1>::shared_bytes};
}

}  // namespace many
}  // namespace cuda
}  // namespace quant
