// Attention of few rows, limited by reading the cache: float32 arithmetic, keys and values read once for all query
// heads that share them, the sequence split over blocks. attention_mma.cu has the kernel for many rows.
#include <math_constants.h>

#include <algorithm>

#include "backends/cuda/attention.cuh"
#include "backends/cuda/emit.h"

namespace quant {
namespace cuda {
namespace {

constexpr int warps = 4;
constexpr int most_split_rows = 64;

// ---- Any head dimension -------------------------------------------------------------------------------------------

// A warp for a row and head: a lane has two positions of a page for the scores, then every 32nd column of the values.
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
        const CachePage at(step, pages_at, page, a, kv_head);
        float score[2];
        float risen = largest;
        for (int j = 0; j < 2; ++j) {
            const int p = lane + 32 * j, position = page * page_positions + p;
            float sum = 0;
            for (int i = 0; i < dim; ++i) sum = __fmaf_rn(query[i], __half2float(at.keys[i * page_positions + p]), sum);
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
                value = __fmaf_rn(weights[p], __half2float(at.values[p * dim + i]), value);
            mean[i] = value;
        }
        __syncwarp();
    }
    for (int i = lane; i < dim; i += 32) a.out[row * a.out_stride + head * dim + i] = mean[i] / total;
}

// ---- Head dimensions 64 and 128
// --------------------------------------------------------------------------------------

struct SplitArguments {
    int splits, groups;  // groups: blocks that share one key head's query heads
    float* partial;      // [row][kv head][group][split][H][head_dim + 2]: sums, then largest score, total weight
    uint32_t* arrived;   // [row][kv head][group]
};

__device__ inline uint4 load_cached(const __half* at) {
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(at));
    return v;
}
__device__ inline void to_floats(const uint4& v, float (&f)[8]) {
    const __half2* h = reinterpret_cast<const __half2*>(&v);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const float2 pair = __half22float2(h[i]);
        f[2 * i] = pair.x;
        f[2 * i + 1] = pair.y;
    }
}

// A warp takes 16 positions of a page at a time, all its loads in flight together. Scores: lane 2 d + p has positions
// 8p..8p+7 and columns d, d + 16, ... of the keys. Values: a lane has 8 columns of every n-th position.
template <int H, int DIM>  // H: query heads together
__global__ void __launch_bounds__(32 * warps) attention_split(StepView step, AttentionArguments a, SplitArguments s) {
    constexpr int dim = DIM, vectors = DIM / 8, at_once = 32 / vectors, positions = 16, loads = DIM / 16;
    extern __shared__ float shared[];
    __shared__ float warp_largest[warps][H], warp_total[warps][H];
    __shared__ bool is_last;
    allow_next();
    const int row = blockIdx.z, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const bool idle = row >= step.rows(false);
    const Range range = visible(step, idle ? 0 : row, a.window);
    const int pages_at = step.first_page(idle ? 0 : row);
    const int kv_head = blockIdx.y / s.groups, per_kv = a.heads / a.kv_heads;
    const int first_head = kv_head * per_kv + blockIdx.y % s.groups * H;
    const int count = min(H, kv_head * per_kv + per_kv - first_head);
    const int first_unit = range.begin / positions, units = (range.end - 1) / positions - first_unit + 1;
    const int split_units = max(2 * warps, (units + s.splits - 1) / s.splits);
    const int active = (units + split_units - 1) / split_units;
    wait_for_previous();
    if (idle || static_cast<int>(blockIdx.x) >= active) return;

    float* query = shared;                          // [dim][H]
    float* weights = query + H * dim;               // [warps][16][H]
    float* sums = weights + warps * positions * H;  // [warps * 32][H][8]
    for (int i = threadIdx.x; i < H * dim; i += blockDim.x) {
        const int h = i / dim, d = i % dim;
        query[d * H + h] = h < count ? a.q[row * a.q_stride + (first_head + h) * dim + d] * a.scale : 0;
    }
    __syncthreads();

    float largest[H], total[H], mean[H][8];
#pragma unroll
    for (int h = 0; h < H; ++h) {
        largest[h] = -CUDART_INF_F;
        total[h] = 0;
#pragma unroll
        for (int j = 0; j < 8; ++j) mean[h][j] = 0;
    }
    const int vector = lane % vectors, turn = lane / vectors;
    float* my_weights = weights + warp * positions * H;
    const int last_unit = first_unit + min(units, static_cast<int>(blockIdx.x + 1) * split_units);
    for (int unit = first_unit + blockIdx.x * split_units + warp; unit < last_unit; unit += warps) {
        const int page = unit * positions / page_positions, in_page = unit * positions % page_positions;
        const CachePage at(step, pages_at, page, a, kv_head);
        const int low = range.begin - unit * positions, high = range.end - unit * positions;
        uint4 keys[loads], values[loads];
#pragma unroll
        for (int i = 0; i < loads; ++i)
            keys[i] = load_cached(at.keys + (lane / 2 + 16 * i) * page_positions + in_page + lane % 2 * 8);
#pragma unroll
        for (int i = 0; i < loads; ++i)
            values[i] = load_cached(at.values + (in_page + turn + i * at_once) * dim + vector * 8);
        float score[H][8];
#pragma unroll
        for (int h = 0; h < H; ++h)
#pragma unroll
            for (int j = 0; j < 8; ++j) score[h][j] = 0;
#pragma unroll
        for (int i = 0; i < loads; ++i) {
            float k[8];
            to_floats(keys[i], k);
#pragma unroll
            for (int h = 0; h < H; ++h) {
                const float x = query[(lane / 2 + 16 * i) * H + h];
#pragma unroll
                for (int j = 0; j < 8; ++j) score[h][j] = __fmaf_rn(x, k[j], score[h][j]);
            }
        }
#pragma unroll
        for (int h = 0; h < H; ++h) {
            float risen = largest[h];
#pragma unroll
            for (int j = 0; j < 8; ++j) {
                float v = score[h][j];
#pragma unroll
                for (int i = 2; i < 32; i *= 2) v += __shfl_xor_sync(0xffffffffu, v, i);
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
                if (lane < 2) my_weights[(lane * 8 + j) * H + h] = weight;
            }
            sum += __shfl_xor_sync(0xffffffffu, sum, 1);
            total[h] = total[h] * shrink + sum;
#pragma unroll
            for (int j = 0; j < 8; ++j) mean[h][j] *= shrink;
        }
        __syncwarp();
#pragma unroll
        for (int i = 0; i < loads; ++i) {
            const int p = turn + i * at_once;
            if (p < low || p >= high) continue;  // nothing was written there
            float v[8];
            to_floats(values[i], v);
#pragma unroll
            for (int h = 0; h < H; ++h) {
                const float weight = my_weights[p * H + h];
#pragma unroll
                for (int j = 0; j < 8; ++j) mean[h][j] = __fmaf_rn(weight, v[j], mean[h][j]);
            }
        }
        __syncwarp();
    }

    // Over the warps, in their order.
#pragma unroll
    for (int h = 0; h < H; ++h) {
        if (lane == 0) {
            warp_largest[warp][h] = largest[h];
            warp_total[warp][h] = total[h];
        }
        for (int j = 0; j < 8; ++j) sums[(threadIdx.x * H + h) * 8 + j] = mean[h][j];
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
            partial[h * (dim + 2) + d] = value;
            if (d == 0) {
                partial[h * (dim + 2) + dim] = most;
                partial[h * (dim + 2) + dim + 1] = weight;
            }
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
        float most = -CUDART_INF_F, value = 0, weight = 0;
        for (int k = 0; k < active; ++k) most = fmaxf(most, __ldcg(parts + (k * H + h) * (dim + 2) + dim));
        for (int k = 0; k < active; ++k) {
            const float* part = parts + (k * H + h) * (dim + 2);
            const float factor = expf(__ldcg(part + dim) - most);
            weight = __fmaf_rn(factor, __ldcg(part + dim + 1), weight);
            value = __fmaf_rn(factor, __ldcg(part + d), value);
        }
        a.out[row * a.out_stride + (first_head + h) * dim + d] = value / weight;
    }
}

