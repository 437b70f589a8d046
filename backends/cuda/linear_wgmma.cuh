// Products of many rows on Hopper: the transposed result, weights as the operand in registers, activations in shared
// memory. Two warpgroups of 64 weight rows each expand their weights while the other's products run; a third copies
// the activations, which a kernel before this one has laid out as the products want them.
#pragma once
#include "backends/cuda/fragments.cuh"
#include "backends/cuda/linear.h"
#include "backends/cuda/wgmma.cuh"

namespace quant {
namespace cuda {
namespace many {

constexpr int consumers = 2, threads = 128 * (consumers + 1), chunk_bytes = 128;

// codes: exact codes in 16 bits, scaled at the end; promoted: the same, but sums are scaled every 64 columns; scaled:
// each weight rounded to f16; integer: int8. Hopper's own e4m3 products keep about 14 bits of a sum: too few to be
// exact.
enum class Mode { codes, promoted, scaled, integer };

template <class Codec, Mode mode, int NB>  // tokens in a tile: NB * 128
struct Kernel {
    static constexpr bool bytes = mode == Mode::integer;
    using Sum = typename std::conditional<mode == Mode::integer, int, float>::type;
    static constexpr int chunk_cols = bytes ? 128 : 64;  // columns of a chunk, 128 bytes of a token
    static constexpr int blocks = chunk_cols / 32;       // of 32 columns
    static constexpr int tile_bytes = NB * 128 * chunk_bytes;
    static constexpr int depth = NB == 2 ? 5 : 8;                                       // chunks in flight
    static constexpr int loads = blocks >= Codec::blocks ? blocks / Codec::blocks : 1;  // stages of a chunk
    static constexpr int shared_bytes = depth * tile_bytes + 1024;

    struct Raw {
        uint4 v[bytes || Codec::blocks < 4 ? 2 * loads : 1];
    };

    // A lane's codes of one chunk; zero past the end.
    __device__ static Raw load(const uint8_t* tile, int chunk, int stages, int lane) {
        Raw raw;
        if constexpr (Codec::blocks == 4 && !bytes) {  // half a stage
            raw.v[0] = __ldg(reinterpret_cast<const uint4*>(tile + static_cast<int64_t>(chunk) * 512) + lane);
        } else {
#pragma unroll
            for (int i = 0; i < loads; ++i) {
                const int stage = chunk * loads + i;
#pragma unroll
                for (int j = 0; j < 2; ++j)
                    raw.v[2 * i + j] = stage < stages ? __ldg(reinterpret_cast<const uint4*>(
                                                                  tile + static_cast<int64_t>(stage) * 1024 + j * 512) +
                                                              lane)
                                                      : make_uint4(0, 0, 0, 0);
            }
        }
        return raw;
    }

