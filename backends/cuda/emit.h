// The emit functions of the kernel table (kernels.cpp), by the file that has the kernels.
#pragma once
#include "backends/cuda/recorder.h"

namespace quant {
namespace cuda {

// rowwise.cu
void emit_embed(Recorder& recorder, const Bound& bound);
void emit_row_function(Recorder& recorder, const Bound& bound);  // rmsnorm, silu_mul, quantize and their fusions
void emit_add(Recorder& recorder, const Bound& bound);
void emit_select_rows(Recorder& recorder, const Bound& bound);

// top_k.cu
void emit_top_k(Recorder& recorder, const Bound& bound);

// rope.cu
void emit_rope_angles(Recorder& recorder, const Bound& bound);
void emit_rope(Recorder& recorder, const Bound& bound);
void emit_cache_write(Recorder& recorder, const Bound& bound);
void emit_rope_cache_write(Recorder& recorder, const Bound& bound);

// attention.cu
void emit_attention(Recorder& recorder, const Bound& bound);
void emit_attention_f16(Recorder& recorder, const Bound& bound);  // many rows: queries, probabilities rounded to f16

// linear_plain.cu: any format, float32 sums (integer ones where they define the result)
void emit_linear_plain(Recorder& recorder, const Bound& bound);
// linear.cpp: layout "fragments" on tensor cores
void emit_linear_fragments(Recorder& recorder, const Bound& bound);
void emit_linear_e4m3(Recorder& recorder, const Bound& bound);  // may sum e4m3 products as Hopper does

}  // namespace cuda
}  // namespace quant
