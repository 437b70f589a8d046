// Products of few rows, limited by reading the weights. A block has a range of weight tiles and a part of the
// columns, whose activations it keeps in shared memory; its warps share all stages of the range evenly, wherever tiles
// begin and end, each with several loads in flight. What a warp has of a tile goes to shared memory and is added there,
// warp after warp; parts of the columns are added by the block that arrives last. All in a fixed order.
#pragma once
#include "backends/cuda/fragments.cuh"
#include "backends/cuda/linear.h"

namespace quant {
namespace cuda {
namespace rows {

constexpr int warps = row_warps, threads = 32 * warps;

// The memory is idle from a kernel's last load to the next one's first: meanwhile the second-level cache reads what
// this warp's successor will want first.
__device__ inline void prefetch_next(const LinearArguments& a, int64_t share, int lane) {
#if __CUDA_ARCH__ >= 900
    if (lane < a.next_parts && share < a.next_shares)
        asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(a.next + lane * a.next_part_stride +
                                                                        share * a.next_stride),
                     "r"(a.next_bytes)
                     : "memory");
#endif
}

// Where sums of codes are multiplied by their group's scale.
enum class Scales { none, row, stage, block };

template <FragmentKind kind>
__device__ inline StageLoad load_stage(const uint8_t* at, int lane) {
    StageLoad s;
    if constexpr (kind == FragmentKind::bits8) {
        uint32_t words[8];
#pragma unroll
        for (int i = 0; i < 8; ++i)
            asm volatile("ld.global.nc.L1::no_allocate.L2::128B.u32 %0, [%1];"
                         : "=r"(words[i])
                         : "l"(at + lane * 4 + i % 2 * 512 + i / 2 * matrix_bytes));
#pragma unroll
        for (int i = 0; i < 2; ++i)
            s.v[i] = make_uint4(words[4 * i], words[4 * i + 1], words[4 * i + 2], words[4 * i + 3]);
    } else {
#pragma unroll
        for (int i = 0; i < 2; ++i)
            asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0,%1,%2,%3}, [%4];"
                         : "=r"(s.v[i].x), "=r"(s.v[i].y), "=r"(s.v[i].z), "=r"(s.v[i].w)
                         : "l"(at + lane * 16 + i * 512));
    }
    return s;
}

// Four columns of a row as they lie in memory: floats, or codes in the first word. Apart from what they become, so that
// many loads are in flight before the first is waited for. Zero past the end.
__device__ inline uint4 load_quad(const LinearArguments& a, int64_t row, int64_t col) {
    const int64_t left = a.cols - col;
    uint4 v = make_uint4(0, 0, 0, 0);
    if (left <= 0) return v;
    if (a.in_type != ValueType::f32) {  // padded with zeros to a multiple of 64
        v.x = *reinterpret_cast<const uint32_t*>(a.in + row * a.in_stride + col);
        return v;
    }
    const uint32_t* x = reinterpret_cast<const uint32_t*>(a.in) + row * a.in_stride + col;
    if (left >= 4 && a.in_aligned) return *reinterpret_cast<const uint4*>(x);
    v.x = x[0];
    if (left > 1) v.y = x[1];
    if (left > 2) v.z = x[2];
    if (left > 3) v.w = x[3];
    return v;
}
__device__ inline void quad_values(const LinearArguments& a, const uint4& quad, float (&v)[4]) {
    if (a.in_type == ValueType::f32) {
        v[0] = __uint_as_float(quad.x), v[1] = __uint_as_float(quad.y);
        v[2] = __uint_as_float(quad.z), v[3] = __uint_as_float(quad.w);
    } else if (a.in_type == ValueType::s8) {
#pragma unroll
        for (int i = 0; i < 4; ++i) v[i] = static_cast<float>(static_cast<int8_t>(quad.x >> 8 * i));
    } else {
        e4m3_to_f32(quad.x, v);
    }
}

