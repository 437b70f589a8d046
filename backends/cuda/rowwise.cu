// Ops whose rows do not meet: embedding, norms, activations, quantization.
#include <cfloat>

#include "backends/cuda/emit.h"
#include "backends/cuda/table.cuh"
#include "core/backend.h"

namespace quant {
namespace cuda {
namespace {

constexpr int row_threads = 256;

__global__ void embed(StepView step, Table table, float* out, int64_t stride) {
    allow_next();
    wait_for_previous();
    const int row = blockIdx.y;
    if (row >= step.rows(false)) return;
    const int64_t token = table_row(table, step.token(row));
    const int64_t col = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (col < table.cols) out[row * stride + col] = decode(table, token, col);
}

// ---- y = f(x), perhaps rounded to codes -----------------------------------------------------------------------------

enum class Function { none, rmsnorm, silu_mul };

struct RowArguments {
    const float *in0, *in1, *gain;
    int64_t in0_stride, in1_stride, cols;
    float eps;
    uint8_t* out;
    int64_t out_stride;  // elements (f32) or bytes (codes)
    RowScale* scales;
    bool outputs;
    bool in_quads;  // four columns at a time
};

// One block a row, whose values stay in registers, four columns side by side, if there are not too many.
constexpr int kept_quads = 4, most_threads = 1024;

__device__ inline void load_quad(const float* from, float (&v)[4]) {
    const float4 f = *reinterpret_cast<const float4*>(from);
    v[0] = f.x, v[1] = f.y, v[2] = f.z, v[3] = f.w;
}
__device__ inline void store_quad(float* to, const float (&v)[4]) {
    *reinterpret_cast<float4*>(to) = make_float4(v[0], v[1], v[2], v[3]);
}
__device__ inline void store_quad(uint8_t* to, const uint8_t (&v)[4]) {
    *reinterpret_cast<uchar4*>(to) = make_uchar4(v[0], v[1], v[2], v[3]);
}

template <Function function, ValueType type>
__global__ void __launch_bounds__(most_threads) row_function(StepView step, RowArguments a) {
    __shared__ float floats[32];
    __shared__ int ints[32];
    allow_next();
    const int row = blockIdx.x, threads = blockDim.x;
    const bool idle = row >= step.rows(a.outputs);
    wait_for_previous();
    if (idle) return;
    const float* x = a.in0 + row * a.in0_stride;
    const float* up = a.in1 + row * a.in1_stride;
    const int quads = static_cast<int>(a.cols / 4);
    const bool kept = a.in_quads && quads <= kept_quads * threads;

    float v[kept_quads][4];
    if (kept) {
        float u[kept_quads][4];
#pragma unroll
        for (int i = 0; i < kept_quads; ++i) {
            const int q = threadIdx.x + i * threads;
#pragma unroll
            for (int j = 0; j < 4; ++j) v[i][j] = u[i][j] = 0;
            if (q >= quads) continue;
            load_quad(x + 4 * q, v[i]);
            if (function == Function::silu_mul) load_quad(up + 4 * q, u[i]);
            if (function == Function::rmsnorm) load_quad(a.gain + 4 * q, u[i]);
        }
        if (function == Function::silu_mul)
#pragma unroll
            for (int i = 0; i < kept_quads; ++i)
#pragma unroll
                for (int j = 0; j < 4; ++j) v[i][j] = silu_times(v[i][j], u[i][j]);
        if (function == Function::rmsnorm) {
            float sum = 0;
#pragma unroll
            for (int i = 0; i < kept_quads; ++i)
#pragma unroll
                for (int j = 0; j < 4; ++j) sum = __fmaf_rn(v[i][j], v[i][j], sum);
            sum = block_reduce(sum, floats, 0.f, [](float s) { return warp_sum(s); });
            const float factor = 1.f / sqrtf(sum / static_cast<float>(a.cols) + a.eps);
#pragma unroll
            for (int i = 0; i < kept_quads; ++i)
#pragma unroll
                for (int j = 0; j < 4; ++j) v[i][j] = v[i][j] * factor * u[i][j];
        }
    }
    float factor = 1;
    if (!kept && function == Function::rmsnorm) {
        float sum = 0;
        for (int64_t c = threadIdx.x; c < a.cols; c += threads) sum = __fmaf_rn(x[c], x[c], sum);
        sum = block_reduce(sum, floats, 0.f, [](float s) { return warp_sum(s); });
        factor = 1.f / sqrtf(sum / static_cast<float>(a.cols) + a.eps);
    }
    const auto result = [&](int64_t c) {
        return function == Function::silu_mul  ? silu_times(x[c], up[c])
               : function == Function::rmsnorm ? x[c] * factor * a.gain[c]
                                               : x[c];
    };
    // Calls f(value) for the thread's columns.
    const auto each = [&](auto f) {
        if (kept) {
#pragma unroll
            for (int i = 0; i < kept_quads; ++i)
                if (threadIdx.x + i * threads < quads)
#pragma unroll
                    for (int j = 0; j < 4; ++j) f(v[i][j]);
        } else {
            for (int64_t c = threadIdx.x; c < a.cols; c += threads) f(result(c));
        }
    };
    // Stores f(value) of each.
    const auto store = [&](auto* to, auto f) {
        if (kept) {
#pragma unroll
            for (int i = 0; i < kept_quads; ++i) {
                const int q = threadIdx.x + i * threads;
                if (q >= quads) continue;
                const decltype(f(0.f)) y[4] = {f(v[i][0]), f(v[i][1]), f(v[i][2]), f(v[i][3])};
                store_quad(to + 4 * q, y);
            }
        } else {
            for (int64_t c = threadIdx.x; c < a.cols; c += threads) to[c] = f(result(c));
        }
    };

    if (type == ValueType::f32) {
        store(reinterpret_cast<float*>(a.out) + row * a.out_stride, [](float value) { return value; });
        return;
    }
    float largest = 0;
    each([&](float value) { largest = fmaxf(largest, fabsf(value)); });  // NaN does not count
    largest = block_reduce(largest, floats, 0.f, [](float m) { return warp_max(m); });
    uint8_t* codes = a.out + row * a.out_stride;
    int sum = 0;
    const Rounding<type> rounding(largest);
    store(codes, [&](float value) {
        const int code = rounding.code(value);
        if (type == ValueType::s8) sum += code;
        return static_cast<uint8_t>(code);
    });
    if (type == ValueType::s8) sum = block_reduce(sum, ints, 0, [](int n) { return warp_sum(n); });
    for (int64_t c = a.cols + threadIdx.x; c < a.out_stride; c += threads) codes[c] = 0;
    if (threadIdx.x == 0) a.scales[row] = {rounding.scale, sum};
}

// The same without a reduction: as many blocks as it takes.
__global__ void silu_mul(StepView step, RowArguments a) {
    allow_next();
    wait_for_previous();
    const int row = blockIdx.y;
    const int64_t c = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (row >= step.rows(a.outputs) || c >= a.cols) return;
    reinterpret_cast<float*>(a.out)[row * a.out_stride + c] =
        silu_times(a.in0[row * a.in0_stride + c], a.in1[row * a.in1_stride + c]);
}

__global__ void add(StepView step, RowArguments a) {
    allow_next();
    wait_for_previous();
    const int row = blockIdx.y;
    const int64_t c = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (row >= step.rows(a.outputs) || c >= a.cols) return;
    reinterpret_cast<float*>(a.out)[row * a.out_stride + c] =
        a.in0[row * a.in0_stride + c] + a.in1[row * a.in1_stride + c];
}

__global__ void select_rows(StepView step, RowArguments a) {
    allow_next();
    wait_for_previous();
    const int row = blockIdx.y;
    const int64_t c = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (row >= step.rows(true) || c >= a.cols) return;
    reinterpret_cast<float*>(a.out)[row * a.out_stride + c] = a.in0[step.output_row(row) * a.in0_stride + c];
}

// ---- Host ---------------------------------------------------------------------------------------------------------

dim3 elements(const Recorder& recorder, int64_t cols) {
    return dim3(static_cast<unsigned>((cols + row_threads - 1) / row_threads),
                static_cast<unsigned>(recorder.max_rows));
}

RowArguments row_arguments(const Bound& b) {
    RowArguments a{};
    a.in0 = f32_pointer(b.in[0]);
    a.in0_stride = b.in[0].stride;
    if (b.node.in[1] >= 0) {
        a.in1 = f32_pointer(b.in[1]);
        a.in1_stride = b.in[1].stride;
    }
    if (b.node.weight) a.gain = reinterpret_cast<const float*>(device_pointer(b.node.weight->data));
    a.eps = b.node.eps;
    a.cols = b.in[0].cols;
    a.out = device_pointer(b.out.data);
    a.out_stride = b.out.stride;
    if (b.out.type != ValueType::f32) a.scales = row_scales(b.out);
    a.outputs = b.out.rows == Rows::outputs;
    a.in_quads = (a.cols | a.in0_stride | a.in1_stride | a.out_stride) % 4 == 0;
    for (const void* p : {static_cast<const void*>(a.in0), static_cast<const void*>(a.in1),
                          static_cast<const void*>(a.gain), static_cast<const void*>(a.out)})
        a.in_quads = a.in_quads && reinterpret_cast<uintptr_t>(p) % 16 == 0;
    return a;
}

template <Function function>
void launch_row_function(Recorder& recorder, const Bound& b) {
    const RowArguments a = row_arguments(b);
    auto* kernel = b.out.type == ValueType::f32  ? row_function<function, ValueType::f32>
                   : b.out.type == ValueType::s8 ? row_function<function, ValueType::s8>
                                                 : row_function<function, ValueType::e4m3>;
    const int each = recorder.max_rows > 64 ? 4 * kept_quads : 4;  // columns of a thread
    const int64_t threads = (a.cols + each - 1) / each;
    recorder.launch(kernel, dim3(recorder.max_rows),
                    dim3(static_cast<unsigned>(threads > 1000 ? 1024 : (threads + 31) / 32 * 32)), 0, recorder.view(),
                    a);
}

}  // namespace

void emit_embed(Recorder& recorder, const Bound& b) {
    const Table table = embedding_table(*b.node.weight);
    recorder.launch(embed, elements(recorder, table.cols), dim3(row_threads), 0, recorder.view(), table,
                    f32_pointer(b.out), b.out.stride);
}

void emit_row_function(Recorder& recorder, const Bound& b) {
    switch (b.node.op) {
        case Op::rmsnorm:
        case Op::rmsnorm_quantize:
            return launch_row_function<Function::rmsnorm>(recorder, b);
        case Op::silu_mul_quantize:
            return launch_row_function<Function::silu_mul>(recorder, b);
        case Op::silu_mul:
            return recorder.launch(silu_mul, elements(recorder, b.out.cols), dim3(row_threads), 0, recorder.view(),
                                   row_arguments(b));
        default:
            return launch_row_function<Function::none>(recorder, b);
    }
}

void emit_add(Recorder& recorder, const Bound& b) {
    recorder.launch(add, elements(recorder, b.out.cols), dim3(row_threads), 0, recorder.view(), row_arguments(b));
}

void emit_select_rows(Recorder& recorder, const Bound& b) {
    recorder.launch(select_rows, elements(recorder, b.out.cols), dim3(row_threads), 0, recorder.view(),
                    row_arguments(b));
}

}  // namespace cuda
}  // namespace quant
