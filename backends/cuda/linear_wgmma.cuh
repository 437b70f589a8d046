// Products of many rows on Hopper: the transposed result, weights as the first operand, activations, in shared memory,
// as the second. Of two warpgroups of 64 weight rows, each multiplies while the other gets ready; a third copies codes
// and activations. Bytes are multiplied from shared memory as they lie in memory. Other weights are expanded in
// registers, and their activations are laid out by a kernel before this one. As many blocks as there are
// multiprocessors take one tile of the result after another, and the next tile's first chunks are copied while the
// results of this one are written.
#pragma once
#include "backends/cuda/linear_products.cuh"

namespace quant {
namespace cuda {
namespace many {

constexpr int consumers = many_tiles / 4, threads = 128 * (consumers + 1);
static_assert(threads == many_threads, "two warpgroups that multiply, one that copies");

using Mode = ManyMode;

template <class Codec, Mode mode, int N>  // tokens in a tile
struct Kernel : Products<Codec, mode> {
    using Base = Products<Codec, mode>;
    using Base::both_shared;
    using Base::code_bytes;
    using Base::lane_of_warp;
    using Base::promotes;
    using Base::scales_sums;
    using typename Base::Offsets;
    using typename Base::Row;
    using typename Base::Sum;
    using typename Base::Token;
    static constexpr int product_tokens = both_shared ? N : 128, halves = N / product_tokens;
    // Chunks' sums that are promoted are those of one 128 tokens after the other, or of two chunks together.
    static constexpr int sums = promotes ? 1 : halves;
    static constexpr bool in_pairs = promotes && !scales_sums && halves == 1;
    static constexpr int kept_operands = promotes && halves == 2 ? 1 : 2;  // chunks whose operands the registers have
    static constexpr int tile_bytes = N * chunk_bytes;
    static constexpr int copied_bytes = both_shared ? 1024 : code_bytes;  // of a weight tile by one copy
    static constexpr int slot_bytes = tile_bytes + many_tiles * code_bytes;
    // A warp's results on their way to memory: of 16 tokens 16 rows, so that lanes meet in no bank.
    static constexpr int staged_pitch = 20, staged_bytes = 16 * staged_pitch * 4;
    static constexpr int ring_bytes = (225 << 10) - many_tiles * staged_bytes;               // of a block's 227 KiB
    static constexpr int depth = ring_bytes / slot_bytes < 8 ? ring_bytes / slot_bytes : 8;  // chunks in flight
    static constexpr int shared_bytes = 1024 + depth * slot_bytes + many_tiles * staged_bytes;
    static_assert(slot_bytes % 1024 == 0, "operands of products begin at multiples of 1024");

    // A tile of the result: N tokens by the rows of many_tiles weight tiles. It may lie past the last token or weight:
    // then its block works for the other of its cluster, and its results are not written.
    struct Place {
        int tokens, weights;
        __device__ int64_t weight_tile(int i) const { return static_cast<int64_t>(weights) * many_tiles + i; }
    };
    // The block's tiles, in turn: all tokens of the same weights after each other. The blocks of a cluster have side by
    // side what they do not share: weights if both operands are in shared memory, else tokens.
    template <class Each>
    __device__ static void each_tile(const LinearArguments& a, int rows, Each each) {
        const int weights = static_cast<int>((a.tile_count + many_tiles - 1) / many_tiles), tokens = (rows + N - 1) / N;
        const int across = both_shared ? tokens : (tokens + a.cluster - 1) / a.cluster;
        const int down = both_shared ? (weights + a.cluster - 1) / a.cluster : weights;
        const int first = blockIdx.x / a.cluster, in_cluster = blockIdx.x % a.cluster;
        for (int i = first; i < across * down; i += gridDim.x / a.cluster) {
            if (both_shared)
                each(Place{i % across, i / across * a.cluster + in_cluster});
            else
                each(Place{i % across * a.cluster + in_cluster, i / across});
        }
    }
    // Past the end the last one.
    __device__ static const uint8_t* weight_tile(const LinearArguments& a, int64_t tile) {
        return a.tiles + min(tile, a.tile_count - 1) * a.tile_bytes;
    }

    using Ring = wgmma::Ring<slot_bytes, depth>;  // of chunks, which goes on from tile to tile

