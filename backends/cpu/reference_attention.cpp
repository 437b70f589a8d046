#include <algorithm>
#include <cmath>

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

}  // namespace

void emit_reference_cache_write(Recorder& recorder, const Bound& b) {
    phase_of_rows(recorder, b.in[0], [node = b.node, k = b.in[0], v = b.in[1]](const Step& step, int row, uint8_t*) {
        const int position = step.positions[row], at = position % page_positions;
        const int32_t page = page_of(step, sequence_of(step, row), position);
        uint16_t* keys = cache_keys(*step.cache, page, node.layer);
        uint16_t* values = cache_values(*step.cache, page, node.layer);
        const int dim = node.head_dim;
        for (int head = 0; head < node.kv_heads; ++head)
            for (int i = 0; i < dim; ++i) {
                keys[(head * dim + i) * page_positions + at] = f32_to_f16(f32_row(k, row)[head * dim + i]);
                values[(head * page_positions + at) * dim + i] = f32_to_f16(f32_row(v, row)[head * dim + i]);
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
                const uint16_t* keys = cache_keys(*step.cache, page, node.layer) + kv_head * dim * page_positions;
                const uint16_t* values = cache_values(*step.cache, page, node.layer) + kv_head * page_positions * dim;
                double score[page_positions] = {};
                for (int i = 0; i < dim; ++i)
                    for (int p = first; p < last; ++p)
                        score[p] += static_cast<double>(query[i]) * f16_to_f32(keys[i * page_positions + p]);
                double risen = largest;
                for (int p = first; p < last; ++p) risen = std::max(risen, score[p] *= node.scale);
                const double shrink = std::exp(largest - risen);
                total *= shrink;
                for (int i = 0; i < dim; ++i) mean[i] *= shrink;
                largest = risen;
                for (int p = first; p < last; ++p) {
                    const double weight = std::exp(score[p] - largest);
                    total += weight;
                    for (int i = 0; i < dim; ++i) mean[i] += weight * f16_to_f32(values[p * dim + i]);
                }
                position += last - first;
            }
            float* y = f32_row(out, row) + head * dim;
            for (int i = 0; i < dim; ++i) y[i] = static_cast<float>(mean[i] / total);
        },
        static_cast<size_t>(b.node.head_dim) * sizeof(double));
}

}  // namespace quant