// The scale and offset of a row that has one of each.
__device__ inline float2 row_parameters(const LinearArguments& a, int64_t r) {
    const uint8_t* at = a.tiles + r / 16 * a.tile_bytes + a.parameters_at;
    const int64_t pair = r % 8 * 2 + r % 16 / 8;
    if (a.half_parameters) return __half22float2(reinterpret_cast<const __half2*>(at)[pair]);
    return reinterpret_cast<const float2*>(at)[pair];
}
// Each operation rounded once, in this order, on every device.
__device__ inline float scale_integer(const LinearArguments& a, float2 p, RowScale x, int sum) {
    if (a.is_minimum) {
        const float product = __fmul_rn(__fmul_rn(__int2float_rn(sum), x.scale), p.x);
        return __fadd_rn(product, __fmul_rn(__fmul_rn(__int2float_rn(x.sum), x.scale), p.y));
    }
    sum -= static_cast<int>(p.y) * x.sum;
    return __fmul_rn(__fmul_rn(__int2float_rn(sum), x.scale), p.x);
}

// Rounds: the input is floats, which the block rounds to the codes that it multiplies.
template <class Codec, bool Integer, Scales scales, int NT, bool Rounds>
struct Kernel {
    using Sum = typename std::conditional<Integer, int, float>::type;
    static constexpr int depth = scales == Scales::block ? 2 : NT == 4 ? 3 : 4;
    static constexpr int chains = NT == 1 && !Integer ? 2 : 1;
    static constexpr int stage_cols = Codec::blocks * 32;
    static constexpr int element = Integer ? 1 : 2;
    static constexpr int unit_cols = scales == Scales::block ? 32 : stage_cols;  // of which sums of x are kept
    static constexpr bool keeps_sums = !Integer && Codec::codes;

    struct alignas(16) Four {  // what a lane has of a product
        Sum v[4];
    };

    struct Shared {
        uint8_t* x;
        float* x_sums;         // [rows][units], or [rows] (Scales::row)
        Four* slots;           // [warps][segments][NT][32]
        RowScale* row_scales;  // of rows rounded here
    };

    // Activations of `stages` stages from first_stage on, for `count` rows, as the weights' lanes want them.
    __device__ static void load_x(const LinearArguments& a, const Shared& s, int64_t first_row, int count,
                                  int first_stage, int stages) {
        if constexpr (Rounds) {
            for (int n = 0; n < count; ++n) load_rounded(a, s, first_row + n, n, stages);
        } else if constexpr (Integer) {
            load_bytes(a, s, first_row, count, first_stage, stages);
        } else if (NT == 1 && (count <= 2 || a.norm_gain)) {
            for (int n = 0; n < count; ++n) load_row(a, s, first_row + n, n, first_stage, stages);
        } else {
            for (int n = 0; n < count; n += rows_at_once)
                load_rows(a, s, first_row, n, min(rows_at_once, count - n), first_stage, stages);
        }
    }

    // Quad q of the block's row n.
    __device__ static void store_codes(const LinearArguments& a, const Shared& s, int n, int q, uint32_t codes) {
        const int in_block = q % 8 * 4;
        uint8_t* to = s.x + static_cast<int64_t>(n) * a.x_pitch + q / 8 * 32;
        if (Codec::kind == FragmentKind::bits4) {
#pragma unroll
            for (int j = 0; j < 4; ++j, codes >>= 8)
                to[place_in_block(Codec::kind, true, in_block + j)] = static_cast<uint8_t>(codes);
        } else {
            *reinterpret_cast<uint32_t*>(to + place_in_block(Codec::kind, true, in_block)) = codes;
        }
    }

    __device__ static void load_bytes(const LinearArguments& a, const Shared& s, int64_t first_row, int count,
                                      int first_stage, int stages) {
        const int quads = stages * stage_cols / 4;
#pragma unroll 4
        for (int i = threadIdx.x; i < count * quads; i += threads) {
            const int n = i / quads, q = i % quads;
            const int64_t col = static_cast<int64_t>(first_stage) * stage_cols + q * 4;
            const uint8_t* x = a.in + (first_row + n) * a.in_stride + col;  // padded with zeros to a multiple of 64
            store_codes(a, s, n, q, col < a.cols ? *reinterpret_cast<const uint32_t*>(x) : 0);
        }
    }