template <int H, int DIM>
void launch_split(Recorder& recorder, const AttentionArguments& a) {
    const int rows = recorder.max_rows, per_kv = a.heads / a.kv_heads;
    SplitArguments s{};
    s.groups = (per_kv + H - 1) / H;
    const int64_t blocks = int64_t{rows} * a.kv_heads * s.groups;
    s.splits = rows > most_split_rows || blocks > Recorder::counters
                   ? 1
                   : static_cast<int>(std::min<int64_t>(64, 1 + 4 * recorder.traits.multiprocessors / blocks));
    if (s.splits > 1) {
        s.partial = reinterpret_cast<float*>(recorder.workspace(blocks * s.splits * H * (DIM + 2) * sizeof(float)));
        s.arrived = recorder.zeroed_counters;
    }
    const size_t shared = (H * DIM + warps * 16 * H + warps * 32 * H * 8) * sizeof(float);
    recorder.launch(attention_split<H, DIM>, dim3(s.splits, a.kv_heads * s.groups, rows), dim3(32 * warps), shared,
                    recorder.view(), a, s);
}

template <int DIM>
void launch_heads(Recorder& recorder, const AttentionArguments& a) {
    const int per_kv = a.heads / a.kv_heads;
    if (per_kv == 1) return launch_split<1, DIM>(recorder, a);
    if (per_kv == 2) return launch_split<2, DIM>(recorder, a);
    launch_split<4, DIM>(recorder, a);
}

}  // namespace

AttentionArguments attention_arguments(const Bound& b) {
    const Node& n = b.node;
    CacheShape one_layer;
    one_layer.kv_heads = n.kv_heads;
    one_layer.head_dim = n.head_dim;
    AttentionArguments a{};
    a.q = f32_pointer(b.in[0]);
    a.q_stride = b.in[0].stride;
    a.out = f32_pointer(b.out);
    a.out_stride = b.out.stride;
    a.heads = n.heads;
    a.kv_heads = n.kv_heads;
    a.head_dim = n.head_dim;
    a.window = n.window;
    a.scale = n.scale;
    a.layer_at = static_cast<int64_t>(n.layer * one_layer.layer_bytes());
    a.values_at = static_cast<int64_t>(one_layer.layer_bytes() / 2);
    return a;
}

void emit_attention(Recorder& recorder, const Bound& b) {
    const AttentionArguments a = attention_arguments(b);
    if (a.head_dim == 64) return launch_heads<64>(recorder, a);
    if (a.head_dim == 128) return launch_heads<128>(recorder, a);
    const size_t shared = (2 * a.head_dim + page_positions) * sizeof(float);
    recorder.launch(attention_any, dim3(a.heads, recorder.max_rows), dim3(32), shared, recorder.view(), a);
}

}  // namespace cuda
}  // namespace quant
