#include "backends/cuda/linear_wgmma.cuh"

namespace quant {
namespace cuda {
namespace many {
namespace {

// ---- Activations as the products want them -------------------------------------------------------------------------
// Tiles of `x_rows` tokens by 128 bytes of columns, as wgmma::descriptor says. A block has one token; columns go to the
// place that the weights' lanes give them: of 16 bit values, product h of a 32-column block takes of lane t's columns
// (fragment_column) the four from 4h on, two at 2t and two at 2t + 8.
template <FragmentKind kind, Mode mode, bool bf16>
__global__ void __launch_bounds__(256) lay_out_tokens(StepView step, LinearArguments a) {
    __shared__ float reduce[32];
    allow_next();
    wait_for_previous();
    const int token = blockIdx.x;
    constexpr bool bytes = mode == Mode::integer;
    constexpr int chunk_cols = bytes ? 128 : 64;
    if (token >= step.rows(a.outputs)) return;
    const int64_t chunks = (a.cols + chunk_cols - 1) / chunk_cols;
    const int row = token % a.x_rows;
    uint8_t* tile =
        const_cast<uint8_t*>(a.tokens) + token / a.x_rows * chunks * a.x_rows * chunk_bytes + row * chunk_bytes;
    float sum = 0;
    for (int64_t octet = threadIdx.x; octet < chunks * chunk_cols / 8; octet += blockDim.x) {  // 8 places, side by side
        const int64_t first = octet / 4 * 32;                                                  // of the block
        const int at = static_cast<int>(octet % 4);
        uint32_t words[4];
        if (bytes) {
            const uint8_t* x = a.in + token * a.in_stride;
            uint8_t out[8];
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                const int place = at * 8 + i;
                int c = place;  // 8 bit weights keep their order
                if (kind == FragmentKind::bits4) {
                    // place = 16 half + 4 t + j: lane t's j-th byte of that half (see Codec4::bytes)
                    const int half = place / 16, t = place % 16 / 4, j = place % 4;
                    const int nibble = 2 * j + half;
                    c = 8 * t + (nibble < 4 ? 2 * nibble : 2 * (nibble - 4) + 1);
                }
                out[i] = first + c < a.cols ? x[first + c] : uint8_t{0};
            }
            for (int i = 0; i < 2; ++i)
                words[i] = out[4 * i] | out[4 * i + 1] << 8 | out[4 * i + 2] << 16 |
                           static_cast<uint32_t>(out[4 * i + 3]) << 24;
        } else {
            float v[8];
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                const int place = at * 8 + i, half = place / 16, k = place % 16;
                const int t = k % 8 / 2, j = 4 * half + k / 8 * 2 + k % 2;
                const int64_t c = first + fragment_column(kind, t, j);
                v[i] = 0;
                if (c < a.cols) {
                    if (a.in_type == ValueType::f32) {
                        v[i] = (reinterpret_cast<const float*>(a.in) + token * a.in_stride)[c];
                    } else {
                        const uint8_t code = (a.in + token * a.in_stride)[c];
                        v[i] = a.in_type == ValueType::s8 ? static_cast<float>(static_cast<int8_t>(code))
                                                          : e4m3_to_f32(code);
                    }
                }
            }
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                if (bf16) {
                    const __nv_bfloat162 h = __floats2bfloat162_rn(v[2 * i], v[2 * i + 1]);
                    words[i] = *reinterpret_cast<const uint32_t*>(&h);
                } else {
                    const __half2 h = __floats2half2_rn(v[2 * i], v[2 * i + 1]);
                    words[i] = *reinterpret_cast<const uint32_t*>(&h);
                    const float2 f = __half22float2(h);
                    sum += f.x + f.y;
                }
            }
        }
        const int64_t byte = octet * 8 * (bytes ? 1 : 2), chunk = byte / chunk_bytes;
        const int in_chunk = static_cast<int>(byte % chunk_bytes);
        uint8_t* to = tile + chunk * a.x_rows * chunk_bytes + ((in_chunk / 16) ^ (row % 8)) * 16 + in_chunk % 16;
        if (bytes)
            *reinterpret_cast<uint2*>(to) = make_uint2(words[0], words[1]);
        else
            *reinterpret_cast<uint4*>(to) = make_uint4(words[0], words[1], words[2], words[3]);
    }
    if (!bytes && a.token_sums) {
        sum = block_reduce(sum, reduce, 0.f, [](float v) { return warp_sum(v); });
        if (threadIdx.x == 0) a.token_sums[token] = sum;
    }
}

}  // namespace
}  // namespace many

using many::Mode;

LinearKernel token_kernel(Element element, int mode) {
    using many::lay_out_tokens;
    switch (element) {
        case Element::f16:
            return lay_out_tokens<FragmentKind::bits16, Mode::codes, false>;
        case Element::bf16:
            return lay_out_tokens<FragmentKind::bits16, Mode::codes, true>;
        case Element::u4:
            return mode == static_cast<int>(Mode::integer) ? lay_out_tokens<FragmentKind::bits4, Mode::integer, false>
                                                           : lay_out_tokens<FragmentKind::bits4, Mode::codes, false>;
        default:
            return mode == static_cast<int>(Mode::integer) ? lay_out_tokens<FragmentKind::bits8, Mode::integer, false>
                                                           : lay_out_tokens<FragmentKind::bits8, Mode::codes, false>;
    }
}

ManyKernel many_kernel(Element element, int number, bool wide) {
    const Mode mode = static_cast<Mode>(number);
    switch (element) {
        case Element::f16:
            return many::choose<Codec16<false>, Mode::codes>(wide);
        case Element::bf16:
            return many::choose<Codec16<true>, Mode::codes>(wide);
        case Element::s8:
            if (mode == Mode::integer) return many::choose<Codec8<ByteCode::s8>, Mode::integer>(wide);
            if (mode == Mode::scaled) return many::choose<Codec8<ByteCode::s8>, Mode::scaled>(wide);
            return many::choose<Codec8<ByteCode::s8>, Mode::codes>(wide);
        case Element::e4m3:
            if (mode == Mode::promoted) return many::choose<Codec8<ByteCode::e4m3>, Mode::promoted>(wide);
            return many::choose<Codec8<ByteCode::e4m3>, Mode::codes>(wide);
        case Element::u4:
            if (mode == Mode::integer) return many::choose<Codec4, Mode::integer>(wide);
            if (mode == Mode::scaled) return many::choose<Codec4, Mode::scaled>(wide);
            return many::choose<Codec4, Mode::codes>(wide);
        default:
            if (mode == Mode::integer) return many::choose<Codec8<ByteCode::u8>, Mode::integer>(wide);
            if (mode == Mode::scaled) return many::choose<Codec8<ByteCode::u8>, Mode::scaled>(wide);
            return many::choose<Codec8<ByteCode::u8>, Mode::codes>(wide);
    }
}

}  // namespace cuda
}  // namespace quant