    // Copies each chunk's activations and codes: of what the cluster shares, the block's part to all blocks of it, once
    // the consumers of them all are done with what was there.
    __device__ static void produce(const LinearArguments& a, const ManyMaps& maps, Ring& ring, const Place& place,
                                   int chunks) {
        const int in_cluster = blockIdx.x % a.cluster;
        const auto copy = [&](uint32_t to, const CUtensorMap& map, int byte, int row, int tile, bool shared) {
            if (shared && a.cluster > 1)
                wgmma::copy_box(to, map, byte, row, tile, ring.full_barrier(), (1 << a.cluster) - 1);
            else
                wgmma::copy_box(to, map, byte, row, tile, ring.full_barrier());
        };
        for (int i = 0; i < chunks; ++i, ring.advance()) {
            const uint32_t tokens = ring.memory(), codes = tokens + tile_bytes;
            wgmma::barrier_wait(ring.empty_barrier(), ring.parity ^ 1);  // at once in the first turn
            wgmma::barrier_expect(ring.full_barrier(), slot_bytes);
            const int first_tile = place.weights * many_tiles, code_row = i * (code_bytes / chunk_bytes);
            if constexpr (both_shared) {
                const int token = in_cluster * (N / a.cluster);
                copy(tokens + token * chunk_bytes, maps.tokens, i * chunk_bytes, place.tokens * N + token, 0, true);
                for (int stage = 0; stage < 2; ++stage)  // stage after stage: see code_descriptor
                    copy(codes + stage * many_tiles * copied_bytes, maps.weights, 0,
                         code_row + stage * (copied_bytes / chunk_bytes), first_tile, false);
            } else {
                const int tile = in_cluster * (many_tiles / a.cluster);
                copy(tokens, maps.tokens, 0, 0, place.tokens * chunks + i, false);
                copy(codes + tile * code_bytes, maps.weights, 0, code_row, first_tile + tile, true);
            }
        }
    }

    // Waits for a chunk, and expands its codes.
    __device__ static void get_ready(const LinearArguments& a, const Ring& ring, int in_block, const uint2 (&scales)[2],
                                     uint32_t (&operand)[4][4]) {
        wgmma::barrier_wait(ring.full_barrier(), ring.parity);
        Base::get_operands(a, ring.memory() + tile_bytes + in_block * code_bytes, scales, operand);
    }
    // What a tile's results are made with, loaded while its products run: the lane's four rows, and of the tokens those
    // of the lane's number, and every 32 after.
    struct Factors {
        Row rows[4];
        Token tokens[N / 32];
    };
    __device__ static Factors load_factors(const LinearArguments& a, const Place& place, const uint8_t* tile,
                                           int rows) {
        Factors f;
        const int lane = lane_of_warp(), quad = lane % 4 * 4;
#pragma unroll
        for (int i = 0; i < 4; ++i) f.rows[i] = Base::row_parameters(a, tile, (quad + i) % 8 * 2 + quad / 8);
#pragma unroll
        for (int i = 0; i < N / 32; ++i) {
            const int token = place.tokens * N + i * 32 + lane;
            if (token < rows) f.tokens[i] = Base::load_token(a, token);
        }
        return f;
    }

    // Products of a chunk with operands in registers, of 128 tokens from n * 128 on for each of `sum`.
    __device__ static void multiply(uint64_t tokens, int n, bool adds, const uint32_t (&operand)[4][4],
                                    Sum (&sum)[sums][64]) {
        wgmma::fence();
#pragma unroll
        for (int k = 0; k < 4; ++k)
#pragma unroll
            for (int i = 0; i < sums; ++i) {
                const uint64_t b = tokens + wgmma::descriptor_offset((n + i) * 128 * chunk_bytes + k * 32);
                Base::multiply(sum[i], operand[k], b, k > 0 || adds);
            }
        wgmma::commit();
    }

    // A warp is done with a slot of all blocks of the cluster.
    __device__ static void give_back(const LinearArguments& a, uint32_t barrier) {
        const int lane = lane_of_warp();
        if (lane < a.cluster) wgmma::barrier_arrive(barrier, lane);
    }

    // One tile; first_tile: of the block.
    __device__ static void consume(const LinearArguments& a, Ring& ring, const Place& place, int chunks, int rows,
                                   int warpgroup, bool first_tile, uint32_t staging) {
        if constexpr (both_shared)
            consume_bytes(a, ring, place, chunks, rows, warpgroup, first_tile, staging);
        else
            consume_operands(a, ring, place, chunks, rows, warpgroup, first_tile, staging);
    }

