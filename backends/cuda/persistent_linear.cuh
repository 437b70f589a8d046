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
    float unit;  // products are of unit * code
};
__device__ inline CodecTraits codec_traits(Codec codec) {
    switch (codec) {
        case Codec::f16:
            return {FragmentKind::bits16, false, false, false, 1};
        case Codec::bf16:
            return {FragmentKind::bits16, false, true, false, 1};
        case Codec::e4m3:
            return {FragmentKind::bits8, false, false, true, Codec8<ByteCode::e4m3>::unit};
        case Codec::u4:
            return {FragmentKind::bits4, false, false, true, 1};
        case Codec::integer_u4:
            return {FragmentKind::bits4, true, false, false, 1};
        case Codec::integer_s8:
        case Codec::integer_u8:
            return {FragmentKind::bits8, true, false, false, 1};
        default:
            return {FragmentKind::bits8, false, false, true, 1};
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
    largest = reduce(largest, state().magnitudes, 0.f, [](float m) { return warp_max(m); });
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
    const float* const in = reinterpret_cast<const float*>(a.in);
    const int cols = a.cols, first = thread_number() * 4;
    float gain[normed ? quads : 1][4];
    if (normed) {
        const float* const gains = a.norm_gain;
#pragma unroll
        for (int k = 0; k < quads; ++k) {
            const int col = k * quad_columns + first;
            look_within(gains, col, cols, gain[normed ? k : 0]);
        }
    }
#pragma unroll
    for (int k = 0; k < quads; ++k) look_within(in, k * quad_columns + first, cols, v[k]);
    bool complete = !awaits;
    while (!complete) {
        complete = true;
#pragma unroll
        for (int k = 0; k < quads; ++k)
            if (!has_come(v[k])) {
                look(in + k * quad_columns + first, v[k]);
                complete = false;
            }
    }
    if (!normed) return;
    float sum = 0;
#pragma unroll
    for (int k = 0; k < quads; ++k)
#pragma unroll
        for (int i = 0; i < 4; ++i) sum = __fmaf_rn(v[k][i], v[k][i], sum);
    sum = sum_over_block(sum, state().squares);
    const float factor = 1.f / sqrtf(sum / static_cast<float>(cols) + a.norm_eps);
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

// 16 bit values, and their sums if those are wanted: of 8, 16 or 32 quads, or of the row (0). Of 4 bit weights' lanes'
// eight values, the inner two pairs change places: see expand_subnormal.
template <int quads, bool bf16>
__device__ inline void store_halves(FragmentKind kind, int all, bool keeps_sums, int unit_quads,
                                    const float (&v)[quads][4]) {
    const int thread = thread_number(), in_block = thread % 8 * 4;
    const bool apart = kind == FragmentKind::bits4;
    const int place = apart ? in_block - thread % 2 * 2 : place_in_block(kind, false, in_block);
    uint8_t* const to = activations() + (thread / 8 * 32 + place) * 2;
    float sum[quads];
#pragma unroll
    for (int k = 0; k < quads; ++k) {
        const uint32_t low = two_halves<bf16>(v[k][0], v[k][1]), high = two_halves<bf16>(v[k][2], v[k][3]);
        if (k * threads + thread < all) {
            *reinterpret_cast<uint32_t*>(to + k * threads * 8) = low;
            *reinterpret_cast<uint32_t*>(to + k * threads * 8 + (apart ? 8 : 4)) = high;
        }
        sum[k] = sum_of_halves<bf16>(low) + sum_of_halves<bf16>(high);
    }
    if (!keeps_sums) return;
    if (unit_quads == 0) {
        float row_sum = sum[0];
#pragma unroll
        for (int k = 1; k < quads; ++k) row_sum += sum[k];
        row_sum = sum_over_block(row_sum, state().floats);
        if (thread == 0) activation_sums()[0] = row_sum;
        return;
    }
    const auto add_lanes = [&](int distance) {
#pragma unroll
        for (int k = 0; k < quads; ++k) sum[k] += __shfl_xor_sync(0xffffffffu, sum[k], distance);
    };
    add_lanes(1), add_lanes(2), add_lanes(4);
    if (unit_quads > 8) add_lanes(8);
    if (unit_quads > 16) add_lanes(16);
    if (thread % unit_quads != 0) return;
    float* const sums = activation_sums() + thread / unit_quads;
    const int step = threads / unit_quads;
#pragma unroll
    for (int k = 0; k < quads; ++k)
        if (k * threads + thread < all) sums[k * step] = sum[k];
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
    const bool keeps_sums = codec.keeps_sums && a.has_offsets;
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

__device__ inline void load_shared(uint4& v, uint32_t at) {
    v = cuda::load_shared(at);
}
__device__ inline void load_shared(uint2& v, uint32_t at) {
    asm volatile("ld.shared.v2.u32 {%0,%1}, [%2];" : "=r"(v.x), "=r"(v.y) : "r"(at) : "memory");
}
__device__ inline void load_shared(float& v, uint32_t at) {
    asm volatile("ld.shared.f32 %0, [%1];" : "=f"(v) : "r"(at) : "memory");
}

// Of the 16 x 8 sums of a product, all columns are the same: the only row of activations.
template <class Codec, bool Integer, Scales scales, bool HalfParameters>
struct Multiply {
    using Sum = typename std::conditional<Integer, int, float>::type;
    using Operand = typename std::conditional<Integer, uint2, uint4>::type;
    using Parameters = typename std::conditional<HalfParameters, uint2, uint4>::type;  // of a group, of two rows
    static constexpr bool grouped = scales == Scales::stage || scales == Scales::block;
    static constexpr int blocks = Codec::blocks, block_bytes = Integer ? 32 : 64;  // of activations
    static constexpr bool subnormal = !Integer && Codec::kind == FragmentKind::bits4;
    static constexpr int parameter_groups = !grouped ? 0 : scales == Scales::block ? blocks : 1;

    // A stage of weights and what goes with it, read from shared memory before anything is multiplied.
    struct Stage {
        StageLoad weights;
        Operand activations[blocks];
        Parameters parameters[parameter_groups + !grouped];
        float activation_sums[parameter_groups + !grouped];
    };

    // Rows g and g + 8 of a tile so far, times what products are of until they are stored.
    Sum total[2];
    float offsets[2];  // what the groups' offsets add

    __device__ void clear() {
        total[0] = total[1] = 0;
        offsets[0] = offsets[1] = 0;
    }
    // Two chains, so that products need not wait for each other.
    __device__ static void multiply_block(Sum (&sum)[2][4], const Stage& s, int b) {
        const Operand& y = s.activations[b];
        if constexpr (Integer) {
            uint32_t operand[4];
            Codec::bytes(s.weights, b, operand);
            mma_int8<Codec::is_signed>(sum[b % 2], operand, y.x, y.y);
        } else {
            uint32_t operand[2][4];
            if constexpr (subnormal)
                Codec::expand_subnormal(s.weights, b, operand);
            else
                Codec::expand(s.weights, b, operand);
            if constexpr (Codec::bf16) {
                mma_bf16(sum[0], operand[0], y.x, y.y);
                mma_bf16(sum[1], operand[1], y.z, y.w);
            } else {
                mma_f16(sum[0], operand[0], y.x, y.y);
                mma_f16(sum[1], operand[1], y.z, y.w);
            }
        }
    }
    __device__ static Sum take(Sum (&sum)[2][4], int row) {
        const Sum first = sum[0][2 * row], second = sum[1][2 * row];
        if constexpr (subnormal)
            return __fmaf_rn(second, Codec::subnormal_unit_0 / Codec::subnormal_unit_1, first);
        else
            return first + second;
    }
    __device__ void add_group(Sum (&sum)[2][4], const Stage& s, int group, bool exists, bool has_offsets,
                              bool is_minimum) {
        const Parameters& raw = s.parameters[group];
        GroupParameters p;
        if constexpr (HalfParameters)
            p = group_parameters(make_uint4(raw.x, raw.y, 0, 0), true);
        else
            p = group_parameters(raw, false);
#pragma unroll
        for (int row = 0; row < 2; ++row) {
            if (exists) total[row] = __fmaf_rn(take(sum, row), p.scale[row], total[row]);
            if (exists && has_offsets)
                offsets[row] = __fmaf_rn(is_minimum ? p.offset[row] : -p.offset[row] * p.scale[row],
                                         s.activation_sums[group], offsets[row]);
        }
    }
    __device__ void store(uint32_t* segment) const {
#pragma unroll
        for (int row = 0; row < 2; ++row) {
            if constexpr (Integer)
                segment[8 * row] = static_cast<uint32_t>(total[row]);
            else if constexpr (subnormal)
                segment[8 * row] = __float_as_uint(__fmaf_rn(total[row], 1 / Codec::subnormal_unit_0, offsets[row]));
            else if constexpr (grouped)
                segment[8 * row] = __float_as_uint(__fmaf_rn(total[row], 1 / Codec::unit, offsets[row]));
            else
                segment[8 * row] = __float_as_uint(total[row]);
        }
    }

    // The warp's stages of all chunks of the block's tiles. Nearly without branches: there are too few warps to hide
    // them. WholeGroups: a stage has one group or more.
    template <bool WholeGroups>
    __device__ __forceinline__ static void run(const LinearArguments& a, const WeightStream& w) {
        const int thread = thread_number(), warp = thread / 32, lane = thread % 32, g = lane / 4, t = lane % 4;
        const bool has_offsets = a.has_offsets, is_minimum = a.is_minimum;
        const int stages = w.stages, inverse = w.stages_inverse, tiles = w.block_tiles, group_shift = w.group_shift,
                  last_group = w.last_group, group_bytes = w.group_bytes, stage_parameters = w.stage_parameters;
        const Slots slots;
        const uint32_t my_activations = shared_address(activations()) + t * sizeof(Operand);
        const uint32_t sums = shared_address(activation_sums());
        uint32_t* const segment = segments() + warp * 16 + g;
        const int ahead = warp * warp_stages;  // stages of other warps, in a chunk
        const int at_lane = fragment_lane_offset(Codec::kind, lane);
        int slot_number = mine().slot;
        uint32_t parity = mine().parity;
        Multiply m;
        m.clear();
        int tile = 0, stage = ahead;  // of the warp's next stage; counted from where the tile begins
        for (int left = tiles * stages - ahead; left > -ahead; left -= chunk_stages) {
            wgmma::barrier_wait(slots.full + 8 * slot_number, parity);
            if (left > 0) {
                const uint32_t slot = slots.slots + slot_number * slots.bytes;
                Stage read[warp_stages];
                int finished[warp_stages];  // tiles that end before the stage
#pragma unroll
                for (int j = 0; j < warp_stages; ++j) {
                    const uint32_t from = slot + (ahead + j) * 1024;
#pragma unroll
                    for (int i = 0; i < 2; ++i) read[j].weights.v[i] = load_fragment<Codec::kind>(from, at_lane, i);
                }
#pragma unroll
                for (int j = 0; j < warp_stages; ++j, ++stage) {
                    finished[j] = static_cast<int>(static_cast<uint32_t>(stage * inverse) >> 20);
                    stage -= finished[j] * stages;
#pragma unroll
                    for (int b = 0; b < blocks; ++b)
                        load_shared(read[j].activations[b], my_activations + (stage * blocks + b) * block_bytes);
                    if constexpr (grouped) {
                        const int in_chunk = ahead + j, most = last_group - (stage * blocks >> group_shift);
                        uint32_t from = slot + chunk_stages * 1024 + in_chunk * stage_parameters;
                        if constexpr (!WholeGroups) {
                            const int piece = max(0, in_chunk - stage);  // its first stage's place
                            from = slot + chunk_stages * 1024 + piece * stage_parameters +
                                   ((stage * blocks >> group_shift) -
                                    ((stage - in_chunk + piece) * blocks >> group_shift)) *
                                       group_bytes;
                        }
#pragma unroll
                        for (int b = 0; b < parameter_groups; ++b) {
                            const int group = parameter_groups == 1 ? 0 : min(b >> group_shift, most);
                            load_shared(read[j].parameters[b], from + group * group_bytes + g * sizeof(Parameters));
                            load_shared(read[j].activation_sums[b], sums + (stage * parameter_groups + b) * 4);
                        }
                    }
                }
                stage += chunk_stages - warp_stages;
                Sum sum[warp_stages][2][4] = {};
                if constexpr (scales != Scales::block)
#pragma unroll
                    for (int b = 0; b < blocks; ++b)
#pragma unroll
                        for (int j = 0; j < warp_stages; ++j) multiply_block(sum[j], read[j], b);
#pragma unroll
                for (int j = 0; j < warp_stages; ++j) {
                    const bool exists = j == 0 || j < left;
                    if (exists && finished[j] > 0) {
                        if (t == 0) m.store(segment + tile * workers * 16);
                        m.clear();
                        tile += finished[j];
                    }
                    if constexpr (scales == Scales::block) {
#pragma unroll
                        for (int b = 0; b < blocks; ++b) {
                            Sum of_block[2][4] = {};
                            multiply_block(of_block, read[j], b);
                            m.add_group(of_block, read[j], b, exists, has_offsets, is_minimum);
                        }
                    } else if constexpr (grouped) {
                        m.add_group(sum[j], read[j], 0, exists, has_offsets, is_minimum);
                    } else {
#pragma unroll
                        for (int row = 0; row < 2; ++row)
                            if (exists) m.total[row] += take(sum[j], row);
                    }
                }
            }
            __syncwarp();
            if (lane == 0) wgmma::barrier_arrive(slots.empty + 8 * slot_number);
            if (++slot_number == slots.count) {
                slot_number = 0;
                parity ^= 1;
            }
        }
        if (t == 0 && tile < tiles) m.store(segment + tile * workers * 16);
        mine().slot = slot_number;
        mine().parity = parity;
    }
};

template <class Codec, Scales scales, bool HalfParameters>
__device__ inline void multiply_groups(const LinearArguments& a, const WeightStream& w) {
    using Run = Multiply<Codec, false, scales, HalfParameters>;
    if (scales == Scales::block || 1 << w.group_shift <= Codec::blocks)
        Run::template run<true>(a, w);
    else
        Run::template run<false>(a, w);
}
template <class Codec, Scales scales>
__device__ inline void multiply_grouped(const LinearArguments& a, const WeightStream& w) {
    if (a.half_parameters)
        multiply_groups<Codec, scales, true>(a, w);
    else
        multiply_groups<Codec, scales, false>(a, w);
}
template <class Codec>
__device__ inline void multiply_scaled(int scales, const LinearArguments& a, const WeightStream& w) {
    if (scales == 1)
        Multiply<Codec, false, Scales::row, false>::template run<true>(a, w);
    else if (scales == 2)
        multiply_grouped<Codec, Scales::stage>(a, w);
    else
        multiply_grouped<Codec, Scales::block>(a, w);
}
template <class Codec>
__device__ inline void multiply_integers(const LinearArguments& a, const WeightStream& w) {
    Multiply<Codec, true, Scales::row, false>::template run<true>(a, w);
}
template <bool bf16>
__device__ inline void multiply_16_bit(const LinearArguments& a, const WeightStream& w) {
    Multiply<Codec16<bf16>, false, Scales::none, false>::template run<true>(a, w);
}
__device__ inline void multiply() {
    const Instruction& x = instruction();
    const LinearArguments& a = x.linear;
    const WeightStream& w = stream(mine().stream);
    if (w.block_tiles == 0) return;
    switch (x.codec) {
        case Codec::f16:
            return multiply_16_bit<false>(a, w);
        case Codec::bf16:
            return multiply_16_bit<true>(a, w);
        case Codec::s8:
            return multiply_scaled<Codec8<ByteCode::s8>>(x.scales, a, w);
        case Codec::u8:
            return multiply_scaled<Codec8<ByteCode::u8>>(x.scales, a, w);
        case Codec::e4m3:
            return multiply_scaled<Codec8<ByteCode::e4m3>>(x.scales, a, w);
        case Codec::u4:
            return multiply_scaled<Codec4>(x.scales, a, w);
        case Codec::integer_s8:
            return multiply_integers<Codec8<ByteCode::s8>>(a, w);
        case Codec::integer_u8:
            return multiply_integers<Codec8<ByteCode::u8>>(a, w);
        default:
            return multiply_integers<Codec4>(a, w);
    }
}

// A result of the block: a thread has every threads-th. In pairs, gate and up are side by side.
struct Result {
    int tile, in_tile;  // tile: of the block's
    int64_t row;        // of the weight
    bool exists;        // in this block and in the weight
    __device__ Result(const LinearArguments& a, const WeightStream& w) {
        const int e = thread_number();
        const int which = a.pairs ? e % 2 : 0, unit = a.pairs ? e / 2 : e;
        in_tile = unit % 16;
        tile = a.pairs ? unit / 16 * 2 + which : unit / 16;
        row = static_cast<int64_t>(tile_number(w, w.block_first + tile)) * 16 + in_tile;
        exists = e < w.block_tiles * 16 && row < a.weight_rows;
    }
};

__device__ inline float look_for_add(const LinearArguments& a, const Result& r) {
    return r.exists && a.add ? look(a.add + r.row) : 0;
}
__device__ inline ResultConstants load_constants(const Instruction& x, const Result& r) {
    const LinearArguments& a = x.linear;
    const float2 p = r.exists && x.scales == 1 ? rows::row_parameters(a, r.row) : make_float2(0, 0);
    return {p.x, p.y, r.exists && a.bias ? a.bias[r.row] : 0, look_for_add(a, r)};
}
__device__ inline float result_of(const Instruction& x, const Result& r, uint32_t sum) {
    const LinearArguments& a = x.linear;
    const CodecTraits codec = codec_traits(x.codec);
    ResultConstants c = state().constants[thread_number()];
    float y;
    if (codec.integer) {
        y = rows::scale_integer(a, make_float2(c.scale, c.offset), state().scale, static_cast<int>(sum));
    } else {
        y = __uint_as_float(sum);
        if (x.scales == 1) {
            y = y * (c.scale * (1 / codec.unit));
            if (a.has_offsets) y = __fmaf_rn(a.is_minimum ? c.offset : -c.offset * c.scale, activation_sums()[0], y);
        }
        if (x.rounds_to != ValueType::f32) y = y * state().scale.scale;
    }
    if (a.bias) y = __fadd_rn(y, c.bias);
    if (x.awaits_add)
        while (!has_come(c.add)) c.add = look_for_add(a, r);
    if (a.add) y = __fadd_rn(y, c.add);
    return y;
}

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
