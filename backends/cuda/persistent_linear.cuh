// A linear of one row in the persistent kernel: every block brings the whole row of activations into shared memory,
// its warps multiply their shares of the block's tiles as they come out of the ring, and what the warps have of a tile
// is added in their order.
#pragma once
#include "backends/cuda/linear_rows.cuh"
#include "backends/cuda/persistent_values.cuh"
#include "backends/cuda/persistent_weights.cuh"

namespace quant {
namespace cuda {
namespace persistent {

using rows::Scales;

struct CodecTraits {
    FragmentKind kind;
    bool integer, bf16, keeps_sums;
    float unit, bias;  // products are of unit * code + bias
};
__device__ inline CodecTraits codec_traits(Codec codec) {
    switch (codec) {
        case Codec::f16:
            return {FragmentKind::bits16, false, false, false, 1, 0};
        case Codec::bf16:
            return {FragmentKind::bits16, false, true, false, 1, 0};
        case Codec::e4m3:
            return {FragmentKind::bits8, false, false, true, Codec8<ByteCode::e4m3>::unit, 0};
        case Codec::u4:
            return {FragmentKind::bits4, false, false, true, 1, Codec4::bias};
        case Codec::integer_u4:
            return {FragmentKind::bits4, true, false, false, 1, 0};
        case Codec::integer_s8:
        case Codec::integer_u8:
            return {FragmentKind::bits8, true, false, false, 1, 0};
        default:
            return {FragmentKind::bits8, false, false, true, 1, 0};
    }
}

__device__ inline float sum_over_block(float x, float* shared) {
    return reduce(x, shared, 0.f, [](float v) { return warp_sum(v); });
}

// Replaces values by their codes, as the quantize kernels do (rowwise.cu).
template <int quads>
__device__ inline void round_to_codes(float (&v)[quads][4], ValueType type, bool wants_sum) {
    float largest = 0;
#pragma unroll
    for (int k = 0; k < quads; ++k)
#pragma unroll
        for (int i = 0; i < 4; ++i) largest = fmaxf(largest, fabsf(v[k][i]));  // NaN does not count
    largest = reduce(largest, state().floats, 0.f, [](float m) { return warp_max(m); });
    float scale;
    int sum = 0;
    if (type == ValueType::s8) {
        const Rounding<ValueType::s8> rounding(largest);
        scale = rounding.scale;
#pragma unroll
        for (int k = 0; k < quads; ++k)
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const int code = rounding.code(v[k][i]);
                v[k][i] = static_cast<float>(code);
                sum += code;
            }
        if (wants_sum) sum = reduce(sum, state().ints, 0, [](int n) { return warp_sum(n); });
    } else {
        const Rounding<ValueType::e4m3> rounding(largest);
        scale = rounding.scale;
#pragma unroll
        for (int k = 0; k < quads; ++k)
#pragma unroll
            for (int i = 0; i < 4; ++i) v[k][i] = e4m3_to_f32(static_cast<uint8_t>(rounding.code(v[k][i])));
    }
    if (thread_number() == 0) state().scale = {scale, sum};
}

// A row of activations, normed if it is to be; zero past its end. Quad k of a thread is number k * threads + its own.
template <int quads, bool normed>
__device__ inline void load_values(const LinearArguments& a, bool awaits, float (&v)[quads][4]) {
    const int thread = thread_number();
    float gain[normed ? quads : 1][4];
#pragma unroll
    for (int k = 0; k < quads; ++k) {
        const int col = (k * threads + thread) * 4;
#pragma unroll
        for (int i = 0; i < 4; ++i) v[k][i] = gain[normed ? k : 0][i] = 0;
        if (normed && col < a.cols) look(a.norm_gain + col, gain[normed ? k : 0]);
    }
    bool complete;
    do {
        complete = true;
#pragma unroll
        for (int k = 0; k < quads; ++k) {
            const int col = (k * threads + thread) * 4;
            if (col < a.cols) look(reinterpret_cast<const float*>(a.in) + col, v[k]);
        }
        if (awaits)
#pragma unroll
            for (int k = 0; k < quads; ++k) complete = complete && has_come(v[k]);
    } while (!complete);
    if (!normed) return;
    float sum = 0;
#pragma unroll
    for (int k = 0; k < quads; ++k)
#pragma unroll
        for (int i = 0; i < 4; ++i) sum = __fmaf_rn(v[k][i], v[k][i], sum);
    sum = sum_over_block(sum, state().floats);
    const float factor = 1.f / sqrtf(sum / static_cast<float>(a.cols) + a.norm_eps);
#pragma unroll
    for (int k = 0; k < quads; ++k)
#pragma unroll
        for (int i = 0; i < 4; ++i) v[k][i] = v[k][i] * factor * gain[normed ? k : 0][i];
}

// Int8 codes for the weights' lanes.
template <int quads>
__device__ inline void store_codes(FragmentKind kind, int all, const float (&v)[quads][4]) {
    const int thread = thread_number();
#pragma unroll
    for (int k = 0; k < quads; ++k) {
        const int q = k * threads + thread, in_block = q % 8 * 4;
        if (q >= all) break;
        uint8_t* to = activations() + q / 8 * 32;
        if (kind == FragmentKind::bits4) {
#pragma unroll
            for (int i = 0; i < 4; ++i)
                to[place_in_block(FragmentKind::bits4, true, in_block + i)] =
                    static_cast<uint8_t>(static_cast<int>(v[k][i]));
        } else {
            uint32_t packed = 0;
#pragma unroll
            for (int i = 0; i < 4; ++i) packed |= (static_cast<uint32_t>(static_cast<int>(v[k][i])) & 0xff) << 8 * i;
            *reinterpret_cast<uint32_t*>(to + place_in_block(FragmentKind::bits8, true, in_block)) = packed;
        }
    }
}

// 16 bit values, and their sums if those are wanted: per unit_quads, or of the row (0).
template <int quads, bool bf16>
__device__ inline void store_halves(FragmentKind kind, int all, bool keeps_sums, int unit_quads,
                                    const float (&v)[quads][4]) {
    const int thread = thread_number();
    float row_sum = 0;
#pragma unroll
    for (int k = 0; k < quads; ++k) {
        const int q = k * threads + thread;
        if (k * threads >= all) break;  // of the whole block
        const uint2 packed = make_uint2(two_halves<bf16>(v[k][0], v[k][1]), two_halves<bf16>(v[k][2], v[k][3]));
        if (q < all)
            *reinterpret_cast<uint2*>(activations() + (q / 8 * 32 + place_in_block(kind, false, q % 8 * 4)) * 2) =
                packed;
        if (!keeps_sums) continue;
        float sum = sum_of_halves<bf16>(packed.x) + sum_of_halves<bf16>(packed.y);
        if (unit_quads == 0) {
            row_sum += sum;
        } else {
#pragma unroll
            for (int i = 1; i < 32; i *= 2)
                if (i < unit_quads) sum += __shfl_xor_sync(0xffffffffu, sum, i);
            if (q < all && q % unit_quads == 0) activation_sums()[q / unit_quads] = sum;
        }
    }
    if (keeps_sums && unit_quads == 0) {
        row_sum = sum_over_block(row_sum, state().floats);
        if (thread == 0) activation_sums()[0] = row_sum;
    }
}

// The activations of a linear, up to the end of the last stage.
template <int quads, bool normed>
__device__ inline void load_input_of(const Instruction& x, const WeightStream& w) {
    const LinearArguments& a = x.linear;
    const CodecTraits codec = codec_traits(x.codec);
    float v[quads][4];
    load_values<quads, normed>(a, x.awaits_in, v);
    if (x.rounds_to != ValueType::f32) round_to_codes(v, x.rounds_to, codec.integer && a.has_offsets);
    const int all = w.stages * w.stage_blocks * 8;
    const bool keeps_sums = codec.keeps_sums && (a.has_offsets || codec.bias != 0);
    const int unit_quads = x.scales == 1 ? 0 : x.scales == 3 ? 8 : 8 * w.stage_blocks;
    if (codec.integer)
        store_codes(codec.kind, all, v);
    else if (codec.bf16)
        store_halves<quads, true>(codec.kind, all, keeps_sums, unit_quads, v);
    else
        store_halves<quads, false>(codec.kind, all, keeps_sums, unit_quads, v);
}
__device__ inline void load_input(const Instruction& x, const WeightStream& w) {
    const int quads = w.stages * w.stage_blocks * 8;
    const bool few = quads <= few_quads * threads, several = quads <= several_quads * threads;
    if (x.linear.norm_gain)
        few ? load_input_of<few_quads, true>(x, w) : load_input_of<most_normed_quads, true>(x, w);
    else
        few       ? load_input_of<few_quads, false>(x, w)
        : several ? load_input_of<several_quads, false>(x, w)
                  : load_input_of<most_quads, false>(x, w);
}

__device__ inline uint2 load_shared_pair(uint32_t at) {
    uint2 v;
    asm volatile("ld.shared.v2.u32 {%0,%1}, [%2];" : "=r"(v.x), "=r"(v.y) : "r"(at) : "memory");
    return v;
}
__device__ inline float load_shared_float(uint32_t at) {
    float v;
    asm volatile("ld.shared.f32 %0, [%1];" : "=f"(v) : "r"(at) : "memory");
    return v;
}
__device__ inline GroupParameters shared_parameters(uint32_t at, bool half, int g) {
    if (!half) return group_parameters(wgmma::load_shared(at + g * 16), false);
    const uint2 v = load_shared_pair(at + g * 8);
    return group_parameters(make_uint4(v.x, v.y, 0, 0), true);
}

// Of the 16 x 8 sums of a product, all columns are the same: the only row of activations.
template <class Codec, bool Integer, Scales scales>
struct Multiply {
    using Sum = typename std::conditional<Integer, int, float>::type;
    static constexpr bool grouped = scales == Scales::stage || scales == Scales::block;
    static constexpr int element = Integer ? 1 : 2, stage_cols = Codec::blocks * 32;
    static constexpr bool biased = !Integer && Codec::kind == FragmentKind::bits4;
    static constexpr int parameter_groups = scales == Scales::block ? Codec::blocks : 1;

