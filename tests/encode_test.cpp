// THE encode: its formulas, what it stores, and that decode gives back what it can.
#include "formats/encode.h"
#include "formats/row_source.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <string>
#include <vector>

#include "formats/decode.h"
#include "formats/error.h"
#include "formats/float_types.h"

using namespace quant;

namespace {

struct Matrix {
    WeightView view;
    std::vector<uint8_t> codes, scales, zeros;
    std::vector<float> decoded() const {
        std::vector<float> out(static_cast<size_t>(view.rows * view.cols));
        for (int64_t r = 0; r < view.rows; ++r) decode_row(view, r, out.data() + r * view.cols);
        return out;
    }
};

Format format(const std::string& name) {
    Format f;
    INFO(name);
    REQUIRE(format_parse(name, &f));
    return f;
}

Matrix encode(const Format& f, int64_t rows, int64_t cols, const std::vector<float>& values) {
    Matrix m;
    m.codes.assign(codes_bytes(f, rows, cols), 0xcc);
    m.scales.assign(scales_bytes(f, rows, cols), 0xcc);
    m.zeros.assign(zeros_bytes(f, rows, cols), 0xcc);
    Encoder encoder(f, rows, cols);
    if (encoder.needs_observation())
        for (int64_t r = rows; r-- > 0;) encoder.observe(r, values.data() + r * cols);
    encoder.encode_shared(m.scales.data(), m.zeros.data());
    for (int64_t r = rows; r-- > 0;)
        encoder.encode_row(r, values.data() + r * cols,
                           m.codes.data() + static_cast<size_t>(r) * codes_row_bytes(f, cols), m.scales.data(),
                           m.zeros.data());
    m.view.format = f;
    m.view.rows = rows;
    m.view.cols = cols;
    m.view.codes = m.codes.data();
    m.view.scales = m.scales.data();
    m.view.zeros = m.zeros.data();
    return m;
}

std::vector<float> noise(size_t n, float amplitude, uint32_t state = 7) {
    std::vector<float> v(n);
    for (float& x : v) {
        state = state * 1664525u + 1013904223u;
        x = (static_cast<float>(state >> 8) / 8388608.0f - 1) * amplitude;
    }
    return v;
}

float rounded(float x, FloatType type) {
    return type == FloatType::f16    ? f16_to_f32(f32_to_f16(x))
           : type == FloatType::bf16 ? bf16_to_f32(f32_to_bf16(x))
                                     : x;
}

}  // namespace

TEST_CASE("InstantQuant's asymmetric formula, value by value", "[formats]") {
    const Format f = format("u4:channel:f32:min");
    const Matrix m = encode(f, 1, 5, {-1, 2, 0.1f, 0.5f, 0.3f});  // s = 0.2: codes 0, 15, 5.5 -> 6, 7.5, 6.5
    const float s = 3.0f / 15.0f;
    std::vector<uint8_t> codes(5);
    float scale, minimum;
    unpack_row(m.view, 0, codes.data(), &scale, &minimum);
    CHECK(scale == s);
    CHECK(minimum == -1);
    for (size_t i = 0; i < 5; ++i) {
        const float w = std::vector<float>{-1, 2, 0.1f, 0.5f, 0.3f}[i];
        CHECK(codes[i] == static_cast<int>(std::nearbyint((w + 1) / s)));
    }
}

TEST_CASE("symmetric formulas", "[formats]") {
    std::vector<uint8_t> codes(4);
    float scale, zero;
    unpack_row(encode(format("s8:channel:f32"), 1, 4, {-2.54f, 0.01f, 0.03f, 1}).view, 0, codes.data(), &scale, &zero);
    CHECK(scale == 2.54f / 127);
    CHECK(static_cast<int8_t>(codes[0]) == -127);
    CHECK(static_cast<int8_t>(codes[3]) == 50);

    // u4: the value of largest magnitude is code 0, whatever its sign; the far end clamps to 15.
    const Matrix four = encode(format("u4:channel:f32:z8"), 1, 4, {4, -4, 0, 1.25f});
    unpack_row(four.view, 0, codes.data(), &scale, &zero);
    CHECK(scale == 0.5f);  // of two equal magnitudes, the negative one
    CHECK(zero == 8);
    CHECK(codes == std::vector<uint8_t>{15, 0, 8, 10});
}

TEST_CASE("every format decodes to within half a step", "[formats]") {
    for (const char* name :
         {"s8:tensor:f32", "s8:channel:f16", "s8:g32:f16", "s8:b16:bf16", "u8:channel:f16:min", "u8:g48:f32:zp",
          "u8:g16:f16:z128", "u6:g32:f32:min", "u5:channel:f32:zp", "u4:g32:f16:min", "u4:g32:f32:z8", "u4:b16:f32:zp",
          "u4:tensor:f32:min", "u5:g7:f32:z16", "u6:g32:f32:z32"}) {
        const Format f = format(name);
        for (const int64_t cols : {1, 33, 96, 300}) {
            INFO(name << ", " << cols << " columns");
            const int64_t rows = 37;
            const std::vector<float> values = noise(static_cast<size_t>(rows * cols), 0.05f);
            const Matrix m = encode(f, rows, cols, values);
            const std::vector<float> got = m.decoded();
            const auto groups = static_cast<size_t>(groups_per_row(f, cols));
            std::vector<uint8_t> q(static_cast<size_t>(cols));
            std::vector<float> s(groups), z(groups);
            double worst = 0;
            for (int64_t r = 0; r < rows; ++r) {
                unpack_row(m.view, r, q.data(), s.data(), z.data());
                for (int64_t c = 0; c < cols; ++c) {
                    const float step = std::fabs(s[static_cast<size_t>(f.group == 0 ? 0 : c / f.group)]);
                    const double error =
                        std::fabs(got[static_cast<size_t>(r * cols + c)] - values[static_cast<size_t>(r * cols + c)]);
                    // A stored scale is off by up to 2^-9 (bf16), times up to 255 codes; a constant zero point clamps
                    // the far end by one more step.
                    const double rounding = f.scale == FloatType::f32 ? 1e-4 : f.scale == FloatType::f16 ? 0.2 : 0.6;
                    const double clamped = f.zero == Zero::constant ? 0.5 : 0;
                    worst = std::max(worst, error / step - 0.5 - rounding - clamped);
                }
            }
            CHECK(worst <= 0);
        }
    }
}

