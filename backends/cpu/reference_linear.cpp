// out = in * weight^T + bias, one weight row at a time.
#include <algorithm>

#include "backends/cpu/reference.h"
#include "formats/decode.h"
#include "formats/float_types.h"

namespace quant {
namespace {

constexpr int64_t rows_per_item = 8;

void phase_of_weight_rows(Recorder& recorder, const Operand& out, size_t scratch_bytes,
                          std::function<void(int rows, int64_t weight_row, uint8_t* scratch)> run) {
    recorder.phase(
        [out](const Step& step) {
            return row_count(out, step) ? static_cast<int>((out.cols + rows_per_item - 1) / rows_per_item) : 0;
        },
        [out, run](const Step& step, int item, uint8_t* scratch) {
            const int64_t end = std::min(out.cols, (item + 1) * rows_per_item);
            for (int64_t r = item * rows_per_item; r < end; ++r) run(row_count(out, step), r, scratch);
        },
        scratch_bytes);
}

// Eight partial sums, so that the processor need not wait for each addition.
double dot(const float* x, const float* w, int64_t n) {
    double sum[8] = {};
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (int j = 0; j < 8; ++j) sum[j] += static_cast<double>(x[i + j]) * w[i + j];
    for (; i < n; ++i) sum[0] += static_cast<double>(x[i]) * w[i];
    return ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7]));
}

void emit_float_activations(Recorder& recorder, const Bound& b) {
    const WeightView weight = stored_view(*b.node.weight);
    const float* bias = bias_of(*b.node.weight);
    phase_of_weight_rows(recorder, b.out, static_cast<size_t>(weight.cols) * sizeof(float),
                         [weight, bias, in = b.in[0], out = b.out](int rows, int64_t r, uint8_t* scratch) {
                             float* w = reinterpret_cast<float*>(scratch);
                             decode_row(weight, r, w);
                             for (int row = 0; row < rows; ++row) {
                                 const double sum = dot(f32_row(in, row), w, weight.cols);
                                 f32_row(out, row)[r] = static_cast<float>(bias ? sum + bias[r] : sum);
                             }
                         });
}

// Codes times decoded weights, where no integer sum is exact: e4m3, or several scales in a row.
void emit_scaled_codes(Recorder& recorder, const Bound& b) {
    const WeightView weight = stored_view(*b.node.weight);
    const float* bias = bias_of(*b.node.weight);
    phase_of_weight_rows(recorder, b.out, 2 * static_cast<size_t>(weight.cols) * sizeof(float),
                         [weight, bias, in = b.in[0], out = b.out](int rows, int64_t r, uint8_t* scratch) {
                             float* w = reinterpret_cast<float*>(scratch);
                             float* x = w + weight.cols;
                             decode_row(weight, r, w);
                             for (int row = 0; row < rows; ++row) {
                                 const uint8_t* codes = codes_row(in, row);
                                 for (int64_t i = 0; i < weight.cols; ++i)
                                     x[i] = in.type == ValueType::s8 ? static_cast<int8_t>(codes[i])
                                                                     : e4m3_to_f32(codes[i]);
                                 const double sum = dot(x, w, weight.cols) * row_scales(in)[row].scale;
                                 f32_row(out, row)[r] = static_cast<float>(bias ? sum + bias[r] : sum);
                             }
                         });
}

// One scale s and zero z or minimum m in a weight row, row scale a, activation codes x with sum X:
//
//     y = (float(sum x (q - z)) * a) * s                                     no zero, or a zero point
//     y = (float(sum x q) * a) * s + (float(X) * a) * m                      minimum
//
// then + bias; every operation rounded once, in this order. The sums are exact: |x q| <= 127 * 255, so an int32 holds
// 66000 columns (132000 of s8), and here an int64 any number.
void emit_integer(Recorder& recorder, const Bound& b) {
    const WeightView weight = stored_view(*b.node.weight);
    const float* bias = bias_of(*b.node.weight);
    phase_of_weight_rows(recorder, b.out, static_cast<size_t>(weight.cols),
                         [weight, bias, in = b.in[0], out = b.out](int rows, int64_t r, uint8_t* codes) {
                             float scale, offset;
                             unpack_row(weight, r, codes, &scale, &offset);
                             const bool is_signed = weight.format.element == Element::s8,
                                        minimum = weight.format.zero == Zero::minimum;
                             for (int row = 0; row < rows; ++row) {
                                 const uint8_t* x = codes_row(in, row);
                                 int64_t sum = 0;
                                 for (int64_t i = 0; i < weight.cols; ++i) {
                                     const int q = is_signed ? static_cast<int8_t>(codes[i]) : codes[i];
                                     sum += static_cast<int8_t>(x[i]) * q;
                                 }
                                 const RowScale a = row_scales(in)[row];
                                 float y;
                                 if (minimum) {
                                     const float product = (static_cast<float>(sum) * a.scale) * scale;
                                     y = product + (static_cast<float>(a.sum) * a.scale) * offset;
                                 } else {
                                     sum -= static_cast<int64_t>(offset) * a.sum;
                                     y = (static_cast<float>(sum) * a.scale) * scale;
                                 }
                                 f32_row(out, row)[r] = bias ? y + bias[r] : y;
                             }
                         });
}

bool one_scale_per_row(const Format& f) {
    return f.granularity == Granularity::channel || f.granularity == Granularity::tensor;
}

}  // namespace

void emit_reference_linear(Recorder& recorder, const Bound& bound) {
    const Format& f = bound.node.weight->format;
    const bool integer_weight = !is_float(f.element) && f.element != Element::e4m3 && one_scale_per_row(f);
    if (bound.in[0].type == ValueType::f32)
        emit_float_activations(recorder, bound);
    else if (bound.in[0].type == ValueType::s8 && integer_weight)
        emit_integer(recorder, bound);
    else
        emit_scaled_codes(recorder, bound);
}

}  // namespace quant