    // Both operands from shared memory. Sums that are promoted are those of two chunks, or of one that has scales; the
    // warpgroups take turns, so that one promotes while the other's products run.
    __device__ static void consume_bytes(const LinearArguments& a, Ring& ring, const Place& place, int chunks, int rows,
                                         int warpgroup, bool first_tile, uint32_t staging) {
        const int in_block = warpgroup * 4 + threadIdx.x / 32 % 4;
        const uint8_t* tile = weight_tile(a, place.weight_tile(in_block));
        const Factors factors = load_factors(a, place, tile, rows);
        Sum sum[1][N / 2];
        float total[1][promotes ? N / 2 : 1];
        if constexpr (promotes) {
#pragma unroll
            for (int i = 0; i < N / 2; ++i) total[0][i] = 0;
        }
        // Products of 32 columns each of the chunk in the slot, from the first one on.
        const auto issue = [&](int first, int count, bool adds) {
            const uint64_t tokens = wgmma::descriptor(ring.memory());
            const uint64_t codes = wgmma::code_descriptor(ring.memory() + tile_bytes + warpgroup * 4 * copied_bytes);
            wgmma::fence();
#pragma unroll
            for (int k = first; k < first + count; ++k) {
                const uint64_t at =
                    codes + wgmma::descriptor_offset(k / 2 * many_tiles * copied_bytes + k % 2 * 2 * matrix_bytes);
                const uint64_t b = tokens + wgmma::descriptor_offset(k * 32);
                Base::multiply(sum[0], at, b, k > first || adds);
            }
            wgmma::commit();
        };
        const auto wait_for_chunk = [&] { wgmma::barrier_wait(ring.full_barrier(), ring.parity); };
        if constexpr (!promotes) {
            uint32_t under_way = 0;  // barrier of the chunk before, whose products may still run
            for (int chunk = 0; chunk < chunks; ++chunk, ring.advance()) {
                wait_for_chunk();
                issue(0, 4, chunk > 0);
                wgmma::wait<1>();
                if (under_way) give_back(a, under_way);
                under_way = ring.empty_barrier();
            }
            wgmma::wait<0>();
            give_back(a, under_way);
            write(a, place, in_block, rows, factors, sum, staging);
        } else {
            if (first_tile && warpgroup == 1) wgmma::turn_give(0);
            constexpr int first_half = scales_sums ? 2 : 4;
            uint4 next_scales = Base::load_sum_scales(a, tile, 0);
            for (int chunk = 0; chunk < chunks; chunk += in_pairs ? 2 : 1, ring.advance()) {
                const uint4 scales = next_scales;
                next_scales = Base::load_sum_scales(a, tile, chunk + 1);
                wait_for_chunk();
                wgmma::turn_wait(warpgroup);
                issue(0, first_half, false);
                const uint32_t first = ring.empty_barrier();
                if constexpr (in_pairs) {
                    ring.advance();
                    wait_for_chunk();
                    issue(0, 4, true);
                } else {
                    issue(2, 2, true);
                }
                wgmma::wait<1>();
                wgmma::turn_give(1 - warpgroup);
                if (in_pairs) give_back(a, first);
                wgmma::wait<0>();
                give_back(a, ring.empty_barrier());
                Base::promote(Base::sum_scales(a, scales), sum[0], total[0]);
            }
            write(a, place, in_block, rows, factors, total, staging);
        }
    }
    // Takes the turn that is left when all tiles are done.
    __device__ static void end_turns(int warpgroup) {
        if (both_shared && promotes && warpgroup == 0) wgmma::turn_wait(0);
    }