TEST_CASE("e4m3 encodes with clamping and an absmax scale", "[formats]") {
    for (const char* name : {"e4m3:channel:f32", "e4m3:tensor:f32", "e4m3:b16:f32", "e4m3:g32:f16"}) {
        INFO(name);
        const int64_t rows = 20, cols = 50;
        const std::vector<float> values = noise(1000, 3);
        const std::vector<float> got = encode(format(name), rows, cols, values).decoded();
        double worst = 0;  // 3 bits of mantissa: a relative 1/16, above the subnormals
        for (size_t i = 0; i < 1000; ++i)
            worst = std::max(worst, std::fabs(got[i] - values[i]) - std::fabs(values[i]) / 15.9 - 3 / 448.0 / 512);
        CHECK(worst <= 0);
    }
}

TEST_CASE("float elements are conversions", "[formats]") {
    const std::vector<float> values = noise(77, 100);
    CHECK(encode(format("f32"), 7, 11, values).decoded() == values);
    const std::vector<float> half = encode(format("f16"), 7, 11, values).decoded();
    const std::vector<float> brain = encode(format("bf16"), 7, 11, values).decoded();
    for (size_t i = 0; i < values.size(); ++i) {
        REQUIRE(half[i] == rounded(values[i], FloatType::f16));
        REQUIRE(brain[i] == rounded(values[i], FloatType::bf16));
    }
}

TEST_CASE("constant, empty and mad values have a code", "[formats]") {
    const float infinity = INFINITY;
    for (const char* name : {"s8:channel:f16", "s8:tensor:f32", "u8:channel:f16:min", "u8:g2:f32:zp", "u4:g32:f16:z8",
                             "u4:b2:f16:min", "e4m3:channel:f32"}) {
        INFO(name);
        for (const float x : encode(format(name), 2, 3, {0, 0, 0, 0, 0, 0}).decoded()) CHECK(x == 0);
        encode(format(name), 2, 3, {infinity, -infinity, NAN, 3e38f, -3e38f, 1e-45f});
        encode(format(name), 2, 3, {NAN, NAN, NAN, NAN, NAN, NAN});
    }
    for (const float x : encode(format("u8:g2:f32:min"), 1, 4, {0.7f, 0.7f, -3, -3}).decoded())
        CHECK((x == 0.7f || x == -3));
}

// Threads take rows in any order: a row's scale is there before any other row has been encoded.
TEST_CASE("rows of a source come out the same in any order", "[formats]") {
    const int64_t rows = 9, cols = 12;
    const std::vector<float> values = noise(rows * cols, 10);
    Matrix plain = encode(format("f32"), rows, cols, values);
    for (const char* name : {"e4m3:b4:f32", "s8:tensor:f32", "u4:b2:f16:min", "u8:g4:f32:zp", "s8:channel:f16"}) {
        INFO(name);
        const std::vector<float> whole = encode(format(name), rows, cols, values).decoded();
        for (int64_t r = 0; r < rows; ++r) {
            const auto last_first = [](int64_t count, const std::function<void(int64_t)>& f) {
                while (count-- > 0) f(count);
            };
            RowSource source(plain.view, format(name), last_first);
            std::vector<uint8_t> scratch(source.scratch_bytes() + 64);
            std::vector<float> row(cols);
            decode_row(source.row(r, scratch.data()), 0, row.data());
            CHECK(row == std::vector<float>(whole.begin() + r * cols, whole.begin() + (r + 1) * cols));
        }
    }
}

TEST_CASE("formats that nothing encodes are refused by name", "[formats]") {
    for (const char* name : {"s8:g32:f16:ggml", "u8:channel:f16:z3", "u4:g32:u6*f16/256:min:ggml"}) {
        try {
            Encoder(format(name), 1, 256);
            FAIL("accepted " << name);
        } catch (const Error& e) {
            CHECK(e.status() == QUANT_ERR_UNSUPPORTED);
            CHECK(std::string(e.what()).find(name) != std::string::npos);
        }
    }
}

TEST_CASE("planar rows interleave into ggml's blocks without change", "[formats]") {
    for (const char* name : {"s8:g32:f16", "u4:g32:f16:z8", "u4:g32:f16:min"}) {
        INFO(name);
        const Format planar = format(name), ggml = format(std::string(name) + ":ggml");
        const int64_t rows = 3, cols = 320;
        const Matrix m = encode(planar, rows, cols, noise(960, 1));
        std::vector<uint8_t> blocks(codes_bytes(ggml, rows, cols));
        const size_t scales = scales_bytes(planar, 1, cols), zeros = zeros_bytes(planar, 1, cols);
        for (size_t r = 0; r < 3; ++r)
            interleave_ggml_row(planar, cols, m.codes.data() + r * codes_row_bytes(planar, cols),
                                m.scales.data() + r * scales, m.zeros.data() + r * zeros,
                                blocks.data() + r * codes_row_bytes(ggml, cols));
        Matrix b = m;
        b.view.format = ggml;
        b.view.codes = blocks.data();
        CHECK(b.decoded() == m.decoded());
    }
}
