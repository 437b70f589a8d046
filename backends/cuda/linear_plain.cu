// Linears of any format, without tensor cores: float32 sums, or integer ones where they define the result to the bit.
// They run what no other row of the table accepts, and everything under --exact.
#include "backends/cuda/device.cuh"
#include "backends/cuda/emit.h"
#include "backends/cuda/linear.h"

namespace quant {
namespace cuda {
namespace {

constexpr int block_rows = 8, warps = 4;

struct PlainArguments {
    const uint8_t* tiles;
    PlainTile tile;
    Format format;
    int64_t weight_rows, cols;
    const float* bias;
    const uint8_t* in;
    int64_t in_stride;  // elements (f32) or bytes (codes)
    const RowScale* row_scales;
    const float* add;  // linear_add
    int64_t add_stride;
    float* out;
    int64_t out_stride;
    bool outputs;
};

__device__ inline float element(Element e, const uint8_t* codes, int64_t col) {
    switch (e) {
        case Element::f32:
            return reinterpret_cast<const float*>(codes)[col];
        case Element::f16:
            return __half2float(reinterpret_cast<const __half*>(codes)[col]);
        case Element::bf16:
            return __bfloat162float(reinterpret_cast<const __nv_bfloat16*>(codes)[col]);
        case Element::s8:
            return static_cast<float>(static_cast<int8_t>(codes[col]));
        case Element::e4m3:
            return e4m3_to_f32(codes[col]);
        default:
            return static_cast<float>(codes[col]);
    }
}

template <ValueType type>
__device__ inline float input(const PlainArguments& a, int64_t row, int64_t col) {
    if (type == ValueType::f32) return (reinterpret_cast<const float*>(a.in) + row * a.in_stride)[col];
    const uint8_t code = (a.in + row * a.in_stride)[col];
    return type == ValueType::s8 ? static_cast<float>(static_cast<int8_t>(code)) : e4m3_to_f32(code);
}

__device__ inline void store(const PlainArguments& a, int64_t row, int64_t r, float y) {
    if (a.bias) y = y + a.bias[r];
    if (a.add) y = y + a.add[row * a.add_stride + r];
    a.out[row * a.out_stride + r] = y;
}

// A warp computes one weight row for 8 rows of the input.
template <ValueType type, bool integer>
__global__ void __launch_bounds__(32 * warps) linear_plain(StepView step, PlainArguments a) {
    allow_next();
    wait_for_previous();
    const int64_t r = static_cast<int64_t>(blockIdx.x) * warps + threadIdx.x / 32;
    const int rows = step.rows(a.outputs), first = blockIdx.y * block_rows, lane = threadIdx.x % 32;
    if (r >= a.weight_rows || first >= rows) return;
    const int count = min(block_rows, rows - first);
    const uint8_t* tile = a.tiles + r / 16 * a.tile.bytes;
    const int in_tile = static_cast<int>(r % 16);
    const uint8_t* codes = tile + in_tile * a.tile.row_bytes;
    const float* scales = reinterpret_cast<const float*>(tile + a.tile.scales_at) + in_tile * a.tile.groups;
    const float* offsets = reinterpret_cast<const float*>(tile + a.tile.offsets_at) + in_tile * a.tile.groups;

    if (integer) {
        int sum[block_rows] = {};
        for (int64_t c = lane; c < a.cols; c += 32) {
            const int q = a.format.element == Element::s8 ? static_cast<int8_t>(codes[c]) : codes[c];
            for (int i = 0; i < count; ++i) sum[i] += q * static_cast<int8_t>((a.in + (first + i) * a.in_stride)[c]);
        }
        for (int i = 0; i < count; ++i) {
            int total = warp_sum(sum[i]);
            if (lane) continue;
            const RowScale x = a.row_scales[first + i];
            float y;
            if (a.format.zero == Zero::minimum) {
                const float product = __fmul_rn(__fmul_rn(__int2float_rn(total), x.scale), scales[0]);
                y = __fadd_rn(product, __fmul_rn(__fmul_rn(__int2float_rn(x.sum), x.scale), offsets[0]));
            } else {
                total -= static_cast<int>(offsets[0]) * x.sum;
                y = __fmul_rn(__fmul_rn(__int2float_rn(total), x.scale), scales[0]);
            }
            store(a, first + i, r, y);
        }
        return;
    }

    float sum[block_rows] = {};
    const int64_t group = a.format.group ? a.format.group : a.cols;
    for (int64_t c = lane; c < a.cols; c += 32) {
        float w = element(a.format.element, codes, c);
        if (a.tile.groups) {
            const float scale = scales[c / group], offset = offsets[c / group];
            w = a.format.zero == Zero::minimum ? w * scale + offset : (w - offset) * scale;
        }
        for (int i = 0; i < count; ++i) sum[i] = __fmaf_rn(input<type>(a, first + i, c), w, sum[i]);
    }
    for (int i = 0; i < count; ++i) {
        float y = warp_sum(sum[i]);
        if (type != ValueType::f32) y = y * a.row_scales[first + i].scale;
        if (lane == 0) store(a, first + i, r, y);
    }
}

}  // namespace

void emit_linear_plain(Recorder& recorder, const Bound& b) {
    const Weight& w = *b.node.weight;
    const Format& f = w.format;
    PlainArguments a{};
    a.tiles = device_pointer(w.data);
    a.tile = plain_tile(f, w.cols);
    a.format = f;
    set_linear_values(a, b);
    auto* kernel = is_integer_product(b)            ? linear_plain<ValueType::s8, true>
                   : b.in[0].type == ValueType::f32 ? linear_plain<ValueType::f32, false>
                   : b.in[0].type == ValueType::s8  ? linear_plain<ValueType::s8, false>
                                                    : linear_plain<ValueType::e4m3, false>;
    recorder.launch(kernel,
                    dim3(static_cast<unsigned>((w.rows + warps - 1) / warps),
                         static_cast<unsigned>((recorder.max_rows + block_rows - 1) / block_rows)),
                    dim3(32 * warps), 0, recorder.view(), a);
}

}  // namespace cuda
}  // namespace quant
