// Exact conversions between float32 and the small float types: f16 (IEEE half), bf16, e4m3 (the "FN" kind of FP8:
// largest finite 448 = 0x7e, no infinity, NaN = 0x7f and 0xff). All round to nearest, ties to even.
#pragma once
#include <cstdint>
#include <cstring>

namespace quant {

inline uint32_t float_bits(float x) {
    uint32_t u;
    std::memcpy(&u, &x, 4);
    return u;
}
inline float float_from_bits(uint32_t u) {
    float x;
    std::memcpy(&x, &u, 4);
    return x;
}

float f16_to_f32(uint16_t h);
uint16_t f32_to_f16(float x);  // overflow becomes infinity

inline float bf16_to_f32(uint16_t h) { return float_from_bits(static_cast<uint32_t>(h) << 16); }
uint16_t f32_to_bf16(float x);

float e4m3_to_f32(uint8_t code);
uint8_t f32_to_e4m3(float x);  // clamps to +-448 before the cast; NaN stays NaN

}  // namespace quant
