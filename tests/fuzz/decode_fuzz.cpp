// Any bytes as a matrix of any format: every row decodes to the formula on its unpacked parts, reading nothing beyond
// the arrays; and what was decoded can be encoded. Input: format, rows, columns (two bytes), then the arrays; its
// length chooses what to encode to.
#include "formats/decode.h"

#include <algorithm>
#include <vector>

#include "formats/encode.h"
#include "formats/error.h"
#include "formats/float_types.h"

using namespace quant;

namespace {

const char* const formats[] = {"f32",
                               "f16",
                               "bf16",
                               "s8:tensor:f32",
                               "s8:channel:f16",
                               "s8:g32:f16",
                               "s8:b128:bf16",
                               "u8:channel:f16:min",
                               "u8:g64:f32:zp",
                               "u8:g128:f16:z128",
                               "u6:g3:bf16:min",
                               "u5:channel:f32:zp",
                               "u4:g128:f16:min",
                               "u4:g1:f16:z8",
                               "u4:b7:f16:zp",
                               "e4m3:channel:f32",
                               "e4m3:tensor:f32",
                               "e4m3:b128:f32",
                               "s8:g32:f16:ggml",
                               "u4:g32:f16:z8:ggml",
                               "u4:g32:f16:min:ggml",
                               "u5:g32:f16:z16:ggml",
                               "u5:g32:f16:min:ggml",
                               "u4:g32:u6*f16/256:min:ggml",
                               "u5:g32:u6*f16/256:min:ggml",
                               "u6:g16:s8*f16/256:z32:ggml"};

// Arrays of exactly the bytes that a matrix has, so that a sanitizer sees one byte too many.
struct Matrix {
    WeightView view;
    std::vector<uint8_t> codes, scales, zeros;
    Matrix(const Format& f, int64_t rows, int64_t cols)
        : codes(codes_bytes(f, rows, cols)), scales(scales_bytes(f, rows, cols)), zeros(zeros_bytes(f, rows, cols)) {
        view.format = f;
        view.rows = rows;
        view.cols = cols;
        view.codes = codes.data();
        view.scales = scales.data();
        view.zeros = zeros.data();
    }
};

void require(bool condition) {
    if (!condition) __builtin_trap();
}

bool same(float a, float b) {
    return float_bits(a) == float_bits(b) || (a != a && b != b);
}

void check_row(const WeightView& w, int64_t row, const std::vector<float>& decoded) {
    const Format& f = w.format;
    if (is_float(f.element)) return;
    const auto groups = static_cast<size_t>(groups_per_row(f, w.cols));
    std::vector<uint8_t> codes(static_cast<size_t>(w.cols));
    std::vector<float> scales(groups), offsets(groups);
    unpack_row(w, row, codes.data(), scales.data(), offsets.data());
    for (size_t i = 0; i < codes.size(); ++i) {
        const size_t g = f.group == 0 ? 0 : i / f.group;
        const float code = f.element == Element::s8     ? static_cast<float>(static_cast<int8_t>(codes[i]))
                           : f.element == Element::e4m3 ? e4m3_to_f32(codes[i])
                                                        : static_cast<float>(codes[i]);
        const float product = f.zero == Zero::minimum ? code * scales[g] : (code - offsets[g]) * scales[g];
        require(same(decoded[i], f.zero == Zero::minimum ? product + offsets[g] : product));
        require(codes[i] < 1 << element_bits(f.element));
    }
    if (f.scale_code == ScaleCode::none) return;
    const auto coarse = static_cast<size_t>((w.cols + f.super_group - 1) / f.super_group);
    std::vector<uint8_t> scale_codes(groups), offset_codes(groups);
    std::vector<float> coarse_scales(coarse), coarse_offsets(coarse);
    unpack_nested_row(w, row, scale_codes.data(), offset_codes.data(), coarse_scales.data(), coarse_offsets.data());
    for (size_t g = 0; g < groups; ++g) {
        const float code = f.scale_code == ScaleCode::s8 ? static_cast<float>(static_cast<int8_t>(scale_codes[g]))
                                                         : static_cast<float>(scale_codes[g]);
        require(same(scales[g], code * coarse_scales[g * f.group / f.super_group]));
    }
}

void encode(const Format& f, int64_t rows, int64_t cols, const std::vector<float>& values) {
    Matrix m(f, rows, cols);
    Encoder encoder(f, rows, cols);
    for (int64_t r = 0; encoder.needs_observation() && r < rows; ++r) encoder.observe(r, values.data() + r * cols);
    encoder.encode_shared(m.scales.data(), m.zeros.data());
    for (int64_t r = 0; r < rows; ++r)
        encoder.encode_row(r, values.data() + r * cols,
                           m.codes.data() + static_cast<size_t>(r) * codes_row_bytes(f, cols), m.scales.data(),
                           m.zeros.data());
    std::vector<float> row(static_cast<size_t>(cols));
    for (int64_t r = 0; r < rows; ++r) decode_row(m.view, r, row.data());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
    if (size < 4) return 0;
    Format f;
    require(format_parse(formats[bytes[0] % (sizeof formats / sizeof *formats)], &f));
    const int64_t rows = bytes[1] % 9 + 1;
    int64_t cols = (bytes[2] | bytes[3] << 8) % 700 + 1;
    if (f.storage == Storage::ggml) cols = (cols + 255) / 256 * 256;
    Matrix m(f, rows, cols);
    m.view.head_rows = rows % 2 == 0 ? rows : 0;
    size_t at = 4;
    for (auto* array : {&m.scales, &m.zeros, &m.codes})
        for (auto& byte : *array) byte = at < size ? bytes[at++] : static_cast<uint8_t>(at++ * 37);

    std::vector<float> values(static_cast<size_t>(rows * cols)), row(static_cast<size_t>(cols));
    for (int64_t r = 0; r < rows; ++r) {
        decode_row(m.view, r, row.data());
        check_row(m.view, r, row);
        std::copy(row.begin(), row.end(), values.begin() + r * cols);
    }
    Format target;
    require(format_parse(formats[size % (sizeof formats / sizeof *formats)], &target));
    try {
        if (target.storage == Storage::planar) encode(target, rows, cols, values);
    } catch (const Error&) {
    }
    return 0;
}
