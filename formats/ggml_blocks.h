// The blocks of GGUF's quantized types, taken apart. Layouts (h = f16, little-endian; sizes in bytes):
//   Q8_0  d:h  q[32]                              32 columns
//   Q4_0  d:h  q[16]                              low nibbles are columns 0-15, high nibbles 16-31
//   Q4_1  d:h  m:h  q[16]
//   Q5_0  d:h  fifth[4]  q[16]                    bit j of `fifth` is bit 4 of column j
//   Q5_1  d:h  m:h  fifth[4]  q[16]
//   Q4_K  d:h  dmin:h  scales[12]  q[128]         256 columns, groups of 32: q[32j..] holds group 2j low, 2j+1 high
//   Q5_K  d:h  dmin:h  scales[12]  fifth[32]  q[128]   bit g of fifth[i] is bit 4 of column i of group g
//   Q6_K  low[128]  high[64]  scales[16]:s8  d:h  256 columns, groups of 16
#pragma once
#include "formats/format.h"

namespace quant {

// Everything here starts at a block: `blocks` is the block of column 0, `cols` the columns wanted from there.
// codes[cols], one byte each.
void unpack_ggml_codes(const Format& f, const uint8_t* blocks, int64_t cols, uint8_t* codes);
// scales and offsets of the groups, as unpack_row gives them.
void unpack_ggml_scales(const Format& f, const uint8_t* blocks, int64_t cols, float* scales, float* offsets);
// Nested types: see unpack_nested_row.
void unpack_ggml_nested(const Format& f, const uint8_t* blocks, int64_t cols, uint8_t* scale_codes,
                        uint8_t* offset_codes, float* coarse_scales, float* coarse_offsets);

}  // namespace quant
