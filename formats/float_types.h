// Exact conversions between float32 and the small float types: f16 (IEEE half), bf16, e4m3 (the "FN" kind of FP8:
// largest finite 448 = 0x7e, no infinity, NaN = 0x7f and 0xff). All round to nearest, ties to even. Free of branches,
// so that loops over them vectorize; `static`, so that a copy compiled for a newer instruction set is never linked into
// code for an older one.
#pragma once
#include <cstdint>
#include <cstring>

namespace quant {

static inline uint32_t float_bits(float x) {
    uint32_t u;
    std::memcpy(&u, &x, 4);
    return u;
}
static inline float float_from_bits(uint32_t u) {
    float x;
    std::memcpy(&x, &u, 4);
    return x;
}

// a < b ? x : y, for a and b below 2^31; without a branch into which a compiler could move the work on x or y.
static inline uint32_t select_less(uint32_t a, uint32_t b, uint32_t x, uint32_t y) {
    const uint32_t mask = 0u - static_cast<uint32_t>(static_cast<int32_t>(a) < static_cast<int32_t>(b));
    return (x & mask) | (y & ~mask);
}

// A subnormal m * 2^-24 is (2^-14 + m * 2^-24) - 2^-14, which float32 computes exactly.
static inline float f16_to_f32(uint16_t h) {
    const uint32_t sign = static_cast<uint32_t>(h & 0x8000) << 16, shifted = static_cast<uint32_t>(h & 0x7fff) << 13;
    const uint32_t normal = shifted + (112u << 23);
    const uint32_t special = shifted + (224u << 23);  // infinity and NaN: exponent 31 becomes 255
    const uint32_t subnormal = float_bits(float_from_bits(shifted + (113u << 23)) - float_from_bits(113u << 23));
    const uint32_t finite = select_less(shifted, 1u << 23, subnormal, normal);
    const uint32_t magnitude = select_less(shifted, 31u << 23, finite, special);
    return float_from_bits(magnitude | sign);
}

// Overflow becomes infinity. Below 2^-14 the result counts units of 2^-24, which are the units of 0.5's last place.
static inline uint16_t f32_to_f16(float x) {
    const uint32_t u = float_bits(x), sign = u >> 16 & 0x8000, a = u & 0x7fffffff;
    const uint32_t normal = ((a + 0xfff + (a >> 13 & 1)) >> 13) - (112u << 10);
    const uint32_t subnormal = float_bits(float_from_bits(a) + 0.5f) - float_bits(0.5f);
    const uint32_t nan = 0x7e00 | (a >> 13 & 0x3ff);
    const uint32_t finite = select_less(a, 113u << 23, subnormal, normal);
    const uint32_t infinite = select_less(a, 0x7f800001u, 0x7c00u, nan);
    const uint32_t magnitude = select_less(a, 0x477ff000u, finite, infinite);  // 65520 rounds up
    return static_cast<uint16_t>(magnitude | sign);
}

static inline float bf16_to_f32(uint16_t h) {
    return float_from_bits(static_cast<uint32_t>(h) << 16);
}

static inline uint16_t f32_to_bf16(float x) {
    const uint32_t u = float_bits(x);
    const uint32_t rounded = (u + 0x7fff + (u >> 16 & 1)) >> 16;
    const uint32_t nan = u >> 16 | 0x40;
    return static_cast<uint16_t>(select_less(u & 0x7fffffff, 0x7f800001u, rounded, nan));
}

// As f16: a subnormal m * 2^-9 is (2^-6 + m * 2^-9) - 2^-6.
static inline float e4m3_to_f32(uint8_t code) {
    const uint32_t sign = static_cast<uint32_t>(code & 0x80) << 24, shifted = static_cast<uint32_t>(code & 0x7f) << 20;
    const uint32_t normal = shifted + (120u << 23);
    const uint32_t subnormal = float_bits(float_from_bits(shifted + (121u << 23)) - float_from_bits(121u << 23));
    const uint32_t finite = select_less(shifted, 1u << 23, subnormal, normal);
    const uint32_t magnitude = select_less(shifted, 0x7fu << 20, finite, 0x7fc00000u);
    return float_from_bits(magnitude | sign);
}

// Clamps to +-448 before the cast; NaN stays NaN. Adding the power of two whose last place is the units of a code of
// the value's exponent, those of 2^-6 at least, rounds to them.
static inline uint8_t f32_to_e4m3(float x) {
    const uint32_t u = float_bits(x), sign = u >> 24 & 0x80, magnitude = u & 0x7fffffff;
    const uint32_t a = select_less(magnitude, 0x43e00000u, magnitude, 0x43e00000u);  // 448
    const uint32_t power = (select_less(a, 121u << 23, 121u << 23, a) & 0x7f800000) + (20u << 23);
    const uint32_t units = float_bits(float_from_bits(a) + float_from_bits(power)) - power;
    const uint32_t finite = units + (power >> 20) - (141u << 3);
    return static_cast<uint8_t>(finite | select_less(magnitude, 0x7f800001u, 0, 0x7f) | sign);
}

}  // namespace quant