    // Quad q of the block's row n, rounded; the sum of its unit is kept, and the quad's own returned. All lanes of the
    // warp come here with quads side by side.
    __device__ static float store_quad(const LinearArguments& a, const Shared& s, int n, int q, int quads,
                                       const float (&v)[4]) {
        const uint2 packed = make_uint2(two_halves<Codec::bf16>(v[0], v[1]), two_halves<Codec::bf16>(v[2], v[3]));
        const int place = q / 8 * 32 + place_in_block(Codec::kind, false, q % 8 * 4);
        if (q < quads) *reinterpret_cast<uint2*>(s.x + static_cast<int64_t>(n) * a.x_pitch + place * 2) = packed;
        if (!keeps_sums || !a.has_offsets) return 0;
        float sum = sum_of_halves<Codec::bf16>(packed.x) + sum_of_halves<Codec::bf16>(packed.y);
        if (scales != Scales::row) {
            constexpr int quads_of_unit = unit_cols / 4;
#pragma unroll
            for (int i = 1; i < quads_of_unit; i *= 2) sum += __shfl_xor_sync(0xffffffffu, sum, i);
            if (q < quads && q % quads_of_unit == 0) s.x_sums[n * (quads / quads_of_unit) + q / quads_of_unit] = sum;
        }
        return sum;
    }

    // The sum of a row whose threads have `sum` each.
    __device__ static void store_row_sum(const LinearArguments& a, const Shared& s, int n, float sum, float* reduce) {
        if (!keeps_sums || !a.has_offsets || scales != Scales::row) return;
        sum = block_reduce(sum, reduce, 0.f, [](float v) { return warp_sum(v); });
        if (threadIdx.x == 0) s.x_sums[n] = sum;
    }

    static constexpr int rows_at_once = 8;  // with a quad of each of a thread in flight

    // Rows n, n + 1, ... of the block.
    __device__ static void load_rows(const LinearArguments& a, const Shared& s, int64_t first_row, int n, int count,
                                     int first_stage, int stages) {
        __shared__ float reduce[32];
        const int quads = stages * stage_cols / 4;
        float row_sums[rows_at_once] = {};
        for (int first = 0; first < quads; first += threads) {
            const int q = first + threadIdx.x;
            const int64_t col = q < quads ? static_cast<int64_t>(first_stage) * stage_cols + q * 4 : a.cols;
            uint4 loaded[rows_at_once];
#pragma unroll
            for (int i = 0; i < rows_at_once; ++i) loaded[i] = load_quad(a, first_row + n + min(i, count - 1), col);
#pragma unroll
            for (int i = 0; i < rows_at_once; ++i) {
                if (i == count) break;
                float v[4];
                quad_values(a, loaded[i], v);
                row_sums[i] += store_quad(a, s, n + i, q, quads, v);
            }
        }
#pragma unroll
        for (int i = 0; i < rows_at_once; ++i)
            if (i < count) store_row_sum(a, s, n + i, row_sums[i], reduce);
    }

    static constexpr int at_once = row_quads;

    // Quads first + threadIdx.x, + threads, ... of a row; zero past the end.
    __device__ static void load_quads(const LinearArguments& a, int64_t row, int first, int quads, int first_stage,
                                      float (&v)[at_once][4]) {
        uint4 loaded[at_once];
#pragma unroll
        for (int k = 0; k < at_once; ++k) {
            const int q = first + k * threads + threadIdx.x;
            loaded[k] = load_quad(a, row, q < quads ? static_cast<int64_t>(first_stage) * stage_cols + q * 4 : a.cols);
        }
#pragma unroll
        for (int k = 0; k < at_once; ++k) quad_values(a, loaded[k], v[k]);
    }

