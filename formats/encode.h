// THE encode: float32 to any planar format (and the ggml blocks that hold one exactly).
//   asymmetric (minimum)  InstantQuant: s = (max-min)/(2^bits-1); q = round((w-min)/s); m = min
//   asymmetric (integer)  the range widened to contain 0; s as above; z = round(-min/s); q = round(w/s) + z
//   symmetric s8          s = absmax/127, q = round(w/s)
//   symmetric u4 (z = 8)  s = v/-8 with v the value of largest magnitude, q = round(w/s) + 8, clamped to 0..15
//                         (u5, u6, u8 alike, with z = 16, 32, 128)
//   e4m3                  s = absmax/448, q = e4m3(w/s)
// s = 0 becomes 1. Codes are computed with the unrounded scale, then the scale and minimum are rounded to their stored
// type. The float elements are conversions.
#pragma once
#include <vector>

#include "formats/format.h"

namespace quant {

class Encoder {
  public:
    // Throws QUANT_ERR_UNSUPPORTED for a format that nothing above describes (ggml storage among them).
    Encoder(const Format& format, int64_t rows, int64_t cols);

    // Scales of tensor and block granularity come from the whole matrix and are shared by rows: call observe on every
    // row first (rows of one block in order on one thread), then encode_shared, which writes them, then encode_row.
    // Other granularities need neither.
    bool needs_observation() const;
    void observe(int64_t row, const float* values);
    void encode_shared(uint8_t* scales, uint8_t* zeros);

    // Writes one row of the planar arrays: codes[codes_row_bytes]; scales and zeros point at the arrays' starts, and
    // the entries of this row alone are written. Thread-safe for different rows.
    void encode_row(int64_t row, const float* values, uint8_t* codes, uint8_t* scales, uint8_t* zeros) const;

    struct Range {
        float min, max;
    };
    struct Affine;

  private:
    int64_t first_group(int64_t row) const;  // of the scales that the row uses
    void store(const Affine* a, int64_t first, int64_t n, uint8_t* scales, uint8_t* zeros) const;

    Format format_;
    int64_t cols_;
    std::vector<Range> observed_;  // per block; of a tensor per row, then of all
};

// The inverse of unpack_row, for planar formats: one row's entries of the arrays. codes[cols] are one byte each, of
// float elements their bytes; scales and offsets are [groups_per_row], exact in the format's scale type.
void pack_row(const Format& format, int64_t cols, const uint8_t* codes, const float* scales, const float* offsets,
              uint8_t* row_codes, uint8_t* row_scales, uint8_t* row_zeros);

// Planar row <-> ggml block row, for the formats that a GGUF type holds exactly (s8:g32:f16 = Q8_0,
// u4:g32:f16:z8 = Q4_0, u4:g32:f16:min = Q4_1). `row_*` are one row's entries; cols is a multiple of 32.
void interleave_ggml_row(const Format& planar, int64_t cols, const uint8_t* row_codes, const uint8_t* row_scales,
                         const uint8_t* row_zeros, uint8_t* blocks);

}  // namespace quant
