#include "formats/decode.h"

#include <algorithm>
#include <cstring>

#include "formats/float_types.h"
#include "formats/ggml_blocks.h"

namespace quant {
namespace {

// Rows are taken in chunks of columns: a multiple of every block's width, and of 8, so that chunks start at a byte.
constexpr int64_t chunk = 256;

const uint8_t* row_codes(const WeightView& w, int64_t row) {
    return w.codes + static_cast<size_t>(stored_row(w, row)) * codes_row_bytes(w.format, w.cols);
}

uint16_t load_u16(const uint8_t* p) {
    uint16_t u;
    std::memcpy(&u, p, 2);
    return u;
}

void load_floats(FloatType type, const uint8_t* from, int64_t first, int64_t n, float* out) {
    from += static_cast<size_t>(first) * float_type_bytes(type);
    if (type == FloatType::f32) {
        std::memcpy(out, from, static_cast<size_t>(n) * 4);
    } else if (type == FloatType::f16) {
        for (int64_t i = 0; i < n; ++i) out[i] = f16_to_f32(load_u16(from + 2 * i));
    } else {
        for (int64_t i = 0; i < n; ++i) out[i] = bf16_to_f32(load_u16(from + 2 * i));
    }
}

// Little-endian bit stream: 8 codes are `bits` bytes.
template <int bits>
void unpack_bits(const uint8_t* from, int64_t n, uint8_t* codes) {
    constexpr uint64_t mask = (1u << bits) - 1;
    for (; n > 0; n -= 8, from += bits, codes += 8) {
        uint64_t word = 0;
        std::memcpy(&word, from, static_cast<size_t>(n < 8 ? (n * bits + 7) / 8 : bits));
        for (int64_t i = 0; i < std::min<int64_t>(n, 8); ++i)
            codes[i] = static_cast<uint8_t>(word >> (bits * i) & mask);
    }
}

void unpack_u4(const uint8_t* from, int64_t n, uint8_t* codes) {
    for (int64_t i = 0; i < n / 2; ++i) {
        codes[2 * i] = from[i] & 15;
        codes[2 * i + 1] = from[i] >> 4;
    }
    if (n % 2 != 0) codes[n - 1] = from[n / 2] & 15;
}

// Codes of columns [first, first + n), `first` a multiple of the chunk.
void unpack_codes(const Format& f, const uint8_t* row, int64_t first, int64_t n, uint8_t* codes) {
    const uint8_t* from = row + codes_row_bytes(f, first);
    if (f.storage == Storage::ggml) return unpack_ggml_codes(f, from, n, codes);
    switch (f.element) {
        case Element::u6:
            return unpack_bits<6>(from, n, codes);
        case Element::u5:
            return unpack_bits<5>(from, n, codes);
        case Element::u4:
            return unpack_u4(from, n, codes);
        default:
            std::memcpy(codes, from, static_cast<size_t>(n));
    }
}

// Planar scales and offsets of the row's groups [first, first + n).
void load_scales(const WeightView& w, int64_t row, int64_t first, int64_t n, float* scales, float* offsets) {
    const Format& f = w.format;
    if (f.granularity == Granularity::channel) first = stored_row(w, row);
    if (f.granularity == Granularity::group) first += stored_row(w, row) * groups_per_row(f, w.cols);
    if (f.granularity == Granularity::block) first += stored_row(w, row) / f.group * groups_per_row(f, w.cols);
    load_floats(f.scale, w.scales, first, n, scales);
    if (f.zero == Zero::minimum) {
        load_floats(f.scale, w.zeros, first, n, offsets);
    } else if (f.zero == Zero::integer) {
        for (int64_t i = 0; i < n; ++i) offsets[i] = w.zeros[first + i];
    } else {
        std::fill_n(offsets, n, static_cast<float>(f.zero_point));
    }
}

// Groups that columns [first, first + n) touch: scales[0] belongs to group `first / group`.
void chunk_scales(const WeightView& w, int64_t row, const uint8_t* codes, int64_t first, int64_t n, float* scales,
                  float* offsets) {
    const Format& f = w.format;
    if (f.storage == Storage::ggml) return unpack_ggml_scales(f, codes + codes_row_bytes(f, first), n, scales, offsets);
    const int64_t group = f.group == 0 ? w.cols : f.group;
    const int64_t first_group = first / group, last_group = (first + n - 1) / group;
    load_scales(w, row, first_group, last_group - first_group + 1, scales, offsets);
}

template <class Value>
void affine(const uint8_t* codes, int64_t n, bool minimum, float scale, float offset, float* out, Value value) {
    if (minimum) {
        for (int64_t i = 0; i < n; ++i) out[i] = value(codes[i]) * scale + offset;
    } else {
        for (int64_t i = 0; i < n; ++i) out[i] = (value(codes[i]) - offset) * scale;
    }
}

}  // namespace

void unpack_row(const WeightView& w, int64_t row, uint8_t* codes, float* scales, float* offsets) {
    const uint8_t* from = row_codes(w, row);
    unpack_codes(w.format, from, 0, w.cols, codes);
    if (w.format.storage == Storage::ggml) {
        unpack_ggml_scales(w.format, from, w.cols, scales, offsets);
    } else {
        load_scales(w, row, 0, groups_per_row(w.format, w.cols), scales, offsets);
    }
}

void unpack_nested_row(const WeightView& w, int64_t row, uint8_t* scale_codes, uint8_t* offset_codes,
                       float* coarse_scales, float* coarse_offsets) {
    unpack_ggml_nested(w.format, row_codes(w, row), w.cols, scale_codes, offset_codes, coarse_scales, coarse_offsets);
}

void decode_row(const WeightView& w, int64_t row, float* out) {
    const Format& f = w.format;
    const uint8_t* from = row_codes(w, row);
    if (f.element == Element::f32) return load_floats(FloatType::f32, from, 0, w.cols, out);
    if (f.element == Element::f16) return load_floats(FloatType::f16, from, 0, w.cols, out);
    if (f.element == Element::bf16) return load_floats(FloatType::bf16, from, 0, w.cols, out);

    const int64_t group = f.group == 0 ? w.cols : f.group;
    const bool minimum = f.zero == Zero::minimum;
    uint8_t codes[chunk];
    float scales[chunk], offsets[chunk];
    for (int64_t first = 0; first < w.cols; first += chunk) {
        const int64_t end = std::min(first + chunk, w.cols);
        unpack_codes(f, from, first, end - first, codes);
        chunk_scales(w, row, from, first, end - first, scales, offsets);
        int64_t index = 0;
        for (int64_t at = first; at < end; ++index) {
            const int64_t n = std::min((at / group + 1) * group, end) - at;
            const auto decode = [&](auto value) {
                affine(codes + (at - first), n, minimum, scales[index], offsets[index], out + at, value);
            };
            if (f.element == Element::s8) {
                decode([](uint8_t c) { return static_cast<float>(static_cast<int8_t>(c)); });
            } else if (f.element == Element::e4m3) {
                decode([](uint8_t c) { return e4m3_to_f32(c); });
            } else {
                decode([](uint8_t c) { return static_cast<float>(c); });
            }
            at += n;
        }
    }
}

}  // namespace quant