    Sum sum[2][4];    // two chains, so that products need not wait for each other
    float scaled[2];  // rows g and g + 8

    __device__ void clear() {
#pragma unroll
        for (int i = 0; i < 4; ++i) sum[0][i] = sum[1][i] = 0;
        scaled[0] = scaled[1] = 0;
    }
    __device__ Sum take(int row) {
        const Sum v = sum[0][2 * row] + sum[1][2 * row];
        return v;
    }
    __device__ void block(uint32_t x, const StageLoad& w, int b) {
        if constexpr (Integer) {
            uint32_t operand[4];
            Codec::bytes(w, b, operand);
            const uint2 y = load_shared_pair(x + b * 32);
            mma_int8<Codec::is_signed>(sum[b % 2], operand, y.x, y.y);
        } else {
            uint32_t operand[2][4];
            if constexpr (biased)
                Codec::expand_biased(w, b, operand);
            else
                Codec::expand(w, b, operand);
            const uint4 y = wgmma::load_shared(x + b * 64);
            if (Codec::bf16) {
                mma_bf16(sum[0], operand[0], y.x, y.y);
                mma_bf16(sum[1], operand[1], y.z, y.w);
            } else {
                mma_f16(sum[0], operand[0], y.x, y.y);
                mma_f16(sum[1], operand[1], y.z, y.w);
            }
        }
    }
    __device__ void scale(const GroupParameters& p, bool has_offsets, bool is_minimum, float x_sum) {
#pragma unroll
        for (int row = 0; row < 2; ++row) {
            float codes = static_cast<float>(take(row));
            if constexpr (biased) codes = __fmaf_rn(-Codec::bias, x_sum, codes);
            scaled[row] = __fmaf_rn(codes, p.scale[row] * (1 / Codec::unit), scaled[row]);
            if (has_offsets)
                scaled[row] = __fmaf_rn(is_minimum ? p.offset[row] : -p.offset[row] * p.scale[row], x_sum, scaled[row]);
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) sum[0][i] = sum[1][i] = 0;
    }

