// The reference kernels: plain loops over THE decode, sums in double. They define what every other kernel computes.
#pragma once
#include "backends/cpu/cpu_backend.h"

namespace quant {

void emit_reference_linear(Recorder& recorder, const Bound& bound);
void emit_reference_attention(Recorder& recorder, const Bound& bound);
void emit_reference_cache_write(Recorder& recorder, const Bound& bound);

// A phase with one item per row of `shape`: run(step, row, scratch).
inline void phase_of_rows(Recorder& recorder, const Operand& shape, std::function<void(const Step&, int, uint8_t*)> run,
                          size_t scratch_bytes = 0) {
    recorder.phase([shape](const Step& step) { return row_count(shape, step); }, std::move(run), scratch_bytes);
}

}  // namespace quant