    // The operands of a chunk's four products.
    __device__ static void expand(const Raw& raw, uint32_t (&operand)[4][4]) {
        if constexpr (Codec::blocks == 4 && !bytes) {
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

    // (q - z) s or q s + m in f16, of rows g (even operands) and g + 8.
    __device__ static void apply_scales(const LinearArguments& a, const uint8_t* tile, int chunk, int g,
                                        uint32_t (&operand)[4][4]) {
#pragma unroll
        for (int b = 0; b < 2; ++b) {
            const int group = min((chunk * 2 + b) / a.group_blocks, a.last_group);
            const uint2 pair = __ldg(reinterpret_cast<const uint2*>(tile + a.parameters_at) + group * 8 + g);
#pragma unroll
            for (int row = 0; row < 2; ++row) {
                const uint32_t word = row ? pair.y : pair.x;
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
    }

    __device__ static void produce(const LinearArguments& a, uint32_t tiles, uint32_t full, uint32_t empty,
                                   int chunks) {
        const uint8_t* from = a.tokens + static_cast<int64_t>(blockIdx.x) * chunks * tile_bytes;
        for (int i = 0; i < chunks; ++i) {
            const int slot = i % depth;
            if (i >= depth) wgmma::barrier_wait(empty + 8 * slot, (i / depth - 1) & 1);
            wgmma::barrier_expect(full + 8 * slot, tile_bytes);
            wgmma::bulk_copy(tiles + slot * tile_bytes, from + static_cast<int64_t>(i) * tile_bytes, tile_bytes,
                             full + 8 * slot);
        }
    }

    __device__ static void finish(const LinearArguments& a, int64_t token, int64_t r, float2 p, Sum sum) {
        float y;
        if constexpr (mode == Mode::integer) {  // each operation rounded once, in this order, on every device
            const RowScale x = a.row_scales[token];
            if (a.is_minimum) {
                const float product = __fmul_rn(__fmul_rn(__int2float_rn(sum), x.scale), p.x);
                y = __fadd_rn(product, __fmul_rn(__fmul_rn(__int2float_rn(x.sum), x.scale), p.y));
            } else {
                sum -= static_cast<int>(p.y) * x.sum;
                y = __fmul_rn(__fmul_rn(__int2float_rn(sum), x.scale), p.x);
            }
        } else {
            y = sum;
            if (mode == Mode::codes && Codec::codes) {
                y = y * (p.x * (1 / Codec::unit));
                if (a.has_offsets) y = __fmaf_rn(a.is_minimum ? p.y : -p.y * p.x, a.token_sums[token], y);
            }
            if (a.row_scales) y = y * a.row_scales[token].scale;
        }
        if (a.bias) y = __fadd_rn(y, a.bias[r]);
        if (a.add) y = __fadd_rn(y, a.add[token * a.add_stride + r]);
        a.out[token * a.out_stride + r] = y;
    }

    __device__ static float2 parameters(const LinearArguments& a, const uint8_t* tile, int64_t pair) {
        const uint8_t* at = tile + a.parameters_at;
        if (a.half_parameters) return __half22float2(reinterpret_cast<const __half2*>(at)[pair]);
        return reinterpret_cast<const float2*>(at)[pair];
    }

    __device__ static void consume(const LinearArguments& a, uint32_t tiles, uint32_t full, uint32_t empty, int chunks,
                                   int rows, int warpgroup) {
        const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4, warp = threadIdx.x / 32 % 4;
        const int64_t wanted = (static_cast<int64_t>(blockIdx.y) * consumers + warpgroup) * 4 + warp;
        const uint8_t* tile = a.tiles + min(wanted, a.tile_count - 1) * a.tile_bytes;

        Sum sum[NB][64];
        float promoted[mode == Mode::promoted ? 64 : 1];
        if constexpr (mode == Mode::promoted)
#pragma unroll
            for (int i = 0; i < 64; ++i) promoted[i] = 0;
        Raw raw = load(tile, 0, a.stages, lane);
        for (int i = 0; i < chunks; ++i) {
            const int slot = i % depth;
            uint32_t operand[4][4];
            expand(raw, operand);
            if constexpr (mode == Mode::scaled) apply_scales(a, tile, i, g, operand);
            wgmma::barrier_wait(full + 8 * slot, i / depth & 1);
            wgmma::fence();
#pragma unroll
            for (int k = 0; k < 4; ++k)
#pragma unroll
                for (int n = 0; n < NB; ++n) {
                    const uint64_t b = wgmma::descriptor(tiles + slot * tile_bytes + n * 128 * chunk_bytes + k * 32);
                    const int add = k > 0 || (i > 0 && mode != Mode::promoted);
                    if constexpr (mode == Mode::integer)
                        wgmma::product_int8<Codec::is_signed>(sum[n], operand[k], b, add);
                    else if constexpr (Codec::bf16)
                        wgmma::product_bf16(sum[n], operand[k], b, add);
                    else
                        wgmma::product_f16(sum[n], operand[k], b, add);
                }
            wgmma::commit();
            if (i + 1 < chunks) raw = load(tile, i + 1, a.stages, lane);
            wgmma::wait();
            wgmma::keep(operand);  // until here the products read these registers
            if (lane == 0) wgmma::barrier_arrive(empty + 8 * slot);
            if constexpr (mode == Mode::promoted) {
                const int group = min(i * blocks / a.group_blocks, a.last_group);
                const float scale[2] = {parameters(a, tile, group * 16 + 2 * g).x * (1 / Codec::unit),
                                        parameters(a, tile, group * 16 + 2 * g + 1).x * (1 / Codec::unit)};
#pragma unroll
                for (int j = 0; j < 64; ++j) promoted[j] = __fmaf_rn(sum[0][j], scale[j / 2 % 2], promoted[j]);
            }
        }

        const int first_token = blockIdx.x * NB * 128;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int64_t r = wanted * 16 + half * 8 + g;
            if (r >= a.weight_rows) continue;
            float2 p = make_float2(1, 0);
            if (Codec::codes && (mode == Mode::codes || mode == Mode::integer)) p = parameters(a, tile, 2 * g + half);
#pragma unroll
            for (int n = 0; n < NB; ++n)
#pragma unroll
                for (int j = 0; j < 16; ++j)
#pragma unroll
                    for (int e = 0; e < 2; ++e) {
                        const int token = first_token + n * 128 + j * 8 + 2 * t + e;
                        if (token >= rows) continue;
                        if constexpr (mode == Mode::promoted)
                            finish(a, token, r, p, promoted[j * 4 + half * 2 + e]);
                        else
                            finish(a, token, r, p, sum[n][j * 4 + half * 2 + e]);
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
    __syncthreads();
    const int rows = step.rows(a.outputs);
    if (static_cast<int>(blockIdx.x) * NB * 128 >= rows) return;
    const int chunks = static_cast<int>((a.cols + K::chunk_cols - 1) / K::chunk_cols);
    const int warpgroup = threadIdx.x / 128;
    if (warpgroup == consumers) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
        if (threadIdx.x == 128 * consumers) K::produce(a, tiles, full, empty, chunks);
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 240;");
        K::consume(a, tiles, full, empty, chunks, rows, warpgroup);
    }
#endif
}

template <class Codec, Mode mode>
ManyKernel choose(bool wide) {
    if constexpr (mode != Mode::promoted)
        if (wide) return {linear_many<Codec, mode, 2>, 256, Kernel<Codec, mode, 2>::shared_bytes};
    return {linear_many<Codec, mode, 1>, 128, Kernel<Codec, mode, 1>::shared_bytes};
}

}  // namespace many
}  // namespace cuda
}  // namespace quant
