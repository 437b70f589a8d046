// THE decode: the one scalar statement of what a format's bytes mean. Every kernel is tested against it.
#pragma once
#include "formats/format.h"

namespace quant {

// One row taken apart, without arithmetic on the codes: codes[cols] one byte each (s8 as its byte, e4m3 as its code),
// scales[groups_per_row] (a nested scale is the float product code * coarse), offsets[groups_per_row]: the minimum
// (Zero::minimum) or the zero point (Zero::integer, Zero::constant), 0 for Zero::none. Quantized elements only.
void unpack_row(const WeightView& w, int64_t row, uint8_t* codes, float* scales, float* offsets);

// The parts of a nested row: scale = scale_codes[group] * coarse_scales[super group], and for Zero::minimum likewise
// offset = offset_codes * coarse_offsets (negative where the file's minimum is subtracted); other zeros leave the
// offset arrays alone, and they may be null. s8 scale codes are their bytes.
void unpack_nested_row(const WeightView& w, int64_t row, uint8_t* scale_codes, uint8_t* offset_codes,
                       float* coarse_scales, float* coarse_offsets);

// out[cols] = row of W in float32: (q - z) * s, or q * s + m, each operation rounded once (no contraction).
void decode_row(const WeightView& w, int64_t row, float* out);

}  // namespace quant
