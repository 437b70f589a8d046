#include <algorithm>
#include <cmath>
#include <cstring>

#include "backends/cpu/reference.h"
#include "formats/float_types.h"

namespace quant {
namespace {

const StepSequence& sequence_of(const Step& step, int row) {
    for (const StepSequence& s : step.sequences)
        if (row >= s.first_row && row < s.first_row + s.rows) return s;
    return step.sequences.front();
}

int32_t page_of(const Step& step, const StepSequence& s, int position) {
    return step.pages[s.first_page + position / page_positions];
}

uint16_t load_u16(const uint8_t* p) {
    uint16_t u;
    std::memcpy(&u, p, 2);
    return u;
}

// Code i of a head's position goes to codes[i * stride], in units of a code.
void store_head(CacheKind kind, const float* x, int dim, uint8_t* codes, int stride, uint8_t* scale_at) {
    auto put_f16 = [](uint8_t* at, float value) {
        const uint16_t half = f32_to_f16(value);
        std::memcpy(at, &half, 2);
    };
    if (kind == CacheKind::f16) {
        for (int i = 0; i < dim; ++i) put_f16(codes + 2 * i * stride, x[i]);
        return;
    }
    const float limit = kind == CacheKind::s8 ? 127 : 448;
    float largest = 0;
    for (int i = 0; i < dim; ++i)
        if (std::fabs(x[i]) > largest) largest = std::fabs(x[i]);
    put_f16(scale_at, std::min(largest / limit, 65504.0f));
    const float scale = f16_to_f32(load_u16(scale_at)), inverse = scale > 0 ? 1 / scale : 0;
    for (int i = 0; i < dim; ++i) {
        const float q = x[i] * inverse;
        if (kind == CacheKind::e4m3)
            codes[i * stride] = f32_to_e4m3(q);
        else
            codes[i * stride] = static_cast<uint8_t>(
                q == q ? static_cast<int>(std::nearbyint(std::min(std::max(q, -127.0f), 127.0f))) : 0);
    }
}

float load_code(CacheKind kind, const uint8_t* codes, int i) {
    if (kind == CacheKind::f16) return f16_to_f32(load_u16(codes + 2 * i));
    return kind == CacheKind::s8 ? static_cast<float>(static_cast<int8_t>(codes[i])) : e4m3_to_f32(codes[i]);
}

double load_scale(CacheKind kind, const uint8_t* scales, int position) {
    return kind == CacheKind::f16 ? 1.0 : static_cast<double>(f16_to_f32(load_u16(scales + 2 * position)));
}

}  // namespace

void emit_reference_cache_write(Recorder& recorder, const Bound& b) {
    phase_of_rows(recorder, b.in[0], [node = b.node, k = b.in[0], v = b.in[1]](const Step& step, int row, uint8_t*) {
        const int position = step.positions[row], at = position % page_positions, dim = node.head_dim;
        const CacheShape& shape = step.cache->shape;
        uint8_t* layer = cache_layer(*step.cache, page_of(step, sequence_of(step, row), position), node.layer);
        for (int head = 0; head < node.kv_heads; ++head) {
            const float *key = f32_row(k, row) + head * dim, *value = f32_row(v, row) + head * dim;
            store_head(node.cache, key, dim, layer + shape.keys(head) + at * shape.code_bytes(), page_positions,
                       layer + shape.key_scales(head) + 2 * at);
            store_head(node.cache, value, dim, layer + shape.values(head) + at * dim * shape.code_bytes(), 1,
                       layer + shape.value_scales(head) + 2 * at);
        }
    });
}

// One item per row and head; page by page with a running maximum: when it rises, what was summed so far shrinks.
void emit_reference_attention(Recorder& recorder, const Bound& b) {
    recorder.phase(
        [out = b.out, heads = b.node.heads](const Step& step) { return row_count(out, step) * heads; },
        [node = b.node, q = b.in[0], out = b.out](const Step& step, int item, uint8_t* scratch) {
            const int row = item / node.heads, head = item % node.heads, dim = node.head_dim;
            const int kv_head = head / (node.heads / node.kv_heads);
            const StepSequence& sequence = sequence_of(step, row);
            const int end = step.positions[row] + 1, begin = node.window ? std::max(0, end - node.window) : 0;
            const float* query = f32_row(q, row) + head * dim;
            double* mean = reinterpret_cast<double*>(scratch);
            std::fill_n(mean, dim, 0.0);
            double largest = -HUGE_VAL, total = 0;
            for (int position = begin; position < end;) {
                const int32_t page = page_of(step, sequence, position);
                const int first = position % page_positions;
                const int last = std::min(page_positions, first + end - position);
                const CacheShape& shape = step.cache->shape;
                const uint8_t* layer = cache_layer(*step.cache, page, node.layer);
                const uint8_t *keys = layer + shape.keys(kv_head), *values = layer + shape.values(kv_head);
                auto scale_of = [&](const uint8_t* scales, int p) { return load_scale(node.cache, scales, p); };
                double score[page_positions] = {};
                for (int i = 0; i < dim; ++i)
                    for (int p = first; p < last; ++p)
                        score[p] += static_cast<double>(query[i]) * load_code(node.cache, keys, i * page_positions + p);
                double risen = largest;
                for (int p = first; p < last; ++p)
                    risen = std::max(risen, score[p] *= node.scale * scale_of(layer + shape.key_scales(kv_head), p));
                const double shrink = std::exp(largest - risen);
                total *= shrink;
                for (int i = 0; i < dim; ++i) mean[i] *= shrink;
                largest = risen;
                for (int p = first; p < last; ++p) {
                    const double weight = std::exp(score[p] - largest);
                    total += weight;
                    const double scaled = weight * scale_of(layer + shape.value_scales(kv_head), p);
                    for (int i = 0; i < dim; ++i) mean[i] += scaled * load_code(node.cache, values, p * dim + i);
                }
                position += last - first;
            }
            float* y = f32_row(out, row) + head * dim;
            for (int i = 0; i < dim; ++i) y[i] = static_cast<float>(mean[i] / total);
        },
        static_cast<size_t>(b.node.head_dim) * sizeof(double));
}

}  // namespace quant