    // The factor of rmsnorm, from a whole row. `known`: what the thread has of it, if that is all.
    __device__ static float norm_factor(const LinearArguments& a, int64_t row, const float (&known)[at_once][4],
                                        bool all_known, float* reduce) {
        float sum = 0;
        if (all_known) {
#pragma unroll
            for (int k = 0; k < at_once; ++k)
#pragma unroll
                for (int i = 0; i < 4; ++i) sum = __fmaf_rn(known[k][i], known[k][i], sum);
        } else {
            for (int64_t c = threadIdx.x * 4; c < a.cols; c += threads * 4) {
                float v[4];
                quad_values(a, load_quad(a, row, c), v);
#pragma unroll
                for (int i = 0; i < 4; ++i) sum = __fmaf_rn(v[i], v[i], sum);
            }
        }
        sum = block_reduce(sum, reduce, 0.f, [](float v) { return warp_sum(v); });
        return 1.f / sqrtf(sum / static_cast<float>(a.cols) + a.norm_eps);
    }

    // Quads as load_quads gives them; the factor is found with the first of them.
    __device__ static void normalize(const LinearArguments& a, int64_t row, int first, int first_stage, float* factor,
                                     float* reduce, float (&v)[at_once][4]) {
        float gain[at_once][4];
#pragma unroll
        for (int k = 0; k < at_once; ++k) {
            const int64_t col =
                static_cast<int64_t>(first_stage) * stage_cols + (first + k * threads + threadIdx.x) * 4;
#pragma unroll
            for (int i = 0; i < 4; ++i) gain[k][i] = col + i < a.cols ? a.norm_gain[col + i] : 0;
        }
        if (first == 0) *factor = norm_factor(a, row, v, a.cols <= at_once * threads * 4 && a.parts == 1, reduce);
#pragma unroll
        for (int k = 0; k < at_once; ++k)
#pragma unroll
            for (int i = 0; i < 4; ++i) v[k][i] = v[k][i] * *factor * gain[k][i];
    }

