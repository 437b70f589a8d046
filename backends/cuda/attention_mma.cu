// Attention of many rows on tensor cores: blocks of 128 rows of one head, a warp 16 of them, over the pages that any of
// the rows sees, which are copied to shared memory while the page before is worked on. Queries and probabilities are
// rounded to f16, as cached keys and values are.
#include <math_constants.h>

#include "backends/cuda/attention.cuh"

namespace quant {
namespace cuda {
namespace {

constexpr int warps = 8, threads = 32 * warps, block_rows = 16 * warps;

__device__ inline uint32_t shared_address(const void* p) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}
__device__ inline void copy_16(uint32_t to, const void* from, bool inside) {  // zeros if not inside
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(inside ? 16 : 0) : "memory");
#else
    const uint4 v = inside ? *static_cast<const uint4*>(from) : make_uint4(0, 0, 0, 0);
    asm volatile("st.shared.v4.u32 [%0], {%1,%2,%3,%4};" ::"r"(to), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w) : "memory");
#endif
}
__device__ inline void wait_for_copies() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}
// Four 8 x 8 matrices of f16 whose rows the lanes' addresses name, transposed: the second operand of two products side
// by side.
__device__ inline void load_transposed(uint32_t (&b)[4], uint32_t address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(b[0]), "=r"(b[1]), "=r"(b[2]), "=r"(b[3])
                 : "r"(address)
                 : "memory");
}
__device__ inline float power_of_two(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// Byte of column `column` in row `row` of a tile whose rows have `columns` f16: 16-byte chunks are swizzled so that
// eight rows' chunks of one column lie in different banks.
template <int columns>
__device__ inline uint32_t tile_byte(int row, int column) {
    return row * columns * 2 + ((column / 8) ^ (row % 8)) * 16;
}

// Two codes as f16 values times their scales.
template <CacheKind kind>
__device__ inline uint32_t decode_pair(uint32_t codes, __half2 scales) {
    const __half2 h = __hmul2(code_pair<kind>(codes), scales);
    return *reinterpret_cast<const uint32_t*>(&h);
}

// The pages that rows [first, last) of the step see: of each of their sequences in turn.
struct Pages {
    int sequence, page, last_page;
    int row, end_row;  // of the sequence's rows in the block
    int first_page, end_position;
    __device__ void enter(const StepView& step, int first, int last, int window) {
        const StepSequenceWords s = step.sequence(sequence);
        row = max(first, s.first_row);
        end_row = min(last, s.first_row + s.rows);
        first_page = s.first_page;
        const int first_position = s.first_position + row - s.first_row;
        end_position = s.first_position + end_row - s.first_row;
        page = window ? max(0, first_position + 1 - window) / page_positions : 0;
        last_page = (end_position - 1) / page_positions;
        if (s.rows < fewest_mma_rows) last_page = page - 1;
    }
};

template <int DIM, CacheKind kind>
struct Tile {
    static constexpr int key_bytes = DIM * page_positions * 2, bytes = 2 * key_bytes;
    static constexpr int chunks = DIM * page_positions / 8 / threads;  // of 16 bytes of f16, a thread's
    static_assert(DIM % 32 == 0, "whole chunks for each thread");

    // Copies a page's keys and values; values at `end` and later positions become 0.
    __device__ static void copy(uint32_t to, const CachePage& page, int end) {
#pragma unroll
        for (int i = 0; i < chunks; ++i) {
            const int at = (i * threads + threadIdx.x) * 8;
            const int dim = at / page_positions, position = at % page_positions;
            const int value_position = at / DIM, value_dim = at % DIM;
            const uint32_t key_to = to + tile_byte<page_positions>(dim, position);
            const uint32_t value_to = to + key_bytes + tile_byte<DIM>(value_position, value_dim);
            if (kind == CacheKind::f16) {
                copy_16(key_to, page.keys + at * 2, true);
                copy_16(value_to, page.values + at * 2, value_position < end);
                continue;
            }
            const uint2 key = *reinterpret_cast<const uint2*>(page.keys + at);
            const uint4 scales = *reinterpret_cast<const uint4*>(page.key_scales + position);
            store(key_to, key, scales);
            uint2 value = *reinterpret_cast<const uint2*>(page.values + at);
            const uint32_t scale = __half_as_ushort(page.value_scales[value_position]);
            uint32_t both = scale | scale << 16;
            if (value_position >= end) both = value.x = value.y = 0;
            store(value_to, value, make_uint4(both, both, both, both));
        }
    }
    __device__ static void store(uint32_t to, const uint2& codes, const uint4& scales) {
        const __half2* s = reinterpret_cast<const __half2*>(&scales);
        asm volatile("st.shared.v4.u32 [%0], {%1,%2,%3,%4};" ::"r"(to), "r"(decode_pair<kind>(codes.x, s[0])),
                     "r"(decode_pair<kind>(codes.x >> 16, s[1])), "r"(decode_pair<kind>(codes.y, s[2])),
                     "r"(decode_pair<kind>(codes.y >> 16, s[3]))
                     : "memory");
    }
};

template <int DIM, CacheKind kind>
__global__ void __launch_bounds__(threads, 1) attention_mma(StepView step, AttentionArguments a) {
    using T = Tile<DIM, kind>;
    extern __shared__ uint4 memory[];
    allow_next();
    wait_for_previous();
    // Later rows see more: they come first.
    const int head = blockIdx.x, first_row = (gridDim.y - 1 - blockIdx.y) * block_rows;
    const int last_row = min(first_row + block_rows, step.rows(false));
    if (first_row >= last_row) return;
    const int kv_head = head / (a.heads / a.kv_heads);
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const uint32_t tiles = shared_address(memory);
    const int rows[2] = {first_row + warp * 16 + g, first_row + warp * 16 + g + 8};

    uint32_t query[DIM / 16][4];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        const float* q = a.q + min(rows[r], last_row - 1) * a.q_stride + head * DIM;
        const float scale = a.scale * 1.4426950408889634f;  // probabilities are powers of two
#pragma unroll
        for (int k = 0; k < DIM / 16; ++k)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const int at = k * 16 + half * 8 + 2 * t;
                query[k][half * 2 + r] = two_halves<false>(q[at] * scale, q[at + 1] * scale);
            }
    }

    Pages copied;
    copied.sequence = step.sequence_of(first_row);
    copied.enter(step, first_row, last_row, a.window);
    // To the next page that is there; false: there is none.
    const auto settle = [&](Pages& p) {
        while (p.page > p.last_page) {
            if (p.end_row >= last_row) return false;
            ++p.sequence;
            p.enter(step, first_row, last_row, a.window);
        }
        return true;
    };
    const auto copy = [&](int slot) {
        T::copy(tiles + slot * T::bytes, CachePage(step.page(copied.first_page + copied.page), a.cache, kv_head),
                copied.end_position - copied.page * page_positions);
        ++copied.page;
    };
    Pages here = copied;
    if (!settle(copied)) return;  // only rows of short sequences
    copy(0);
    bool more = settle(here);

    float out[DIM / 8][4], largest[2], total[2];
    const auto clear = [&] {
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            largest[r] = -CUDART_INF_F;
            total[r] = 0;
#pragma unroll
            for (int n = 0; n < DIM / 8; ++n) out[n][2 * r] = out[n][2 * r + 1] = 0;
        }
    };
    const auto finish = [&] {
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            float sum = total[r];
            sum += __shfl_xor_sync(0xffffffffu, sum, 1);
            sum += __shfl_xor_sync(0xffffffffu, sum, 2);
            if (rows[r] < here.row || rows[r] >= here.end_row) continue;
            float* y = a.out + rows[r] * a.out_stride + head * DIM;
#pragma unroll
            for (int n = 0; n < DIM / 8; ++n)
#pragma unroll
                for (int i = 0; i < 2; ++i) y[n * 8 + 2 * t + i] = out[n][2 * r + i] / sum;
        }
    };
    clear();

    for (int slot = 0; more; slot ^= 1) {
        wait_for_copies();
        __syncthreads();
        if (settle(copied)) copy(slot ^ 1);
        const uint32_t keys = tiles + slot * T::bytes, values = keys + T::key_bytes;

        // What the lane's two rows see of this page.
        const int first_position = here.page * page_positions;
        int begin[2], end[2];
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            const bool inside = rows[r] >= here.row && rows[r] < here.end_row;
            end[r] = inside ? here.end_position - (here.end_row - rows[r]) + 1 - first_position : 0;
            begin[r] = a.window ? end[r] - a.window : 0;
        }
        const bool idle = (end[0] <= 0 || begin[0] >= page_positions) && (end[1] <= 0 || begin[1] >= page_positions);
        if (!__all_sync(0xffffffffu, idle)) {
            float score[page_positions / 8][4];
#pragma unroll
            for (int n = 0; n < page_positions / 8; ++n)
#pragma unroll
                for (int i = 0; i < 4; ++i) score[n][i] = 0;
#pragma unroll
            for (int k = 0; k < DIM / 16; ++k)
#pragma unroll
                for (int n = 0; n < page_positions / 16; ++n) {
                    uint32_t b[4];
                    load_transposed(b, keys + tile_byte<page_positions>(k * 16 + lane % 16, n * 16 + lane / 16 * 8));
                    mma_f16(score[2 * n], query[k], b[0], b[1]);
                    mma_f16(score[2 * n + 1], query[k], b[2], b[3]);
                }

            const bool whole = end[0] >= page_positions && begin[0] <= 0 && end[1] >= page_positions && begin[1] <= 0;
            if (!__all_sync(0xffffffffu, whole))
#pragma unroll
                for (int n = 0; n < page_positions / 8; ++n)
#pragma unroll
                    for (int i = 0; i < 4; ++i) {
                        const int position = n * 8 + 2 * t + i % 2;
                        if (position < begin[i / 2] || position >= end[i / 2]) score[n][i] = -CUDART_INF_F;
                    }

#pragma unroll
            for (int r = 0; r < 2; ++r) {
                float risen = largest[r];
#pragma unroll
                for (int n = 0; n < page_positions / 8; ++n)
                    risen = fmaxf(risen, fmaxf(score[n][2 * r], score[n][2 * r + 1]));
                risen = fmaxf(risen, __shfl_xor_sync(0xffffffffu, risen, 1));
                risen = fmaxf(risen, __shfl_xor_sync(0xffffffffu, risen, 2));
                const float base = risen == -CUDART_INF_F ? 0 : risen;  // nothing seen yet
                const float shrink = power_of_two(largest[r] - base);
                largest[r] = risen;
                float sum = 0;
#pragma unroll
                for (int n = 0; n < page_positions / 8; ++n)
#pragma unroll
                    for (int i = 2 * r; i < 2 * r + 2; ++i) {
                        score[n][i] = power_of_two(score[n][i] - base);
                        sum += score[n][i];
                    }
                total[r] = total[r] * shrink + sum;
#pragma unroll
                for (int n = 0; n < DIM / 8; ++n) {
                    out[n][2 * r] *= shrink;
                    out[n][2 * r + 1] *= shrink;
                }
            }
#pragma unroll
            for (int k = 0; k < page_positions / 16; ++k) {
                const uint32_t weight[4] = {two_halves<false>(score[2 * k][0], score[2 * k][1]),
                                            two_halves<false>(score[2 * k][2], score[2 * k][3]),
                                            two_halves<false>(score[2 * k + 1][0], score[2 * k + 1][1]),
                                            two_halves<false>(score[2 * k + 1][2], score[2 * k + 1][3])};
#pragma unroll
                for (int n = 0; n < DIM / 16; ++n) {
                    uint32_t b[4];
                    load_transposed(b, values + tile_byte<DIM>(k * 16 + lane % 16, n * 16 + lane / 16 * 8));
                    mma_f16(out[2 * n], weight, b[0], b[1]);
                    mma_f16(out[2 * n + 1], weight, b[2], b[3]);
                }
            }
        }
        if (++here.page > here.last_page) {
            // The sequence's rows are complete. The sums of other rows begin anew: an infinity among these values times
            // their weights of 0 is not 0.
            finish();
            clear();
            more = settle(here);
        }
    }
}

template <int DIM>
void launch(Recorder& recorder, const AttentionArguments& a) {
    const auto go = [&](auto kernel, int bytes) {
        recorder.launch(kernel, dim3(a.heads, (recorder.max_rows + block_rows - 1) / block_rows), dim3(threads),
                        2 * bytes, recorder.view(), a);
    };
    switch (a.cache.kind) {
        case CacheKind::s8:
            return go(attention_mma<DIM, CacheKind::s8>, Tile<DIM, CacheKind::s8>::bytes);
        case CacheKind::e4m3:
            return go(attention_mma<DIM, CacheKind::e4m3>, Tile<DIM, CacheKind::e4m3>::bytes);
        default:
            return go(attention_mma<DIM, CacheKind::f16>, Tile<DIM, CacheKind::f16>::bytes);
    }
}

}  // namespace

void launch_attention_mma(Recorder& recorder, const AttentionArguments& a) {
    if (a.head_dim == 64) return launch<64>(recorder, a);
    launch<128>(recorder, a);
}

}  // namespace cuda
}  // namespace quant