    __device__ void store(uint32_t* segment) {
#pragma unroll
        for (int row = 0; row < 2; ++row) {
            if constexpr (grouped)
                segment[8 * row] = __float_as_uint(scaled[row]);
            else if constexpr (Integer)
                segment[8 * row] = static_cast<uint32_t>(take(row));
            else
                segment[8 * row] = __float_as_uint(take(row));
        }
    }

    // The warp's stages of all chunks of the block's tiles. Not inlined: each codec has all registers to itself.
    __device__ __forceinline__ static Place run(int instruction, const int number, int tiles, Place place) {
        const int thread = thread_number(), warp = thread / 32, lane = thread % 32, g = lane / 4, t = lane % 4;
        const LinearArguments& a = state().instructions[instruction].linear;
        const bool half = a.half_parameters, has_offsets = a.has_offsets, is_minimum = a.is_minimum;
        const WeightStream& w = stream(number);
        const int stages = w.stages, group_shift = w.group_shift, last_group = w.last_group,
                  group_bytes = w.group_bytes, stage_parameters = w.stage_parameters;
        const bool whole_groups = 1 << group_shift <= Codec::blocks;  // in a stage
        const Slots slots;
        const uint32_t lane_at = warp * warp_stages * 1024 + lane * 16;
        const uint32_t my_x = shared_address(activations()) + t * 8 * element;
        const uint32_t sums = shared_address(activation_sums());
        uint32_t* segment = segments() + warp * 16 + g;
        Multiply m;
        m.clear();
        int tile = 0, stage = warp * warp_stages;  // of the warp's first in the chunk
        for (int left = tiles * stages; left > 0; left -= chunk_stages, stage += chunk_stages) {
            wgmma::barrier_wait(slots.full + 8 * place.slot, place.parity);
            const uint32_t slot = slots.slots + place.slot * slots.bytes;
            StageLoad loads[warp_stages];
#pragma unroll
            for (int j = 0; j < warp_stages; ++j)
#pragma unroll
                for (int i = 0; i < 2; ++i) loads[j].v[i] = wgmma::load_shared(slot + lane_at + j * 1024 + i * 512);
#pragma unroll
            for (int j = 0; j < warp_stages; ++j) {
                const int in_chunk = warp * warp_stages + j;
                if (in_chunk >= left) break;
                int here = stage + j;
                while (here >= stages) {  // in the next tile
                    if (t == 0) m.store(segment + tile * workers * 16);
                    m.clear();
                    here -= stages;
                    stage -= stages;
                    ++tile;
                }
                GroupParameters parameters[parameter_groups];
                if constexpr (grouped) {
                    uint32_t from = slot + chunk_stages * 1024 + in_chunk * stage_parameters;
                    if (!whole_groups) {
                        const int piece = max(0, in_chunk - here);  // its first stage's place
                        from = slot + chunk_stages * 1024 + piece * stage_parameters +
                               ((here * Codec::blocks >> group_shift) -
                                ((here - in_chunk + piece) * Codec::blocks >> group_shift)) *
                                   group_bytes;
                    }
                    const int most = last_group - (here * Codec::blocks >> group_shift);
#pragma unroll
                    for (int b = 0; b < parameter_groups; ++b) {
                        const int group = parameter_groups == 1 ? 0 : min(b >> group_shift, most);
                        parameters[b] = shared_parameters(from + group * group_bytes, half, g);
                    }
                }
                const uint32_t from = my_x + here * stage_cols * element;
#pragma unroll
                for (int b = 0; b < Codec::blocks; ++b) {
                    m.block(from, loads[j], b);
                    if constexpr (scales == Scales::block)
                        m.scale(parameters[b], has_offsets, is_minimum,
                                load_shared_float(sums + (here * Codec::blocks + b) * 4));
                }
                if constexpr (scales == Scales::stage)
                    m.scale(parameters[0], has_offsets, is_minimum, load_shared_float(sums + here * 4));
            }
            __syncwarp();
            if (lane == 0) wgmma::barrier_arrive(slots.empty + 8 * place.slot);
            if (++place.slot == slots.count) {
                place.slot = 0;
                place.parity ^= 1;
            }
        }
        if (t == 0 && tile < tiles) m.store(segment + tile * workers * 16);
        return place;
    }
};

template <class C, class... Rest>
__device__ inline Place multiply_scaled(int scales, Rest&&... rest) {
    return scales == 1   ? Multiply<C, false, Scales::row>::run(rest...)
           : scales == 2 ? Multiply<C, false, Scales::stage>::run(rest...)
                         : Multiply<C, false, Scales::block>::run(rest...);
}
template <class... Rest>
__device__ inline Place multiply(Codec codec, int scales, Rest&&... rest) {
    switch (codec) {
        case Codec::f16:
            return Multiply<Codec16<false>, false, Scales::none>::run(rest...);
        case Codec::bf16:
            return Multiply<Codec16<true>, false, Scales::none>::run(rest...);
        case Codec::s8:
            return multiply_scaled<Codec8<ByteCode::s8>>(scales, rest...);
        case Codec::u8:
            return multiply_scaled<Codec8<ByteCode::u8>>(scales, rest...);
        case Codec::e4m3:
            return multiply_scaled<Codec8<ByteCode::e4m3>>(scales, rest...);
        case Codec::u4:
            return multiply_scaled<Codec4>(scales, rest...);
        case Codec::integer_s8:
            return Multiply<Codec8<ByteCode::s8>, true, Scales::row>::run(rest...);
        case Codec::integer_u8:
            return Multiply<Codec8<ByteCode::u8>, true, Scales::row>::run(rest...);
        default:
            return Multiply<Codec4, true, Scales::row>::run(rest...);
    }
}

// A result of the block: a thread has every threads-th. In pairs, gate and up are side by side.
struct Result {
    int tile, in_tile;  // tile: of the block's
    int64_t row;        // of the weight
    bool exists;        // in this block and in the weight
    __device__ Result(const LinearArguments& a, const WeightStream& w, const BlockTiles& tiles, int e) {
        const int which = a.pairs ? e % 2 : 0, unit = a.pairs ? e / 2 : e;
        in_tile = unit % 16;
        tile = a.pairs ? unit / 16 * 2 + which : unit / 16;
        row = static_cast<int64_t>(tile_number(w, tiles.first + tile)) * 16 + in_tile;
        exists = e < tiles.count * 16 && row < a.weight_rows;
    }
};

// What a result needs beside the sum, fetched while others are multiplied.
struct Finish {
    float2 parameters;
    float bias, add;
    __device__ void load_constants(const Instruction& x, const Result& r) {
        const LinearArguments& a = x.linear;
        parameters = r.exists && x.scales == 1 ? rows::row_parameters(a, r.row) : make_float2(0, 0);
        bias = r.exists && a.bias ? a.bias[r.row] : 0;
    }
    __device__ void load_add(const LinearArguments& a, const Result& r) {
        add = r.exists && a.add ? look(a.add + r.row) : 0;
    }
    __device__ float result(const Instruction& x, const CodecTraits& codec, const Result& r, uint32_t sum) {
        const LinearArguments& a = x.linear;
        float y;
        if (codec.integer) {
            y = rows::scale_integer(a, parameters, state().scale, static_cast<int>(sum));
        } else {
            y = __uint_as_float(sum);
            if (x.scales == 1) {
                const float2 p = parameters;
                if (codec.bias != 0) y = __fmaf_rn(-codec.bias, activation_sums()[0], y);
                y = y * (p.x * (1 / codec.unit));
                if (a.has_offsets) y = __fmaf_rn(a.is_minimum ? p.y : -p.y * p.x, activation_sums()[0], y);
            }
            if (x.rounds_to != ValueType::f32) y = y * state().scale.scale;
        }
        if (a.bias) y = __fadd_rn(y, bias);
        if (x.awaits_add)
            while (!has_come(add)) load_add(a, r);
        if (a.add) y = __fadd_rn(y, add);
        return y;
    }
};

// Over the warps, in their order; those that have no part of the tile have left zeros.
__device__ inline uint32_t sum_segments(const Result& r, bool integer) {
    const uint32_t* parts = segments() + r.tile * workers * 16 + r.in_tile;
    uint32_t part[workers];
#pragma unroll
    for (int warp = 0; warp < workers; ++warp) part[warp] = parts[warp * 16];
    if (integer) {
        int sum = 0;
#pragma unroll
        for (int warp = 0; warp < workers; ++warp) sum += static_cast<int>(part[warp]);
        return static_cast<uint32_t>(sum);
    }
    float sum = 0;
#pragma unroll
    for (int warp = 0; warp < workers; ++warp) sum += __uint_as_float(part[warp]);
    return __float_as_uint(sum);
}

}  // namespace persistent
}  // namespace cuda
}  // namespace quant
