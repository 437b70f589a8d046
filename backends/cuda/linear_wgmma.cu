#include "backends/cuda/linear_wgmma.cuh"

namespace quant {
namespace cuda {
namespace many {
namespace {

// ---- Activations as the products want them -------------------------------------------------------------------------
// Tiles of `x_rows` tokens by 128 bytes of columns, as wgmma::descriptor says. A block has one token; columns go to the
// place that the weights' lanes give them: of 16 bit values, product h of a 32-column block takes of lane t's columns
// (fragment_column) the four from 4h on, two at 2t and two at 2t + 8.

// Columns c and c + 1 of a row; zero past the end.
__device__ inline float2 load_pair(const LinearArguments& a, const float* x, int64_t c) {
    if (a.in_aligned && c + 1 < a.cols) return *reinterpret_cast<const float2*>(x + c);
    return make_float2(c < a.cols ? x[c] : 0, c + 1 < a.cols ? x[c + 1] : 0);
}
__device__ inline float code_value(const LinearArguments& a, int64_t token, int64_t c) {
    if (c >= a.cols) return 0;
    const uint8_t code = (a.in + token * a.in_stride)[c];
    return a.in_type == ValueType::s8 ? static_cast<float>(static_cast<int8_t>(code)) : e4m3_to_f32(code);
}

// What the linear multiplies, by pairs of columns.
struct TokenInput {
    const LinearArguments& a;
    int64_t token;
    const float *x, *up;
    float factor = 1;  // of rmsnorm
    __device__ TokenInput(const LinearArguments& a, int64_t token, float* reduce)
        : a(a),
          token(token),
          x(reinterpret_cast<const float*>(a.in) + token * a.in_stride),
          up(a.up ? a.up + token * a.up_stride : nullptr) {
        if (!a.norm_gain) return;
        float sum = 0;
#pragma unroll 4
        for (int64_t c = 2 * threadIdx.x; c < a.cols; c += 2 * blockDim.x) {
            const float2 v = load_pair(a, x, c);
            sum = __fmaf_rn(v.y, v.y, __fmaf_rn(v.x, v.x, sum));
        }
        sum = block_reduce(sum, reduce, 0.f, [](float v) { return warp_sum(v); });
        factor = 1.f / sqrtf(sum / static_cast<float>(a.cols) + a.norm_eps);
    }
    __device__ float2 pair(int64_t c) const {
        if (a.in_type != ValueType::f32) return make_float2(code_value(a, token, c), code_value(a, token, c + 1));
        const float2 v = load_pair(a, x, c);
        if (a.norm_gain) {
            const float2 gain = load_pair(a, a.norm_gain, c);
            return make_float2(v.x * factor * gain.x, v.y * factor * gain.y);
        }
        if (up) {
            const float2 u = load_pair(a, up, c);
            return make_float2(silu_times(v.x, u.x), silu_times(v.y, u.y));
        }
        return v;
    }
};

// Where a token's 16-byte octet of a tile row begins.
__device__ inline uint8_t* octet_place(const LinearArguments& a, int64_t token, int64_t chunks, int64_t byte) {
    const int row = static_cast<int>(token % a.x_rows), in_chunk = static_cast<int>(byte % chunk_bytes);
    uint8_t* tile =
        const_cast<uint8_t*>(a.tokens) + (token / a.x_rows * chunks + byte / chunk_bytes) * a.x_rows * chunk_bytes;
    return tile + row * chunk_bytes + ((in_chunk / 16) ^ (row % 8)) * 16;
}

template <FragmentKind kind, bool bf16>
__global__ void __launch_bounds__(256) lay_out_halves(StepView step, LinearArguments a) {
    __shared__ float reduce[32];
    allow_next();
    wait_for_previous();
    const int token = blockIdx.x;
    if (token >= step.rows(a.outputs)) return;
    const TokenInput input(a, token, reduce);
    const int64_t chunks = many_chunks(a.cols, 64);
    float sum = 0;
#pragma unroll 2
    for (int64_t octet = threadIdx.x; octet < chunks * 8; octet += blockDim.x) {  // 8 places, side by side
        const int at = static_cast<int>(octet % 4), j = at / 2 * 4 + at % 2 * 2;
        uint32_t words[4];
#pragma unroll
        for (int t = 0; t < 4; ++t) {
            const float2 v = input.pair(octet / 4 * 32 + fragment_column(kind, t, j));
            words[t] = two_halves<bf16>(v.x, v.y);
            sum += sum_of_halves<bf16>(words[t]);
        }
        *reinterpret_cast<uint4*>(octet_place(a, token, chunks, octet * 16)) =
            make_uint4(words[0], words[1], words[2], words[3]);
    }
    if (a.token_sums) {
        sum = block_reduce(sum, reduce, 0.f, [](float v) { return warp_sum(v); });
        if (threadIdx.x == 0) a.token_sums[token] = sum;
    }
}

// Of 4-bit codes.
__global__ void __launch_bounds__(256) lay_out_bytes(StepView step, LinearArguments a) {
    allow_next();
    wait_for_previous();
    const int token = blockIdx.x;
    if (token >= step.rows(a.outputs)) return;
    const int64_t chunks = many_chunks(a.cols, chunk_bytes);
    const uint8_t* x = a.in + token * a.in_stride;
    for (int64_t half = threadIdx.x; half < chunks * 8; half += blockDim.x) {  // of a block of 32 columns
        uint4 v = make_uint4(0, 0, 0, 0);
        // Place 4 t + j is lane t's j-th byte of this half (see Codec4::bytes).
        uint8_t* out = reinterpret_cast<uint8_t*>(&v);
#pragma unroll
        for (int i = 0; i < 16; ++i) {
            const int t = i / 4, nibble = 2 * (i % 4) + static_cast<int>(half % 2);
            const int64_t c = half / 2 * 32 + 8 * t + (nibble < 4 ? 2 * nibble : 2 * (nibble - 4) + 1);
            out[i] = c < a.cols ? x[c] : uint8_t{0};
        }
        *reinterpret_cast<uint4*>(octet_place(a, token, chunks, half * 16)) = v;
    }
}

}  // namespace
}  // namespace many

using many::Mode;

LinearKernel token_kernel(Element element, ManyMode mode) {
    using namespace many;
    if (mode >= Mode::integer) return element == Element::u4 ? lay_out_bytes : nullptr;
    switch (element) {
        case Element::f16:
            return lay_out_halves<FragmentKind::bits16, false>;
        case Element::bf16:
            return lay_out_halves<FragmentKind::bits16, true>;
        case Element::u4:
            return lay_out_halves<FragmentKind::bits4, false>;
        default:
            return lay_out_halves<FragmentKind::bits8, false>;
    }
}

ManyKernel many_kernel(Element element, ManyMode mode, int tokens) {
    switch (element) {
        case Element::f16:
            return many::choose<Codec16<false>, Mode::codes>(tokens);
        case Element::bf16:
            return many::choose<Codec16<true>, Mode::codes>(tokens);
        case Element::s8:
            if (mode == Mode::integer) return many::choose<Codec8<ByteCode::s8>, Mode::integer>(tokens);
            if (mode == Mode::scaled) return many::choose<Codec8<ByteCode::s8>, Mode::scaled>(tokens);
            return many::choose<Codec8<ByteCode::s8>, Mode::codes>(tokens);
        case Element::e4m3:
            if (mode == Mode::e4m3) return many::choose<Codec8<ByteCode::e4m3>, Mode::e4m3>(tokens);
            if (mode == Mode::e4m3_groups) return many::choose<Codec8<ByteCode::e4m3>, Mode::e4m3_groups>(tokens);
            if (mode == Mode::promoted) return many::choose<Codec8<ByteCode::e4m3>, Mode::promoted>(tokens);
            return many::choose<Codec8<ByteCode::e4m3>, Mode::codes>(tokens);
        case Element::u4:
            if (mode == Mode::integer) return many::choose<Codec4, Mode::integer>(tokens);
            if (mode == Mode::scaled) return many::choose<Codec4, Mode::scaled>(tokens);
            if (mode == Mode::e4m3) return many::choose<Codec4, Mode::e4m3>(tokens);
            if (mode == Mode::e4m3_groups) return many::choose<Codec4, Mode::e4m3_groups>(tokens);
            return many::choose<Codec4, Mode::codes>(tokens);
        default:
            if (mode == Mode::integer) return many::choose<Codec8<ByteCode::u8>, Mode::integer>(tokens);
            if (mode == Mode::scaled) return many::choose<Codec8<ByteCode::u8>, Mode::scaled>(tokens);
            return many::choose<Codec8<ByteCode::u8>, Mode::codes>(tokens);
    }
}

}  // namespace cuda
}  // namespace quant
