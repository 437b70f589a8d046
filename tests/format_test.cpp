// What bytes mean: names, sizes, float conversions, and the decode against data made by another implementation.
#include "formats/format.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <fstream>
#include <iterator>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include "formats/decode.h"
#include "formats/float_types.h"

using namespace quant;

namespace {

const char* const every_kind[] = {"f32",
                                  "f16",
                                  "bf16",
                                  "s8:tensor:f32",
                                  "s8:channel:f16",
                                  "s8:g32:f16",
                                  "s8:b128:bf16",
                                  "u8:channel:f16:min",
                                  "u8:g64:f32:zp",
                                  "u8:g128:f16:z128",
                                  "u6:g32:bf16:min",
                                  "u5:channel:f32:zp",
                                  "u4:g128:f16:min",
                                  "u4:g32:f16:z8",
                                  "u4:b64:f16:zp",
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

Format format(const std::string& name) {
    Format f;
    INFO(name);
    REQUIRE(format_parse(name, &f));
    return f;
}

std::vector<uint8_t> golden(const std::string& name) {
    std::ifstream in(std::string(QUANT_TEST_SOURCE_DIR) + "/tests/golden/ggml/" + name, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

bool same_bits(float a, float b) {
    return float_bits(a) == float_bits(b) || (std::isnan(a) && std::isnan(b));
}

// The nearest representable neighbours decide every rounding: a value and the midpoint to its successor.
template <class Code, class ToFloat, class FromFloat>
void check_rounding(int finite_codes, ToFloat to_float, FromFloat from_float) {
    for (int c = 0; c + 1 < finite_codes; ++c) {
        const auto code = static_cast<Code>(c), next = static_cast<Code>(c + 1);
        const double a = to_float(code), b = to_float(next);
        const float middle = static_cast<float>((a + b) / 2);
        const Code even = c % 2 == 0 ? code : next;
        const bool rounds = static_cast<double>(middle) == (a + b) / 2 && from_float(middle) == even &&
                            from_float(std::nextafter(middle, 0.0f)) == code &&
                            from_float(std::nextafter(middle, std::numeric_limits<float>::max())) == next;
        INFO("between codes " << c << " and " << c + 1);
        if (!rounds) FAIL("rounds to the wrong neighbour");
    }
}

}  // namespace

TEST_CASE("format names print and parse back", "[formats]") {
    for (const char* name : every_kind) CHECK(format_name(format(name)) == name);
    for (const char* name : {"",
                             "f64",
                             "f16:channel",
                             "s8",
                             "s8:channel",
                             "s8:f16",
                             "s8:channel:f16:min",
                             "s8:channel:f16:z8",
                             "u8:channel:f16",
                             "u4:g0:f16:min",
                             "u4:g032:f16:min",
                             "u4:g65536:f16:min",
                             "u4:g32:f16:z16",
                             "u4:g32:f16:z0",
                             "u4:g32:f16:min:",
                             "u4:g32:f16:min:ggml:",
                             "u4:g64:f16:min:ggml",
                             "u4:g32:u6*f16/256:min",
                             "u4:g32:u6*f16:min:ggml",
                             "u4:g32:u6*/256:min:ggml",
                             "u6:g16:s8*f16/128:z32:ggml",
                             "e4m3:channel:f16:zp",
                             " s8:channel:f16",
                             "s8:channel:f16 ",
                             "S8:channel:f16",
                             "u4:g-32:f16:min",
                             "u4:g32:f16:min:min",
                             "u4::f16:min"}) {
        Format f;
        INFO(name);
        CHECK_FALSE(format_parse(name, &f));
    }
}

TEST_CASE("array sizes", "[formats]") {
    struct {
        const char* name;
        int64_t rows, cols;
        size_t codes, scales, zeros;
    } const cases[] = {
        {"f32", 3, 5, 60, 0, 0},
        {"bf16", 3, 5, 30, 0, 0},
        {"u4:g4:f16:min", 3, 5, 9, 12, 12},
        {"u5:channel:f32:zp", 3, 9, 18, 12, 3},
        {"u6:g3:f32:z32", 2, 7, 12, 24, 0},
        {"s8:tensor:f32", 3, 5, 15, 4, 0},
        {"e4m3:b128:f32", 129, 300, 38700, 24, 0},
        {"s8:g32:f16:ggml", 2, 64, 136, 0, 0},
        {"u4:g32:f16:z8:ggml", 1, 32, 18, 0, 0},
        {"u4:g32:f16:min:ggml", 1, 32, 20, 0, 0},
        {"u5:g32:f16:z16:ggml", 1, 32, 22, 0, 0},
        {"u5:g32:f16:min:ggml", 1, 32, 24, 0, 0},
        {"u4:g32:u6*f16/256:min:ggml", 1, 256, 144, 0, 0},
        {"u5:g32:u6*f16/256:min:ggml", 1, 256, 176, 0, 0},
        {"u6:g16:s8*f16/256:z32:ggml", 1, 256, 210, 0, 0},
    };
    for (const auto& c : cases) {
        INFO(c.name);
        const Format f = format(c.name);
        CHECK(codes_bytes(f, c.rows, c.cols) == c.codes);
        CHECK(scales_bytes(f, c.rows, c.cols) == c.scales);
        CHECK(zeros_bytes(f, c.rows, c.cols) == c.zeros);
    }
    CHECK(bits_per_weight(format("u4:g32:u6*f16/256:min:ggml"), 7, 512) == 4.5);
    CHECK(bits_per_weight(format("u4:g128:f16:min"), 7, 512) == 4.25);
    // More than 4 GiB where size_t can say so.
    if (sizeof(size_t) > 4)
        CHECK(codes_bytes(format("f32"), int64_t{1} << 17, 1 << 16) == size_t{1} << (35 % (8 * sizeof(size_t))));
}

TEST_CASE("f16 converts exactly, every code", "[formats]") {
    for (int c = 0; c < 65536; ++c) {
        const auto h = static_cast<uint16_t>(c);
        const int sign = c >> 15, exponent = c >> 10 & 31, mantissa = c & 1023;
        double expected = exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
        if (exponent == 31) expected = mantissa != 0 ? std::nan("") : INFINITY;
        const float got = f16_to_f32(h);
        const uint16_t back = f32_to_f16(got);
        if (!same_bits(got, static_cast<float>(sign != 0 ? -expected : expected)) ||
            (exponent == 31 && mantissa != 0 ? !std::isnan(f16_to_f32(back)) : back != h)) {
            INFO("code " << c);
            REQUIRE(same_bits(got, static_cast<float>(sign != 0 ? -expected : expected)));
            REQUIRE(back == h);
        }
    }
    check_rounding<uint16_t>(0x7c00, f16_to_f32, f32_to_f16);
    CHECK(f32_to_f16(65519.996f) == 0x7bff);
    CHECK(f32_to_f16(65520.0f) == 0x7c00);
    CHECK(f32_to_f16(-1e30f) == 0xfc00);
    CHECK(f32_to_f16(INFINITY) == 0x7c00);
    CHECK(f32_to_f16(-0.0f) == 0x8000);
    CHECK(f32_to_f16(1e-30f) == 0);
    CHECK(f32_to_f16(-std::numeric_limits<float>::denorm_min()) == 0x8000);
    CHECK(std::isnan(f16_to_f32(f32_to_f16(NAN))));
    CHECK(std::isnan(f16_to_f32(f32_to_f16(float_from_bits(0x7f800001)))));  // payload below f16's last bit
}

TEST_CASE("bf16 converts exactly, every code", "[formats]") {
    for (int c = 0; c < 65536; ++c) {
        const float x = bf16_to_f32(static_cast<uint16_t>(c));
        const uint16_t back = f32_to_bf16(x);
        if (std::isnan(x) ? !std::isnan(bf16_to_f32(back)) : back != c) {
            INFO("code " << c);
            REQUIRE(back == c);
        }
    }
    check_rounding<uint16_t>(0x7f80, bf16_to_f32, f32_to_bf16);
    CHECK(f32_to_bf16(std::numeric_limits<float>::max()) == 0x7f80);
    CHECK(f32_to_bf16(-INFINITY) == 0xff80);
    CHECK(std::isnan(bf16_to_f32(f32_to_bf16(float_from_bits(0x7f800001)))));
    CHECK(std::isnan(bf16_to_f32(f32_to_bf16(float_from_bits(0xffffffff)))));
}

TEST_CASE("e4m3 converts exactly, every code", "[formats]") {
    for (int c = 0; c < 256; ++c) {
        INFO("code " << c);
        const int exponent = c >> 3 & 15, mantissa = c & 7;
        double expected = exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);
        if ((c & 0x7f) == 0x7f) expected = std::nan("");
        const float got = e4m3_to_f32(static_cast<uint8_t>(c));
        REQUIRE(same_bits(got, static_cast<float>(c >= 128 ? -expected : expected)));
        REQUIRE(f32_to_e4m3(got) == c);
    }
    check_rounding<uint8_t>(0x7f, e4m3_to_f32, f32_to_e4m3);
    CHECK(f32_to_e4m3(448.0f) == 0x7e);
    CHECK(f32_to_e4m3(464.0f) == 0x7e);
    CHECK(f32_to_e4m3(-1e30f) == 0xfe);
    CHECK(f32_to_e4m3(INFINITY) == 0x7e);
    CHECK((f32_to_e4m3(NAN) & 0x7f) == 0x7f);
    CHECK(f32_to_e4m3(std::ldexp(1.0f, -10)) == 0);  // half of the smallest: to even
    CHECK(f32_to_e4m3(std::nextafter(std::ldexp(1.0f, -10), 1.0f)) == 1);
    CHECK(f32_to_e4m3(-std::numeric_limits<float>::denorm_min()) == 0x80);
}

TEST_CASE("ggml's blocks decode bit for bit", "[formats]") {
    const struct {
        const char *file, *format;
    } types[] = {{"f16", "f16"},
                 {"bf16", "bf16"},
                 {"q8_0", "s8:g32:f16:ggml"},
                 {"q4_0", "u4:g32:f16:z8:ggml"},
                 {"q4_1", "u4:g32:f16:min:ggml"},
                 {"q5_0", "u5:g32:f16:z16:ggml"},
                 {"q5_1", "u5:g32:f16:min:ggml"},
                 {"q4_K", "u4:g32:u6*f16/256:min:ggml"},
                 {"q5_K", "u5:g32:u6*f16/256:min:ggml"},
                 {"q6_K", "u6:g16:s8*f16/256:z32:ggml"}};
    for (const auto& type : types) {
        INFO(type.file);
        const std::vector<uint8_t> blocks = golden(std::string(type.file) + ".bin");
        const std::vector<uint8_t> expected = golden(std::string(type.file) + ".f32");
        WeightView w;
        w.format = format(type.format);
        w.rows = 1;
        w.cols = 4096;
        w.codes = blocks.data();
        REQUIRE(blocks.size() == codes_bytes(w.format, 1, 4096));
        REQUIRE(expected.size() == 4096 * 4);
        std::vector<float> got(4096);
        decode_row(w, 0, got.data());
        CHECK(std::memcmp(got.data(), expected.data(), expected.size()) == 0);

        // As 16 rows of one super block: the same bytes, the same values.
        w.rows = 16;
        w.cols = 256;
        for (int64_t r = 0; r < 16; ++r) decode_row(w, r, got.data() + r * 256);
        CHECK(std::memcmp(got.data(), expected.data(), expected.size()) == 0);
    }
}

TEST_CASE("nested rows come apart into codes and coarse floats", "[formats]") {
    for (const char* file : {"q4_K", "q5_K", "q6_K"}) {
        INFO(file);
        const std::vector<uint8_t> blocks = golden(std::string(file) + ".bin");
        WeightView w;
        w.format = format(file[1] == '6'   ? "u6:g16:s8*f16/256:z32:ggml"
                          : file[1] == '5' ? "u5:g32:u6*f16/256:min:ggml"
                                           : "u4:g32:u6*f16/256:min:ggml");
        w.rows = 2;
        w.cols = 2048;
        w.codes = blocks.data();
        const auto groups = static_cast<size_t>(groups_per_row(w.format, w.cols));
        const bool minimum = w.format.zero == Zero::minimum;
        std::vector<uint8_t> codes(2048), scale_codes(groups), offset_codes(groups);
        std::vector<float> scales(groups), offsets(groups), coarse_scales(8), coarse_offsets(8);
        for (int64_t row = 0; row < 2; ++row) {
            unpack_row(w, row, codes.data(), scales.data(), offsets.data());
            unpack_nested_row(w, row, scale_codes.data(), minimum ? offset_codes.data() : nullptr, coarse_scales.data(),
                              minimum ? coarse_offsets.data() : nullptr);
            for (size_t g = 0; g < groups; ++g) {
                const size_t coarse = g * w.format.group / 256;
                const float code = minimum ? scale_codes[g] : static_cast<int8_t>(scale_codes[g]);
                REQUIRE(same_bits(scales[g], code * coarse_scales[coarse]));
                if (minimum) REQUIRE(same_bits(offsets[g], offset_codes[g] * coarse_offsets[coarse]));
                if (!minimum) REQUIRE(offsets[g] == 32);
            }
        }
    }
}

// Random bytes in random shapes: the formula on the parts gives the decoded row, and no byte outside is touched.
TEST_CASE("decoding is the formula on the unpacked parts", "[formats]") {
    uint32_t state = 1;
    const auto random = [&] { return state = state * 1664525u + 1013904223u, state >> 8; };
    for (const char* name : every_kind) {
        const Format f = format(name);
        if (is_float(f.element)) continue;
        for (const int64_t shape : {1, 2, 7, 31, 256, 257, 600}) {
            const int64_t block = f.super_group != 0 ? f.super_group : 32, rows = 6;
            const int64_t cols = f.storage == Storage::ggml ? (shape + block - 1) / block * block : shape;
            INFO(name << ", " << cols << " columns");
            std::vector<uint8_t> codes(codes_bytes(f, rows, cols)), scales(scales_bytes(f, rows, cols)),
                zeros(zeros_bytes(f, rows, cols));
            for (auto* array : {&codes, &scales, &zeros})
                for (auto& byte : *array) byte = static_cast<uint8_t>(random());
            WeightView w;
            w.format = f;
            w.rows = rows;
            w.cols = cols;
            w.codes = codes.data();
            w.scales = scales.data();
            w.zeros = zeros.data();
            w.head_rows = 6;
            const auto groups = static_cast<size_t>(groups_per_row(f, cols));
            std::vector<float> out(static_cast<size_t>(cols)), s(groups), z(groups);
            std::vector<uint8_t> q(static_cast<size_t>(cols));
            for (int64_t row = 0; row < rows; ++row) {
                decode_row(w, row, out.data());
                unpack_row(w, row, q.data(), s.data(), z.data());
                bool same = true;
                for (size_t i = 0; i < q.size(); ++i) {
                    const size_t g = f.group == 0 ? 0 : i / f.group;
                    const float code = f.element == Element::s8     ? static_cast<int8_t>(q[i])
                                       : f.element == Element::e4m3 ? e4m3_to_f32(q[i])
                                                                    : q[i];
                    const float scaled = f.zero == Zero::minimum ? code * s[g] : (code - z[g]) * s[g];
                    same = same && same_bits(out[i], f.zero == Zero::minimum ? scaled + z[g] : scaled);
                }
                REQUIRE(same);
            }
        }
    }
}

TEST_CASE("planar bits, scales and zeros lie where format.h says", "[formats]") {
    WeightView w;
    w.format = format("u4:g2:f32:zp");
    w.rows = 2;
    w.cols = 3;
    const uint8_t codes[] = {0x21, 0x03, 0x54, 0x06}, zeros[] = {1, 2, 3, 4};
    const float scales[] = {1, 10, 100, 1000};
    w.codes = codes;
    w.scales = reinterpret_cast<const uint8_t*>(scales);
    w.zeros = zeros;
    float out[3];
    decode_row(w, 0, out);
    CHECK(std::vector<float>(out, out + 3) == std::vector<float>{0, 1, 10});
    decode_row(w, 1, out);
    CHECK(std::vector<float>(out, out + 3) == std::vector<float>{100, 200, 2000});

    w.format = format("u5:channel:f32:z16");  // 31, 0, 21: a little-endian bit stream
    const uint8_t five[] = {31, 21 << 2, 0, 0};
    w.codes = five;
    decode_row(w, 0, out);
    CHECK(std::vector<float>(out, out + 3) == std::vector<float>{15, -16, 5});

    w.format = format("s8:b2:f32");  // 2x2 tiles of a 3x3 matrix
    w.rows = 3;
    const uint8_t bytes[] = {1, 2, 3, 4, 5, 6, 7, 8, 255};
    w.codes = bytes;
    decode_row(w, 1, out);
    CHECK(std::vector<float>(out, out + 3) == std::vector<float>{4, 5, 60});
    decode_row(w, 2, out);
    CHECK(std::vector<float>(out, out + 3) == std::vector<float>{700, 800, -1000});
}

TEST_CASE("head_rows presents half-split rows as adjacent pairs", "[formats]") {
    WeightView w;
    w.rows = 16;
    w.head_rows = 8;
    std::vector<int64_t> order;
    for (int64_t r = 0; r < w.rows; ++r) order.push_back(stored_row(w, r));
    CHECK(order == std::vector<int64_t>{0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15});
}