    // Row n of the block, all columns of it, rounded to codes.
    __device__ static void load_rounded(const LinearArguments& a, const Shared& s, int64_t row, int n, int stages) {
        __shared__ float reduce[32];
        __shared__ int reduce_codes[32];
        const int quads = stages * stage_cols / 4;
        float v[at_once][4], factor = 1, largest = 0;
        load_quads(a, row, 0, quads, 0, v);
        if (a.norm_gain) normalize(a, row, 0, 0, &factor, reduce, v);
#pragma unroll
        for (int k = 0; k < at_once; ++k)
#pragma unroll
            for (int i = 0; i < 4; ++i) largest = fmaxf(largest, fabsf(v[k][i]));  // NaN does not count
        largest = block_reduce(largest, reduce, 0.f, [](float m) { return warp_max(m); });
        const Rounding<Integer ? ValueType::s8 : ValueType::e4m3> rounding(largest);
        int sum = 0;
        float value_sum = 0;
#pragma unroll
        for (int k = 0; k < at_once; ++k) {
            if (k * threads >= quads) break;  // of the whole block
            const int q = k * threads + threadIdx.x;
            uint32_t codes = 0;
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const int code = rounding.code(v[k][i]);
                sum += code;
                codes |= (code & 0xffu) << 8 * i;
            }
            if constexpr (Integer) {
                if (q < quads) store_codes(a, s, n, q, codes);
            } else {
                e4m3_to_f32(codes, v[k]);
                value_sum += store_quad(a, s, n, q, quads, v[k]);
            }
        }
        if constexpr (Integer)
            sum = block_reduce(sum, reduce_codes, 0, [](int m) { return warp_sum(m); });
        else
            store_row_sum(a, s, n, value_sum, reduce);
        if (threadIdx.x == 0) s.row_scales[n] = {rounding.scale, sum};
    }

    // Row n of the block, whose input may be rmsnorm's.
    __device__ static void load_row(const LinearArguments& a, const Shared& s, int64_t row, int n, int first_stage,
                                    int stages) {
        __shared__ float reduce[32];
        const int quads = stages * stage_cols / 4;
        float row_sum = 0, factor = 1;
        for (int first = 0; first < quads; first += at_once * threads) {
            float v[at_once][4];
            load_quads(a, row, first, quads, first_stage, v);
            if (a.norm_gain) normalize(a, row, first, first_stage, &factor, reduce, v);
#pragma unroll
            for (int k = 0; k < at_once; ++k) {
                if (first + k * threads >= quads) break;  // of the whole block
                row_sum += store_quad(a, s, n, first + k * threads + threadIdx.x, quads, v[k]);
            }
        }
        store_row_sum(a, s, n, row_sum, reduce);
    }

    // A warp's sums of one tile: of codes times activations (Scales::none, row) or scaled.
    struct Accumulator {
        Sum sum[NT][chains][4];
        float scaled[scales == Scales::stage || scales == Scales::block ? NT : 1][4];

        __device__ void clear() {
#pragma unroll
            for (int n = 0; n < NT; ++n)
#pragma unroll
                for (int i = 0; i < 4; ++i) {
#pragma unroll
                    for (int j = 0; j < chains; ++j) sum[n][j][i] = 0;
                    if (scales == Scales::stage || scales == Scales::block) scaled[n][i] = 0;
                }
        }
        __device__ Sum take(int n, int i) {
            Sum v = sum[n][0][i];
            sum[n][0][i] = 0;
            if (chains == 2) {
                v += sum[n][chains - 1][i];
                sum[n][chains - 1][i] = 0;
            }
            return v;
        }
        __device__ Sum total(int n, int i) {
            if constexpr (scales == Scales::stage || scales == Scales::block)
                return scaled[n][i];
            else
                return take(n, i);
        }
        // rows: where in x_sums, the sums of this group's activations, those of the lane's columns are.
        __device__ void scale(const LinearArguments& a, const GroupParameters& p, const float* x_sums,
                              const int (&rows)[NT][2]) {
            if constexpr (scales == Scales::stage || scales == Scales::block) {
                float offset[2];
#pragma unroll
                for (int i = 0; i < 2; ++i) offset[i] = a.is_minimum ? p.offset[i] : -p.offset[i] * p.scale[i];
#pragma unroll
                for (int n = 0; n < NT; ++n)
#pragma unroll
                    for (int i = 0; i < 4; ++i) {
                        scaled[n][i] = __fmaf_rn(take(n, i), p.scale[i / 2] * (1 / Codec::unit), scaled[n][i]);
                        if (a.has_offsets)
                            scaled[n][i] = __fmaf_rn(offset[i / 2], x_sums[rows[n][i % 2]], scaled[n][i]);
                    }
            }
        }
    };

    // x: the stage's activations, of the lane's part of a block; rows: where the rows of its columns begin.
    __device__ static void multiply(const uint8_t* x, const int (&rows)[NT], const StageLoad& w, int block,
                                    Accumulator& acc) {
        x += block * 32 * element;
        if constexpr (Integer) {
            uint32_t operand[4];
            Codec::bytes(w, block, operand);
#pragma unroll
            for (int n = 0; n < NT; ++n) {
                const uint2 b = *reinterpret_cast<const uint2*>(x + rows[n]);
                mma_int8<Codec::is_signed>(acc.sum[n][0], operand, b.x, b.y);
            }
        } else {
            uint32_t operand[2][4];
            Codec::expand(w, block, operand);
#pragma unroll
            for (int n = 0; n < NT; ++n) {
                const uint4 b = *reinterpret_cast<const uint4*>(x + rows[n]);
                if (Codec::bf16) {
                    mma_bf16(acc.sum[n][0], operand[0], b.x, b.y);
                    mma_bf16(acc.sum[n][chains - 1], operand[1], b.z, b.w);
                } else {
                    mma_f16(acc.sum[n][0], operand[0], b.x, b.y);
                    mma_f16(acc.sum[n][chains - 1], operand[1], b.z, b.w);
                }
            }
        }
    }

    __device__ static float finish(const LinearArguments& a, const RowScale* row_scales, int64_t row, int64_t r,
                                   Sum sum) {
        float y;
        if constexpr (Integer) {
            y = scale_integer(a, row_parameters(a, r), row_scales[row], sum);
        } else {
            y = sum;
            if (row_scales) y = y * row_scales[row].scale;
        }
        if (a.bias) y = __fadd_rn(y, a.bias[r]);
        if (a.add) y = __fadd_rn(y, a.add[row * a.add_stride + r]);
        return y;
    }

    // Adds what the warps have of 8 rows of a tile. first_tiles: of each warp's share of all `all` stages.
    __device__ static Four gather(const LinearArguments& a, const Shared& s, const int* first_tiles, int all,
                                  int stages, int tile, int n) {
        const int each = all / warps, more = all % warps, longer = more * (each + 1);
        const auto warp_of = [&](int stage) {
            return stage < longer ? stage / (each + 1) : more + (stage - longer) / each;
        };
        const int last = warp_of((tile + 1) * stages - 1);
        Four sum = {};
        for (int w = warp_of(tile * stages); w <= last; ++w) {
            const Four from = s.slots[((w * a.segments + tile - first_tiles[w]) * NT + n) * 32 + threadIdx.x % 32];
#pragma unroll
            for (int j = 0; j < 4; ++j) sum.v[j] += from.v[j];
        }
        return sum;
    }

    // The sums of a part's columns with the scale and offset of a row that has one of each.
    __device__ static void scale_row(const LinearArguments& a, const Shared& s, int64_t r, int row, Sum& sum) {
        if constexpr (!Integer && scales == Scales::row) {
            const float2 p = row_parameters(a, r);
            sum = sum * (p.x * (1 / Codec::unit));
            if (a.has_offsets) sum = __fmaf_rn(a.is_minimum ? p.y : -p.y * p.x, s.x_sums[row], sum);
        }
    }

    __device__ static void run(const StepView& step, const LinearArguments& a) {
        extern __shared__ uint4 memory[];
        __shared__ int first_tiles[warps];  // of what a warp has
        __shared__ bool arrived_last;
        __shared__ RowScale rounded[Rounds ? NT * 8 : 1];
        const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
        const int part = blockIdx.x % a.parts, group = blockIdx.x / a.parts;
        // Shares that differ by one at most.
        const auto share = [](int n, int i, int of) { return n / of * i + min(i, n % of); };
        const int unit = a.pairs ? 2 : 1, units_of_tiles = static_cast<int>(a.tile_count) / unit;
        const int tile0 = share(units_of_tiles, group, a.groups) * unit;
        const int tiles = share(units_of_tiles, group + 1, a.groups) * unit - tile0;
        // In pairs, every second tile is of the second half.
        const auto tile_number = [&](int tile) {
            const int t = tile0 + tile;
            return a.pairs ? t % 2 * units_of_tiles + t / 2 : t;
        };
        const int stage0 = share(a.stages, part, a.parts), stages = share(a.stages, part + 1, a.parts) - stage0;
        const int all = tiles * stages, begin = share(all, warp, warps), end = share(all, warp + 1, warps);
        const int first_row = blockIdx.y * a.x_rows, count = min(a.x_rows, step.rows(a.outputs) - first_row);

        Shared s;
        s.x = reinterpret_cast<uint8_t*>(memory);
        s.x_sums = reinterpret_cast<float*>(s.x + static_cast<int64_t>(a.x_rows) * a.x_pitch);
        s.slots = reinterpret_cast<Four*>(s.x_sums + a.x_sums);
        s.row_scales = rounded;
        // Where the scale of any row is; rounded here, all rows are of one block.
        const RowScale* row_scales = Rounds ? rounded : a.row_scales;
        if (lane == 0) first_tiles[warp] = stages ? begin / stages : 0;

        // Weights never change: the first of them are on their way while the previous kernel ends.
        int next_tile = stages ? begin / stages : 0, next_stage = stages ? begin % stages : 0;
        const uint8_t* next = a.tiles + tile_number(next_tile) * a.tile_bytes;
        StageLoad loads[depth];
        uint4 parameters[depth][scales == Scales::block ? Codec::blocks : 1];
        auto load = [&](int slot) {
            loads[slot] = load_stage<Codec::kind>(next + static_cast<int64_t>(stage0 + next_stage) * 1024, lane);
            if constexpr (scales == Scales::stage)
                parameters[slot][0] = load_parameters(next + a.parameters_at, a.half_parameters,
                                                      (stage0 + next_stage) * Codec::blocks / a.group_blocks, g);
            if constexpr (scales == Scales::block)
#pragma unroll
                for (int b = 0; b < Codec::blocks; ++b)
                    parameters[slot][b] = load_parameters(
                        next + a.parameters_at, a.half_parameters,
                        min(((stage0 + next_stage) * Codec::blocks + b) / a.group_blocks, a.last_group), g);
            if (++next_stage == stages) {
                next_stage = 0;
                next = a.tiles + tile_number(++next_tile) * a.tile_bytes;
            }
        };
#pragma unroll
        for (int i = 0; i < depth; ++i)
            if (begin + i < end) load(i);
        wait_for_previous();
        if (count <= 0) return;
        load_x(a, s, first_row, count, stage0, stages);
        __syncthreads();
        allow_next();  // not before: blocks of a kernel after the next would take its place

        Accumulator acc;
        acc.clear();
        const int units = stages * stage_cols / unit_cols;
        int stage = stages ? begin % stages : 0, segment = 0;
        int x_rows[NT], sum_rows[NT][2];
#pragma unroll
        for (int n = 0; n < NT; ++n) {
            x_rows[n] = min(8 * n + g, a.x_rows - 1) * a.x_pitch;
#pragma unroll
            for (int i = 0; i < 2; ++i) sum_rows[n][i] = min(8 * n + 2 * t + i, a.x_rows - 1) * units;
        }
        Four* my_slots = s.slots + warp * a.segments * NT * 32 + lane;
        for (int i = begin; i < end; i += depth) {
#pragma unroll
            for (int slot = 0; slot < depth; ++slot) {
                if (i + slot >= end) break;
#pragma unroll
                for (int b = 0; b < Codec::blocks; ++b) {
                    multiply(s.x + (stage * stage_cols + t * 8) * element, x_rows, loads[slot], b, acc);
                    if (scales == Scales::block)
                        acc.scale(
                            a, group_parameters(parameters[slot][scales == Scales::block ? b : 0], a.half_parameters),
                            s.x_sums + stage * Codec::blocks + b, sum_rows);
                }
                if (scales == Scales::stage)
                    acc.scale(a, group_parameters(parameters[slot][0], a.half_parameters), s.x_sums + stage, sum_rows);
                if (i + slot + depth < end) load(slot);
                if (++stage == stages || i + slot + 1 == end) {
                    stage = 0;
#pragma unroll
                    for (int n = 0; n < NT; ++n) {
                        Four total;
#pragma unroll
                        for (int j = 0; j < 4; ++j) total.v[j] = acc.total(n, j);
                        my_slots[(segment * NT + n) * 32] = total;
                    }
                    acc.clear();
                    ++segment;
                }
            }
        }
        prefetch_next(a, (blockIdx.y * gridDim.x + blockIdx.x) * warps + warp, lane);
        __syncthreads();

        // A warp has 8 rows of a tile, of gate's and up's in pairs, at a time, as lanes have a product's results.
        const int64_t part_size = static_cast<int64_t>(a.group_tiles) * NT * 32;
        Four* partial = reinterpret_cast<Four*>(a.partial) +
                        (static_cast<int64_t>(blockIdx.y) * a.groups + group) * a.parts * part_size + lane;
        const int64_t out_rows = a.pairs ? a.weight_rows / 2 : a.weight_rows;
        // Calls f(value, row, weight row) for the lane's values of the tile.
        const auto each_value = [&](int tile, int n, auto f) {
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                const int row = 8 * n + 2 * t + j % 2;
                const int64_t r = static_cast<int64_t>(tile_number(tile)) * 16 + g + j / 2 * 8;
                if (row < count && r < a.weight_rows) f(j, row, r);
            }
        };
        const auto write = [&](int tile, int n, const Four& sum, const Four& up_sum) {
            each_value(tile, n, [&](int j, int row, int64_t r) {
                if (r >= out_rows) return;
                float y = finish(a, row_scales, first_row + row, r, sum.v[j]);
                if (a.pairs) y = silu_times(y, finish(a, row_scales, first_row + row, r + out_rows, up_sum.v[j]));
                a.out[(first_row + row) * a.out_stride + r] = y;
            });
        };
        const auto each_octet = [&](bool whole, auto sum_of) {
            const int octets = tiles / unit * NT;
            for (int i = warp; i < octets; i += warps) {
                const int tile = i / NT * unit, n = i % NT;
                Four sums[2] = {};
#pragma unroll
                for (int k = 0; k < 2; ++k) {
                    if (k == unit) break;
                    sums[k] = sum_of(tile + k, n);
                }
                if (whole) write(tile, n, sums[0], sums[1]);
            }
        };
        each_octet(a.parts == 1, [&](int tile, int n) {
            Four sum = gather(a, s, first_tiles, all, stages, tile, n);
            each_value(tile, n, [&](int j, int row, int64_t r) { scale_row(a, s, r, row, sum.v[j]); });
            if (a.parts > 1) partial[part * part_size + (tile * NT + n) * 32] = sum;
            return sum;
        });
        if (a.parts == 1) return;

        __threadfence();
        __syncthreads();
        if (threadIdx.x == 0) {
            uint32_t* arrived = a.arrived + blockIdx.y * a.groups + group;
            arrived_last = atomicAdd(arrived, 1) == static_cast<uint32_t>(a.parts - 1);
            if (arrived_last) *arrived = 0;
        }
        __syncthreads();
        if (!arrived_last) return;
        __threadfence();
        each_octet(true, [&](int tile, int n) {
            Four sum = {};
#pragma unroll 4
            for (int p = 0; p < a.parts; ++p) {
                const uint4 loaded =
                    __ldcg(reinterpret_cast<const uint4*>(partial + p * part_size + (tile * NT + n) * 32));
                const Four& from = reinterpret_cast<const Four&>(loaded);
#pragma unroll
                for (int j = 0; j < 4; ++j) sum.v[j] += from.v[j];
            }
            return sum;
        });
    }
};

template <class Codec, bool Integer, Scales scales, int NT, bool Rounds = false>
__global__ void __launch_bounds__(threads, 1) linear_rows(StepView step, LinearArguments a) {
    Kernel<Codec, Integer, scales, NT, Rounds>::run(step, a);
}

template <class Codec, bool Integer, Scales scales>
LinearKernel choose_rows(int tiles_of_8) {
    return tiles_of_8 == 1   ? linear_rows<Codec, Integer, scales, 1>
           : tiles_of_8 == 2 ? linear_rows<Codec, Integer, scales, 2>
                             : linear_rows<Codec, Integer, scales, 4>;
}
template <class Codec>
LinearKernel choose_scales(int tiles_of_8, int scales) {
    return scales == 1   ? choose_rows<Codec, false, Scales::row>(tiles_of_8)
           : scales == 2 ? choose_rows<Codec, false, Scales::stage>(tiles_of_8)
                         : choose_rows<Codec, false, Scales::block>(tiles_of_8);
}

}  // namespace rows
}  // namespace cuda
}  // namespace quant
