#include "formats/encode.h"

#include <algorithm>
#include <cstring>
#include <functional>

#include "formats/error.h"
#include "formats/float_types.h"

namespace quant {

// q = round((w - shift) / scale) within [low, high], + zero_point
struct Encoder::Affine {
    float scale, shift, low, high;
    uint8_t zero_point;
};

namespace {

using Affine = Encoder::Affine;
using Range = Encoder::Range;

// Of some lanes the one that is before all others, of equal ones (zeros, which may differ in sign) the first. In pairs,
// which are neither a long chain nor branches.
template <int lanes, class Before>
float foremost(const float* x, Before before) {
    if constexpr (lanes == 1) {
        return x[0];
    } else {
        float of_two[lanes / 2];
        for (int l = 0; l < lanes / 2; ++l) of_two[l] = before(x[2 * l + 1], x[2 * l]) ? x[2 * l + 1] : x[2 * l];
        return foremost<lanes / 2>(of_two, before);
    }
}

// NaNs are passed over. Lanes, because a single running minimum would be one long chain.
template <int lanes>
Range range_of_lanes(const float* values, int64_t n) {
    float low[lanes], high[lanes];
    std::fill_n(low, lanes, float_from_bits(0x7f800000));
    std::fill_n(high, lanes, float_from_bits(0xff800000));
    int64_t i = 0;
    for (; i + lanes <= n; i += lanes) {
        for (int l = 0; l < lanes; ++l) {
            const float x = values[i + l];
            low[l] = x < low[l] ? x : low[l];
            high[l] = x > high[l] ? x : high[l];
        }
    }
    for (; i < n; ++i) {
        low[0] = values[i] < low[0] ? values[i] : low[0];
        high[0] = values[i] > high[0] ? values[i] : high[0];
    }
    const Range r{foremost<lanes>(low, std::less<float>()), foremost<lanes>(high, std::greater<float>())};
    return r.min <= r.max ? r : Range{0, 0};
}
// Compilers make vectors of many lanes, which take a while to unite.
Range range_of(const float* values, int64_t n) {
    return n < 128 ? range_of_lanes<4>(values, n) : range_of_lanes<32>(values, n);
}

Range united(const Range& a, const Range& b) {
    return {std::min(a.min, b.min), std::max(a.max, b.max)};
}

Affine affine_for(const Format& f, const Range& r) {
    const float absmax = std::max(-r.min, r.max);
    const float levels = static_cast<float>((1 << element_bits(f.element)) - 1);
    Affine a{1, 0, 0, levels, 0};
    if (f.element == Element::e4m3) {
        a.scale = absmax / 448.0f;
    } else if (f.element == Element::s8) {
        a = {absmax / 127.0f, 0, -127, 127, 0};
    } else if (f.zero == Zero::minimum) {
        a.scale = (r.max - r.min) / levels;
        a.shift = r.min;
    } else if (f.zero == Zero::constant) {
        const float z = f.zero_point;
        a = {(r.max > -r.min ? r.max : r.min) / -z, 0, -z, levels - z, f.zero_point};
    } else {
        const float low = std::min(r.min, 0.0f);
        a.scale = (std::max(r.max, 0.0f) - low) / levels;
        const float exact = a.scale > 0 ? -low / a.scale : 0;
        const float clamped = exact < levels ? exact : levels;
        a.zero_point = static_cast<uint8_t>(float_bits(clamped + 12582912.0f) & 0xff);
        a.low = -static_cast<float>(a.zero_point);
        a.high = levels + a.low;
    }
    if (a.scale == 0) a.scale = 1;
    return a;
}

// Rounding by addition: 1.5 * 2^23 + x has units of 1, and its low bits are x's integer in two's complement. Clamping
// first loses nothing, the bounds being integers; the comparisons send a NaN to `low`.
void quantize(const Affine& a, const float* values, int64_t n, uint8_t* codes) {
    const float scale = a.scale, shift = a.shift, low = a.low, high = a.high;
    const uint32_t zero_point = a.zero_point;
    for (int64_t i = 0; i < n; ++i) {
        const float x = (values[i] - shift) / scale;
        const float above = x > low ? x : low;
        const float clamped = above < high ? above : high;
        codes[i] = static_cast<uint8_t>(float_bits(clamped + 12582912.0f) + zero_point);
    }
}

void quantize_e4m3(float scale, const float* values, int64_t n, uint8_t* codes) {
    for (int64_t i = 0; i < n; ++i) codes[i] = f32_to_e4m3(values[i] / scale);
}

void pack_u4(const uint8_t* codes, int64_t n, uint8_t* out) {
    for (int64_t i = 0; i < n / 2; ++i) out[i] = static_cast<uint8_t>(codes[2 * i] | codes[2 * i + 1] << 4);
    if (n % 2 != 0) out[n / 2] = codes[n - 1];
}

void pack_bits(const uint8_t* codes, int64_t n, int bits, uint8_t* out) {
    for (; n > 0; n -= 8, codes += 8, out += bits) {
        const int64_t here = std::min<int64_t>(n, 8);
        uint64_t word = 0;
        for (int64_t i = 0; i < here; ++i) word |= static_cast<uint64_t>(codes[i]) << (bits * i);
        for (int64_t i = 0; i < (here * bits + 7) / 8; ++i) out[i] = static_cast<uint8_t>(word >> (8 * i));
    }
}

void pack_codes(int bits, const uint8_t* codes, int64_t n, uint8_t* out) {
    if (bits == 4) {
        pack_u4(codes, n, out);
    } else if (bits < 8) {
        pack_bits(codes, n, bits, out);
    }
}

// values[n] as `type`, in a loop that compilers make vectors of.
void store_floats(FloatType type, const float* values, int64_t n, uint8_t* out) {
    const auto store_u16 = [out](int64_t i, uint16_t u) { std::memcpy(out + 2 * i, &u, 2); };
    if (type == FloatType::f32) {
        std::memcpy(out, values, static_cast<size_t>(n) * 4);
    } else if (type == FloatType::f16) {
        for (int64_t i = 0; i < n; ++i) store_u16(i, f32_to_f16(values[i]));
    } else {
        for (int64_t i = 0; i < n; ++i) store_u16(i, f32_to_bf16(values[i]));
    }
}

FloatType float_type(Element e) {
    return e == Element::f32 ? FloatType::f32 : e == Element::f16 ? FloatType::f16 : FloatType::bf16;
}

// Groups of which scales are computed and stored together.
constexpr int64_t groups_together = 64;

}  // namespace

Encoder::Encoder(const Format& format, int64_t rows, int64_t cols) : format_(format), cols_(cols) {
    const bool centred = format.zero_point == 1 << (element_bits(format.element) - 1);
    if (!format_valid(format) || format.storage != Storage::planar || (format.zero == Zero::constant && !centred))
        fail(QUANT_ERR_UNSUPPORTED, "format " + format_name(format) + " cannot be encoded; choose another format");
    if (!needs_observation()) return;
    const int64_t bands = format.granularity == Granularity::block ? (rows + format.group - 1) / format.group
                                                                   : std::max<int64_t>(1, rows);
    const float infinity = float_from_bits(0x7f800000);
    observed_.assign(static_cast<size_t>(bands * groups_per_row(format, cols)), Range{infinity, -infinity});
}

bool Encoder::needs_observation() const {
    return format_.granularity == Granularity::tensor || format_.granularity == Granularity::block;
}

void Encoder::observe(int64_t row, const float* values) {
    const int64_t group = format_.group == 0 ? cols_ : format_.group, groups = groups_per_row(format_, cols_);
    const int64_t first = format_.granularity == Granularity::tensor ? row : first_group(row);
    for (int64_t g = 0; g < groups; ++g) {
        Range& range = observed_[static_cast<size_t>(first + g)];
        range = united(range, range_of(values + g * group, std::min(group, cols_ - g * group)));
    }
}

int64_t Encoder::first_group(int64_t row) const {
    if (format_.granularity == Granularity::tensor) return 0;
    return (format_.granularity == Granularity::block ? row / format_.group : row) * groups_per_row(format_, cols_);
}

// Groups [first, first + n), n <= groups_together.
void Encoder::store(const Affine* a, int64_t first, int64_t n, uint8_t* scales, uint8_t* zeros) const {
    float values[groups_together] = {};
    const size_t at = static_cast<size_t>(first) * float_type_bytes(format_.scale);
    for (int64_t i = 0; i < n; ++i) values[i] = a[i].scale;
    store_floats(format_.scale, values, n, scales + at);
    if (format_.zero == Zero::minimum) {
        for (int64_t i = 0; i < n; ++i) values[i] = a[i].shift;
        store_floats(format_.scale, values, n, zeros + at);
    } else if (format_.zero == Zero::integer) {
        for (int64_t i = 0; i < n; ++i) zeros[first + i] = a[i].zero_point;
    }
}

void Encoder::encode_shared(uint8_t* scales, uint8_t* zeros) {
    if (format_.granularity == Granularity::tensor && !observed_.empty()) {
        for (const Range& of_row : observed_) observed_[0] = united(observed_[0], of_row);
        observed_.resize(1);
    }
    const auto groups = static_cast<int64_t>(observed_.size());
    for (int64_t first = 0; first < groups; first += groups_together) {
        Affine affine[groups_together];
        const int64_t n = std::min(groups_together, groups - first);
        for (int64_t i = 0; i < n; ++i) affine[i] = affine_for(format_, observed_[static_cast<size_t>(first + i)]);
        store(affine, first, n, scales, zeros);
    }
}

void Encoder::encode_row(int64_t row, const float* values, uint8_t* codes, uint8_t* scales, uint8_t* zeros) const {
    if (is_float(format_.element)) return store_floats(float_type(format_.element), values, cols_, codes);

    const int bits = element_bits(format_.element);
    std::vector<uint8_t> unpacked(bits < 8 ? static_cast<size_t>(cols_) : 0);
    uint8_t* const bytes = bits < 8 ? unpacked.data() : codes;
    const int64_t group = format_.group == 0 ? cols_ : format_.group, groups = groups_per_row(format_, cols_);
    const int64_t of_row = first_group(row);
    const auto size = [&](int64_t g) { return std::min(group, cols_ - g * group); };
    for (int64_t first = 0; first < groups; first += groups_together) {
        Affine affine[groups_together];
        const int64_t end = std::min(first + groups_together, groups);
        for (int64_t g = first; g < end; ++g)
            affine[g - first] = affine_for(format_, needs_observation() ? observed_[static_cast<size_t>(of_row + g)]
                                                                        : range_of(values + g * group, size(g)));
        for (int64_t g = first; g < end; ++g) {
            const Affine& a = affine[g - first];
            if (format_.element == Element::e4m3) {
                quantize_e4m3(a.scale, values + g * group, size(g), bytes + g * group);
            } else {
                quantize(a, values + g * group, size(g), bytes + g * group);
            }
        }
        if (!needs_observation()) store(affine, of_row + first, end - first, scales, zeros);
    }
    pack_codes(bits, bytes, cols_, codes);
}

void pack_row(const Format& format, int64_t cols, const uint8_t* codes, const float* scales, const float* offsets,
              uint8_t* row_codes, uint8_t* row_scales, uint8_t* row_zeros) {
    const int bits = element_bits(format.element);
    if (bits < 8)
        pack_codes(bits, codes, cols, row_codes);
    else
        std::memcpy(row_codes, codes, codes_row_bytes(format, cols));
    if (is_float(format.element)) return;
    const int64_t groups = groups_per_row(format, cols);
    store_floats(format.scale, scales, groups, row_scales);
    if (format.zero == Zero::minimum) store_floats(format.scale, offsets, groups, row_zeros);
    for (int64_t g = 0; format.zero == Zero::integer && g < groups; ++g)
        row_zeros[g] = static_cast<uint8_t>(offsets[g]);
}

void interleave_ggml_row(const Format& planar, int64_t cols, const uint8_t* row_codes, const uint8_t* row_scales,
                         const uint8_t* row_zeros, uint8_t* blocks) {
    for (int64_t g = 0; g < cols / 32; ++g) {
        std::memcpy(blocks, row_scales + 2 * g, 2);
        blocks += 2;
        if (planar.zero == Zero::minimum) {
            std::memcpy(blocks, row_zeros + 2 * g, 2);
            blocks += 2;
        }
        if (planar.element == Element::s8) {
            std::memcpy(blocks, row_codes + 32 * g, 32);
            blocks += 32;
            continue;
        }
        // Planar bytes hold columns (2j, 2j+1); block bytes columns (i, i + 16).
        const uint8_t* const q = row_codes + 16 * g;
        for (int i = 0; i < 16; i += 2) {
            blocks[i] = static_cast<uint8_t>((q[i / 2] & 15) | (q[8 + i / 2] & 15) << 4);
            blocks[i + 1] = static_cast<uint8_t>(q[i / 2] >> 4 | (q[8 + i / 2] >> 4) << 4);
        }
        blocks += 16;
    }
}

}  // namespace quant
