#include "backends/cpu/reference.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "formats/decode.h"
#include "formats/float_types.h"

namespace quant {
namespace {

// ---- Rows of tables ---------------------------------------------------------------------------------------------

void emit_embed(Recorder& recorder, const Bound& b) {
    const WeightView table = stored_view(*b.node.weight);
    phase_of_rows(recorder, b.out, [table, out = b.out](const Step& step, int row, uint8_t*) {
        // Callers check their tokens; a wrong one must still not read outside the table.
        int64_t token = std::min<int64_t>(std::max<int64_t>(step.tokens[row], 0), table.rows - 1);
        decode_row(table, token, f32_row(out, row));
    });
}

void emit_select_rows(Recorder& recorder, const Bound& b) {
    phase_of_rows(recorder, b.out, [in = b.in[0], out = b.out](const Step& step, int row, uint8_t*) {
        std::memcpy(f32_row(out, row), f32_row(in, step.output_rows[row]), out.cols * sizeof(float));
    });
}

// What is in `out` stays sorted; a column goes behind all that are as large.
void emit_top_k(Recorder& recorder, const Bound& b) {
    phase_of_rows(recorder, b.out, [in = b.in[0], out = b.out](const Step&, int row, uint8_t*) {
        struct Pair {
            float value, column;
        };
        const float* x = f32_row(in, row);
        Pair* kept = reinterpret_cast<Pair*>(f32_row(out, row));
        const int64_t most = out.cols / 2;
        int64_t count = 0;
        for (int64_t c = 0; c < in.cols; ++c) {
            int64_t at = count;
            while (at > 0 && (x[c] > kept[at - 1].value || (std::isnan(kept[at - 1].value) && !std::isnan(x[c])))) --at;
            if (at == most) continue;
            if (count < most) ++count;
            std::copy_backward(kept + at, kept + count - 1, kept + count);
            kept[at] = {x[c], static_cast<float>(c)};
        }
    });
}

// A vector weight (a norm's, the rope frequencies) may be stored as a column or as a row: its bytes are the same.
WeightView vector_view(const Weight& weight) {
    WeightView view = stored_view(weight);
    view.cols *= view.rows;
    view.rows = 1;
    return view;
}

// ---- Rotary positions -------------------------------------------------------------------------------------------

void emit_rope_angles(Recorder& recorder, const Bound& b) {
    const WeightView frequencies = vector_view(*b.node.weight);
    phase_of_rows(
        recorder, b.out,
        [frequencies, out = b.out](const Step& step, int row, uint8_t* scratch) {
            float* frequency = reinterpret_cast<float*>(scratch);
            decode_row(frequencies, 0, frequency);
            float* y = f32_row(out, row);
            for (int64_t i = 0; i < out.cols / 2; ++i) {
                const float angle = static_cast<float>(step.positions[row]) * frequency[i];
                y[2 * i] = static_cast<float>(std::cos(static_cast<double>(angle)));
                y[2 * i + 1] = static_cast<float>(std::sin(static_cast<double>(angle)));
            }
        },
        static_cast<size_t>(frequencies.cols) * sizeof(float));
}

void emit_rope(Recorder& recorder, const Bound& b) {
    phase_of_rows(recorder, b.out,
                  [in = b.in[0], angles = b.in[1], out = b.out, heads = b.node.heads, dim = b.node.head_dim,
                   adjacent = b.node.adjacent_pairs](const Step&, int row, uint8_t*) {
                      const float* angle = f32_row(angles, row);
                      for (int head = 0; head < heads; ++head) {
                          const float* x = f32_row(in, row) + head * dim;
                          float* y = f32_row(out, row) + head * dim;
                          for (int i = 0; i < dim / 2; ++i) {
                              const int first = adjacent ? 2 * i : i, second = adjacent ? 2 * i + 1 : i + dim / 2;
                              const float a = x[first], c = x[second], cosine = angle[2 * i], sine = angle[2 * i + 1];
                              y[first] = a * cosine - c * sine;
                              y[second] = a * sine + c * cosine;
                          }
                      }
                  });
}

// ---- Elementwise and norm ---------------------------------------------------------------------------------------

void emit_rmsnorm(Recorder& recorder, const Bound& b) {
    const WeightView gains = vector_view(*b.node.weight);
    phase_of_rows(
        recorder, b.out,
        [gains, in = b.in[0], out = b.out, eps = b.node.eps](const Step&, int row, uint8_t* scratch) {
            float* gain = reinterpret_cast<float*>(scratch);
            decode_row(gains, 0, gain);
            const float* x = f32_row(in, row);
            float* y = f32_row(out, row);
            double sum = 0;
            for (int64_t i = 0; i < in.cols; ++i) sum += static_cast<double>(x[i]) * x[i];
            const double factor = 1.0 / std::sqrt(sum / static_cast<double>(in.cols) + eps);
            for (int64_t i = 0; i < in.cols; ++i) y[i] = static_cast<float>(x[i] * factor * gain[i]);
        },
        static_cast<size_t>(gains.cols) * sizeof(float));
}

void emit_silu_mul(Recorder& recorder, const Bound& b) {
    phase_of_rows(recorder, b.out, [in0 = b.in[0], in1 = b.in[1], out = b.out](const Step&, int row, uint8_t*) {
        const float *gate = f32_row(in0, row), *up = f32_row(in1, row);
        float* y = f32_row(out, row);
        for (int64_t i = 0; i < out.cols; ++i) {
            const double g = gate[i];
            y[i] = static_cast<float>(g / (1.0 + std::exp(-g)) * up[i]);
        }
    });
}

void emit_add(Recorder& recorder, const Bound& b) {
    phase_of_rows(recorder, b.out, [in0 = b.in[0], in1 = b.in[1], out = b.out](const Step&, int row, uint8_t*) {
        const float *left = f32_row(in0, row), *right = f32_row(in1, row);
        float* y = f32_row(out, row);
        for (int64_t i = 0; i < out.cols; ++i) y[i] = left[i] + right[i];
    });
}

// ---- Quantize ---------------------------------------------------------------------------------------------------

// NaN does not count here, and an infinity makes the scale infinite: the row's products are then NaN.
float largest_magnitude(const float* x, int64_t n) {
    float largest = 0;
    for (int64_t i = 0; i < n; ++i)
        if (std::fabs(x[i]) > largest) largest = std::fabs(x[i]);
    return largest;
}

RowScale quantize_s8(const float* x, int64_t n, uint8_t* codes) {
    const float largest = largest_magnitude(x, n);
    const float inverse = largest > 0 ? 127.0f / largest : 0.0f;
    int64_t sum = 0;
    for (int64_t i = 0; i < n; ++i) {
        const float rounded = std::nearbyint(x[i] * inverse);
        const float clamped = std::isnan(rounded) ? 0.0f : std::min(std::max(rounded, -127.0f), 127.0f);
        const int code = static_cast<int>(clamped);
        codes[i] = static_cast<uint8_t>(code);
        sum += code;
    }
    return {largest / 127.0f, static_cast<int32_t>(sum)};
}

RowScale quantize_e4m3(const float* x, int64_t n, uint8_t* codes) {
    const float scale = std::max(largest_magnitude(x, n) / 448.0f, 1.0f / (448.0f * 512.0f));
    for (int64_t i = 0; i < n; ++i) codes[i] = f32_to_e4m3(x[i] / scale);
    return {scale, 0};
}

void emit_quantize(Recorder& recorder, const Bound& b) {
    auto* quantize = b.out.type == ValueType::s8 ? quantize_s8 : quantize_e4m3;
    phase_of_rows(recorder, b.out, [quantize, in = b.in[0], out = b.out](const Step&, int row, uint8_t*) {
        uint8_t* codes = codes_row(out, row);
        row_scales(out)[row] = quantize(f32_row(in, row), in.cols, codes);
        std::memset(codes + in.cols, 0, static_cast<size_t>(out.stride - in.cols));
    });
}

bool accepts_all(const Node&, const Weight*, const Value*, const Value*) {
    return true;
}
bool accepts_quantize(const Node&, const Weight*, const Value*, const Value* out) {
    return out && out->type != ValueType::f32;
}

}  // namespace

void append_reference_kernels(std::vector<Kernel>& table) {
    const Kernel kernels[] = {
        {"reference embed", Op::embed, nullptr, accepts_all, emit_embed},
        {"reference rope_angles", Op::rope_angles, nullptr, accepts_all, emit_rope_angles},
        {"reference rmsnorm", Op::rmsnorm, nullptr, accepts_all, emit_rmsnorm},
        {"reference quantize", Op::quantize, nullptr, accepts_quantize, emit_quantize},
        {"reference linear", Op::linear, &layout_stored, accepts_all, emit_reference_linear},
        {"reference rope", Op::rope, nullptr, accepts_all, emit_rope},
        {"reference cache_write", Op::cache_write, nullptr, accepts_all, emit_reference_cache_write},
        {"reference attention", Op::attention, nullptr, accepts_all, emit_reference_attention},
        {"reference silu_mul", Op::silu_mul, nullptr, accepts_all, emit_silu_mul},
        {"reference add", Op::add, nullptr, accepts_all, emit_add},
        {"reference select_rows", Op::select_rows, nullptr, accepts_all, emit_select_rows},
        {"reference top_k", Op::top_k, nullptr, accepts_all, emit_top_k},
    };
    table.insert(table.end(), std::begin(kernels), std::end(kernels));
}

}  // namespace quant