    // Weights are expanded in registers.
    __device__ static void consume_operands(const LinearArguments& a, Ring& ring, const Place& place, int chunks,
                                            int rows, int warpgroup, bool first_tile, uint32_t staging) {
        const int g = lane_of_warp() / 4;
        const int in_block = warpgroup * 4 + threadIdx.x / 32 % 4;
        const uint8_t* tile = weight_tile(a, place.weight_tile(in_block));

        const Factors factors = load_factors(a, place, tile, rows);
        Sum sum[sums][64];
        float total[promotes ? halves : 1][64];
        if constexpr (promotes) {
#pragma unroll
            for (int i = 0; i < halves * 64; ++i) total[i / 64][i % 64] = 0;
        }
        uint2 scales[2];
        const auto get_scales = [&](int chunk) {
            if constexpr (mode == Mode::scaled) Base::load_scales(a, tile, chunk, g, scales);
        };
        uint32_t first_of_pair = 0;  // its barrier
        // Multiplies a chunk with `operand`. While the products run, the operand of the chunk after gets ready in
        // `other`.
        const auto step = [&](int chunk, bool second, uint32_t(&operand)[4][4], uint32_t(&other)[4][4]) {
            const bool begins = first_tile && chunk == 0;
            if (begins && warpgroup > 0) wgmma::turn_wait(1);  // the warpgroups take turns
            const uint64_t tokens = wgmma::descriptor(ring.memory());
            multiply(tokens, 0, promotes ? in_pairs && second : chunk > 0, operand, sum);
            if (begins && warpgroup == 0) wgmma::turn_give(1);
            const float2 to_total = Base::sum_scales(a, Base::load_sum_scales(a, tile, chunk));
            if (in_pairs && second) {
                wgmma::wait<1>();
                wgmma::keep(other);  // until here the first chunk's products read these registers
                give_back(a, first_of_pair);
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
            if constexpr (promotes && halves == 2) {
                wgmma::wait<0>();
                Base::promote(to_total, sum[0], total[0]);
                multiply(tokens, 1, false, operand, sum);
            }
            wgmma::wait<0>();
            wgmma::keep(operand);
            give_back(a, barrier);
            if (kept_operands == 1) prepare();
            if constexpr (promotes) Base::promote(to_total, sum[0], total[halves - 1]);
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

    // Writes a tile's results.
    template <int H, int V>
    __device__ static void write(const LinearArguments& a, const Place& place, int in_block, int rows,
                                 const Factors& factors, const Sum (&total)[H][V], uint32_t staging) {
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
    template <Offsets offsets, bool more, int H, int V>
    __device__ static void write_rows(const LinearArguments& a, const Place& place, int in_block, int rows,
                                      const Factors& factors, const Sum (&total)[H][V], uint32_t staging) {
        const int lane = lane_of_warp(), g = lane / 4, t = lane % 4, quad = t * 4;
        const int64_t weight_row = place.weight_tile(in_block) * 16 + quad;
        const int inside = static_cast<int>(max(min(a.weight_rows - weight_row, int64_t{4}), int64_t{0}));
        const bool whole = inside == 4 && a.out_aligned;
        float bias[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) bias[i] = more && a.bias && i < inside ? a.bias[weight_row + i] : 0;

        // From here on tokens are counted from the lane's first.
        const int64_t first_token = place.tokens * N + g;
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
                y[r] = Base::template finish<offsets>(factors.rows[r], x, reinterpret_cast<const Sum&>(bits));
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
        for (int begin = 0; begin < N / 8; begin += 2) {  // columns of 8 tokens
#pragma unroll
            for (int j = 0; j < 2; ++j)
#pragma unroll
                for (int i = 0; i < 4; ++i)
                    wgmma::store_shared(to + ((j * 8 + i % 2) * staged_pitch + i / 2 * 8) * 4,
                                        total[((begin + j) * 4 + i) / V][((begin + j) * 4 + i) % V]);
            __syncwarp();
            const uint4 sums[2] = {load_shared(from), load_shared(from + 8 * staged_pitch * 4)};
            __syncwarp();
            const float4 addends[2] = {next[0], next[1]};
            if (begin + 2 < N / 8)
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

template <class Codec, Mode mode, int N>
__global__ void __launch_bounds__(threads, 1)
    linear_many(StepView step, LinearArguments a, const __grid_constant__ ManyMaps maps) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    using K = Kernel<Codec, mode, N>;
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
        if (!first_tile) K::end_turns(warpgroup);
    }
    wgmma::cluster_barrier();  // a block's memory must stay while others copy to it
#endif
}

template <class Codec, Mode mode, int N>
ManyKernel kernel_of() {
    using K = Kernel<Codec, mode, N>;
    return {linear_many<Codec, mode, N>, N, K::copied_bytes, K::shared_bytes};
}
// The kernel of tiles of that many tokens: of many_tokens.
template <class Codec, Mode mode>
ManyKernel choose(int tokens) {
    constexpr bool promotes = Kernel<Codec, mode, 128>::promotes, both_shared = Kernel<Codec, mode, 128>::both_shared;
    if constexpr (both_shared && promotes)
        if (tokens == 192) return kernel_of<Codec, mode, 192>();
    if constexpr (!(both_shared && promotes) && mode != Mode::e4m3)
        if (tokens == 256) return kernel_of<Codec, mode, 256>();
    return kernel_of<Codec, mode, 128>();
}

}  // namespace many
}  // namespace cuda
}  // namespace quant
