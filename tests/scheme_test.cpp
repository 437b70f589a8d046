#include "core/scheme.h"

#include <catch2/catch.hpp>
#include <string>
#include <vector>

using namespace quant;

namespace {

struct Case {
    const char *text, *canonical, *format;
    Activation activation;
};
const Case cases[] = {
    {"f32", "f32", "f32", Activation::f32},
    {"f16", "f16", "f16", Activation::f32},
    {"bf16", "bf16", "bf16", Activation::f32},
    {"a16w8", "a16w8", "u8:channel:f16:min", Activation::f32},
    {"a16w8:channel:asym", "a16w8", "u8:channel:f16:min", Activation::f32},
    {"a16w8:asym", "a16w8", "u8:channel:f16:min", Activation::f32},
    {"a16w8:sym", "a16w8:sym", "s8:channel:f16", Activation::f32},
    {"a16w8:g128", "a16w8:g128", "u8:g128:f16:min", Activation::f32},
    {"a16w8:g32:sym", "a16w8:g32:sym", "s8:g32:f16", Activation::f32},
    {"a16w4", "a16w4", "u4:channel:f16:min", Activation::f32},
    {"a16w4:g32", "a16w4:g32", "u4:g32:f16:min", Activation::f32},
    {"a16w4:g32:sym", "a16w4:g32:sym", "u4:g32:f16:z8", Activation::f32},
    {"a16w4:channel:sym", "a16w4:sym", "u4:channel:f16:z8", Activation::f32},
    {"a8w8", "a8w8", "s8:channel:f16", Activation::s8},
    {"a8w8:sym", "a8w8", "s8:channel:f16", Activation::s8},
    {"a8w8:channel", "a8w8", "s8:channel:f16", Activation::s8},
    {"a8w8:tensor", "a8w8:tensor", "s8:tensor:f16", Activation::s8},
    {"a8w8:asym", "a8w8:asym", "u8:channel:f16:min", Activation::s8},
    {"fp8", "fp8", "e4m3:channel:f32", Activation::e4m3},
    {"fp8:sym", "fp8", "e4m3:channel:f32", Activation::e4m3},
    {"fp8:tensor", "fp8:tensor", "e4m3:tensor:f32", Activation::e4m3},
    {"fp8:block", "fp8:block", "e4m3:b128:f32", Activation::e4m3},
    {"a8w4:fp8", "a8w4:fp8", "u4:g128:f16:z8", Activation::e4m3},
    {"a8w4:fp8:g128:sym", "a8w4:fp8", "u4:g128:f16:z8", Activation::e4m3},
    {"a8w4:fp8:g32", "a8w4:fp8:g32", "u4:g32:f16:z8", Activation::e4m3},
    {"a8w4:fp8:channel", "a8w4:fp8:channel", "u4:channel:f16:z8", Activation::e4m3},
    {"a8w4:fp8:asym", "a8w4:fp8:asym", "u4:g128:f16:min", Activation::e4m3},
};

}  // namespace

TEST_CASE("scheme names mean the formats of the grammar", "[scheme]") {
    for (const Case& c : cases) {
        INFO(c.text);
        Scheme s;
        REQUIRE(scheme_parse(c.text, &s));
        CHECK(format_name(s.weight) == c.format);
        CHECK(s.activation == c.activation);
        CHECK(scheme_name(s) == c.canonical);
        Scheme again;
        REQUIRE(scheme_parse(scheme_name(s), &again));
        CHECK(again == s);
    }
}

TEST_CASE("what is not a scheme is refused and leaves the result alone", "[scheme]") {
    for (const char* text : {"",
                             ":",
                             "a16w8:",
                             ":a16w8",
                             "A16W8",
                             "a16w8 ",
                             "a16w5",
                             "a16w8:g",
                             "a16w8:g0",
                             "a16w8:g032",
                             "a16w8:g-1",
                             "a16w8:g65536",
                             "a16w8:g99999999999999999999",
                             "a16w8:g32x",
                             "a16w8:tensor",
                             "a16w8:block",
                             "a16w8:sym:g32",
                             "a16w8:sym:asym",
                             "a16w8:g32:g32",
                             "a16w8:channel:channel",
                             "f32:sym",
                             "f16:g32",
                             "bf16:channel",
                             "a8w8:g32",
                             "a8w8:block",
                             "a8w8:static",
                             "a8w8:tensor:asym",
                             "fp8:asym",
                             "fp8:g128",
                             "fp8:static",
                             "s8:g32:f16",
                             "a8w8:outlier",
                             "a8w4",
                             "a8w4:fp",
                             "a8w4:fp8x",
                             "a8w4:fp8:",
                             "a8w4:fp8:tensor",
                             "a8w4:fp8:sym:g128"}) {
        INFO(text);
        Scheme s;
        s.weight.element = Element::u5;
        s.activation = Activation::e4m3;
        CHECK_FALSE(scheme_parse(text, &s));
        CHECK(s.weight.element == Element::u5);
        CHECK(s.activation == Activation::e4m3);
    }
}

TEST_CASE("listed schemes are canonical and different", "[scheme]") {
    std::vector<Scheme> seen;
    for (int i = 0; const char* name = scheme_listed(i); ++i) {
        INFO(name);
        Scheme s;
        REQUIRE(scheme_parse(name, &s));
        CHECK(scheme_name(s) == name);
        for (const Scheme& other : seen) CHECK_FALSE(other == s);
        seen.push_back(s);
    }
    CHECK(seen.size() >= 9);
    CHECK(scheme_listed(-1) == nullptr);
    CHECK(scheme_listed(1000) == nullptr);
}

TEST_CASE("a format outside the grammar goes by its own name", "[scheme]") {
    for (const char* name : {"u4:g32:u6*f16/256:min:ggml", "u8:channel:f16:zp", "s8:g32:f16:ggml"}) {
        Scheme s;
        REQUIRE(format_parse(name, &s.weight));
        CHECK(scheme_name(s) == name);
    }
    Scheme s;
    REQUIRE(format_parse("s8:g32:f16", &s.weight));
    CHECK(scheme_name(s) == "a16w8:g32:sym");  // what the grammar can say, it says
    CHECK(activation_name(Activation::f32) == "f32");
    CHECK(activation_name(Activation::s8) == "s8:token");
    CHECK(activation_name(Activation::e4m3) == "e4m3:token");
}
