// Attention of few rows, limited by reading the cache: float32 arithmetic, keys and values read once for all query
// heads that share them, the sequence split over blocks. attention_mma.cu has the kernel for many rows.
#include <algorithm>
#include <climits>

#include "backends/cuda/attention_split.cuh"
#include "backends/cuda/emit.h"

namespace quant {
namespace cuda {
namespace {

constexpr int warps = 4;
constexpr int most_split_rows = 64;

// ---- Any head dimension -------------------------------------------------------------------------------------------

// A warp for a row and head: a lane has two positions of a page for the scores, then every 32nd column of the values.
template <CacheKind kind>
__global__ void __launch_bounds__(32) attention_any(StepView step, AttentionArguments a) {
    extern __shared__ float shared[];  // query [head_dim], mean [head_dim], weights [64]
    allow_next();
    wait_for_previous();
    const int row = blockIdx.y, head = blockIdx.x, lane = threadIdx.x, dim = a.head_dim;
    if (row >= step.rows(false)) return;
    float *query = shared, *mean = shared + dim, *weights = shared + 2 * dim;
    for (int i = lane; i < dim; i += 32) {
        query[i] = a.q[row * a.q_stride + head * dim + i];
        mean[i] = 0;
    }
    __syncwarp();
    const int pages_at = step.first_page(row);
    const Range range = visible(step, row, a.window);
    const int kv_head = head / (a.heads / a.kv_heads);
    float largest = -CUDART_INF_F, total = 0;
    for (int page = range.begin / page_positions; page * page_positions < range.end; ++page) {
        const CachePage at(step.page(pages_at + page), a.cache, kv_head);
        float score[2];
        float risen = largest;
        for (int j = 0; j < 2; ++j) {
            const int p = lane + 32 * j, position = page * page_positions + p;
            float sum = 0;
            for (int i = 0; i < dim; ++i)
                sum = __fmaf_rn(query[i], cached_value<kind>(at.keys, i * page_positions + p, at.key_scales + p), sum);
            score[j] = position >= range.begin && position < range.end ? sum * a.scale : -CUDART_INF_F;
            risen = fmaxf(risen, score[j]);
        }
        risen = warp_max(risen);
        const float shrink = expf(largest - risen);
        largest = risen;
        float sum = 0;
        for (int j = 0; j < 2; ++j) {
            const float weight = expf(score[j] - largest);
            weights[lane + 32 * j] = weight;
            sum += weight;
        }
        total = total * shrink + warp_sum(sum);
        __syncwarp();
        const int first = max(0, range.begin - page * page_positions);
        const int last = min(page_positions, range.end - page * page_positions);
        for (int i = lane; i < dim; i += 32) {
            float value = mean[i] * shrink;
            for (int p = first; p < last; ++p)
                value = __fmaf_rn(weights[p], cached_value<kind>(at.values, p * dim + i, at.value_scales + p), value);
            mean[i] = value;
        }
        __syncwarp();
    }
    for (int i = lane; i < dim; i += 32) a.out[row * a.out_stride + head * dim + i] = mean[i] / total;
}

// ---- Head dimensions 64 and 128 ------------------------------------------------------------------------------------

struct SplitArguments {
    int splits, groups;  // groups: blocks that share one key head's query heads
    float* partial;      // [row][kv head][group][split][H][head_dim + 2]: sums, then largest score, total weight
    uint32_t* arrived;   // [row][kv head][group]
};

// All loads of a unit are in flight together.
template <int H, int DIM, CacheKind kind>  // H: query heads together
__device__ void attend(const StepView& step, const AttentionArguments& a, const SplitArguments& s, int row,
                       const Range& range, int pages_at) {
    constexpr int dim = DIM, vectors = DIM / 8, at_once = 32 / vectors, positions = unit_positions, loads = DIM / 16;
    constexpr bool codes = kind != CacheKind::f16;
    extern __shared__ float shared[];
    __shared__ float warp_largest[warps][H], warp_total[warps][H];
    __shared__ bool is_last;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int kv_head = blockIdx.y / s.groups, per_kv = a.heads / a.kv_heads;
    const int first_head = kv_head * per_kv + blockIdx.y % s.groups * H;
    const int count = min(H, kv_head * per_kv + per_kv - first_head);
    const int first_unit = range.begin / positions, units = (range.end - 1) / positions - first_unit + 1;
    const int split_units = max(2 * warps, (units + s.splits - 1) / s.splits);
    const int active = (units + split_units - 1) / split_units;
    if (static_cast<int>(blockIdx.x) >= active) return;

    float* query = shared;                          // [dim][H]
    float* weights = query + H * dim;               // [warps][16][H]
    float* sums = weights + warps * positions * H;  // [warps * 32][H][8]
    for (int i = threadIdx.x; i < H * dim; i += blockDim.x) {
        const int h = i / dim, d = i % dim;
        query[d * H + h] = h < count ? a.q[row * a.q_stride + (first_head + h) * dim + d] * a.scale : 0;
    }
    __syncthreads();

    SoftmaxSums<H, kind> softmax;
    softmax.clear();
    const int vector = lane % vectors, turn = lane / vectors;
    float* my_weights = weights + warp * positions * H;
    const int last_unit = first_unit + min(units, static_cast<int>(blockIdx.x + 1) * split_units);
    for (int unit = first_unit + blockIdx.x * split_units + warp; unit < last_unit; unit += warps) {
        const int page = unit * positions / page_positions, in_page = unit * positions % page_positions;
        const CachePage at(step.page(pages_at + page), a.cache, kv_head);
        const int low = range.begin - unit * positions, high = range.end - unit * positions;
        Eight<kind> keys[loads], values[loads];
        float value_scales[loads];
#pragma unroll
        for (int i = 0; i < loads; ++i)
            keys[i].load(at.keys, (lane / 2 + 16 * i) * page_positions + in_page + lane % 2 * 8);
#pragma unroll
        for (int i = 0; i < loads; ++i) values[i].load(at.values, (in_page + turn + i * at_once) * dim + vector * 8);
        float key_scale[8];
        if constexpr (codes) {
            Eight<CacheKind::f16> scales;
            scales.load(reinterpret_cast<const uint8_t*>(at.key_scales), in_page + lane % 2 * 8);
            scales.to_floats(key_scale);
#pragma unroll
            for (int i = 0; i < loads; ++i)
                value_scales[i] = __half2float(at.value_scales[in_page + turn + i * at_once]);
        }
        float score[H][8];
#pragma unroll
        for (int h = 0; h < H; ++h)
#pragma unroll
            for (int j = 0; j < 8; ++j) score[h][j] = 0;
#pragma unroll
        for (int i = 0; i < loads; ++i) add_key_column(score, keys[i], query + (lane / 2 + 16 * i) * H);
        softmax.add_scores(score, key_scale, low, high, lane, my_weights);
        __syncwarp();
#pragma unroll
        for (int i = 0; i < loads; ++i) {
            const int p = turn + i * at_once;
            if (p < low || p >= high) continue;  // nothing was written there
            softmax.add_values(values[i], value_scales[i], my_weights + p * H);
        }
        __syncwarp();
    }

    // Over the warps, in their order.
#pragma unroll
    for (int h = 0; h < H; ++h) {
        if (lane == 0) {
            warp_largest[warp][h] = softmax.largest[h];
            warp_total[warp][h] = softmax.total[h];
        }
        for (int j = 0; j < 8; ++j) sums[(threadIdx.x * H + h) * 8 + j] = softmax.mean[h][j];
    }
    __syncthreads();
    const int64_t item = (static_cast<int64_t>(row) * gridDim.y + blockIdx.y);
    float* partial = s.partial + (item * s.splits + blockIdx.x) * H * (dim + 2);
    for (int i = threadIdx.x; i < count * dim; i += blockDim.x) {
        const int h = i / dim, d = i % dim;
        float most = -CUDART_INF_F, value = 0, weight = 0;
        for (int w = 0; w < warps; ++w) most = fmaxf(most, warp_largest[w][h]);
        for (int w = 0; w < warps; ++w) {
            const float factor = expf(warp_largest[w][h] - most);
            weight = __fmaf_rn(factor, warp_total[w][h], weight);
            for (int t = 0; t < at_once; ++t)
                value = __fmaf_rn(factor, sums[((w * 32 + t * vectors + d / 8) * H + h) * 8 + d % 8], value);
        }
        if (active == 1) {
            a.out[row * a.out_stride + (first_head + h) * dim + d] = value / weight;
        } else {
            store_part(partial, h, d, dim, value, most, weight);
        }
    }
    if (active == 1) return;

    // The block that arrives last combines the splits, in their order.
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        is_last = atomicAdd(s.arrived + item, 1) == static_cast<uint32_t>(active - 1);
        if (is_last) s.arrived[item] = 0;
    }
    __syncthreads();
    if (!is_last) return;
    __threadfence();
    const float* parts = s.partial + item * s.splits * H * (dim + 2);
    for (int i = threadIdx.x; i < count * dim; i += blockDim.x) {
        const int h = i / dim, d = i % dim;
        a.out[row * a.out_stride + (first_head + h) * dim + d] = combine_parts<H, dim>(parts, active, h, d);
    }
}

template <int H, int DIM, CacheKind kind>
__global__ void __launch_bounds__(32 * warps) attention_split(StepView step, AttentionArguments a, SplitArguments s) {
    allow_next();
    const int rows = step.rows(false);
    bool waited = false;
    for (int row = blockIdx.z; row < rows; row += gridDim.z) {
        if (a.short_sequences) {
            const StepSequenceWords sequence = step.sequence(step.sequence_of(row));
            if (sequence.rows >= fewest_mma_rows) {
                const int left = sequence.first_row + sequence.rows - 1 - row;
                row += left / gridDim.z * gridDim.z;
                continue;
            }
        }
        const Range range = visible(step, row, a.window);
        const int pages_at = step.first_page(row);
        if (!waited) wait_for_previous();
        waited = true;
        attend<H, DIM, kind>(step, a, s, row, range, pages_at);
        __syncthreads();  // the next row writes where this one's results may still be read
    }
    if (!waited) wait_for_previous();
}

template <int H, int DIM, CacheKind kind>
void launch_split(Recorder& recorder, const AttentionArguments& a) {
    const int rows = std::min(recorder.max_rows, a.short_sequences ? most_split_rows : INT_MAX);
    const int per_kv = a.heads / a.kv_heads;
    SplitArguments s{};
    s.groups = (per_kv + H - 1) / H;
    const int64_t blocks = int64_t{rows} * a.kv_heads * s.groups;
    s.splits = rows < recorder.max_rows || rows > most_split_rows || blocks > Recorder::counters
                   ? 1
                   : static_cast<int>(std::min<int64_t>(64, 1 + 4 * recorder.traits.multiprocessors / blocks));
    if (s.splits > 1) {
        s.partial = reinterpret_cast<float*>(recorder.workspace(blocks * s.splits * H * (DIM + 2) * sizeof(float)));
        s.arrived = recorder.zeroed_counters;
    }
    const size_t shared = (H * DIM + warps * 16 * H + warps * 32 * H * 8) * sizeof(float);
    recorder.launch(attention_split<H, DIM, kind>, dim3(s.splits, a.kv_heads * s.groups, rows), dim3(32 * warps),
                    shared, recorder.view(), a, s);
}

template <int DIM, CacheKind kind>
void launch_heads(Recorder& recorder, const AttentionArguments& a) {
    const int per_kv = a.heads / a.kv_heads;
    if (per_kv == 1) return launch_split<1, DIM, kind>(recorder, a);
    if (per_kv == 2) return launch_split<2, DIM, kind>(recorder, a);
    launch_split<4, DIM, kind>(recorder, a);
}

template <CacheKind kind>
void launch_kind(Recorder& recorder, const AttentionArguments& a) {
    if (a.head_dim == 64) return launch_heads<64, kind>(recorder, a);
    if (a.head_dim == 128) return launch_heads<128, kind>(recorder, a);
    const size_t shared = (2 * a.head_dim + page_positions) * sizeof(float);
    recorder.launch(attention_any<kind>, dim3(a.heads, recorder.max_rows), dim3(32), shared, recorder.view(), a);
}

void launch_exact(Recorder& recorder, const AttentionArguments& a) {
    switch (a.cache.kind) {
        case CacheKind::s8:
            return launch_kind<CacheKind::s8>(recorder, a);
        case CacheKind::e4m3:
            return launch_kind<CacheKind::e4m3>(recorder, a);
        default:
            return launch_kind<CacheKind::f16>(recorder, a);
    }
}

}  // namespace

void emit_attention(Recorder& recorder, const Bound& b) {
    launch_exact(recorder, attention_arguments(b));
}

void emit_attention_f16(Recorder& recorder, const Bound& b) {
    AttentionArguments a = attention_arguments(b);
    if (recorder.max_rows > 2 * fewest_mma_rows) {
        launch_attention_mma(recorder, a);
        a.short_sequences = true;
    }
    launch_exact(recorder, a);
}

}  // namespace cuda
}  // namespace quant
