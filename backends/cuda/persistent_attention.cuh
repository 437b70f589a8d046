// Attention of one row in the persistent kernel: a block has a key head, some of the query heads that share it and a
// part of the positions. It turns its queries; the block of the newest position turns its key and writes it and its
// value into the cache first.
#pragma once
#include "backends/cuda/attention_split.cuh"
#include "backends/cuda/persistent_values.cuh"
#include "backends/cuda/persistent_weights.cuh"
#include "backends/cuda/rope.cuh"

namespace quant {
namespace cuda {
namespace persistent {

// The units of positions that a row sees, and how many splits have some.
struct Splits {
    Range range;
    int first, units, of_split, active;
    __device__ Splits(const StepView& step, const Instruction& x) : range(visible(step, 0, x.attention.window)) {
        first = range.begin / unit_positions;
        units = (range.end - 1) / unit_positions - first + 1;
        of_split = max(workers, (units + x.splits - 1) / x.splits);
        active = (units + of_split - 1) / of_split;
    }
};

// The first pages of what this block will read are on their way into the second-level cache.
__device__ inline void prefetch_cache(const StepView& step, const Instruction& x) {
    constexpr int most_pages = 4;
    const int thread = thread_number();
    const Splits s(step, x);
    const int item = blockIdx.x / x.splits, split = blockIdx.x % x.splits;
    if (item >= x.attention.kv_heads * x.groups || split >= s.active) return;
    const int begin = (s.first + split * s.of_split) * unit_positions / page_positions;
    const int end = (s.first + min(s.units, (split + 1) * s.of_split) - 1) * unit_positions / page_positions + 1;
    const int page = begin + thread / 2;
    if (thread >= 2 * most_pages || page >= end) return;
    const CachePage at(step.page(step.first_page(0) + page), x.attention.cache, item / x.groups);
    asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(thread % 2 ? at.values : at.keys),
                 "r"(static_cast<uint32_t>(x.attention.cache.head_bytes))
                 : "memory");
}

template <int H, int DIM, CacheKind kind>  // H: query heads together
__device__ __forceinline__ void attend(StepView step, int item, int split) {
    const Instruction& x = instruction();
    const Splits s(step, x);
    float* const shared = reinterpret_cast<float*>(activations());
    constexpr int vectors = DIM / 8, at_once = 32 / vectors, positions = unit_positions, loads = DIM / 16;
    constexpr int together = H == 1 ? loads : loads / 2;  // of loads; there are not enough registers for more
    constexpr bool codes = kind != CacheKind::f16;
    const AttentionArguments& a = x.attention;
    const int thread = thread_number(), warp = thread / 32, lane = thread % 32;
    const int kv_head = item / x.groups, per_kv = a.heads / a.kv_heads;
    const int first_head = kv_head * per_kv + item % x.groups * H;
    const int count = min(H, kv_head * per_kv + per_kv - first_head);
    const int pages_at = step.first_page(0);
    const bool has_newest = split == s.active - 1;

    float* row = shared;                              // [H + 2][DIM]: queries, key and value as they come
    float* query = row + (H + 2) * DIM;               // [DIM][H]
    float* weights = query + H * DIM;                 // [workers][16][H]
    float* sums = weights + workers * positions * H;  // [workers][H][DIM]
    float* warp_largest = sums + workers * H * DIM;   // [workers][H]
    float* warp_total = warp_largest + workers * H;   // [workers][H]
    for (int i = thread; i < (H + 2) * (DIM / 4); i += threads) {
        const int part = i / (DIM / 4);
        if (part < H ? part >= count : !has_newest) continue;
        const float* from = part < H    ? x.rope.q + (first_head + part) * DIM
                            : part == H ? x.rope.k + kv_head * DIM
                                        : x.rope.v + kv_head * DIM;
        float v[4];
        do look(from + i % (DIM / 4) * 4, v);
        while (!has_come(v));
        *reinterpret_cast<float4*>(row + i * 4) = make_float4(v[0], v[1], v[2], v[3]);
    }
    synchronize();
    for (int i = thread; i < H * DIM / 2; i += threads) {
        const int h = i / (DIM / 2), number = i % (DIM / 2);
        Pair pair(x.rope, row + min(h, count - 1) * DIM, number);
        pair.turn(x.rope.angles, number);
        query[pair.first * H + h] = h < count ? pair.left * a.scale : 0;
        query[pair.second * H + h] = h < count ? pair.right * a.scale : 0;
    }
    if (has_newest && warp >= workers - 2) {
        const int position = s.range.end - 1;
        const CachePage page(step.page(pages_at + position / page_positions), a.cache, kv_head);
        const bool is_key = warp == workers - 2;
        write_head<kind>(x.rope, page, position % page_positions, is_key, row + (H + !is_key) * DIM, x.rope.angles);
    }
    synchronize();

    SoftmaxSums<H, kind> softmax;
    softmax.clear();
    const int vector = lane % vectors, turn = lane / vectors;
    float* my_weights = weights + warp * positions * H;
    const int last_unit = s.first + min(s.units, (split + 1) * s.of_split);
    for (int unit = s.first + split * s.of_split + warp; unit < last_unit; unit += workers) {
        const int page = unit * positions / page_positions, in_page = unit * positions % page_positions;
        const CachePage at(step.page(pages_at + page), a.cache, kv_head);
        const int low = s.range.begin - unit * positions, high = s.range.end - unit * positions;
        float score[H][8];
#pragma unroll
        for (int h = 0; h < H; ++h)
#pragma unroll
            for (int j = 0; j < 8; ++j) score[h][j] = 0;
#pragma unroll
        for (int first = 0; first < loads; first += together) {
            Eight<kind> keys[together];
#pragma unroll
            for (int i = 0; i < together; ++i)
                keys[i].load(at.keys, (lane / 2 + 16 * (first + i)) * page_positions + in_page + lane % 2 * 8);
#pragma unroll
            for (int i = 0; i < together; ++i)
                add_key_column(score, keys[i], query + (lane / 2 + 16 * (first + i)) * H);
        }
        float key_scale[8];
        if constexpr (codes) {
            Eight<CacheKind::f16> scales;
            scales.load(reinterpret_cast<const uint8_t*>(at.key_scales), in_page + lane % 2 * 8);
            scales.to_floats(key_scale);
        }
        softmax.add_scores(score, key_scale, low, high, lane, my_weights);
        __syncwarp();
#pragma unroll
        for (int first = 0; first < loads; first += together) {
            Eight<kind> values[together];
            float value_scales[together];
#pragma unroll
            for (int i = 0; i < together; ++i) {
                const int p = turn + (first + i) * at_once;
                values[i].load(at.values, (in_page + p) * DIM + vector * 8);
                if constexpr (codes) value_scales[i] = __half2float(at.value_scales[in_page + p]);
            }
#pragma unroll
            for (int i = 0; i < together; ++i) {
                const int p = turn + (first + i) * at_once;
                if (p < low || p >= high) continue;  // nothing was written there
                softmax.add_values(values[i], value_scales[i], my_weights + p * H);
            }
        }
        __syncwarp();
    }

    // Over the lanes, then over the workers, in their order.
#pragma unroll
    for (int h = 0; h < H; ++h) {
        if (lane == 0) {
            warp_largest[warp * H + h] = softmax.largest[h];
            warp_total[warp * H + h] = softmax.total[h];
        }
#pragma unroll
        for (int j = 0; j < 8; ++j) {
            float v = softmax.mean[h][j];
            for (int i = vectors; i < 32; i *= 2) v += __shfl_xor_sync(0xffffffffu, v, i);
            if (turn == 0) sums[(warp * H + h) * DIM + vector * 8 + j] = v;
        }
    }
    synchronize();
    float* partial = x.partial + (static_cast<int64_t>(item) * x.splits + split) * H * (DIM + 2);
    for (int i = thread; i < count * DIM; i += threads) {
        const int h = i / DIM, d = i % DIM;
        float most = -CUDART_INF_F, value = 0, weight = 0;
#pragma unroll
        for (int w = 0; w < workers; ++w) most = fmaxf(most, warp_largest[w * H + h]);
#pragma unroll
        for (int w = 0; w < workers; ++w) {
            const float factor = expf(warp_largest[w * H + h] - most);
            weight = __fmaf_rn(factor, warp_total[w * H + h], weight);
            value = __fmaf_rn(factor, sums[(w * H + h) * DIM + d], value);
        }
        if (s.active == 1) {
            give(a.out + (first_head + h) * DIM + d, value / weight);
        } else {
            give(partial + h * (DIM + 2) + d, value);
            if (d < 2) give(partial + h * (DIM + 2) + DIM + d, d == 0 ? most : weight);
        }
    }
    if (s.active == 1 || !has_newest) return;

    // The block of the last split, which has the fewest positions, combines all in their order.
    const float* parts = x.partial + static_cast<int64_t>(item) * x.splits * H * (DIM + 2);
    for (int i = thread; i < count * DIM; i += threads) {
        const int h = i / DIM, d = i % DIM;
        bool complete;
        do {
            complete = true;
#pragma unroll 4
            for (int k = 0; k < s.active; ++k) {
                const float* part = parts + (k * H + h) * (DIM + 2);
                const float value = look(part + d), most = look(part + DIM), weight = look(part + DIM + 1);
                complete = complete && has_come(value) && has_come(most) && has_come(weight);
            }
        } while (!complete);
        give(a.out + (first_head + h) * DIM + d, combine_parts<H, DIM>(parts, s.active, h, d));
    }
}

template <int H, int DIM>
__device__ inline void attend_kind(CacheKind kind, const StepView& step, int item, int split) {
    switch (kind) {
        case CacheKind::s8:
            return attend<H, DIM, CacheKind::s8>(step, item, split);
        case CacheKind::e4m3:
            return attend<H, DIM, CacheKind::e4m3>(step, item, split);
        default:
            return attend<H, DIM, CacheKind::f16>(step, item, split);
    }
}

__device__ __forceinline__ void attention(const StepView& step) {
    const Instruction& x = instruction();
    const CacheKind kind = x.attention.cache.kind;
    const int all = x.attention.kv_heads * x.groups * x.splits, active = Splits(step, x).active;
    for (int i = blockIdx.x; i < all; i += gridDim.x) {
        const int item = i / x.splits, split = i % x.splits;
        if (split >= active) continue;
        if (x.attention.head_dim == 128) {
            if (x.heads_together == 1)
                attend_kind<1, 128>(kind, step, item, split);
            else
                attend_kind<4, 128>(kind, step, item, split);
        } else {
            if (x.heads_together == 1)
                attend_kind<1, 64>(kind, step, item, split);
            else
                attend_kind<4, 64>(kind, step, item, split);
        }
        synchronize();  // the next item writes where this one's results may still be read
    }
}

}  // namespace persistent
}  // namespace cuda
}  // namespace quant
