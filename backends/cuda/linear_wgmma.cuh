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
    // Chunks' sums that are promoted are those of one 128 tokens after the other, or of two chunks together.
    static constexpr int sums = promotes ? 1 : NB;
    static constexpr bool in_pairs = promotes && !scales_sums && NB == 1;
    static constexpr int kept_operands = promotes && NB == 2 ? 1 : 2;  // chunks whose operands the registers have
    // Activations are copied from their own rows, not from tiles that a kernel before this one has laid out.
    static constexpr bool own_rows = reads_own_rows(Codec::kind, mode);
    using Sum = typename std::conditional<mode == Mode::integer, int, float>::type;
    static constexpr int chunk_cols = bytes ? 128 : 64;  // columns of a chunk, 128 bytes of a token
    static constexpr int blocks = chunk_cols / 32;       // of 32 columns
    static constexpr int tile_bytes = NB * 128 * chunk_bytes;
    static constexpr int lane_vectors = blocks * 2 / Codec::blocks;  // of 16 bytes of a chunk's codes
    static constexpr int code_bytes = lane_vectors * 512;            // of a weight tile's chunk
    static constexpr int slot_bytes = tile_bytes + many_tiles * code_bytes;
    // A warp's results on their way to memory: of 16 tokens 16 rows, so that lanes meet in no bank.
    static constexpr int staged_pitch = 20, staged_bytes = 16 * staged_pitch * 4;
    static constexpr int ring_bytes = (225 << 10) - many_tiles * staged_bytes;               // of a block's 227 KiB
    static constexpr int depth = ring_bytes / slot_bytes < 8 ? ring_bytes / slot_bytes : 8;  // chunks in flight
    static constexpr int shared_bytes = 1024 + depth * slot_bytes + many_tiles * staged_bytes;
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

    // Where producer or consumers are in the ring of chunks, which goes on from tile to tile.
    struct Ring {
        uint32_t slots, full, empty;
        int slot = 0;
        uint32_t parity = 0;  // of the turn
        __device__ uint32_t memory() const { return slots + slot * slot_bytes; }
        __device__ uint32_t full_barrier() const { return full + slot * 8; }
        __device__ uint32_t empty_barrier() const { return empty + slot * 8; }
        __device__ void advance() {
            if (++slot == depth) slot = 0, parity ^= 1;
        }
    };

    // Copies each chunk's activations, and of its codes the block's part to all blocks of the cluster, once the
    // consumers of them all are done with what was there.
    __device__ static void produce(const LinearArguments& a, const ManyMaps& maps, Ring& ring, const Place& place,
                                   int chunks) {
        const int weight_tiles = many_tiles / a.cluster, tile = blockIdx.x % a.cluster * weight_tiles;
        const int first_tile = place.weights * many_tiles + tile;
        for (int i = 0; i < chunks; ++i, ring.advance()) {
            const uint32_t tokens = ring.memory(), codes = tokens + tile_bytes + tile * code_bytes;
            const uint32_t barrier = ring.full_barrier();
            const int code_row = i * (code_bytes / chunk_bytes);
            wgmma::barrier_wait(ring.empty_barrier(), ring.parity ^ 1);  // at once in the first turn
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

    __device__ static void promote(const float2& scales, const Sum (&sum)[64], float (&total)[64]) {
#pragma unroll
        for (int j = 0; j < 64; ++j) total[j] = __fmaf_rn(sum[j], j / 2 % 2 ? scales.y : scales.x, total[j]);
    }

    // Waits for a chunk, and expands its codes.
    __device__ static void get_ready(const LinearArguments& a, const Ring& ring, int in_block, const uint2 (&scales)[2],
                                     uint32_t (&operand)[4][4]) {
        wgmma::barrier_wait(ring.full_barrier(), ring.parity);
        expand(load(ring.memory() + tile_bytes + in_block * code_bytes, lane_of_warp()), operand);
        if constexpr (mode == Mode::scaled) apply_scales(a, scales, operand);
    }
    __device__ static int lane_of_warp() {
        return threadIdx.x % 32;
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
    // What a tile's results are made with, loaded while its products run: the lane's four rows, and of the tokens those
    // of the lane's number, and every 32 after.
    struct Factors {
        Row rows[4];
        Token tokens[NB * 4];
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
    __device__ static Factors load_factors(const LinearArguments& a, const Place& place, const uint8_t* tile,
                                           int rows) {
        Factors f;
        const int lane = lane_of_warp(), quad = lane % 4 * 4;
#pragma unroll
        for (int i = 0; i < 4; ++i) f.rows[i] = row_parameters(a, tile, (quad + i) % 8 * 2 + quad / 8);
#pragma unroll
        for (int i = 0; i < NB * 4; ++i) {
            const int token = place.tokens * NB * 128 + i * 32 + lane;
            if (token >= rows) continue;
            if (a.row_scales) f.tokens[i].scale = a.row_scales[token].scale;
            if (!a.has_offsets) continue;
            if constexpr (mode == Mode::integer) f.tokens[i].sum = a.row_scales[token].sum;
            if constexpr (mode == Mode::codes && Codec::codes) f.tokens[i].sum = a.token_sums[token];
        }
        return f;
    }

    // Products of a chunk, of 128 tokens from n * 128 on for each of `sum`.
    __device__ static void multiply(uint64_t tokens, int n, bool adds, const uint32_t (&operand)[4][4],
                                    Sum (&sum)[sums][64]) {
        wgmma::fence();
#pragma unroll
        for (int k = 0; k < 4; ++k)
#pragma unroll
            for (int i = 0; i < sums; ++i) {
                const uint64_t b = tokens + wgmma::descriptor_offset((n + i) * 128 * chunk_bytes + k * 32);
                const int add = k > 0 || adds;
                if constexpr (mode == Mode::integer)
                    wgmma::product_int8<Codec::is_signed>(sum[i], operand[k], b, add);
                else if constexpr (is_e4m3)
                    wgmma::product_e4m3(sum[i], operand[k], b, add);
                else if constexpr (Codec::bf16)
                    wgmma::product_bf16(sum[i], operand[k], b, add);
                else
                    wgmma::product_f16(sum[i], operand[k], b, add);
            }
        wgmma::commit();
    }

    // first_tile: of the block.
    __device__ static void consume(const LinearArguments& a, Ring& ring, const Place& place, int chunks, int rows,
                                   int warpgroup, bool first_tile, uint32_t staging) {
        const int lane = lane_of_warp(), g = lane / 4;
        const int in_block = warpgroup * 4 + threadIdx.x / 32 % 4;
        const uint8_t* tile = weight_tile(a, place.weight_tile(in_block));

        const Factors factors = load_factors(a, place, tile, rows);
        Sum sum[sums][64];
        float total[promotes ? NB : 1][64];
        if constexpr (promotes) {
#pragma unroll
            for (int i = 0; i < NB * 64; ++i) total[i / 64][i % 64] = 0;
        }
        uint2 scales[2];
        const auto get_scales = [&](int chunk) {
            if constexpr (mode == Mode::scaled) load_scales(a, tile, chunk, g, scales);
        };
        const auto give_back = [&](uint32_t barrier) {
            if (lane < a.cluster) wgmma::barrier_arrive(barrier, lane);
        };
        uint32_t first_of_pair = 0;  // its barrier
        // Multiplies a chunk with `operand`. While the products run, the operand of the chunk after gets ready in
        // `other`.
        const auto step = [&](int chunk, bool second, uint32_t(&operand)[4][4], uint32_t(&other)[4][4]) {
            const bool begins = first_tile && chunk == 0;
            if (begins && warpgroup > 0) wgmma::turn_wait();  // the warpgroups take turns
            const uint64_t tokens = wgmma::descriptor(ring.memory());
            multiply(tokens, 0, promotes ? in_pairs && second : chunk > 0, operand, sum);
            if (begins && warpgroup == 0) wgmma::turn_give();
            const float2 to_total = sum_scales(a, tile, chunk, g);
            if (in_pairs && second) {
                wgmma::wait<1>();
                wgmma::keep(other);  // until here the first chunk's products read these registers
                give_back(first_of_pair);
            }
            const uint32_t barrier = ring.empty_barrier();
            ring.advance();
            const auto prepare = [&] {
                if (chunk + 1 < chunks) {
                    get_ready(a, ring, in_block, scales, other);
                    get_scales(chunk + 2);
                }
            };
            if (kept_operands == 2) prepare();
            if (in_pairs && !second) {
                first_of_pair = barrier;
                return;
            }
            if constexpr (promotes && NB == 2) {
                wgmma::wait<0>();
                promote(to_total, sum[0], total[0]);
                multiply(tokens, 1, false, operand, sum);
            }
            wgmma::wait<0>();
            wgmma::keep(operand);
            give_back(barrier);
            if (kept_operands == 1) prepare();
            if constexpr (promotes) promote(to_total, sum[0], total[NB - 1]);
        };
        uint32_t operands[kept_operands][4][4];
        auto &even = operands[0], &odd = operands[kept_operands - 1];
        get_scales(0);
        get_ready(a, ring, in_block, scales, even);
        get_scales(1);
        for (int chunk = 0; chunk < chunks; chunk += 2) {
            step(chunk, false, even, odd);
            step(chunk + 1, true, odd, even);
        }
        if constexpr (promotes)
            write(a, place, in_block, rows, factors, total, staging);
        else
            write(a, place, in_block, rows, factors, sum, staging);
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

    // Writes a tile's results.
    __device__ static void write(const LinearArguments& a, const Place& place, int in_block, int rows,
                                 const Factors& factors, const Sum (&total)[NB][64], uint32_t staging) {
        if constexpr (mode == Mode::integer && !Codec::is_signed)
            if (a.has_offsets && !a.is_minimum)
                return write_rows<Offsets::zero, true>(a, place, in_block, rows, factors, total, staging);
        if constexpr ((mode == Mode::integer && !Codec::is_signed) || (mode == Mode::codes && Codec::codes))
            if (a.has_offsets)
                return write_rows<Offsets::minimum, true>(a, place, in_block, rows, factors, total, staging);
        if (a.bias || a.add)
            write_rows<Offsets::none, true>(a, place, in_block, rows, factors, total, staging);
        else
            write_rows<Offsets::none, false>(a, place, in_block, rows, factors, total, staging);
    }

    // A warp's results go through its part of the shared memory, 16 tokens at a time, so that a lane has four rows side
    // by side: of tokens lane / 4 and 8 + lane / 4 rows lane % 4 * 4 and after. more: there may be a bias or an addend.
    template <Offsets offsets, bool more>
    __device__ static void write_rows(const LinearArguments& a, const Place& place, int in_block, int rows,
                                      const Factors& factors, const Sum (&total)[NB][64], uint32_t staging) {
        const int lane = lane_of_warp(), g = lane / 4, t = lane % 4, quad = t * 4;
        const int64_t weight_row = place.weight_tile(in_block) * 16 + quad;
        const int inside = static_cast<int>(max(min(a.weight_rows - weight_row, int64_t{4}), int64_t{0}));
        const bool whole = inside == 4 && a.out_aligned;
        float bias[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) bias[i] = more && a.bias && i < inside ? a.bias[weight_row + i] : 0;

        // From here on tokens are counted from the lane's first.
        const int64_t first_token = place.tokens * NB * 128 + g;
        const int tokens = rows - static_cast<int>(first_token);
        const float* add = a.add + first_token * a.add_stride + weight_row;
        float* out = a.out + first_token * a.out_stride + weight_row;
        // Addends are on their way while the results of the tokens before are written.
        const auto load_addend = [&](int i) {
            float4 x = make_float4(0, 0, 0, 0);
            if (!more || !a.add) return x;
            if (i < tokens) {
                if (whole) {
                    x = *reinterpret_cast<const float4*>(add);
                } else {
                    if (inside > 0) x.x = add[0];
                    if (inside > 1) x.y = add[1];
                    if (inside > 2) x.z = add[2];
                    if (inside > 3) x.w = add[3];
                }
            }
            add += 8 * a.add_stride;
            return x;
        };
        const auto write_token = [&](int i, const uint4& sums, const float4& addend) {
            Token x = factors.tokens[i / 32];
            x.scale = __shfl_sync(0xffffffffu, x.scale, i % 32 + g);
            if (offsets != Offsets::none) x.sum = __shfl_sync(0xffffffffu, x.sum, i % 32 + g);
            float y[4];
#pragma unroll
            for (int r = 0; r < 4; ++r) {
                const uint32_t bits = word(sums, r);
                y[r] = finish<offsets>(factors.rows[r], x, reinterpret_cast<const Sum&>(bits));
            }
            if (more && a.bias)
#pragma unroll
                for (int r = 0; r < 4; ++r) y[r] = __fadd_rn(y[r], bias[r]);
            if (more && a.add) {
                y[0] = __fadd_rn(y[0], addend.x), y[1] = __fadd_rn(y[1], addend.y);
                y[2] = __fadd_rn(y[2], addend.z), y[3] = __fadd_rn(y[3], addend.w);
            }
            if (i < tokens) {
                if (whole)
                    store_four(out, y);
                else
#pragma unroll
                    for (int r = 0; r < 4; ++r)
                        if (r < inside) out[r] = y[r];
            }
            out += 8 * a.out_stride;
        };

        const uint32_t to = staging + (2 * t * staged_pitch + g) * 4, from = staging + (g * staged_pitch + quad) * 4;
        float4 next[2];
#pragma unroll
        for (int j = 0; j < 2; ++j) next[j] = load_addend(j * 8);
#pragma unroll
        for (int begin = 0; begin < NB * 16; begin += 2) {  // columns of 8 tokens
#pragma unroll
            for (int j = 0; j < 2; ++j)
#pragma unroll
                for (int i = 0; i < 4; ++i)
                    wgmma::store_shared(to + ((j * 8 + i % 2) * staged_pitch + i / 2 * 8) * 4,
                                        total[(begin + j) / 16][(begin + j) % 16 * 4 + i]);
            __syncwarp();
            const uint4 sums[2] = {wgmma::load_shared(from), wgmma::load_shared(from + 8 * staged_pitch * 4)};
            __syncwarp();
            const float4 addends[2] = {next[0], next[1]};
            if (begin + 2 < NB * 16)
#pragma unroll
                for (int j = 0; j < 2; ++j) next[j] = load_addend((begin + 2 + j) * 8);
#pragma unroll
            for (int j = 0; j < 2; ++j) write_token((begin + j) * 8, sums[j], addends[j]);
        }
    }
    __device__ static void store_four(float* to, const float (&v)[4]) {
        asm volatile("st.global.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(to), "f"(v[0]), "f"(v[1]), "f"(v[2]), "f"(v[3])
                     : "memory");
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
        const uint32_t staging = tiles + K::depth * K::slot_bytes + threadIdx.x / 32 * K::staged_bytes;
        bool first_tile = true;
        K::each_tile(a, rows, [&](const typename K::Place& place) {
            K::consume(a, ring, place, chunks, rows, warpgroup, first_tile, staging);
            first_tile = false;
        });
    }
    wgmma::cluster_barrier();  // a block's memory must stay while others copy to it
#endif
}

template <class Codec, Mode mode>
ManyKernel choose(bool wide) {
    // e4m3 is faster with the sums of two chunks together, which leave no registers for twice the tokens.
    if constexpr (mode != Mode::e4m3)
        if (wide)
            return {linear_many<Codec, mode, 2>, 256, Kernel<Codec, mode, 2>::code_bytes,
                    Kernel<Codec, mode, 2>::shared_bytes};
    return {linear_many<Codec, mode, 1>, 128, Kernel<Codec, mode, 1>::code_bytes, Kernel<Codec, mode, 1>::shared_bytes};
}

}  // namespace many
}  // namespace cuda
}  // namespace quant
