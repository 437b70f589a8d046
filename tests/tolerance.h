// How far a float kernel may be from the reference, whose sums are in double. Every bound is derived from the rounding
// errors that any order of float32 operations can make (Higham's gamma_n = n u / (1 - n u), here simply n u), so a
// kernel that fails one is wrong, not unlucky. Integer paths have no tolerance: they are compared with ==.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "core/graph.h"

namespace quant {
namespace tolerance {

constexpr double u = 1.0 / (1 << 24);  // half an ulp of float32, relative

// y = sum of n products, where `magnitude` is the sum of the products' absolute values, with a weight q * s + m counted
// as |q * s| + |m| (kernels may sum both parts apart). n - 1 additions and a few multiplications for each product.
inline double linear(int64_t n, double magnitude) {
    return (static_cast<double>(n) + 16) * u * magnitude;
}

// An activation rounded to int8 with the scale of its block of columns moves by at most half a step, absmax / 254.
// `steps` is the sum over blocks of absmax / 254 times the block's sum of |w|; the scale is itself rounded.
inline double int8_activations(double steps) {
    return steps * (1 + 1e-4);
}

// One more addition at the end.
inline double add(double y) {
    return 2 * u * std::fabs(y);
}

// x * rsqrt(mean of n squares + eps) * weight: half of the sum's relative error, then a few roundings.
inline double rmsnorm(int64_t n, double y) {
    return (static_cast<double>(n) / 2 + 8) * u * std::fabs(y);
}

// exp of a float32 kernel is good to a few ulps, but may stop falling at the smallest normal number, 2^-126; `product`
// is gate * up.
inline double silu_mul(double y, double product) {
    return 32 * u * std::fabs(y) + std::fabs(product) * std::ldexp(1, -124);
}

// a * cos + b * sin, with `magnitude` the sum of both products' absolute values.
inline double rope(double magnitude) {
    return 4 * u * magnitude;
}
inline double rope_angle() {
    return 4 * u;
}

// Something rounded to bf16, whose ulp is at most 2^-7 of it.
inline double bf16(double y) {
    return std::fabs(y) / (1 << 8) * (1 + 1e-4);
}

// A value rounded to f16.
inline double f16(double y) {
    return std::fabs(y) / (1 << 11) + 1.0 / (1 << 25);
}

// Two encodings of a key whose values differ by a few roundings of float32: one step apart, and their f16 scales by one
// unit, 2^-10 of the value at most (a subnormal scale: 2^-24 times the largest code).
inline double cache_step(CacheKind kind, double y, double scale) {
    if (kind == CacheKind::f16) return 2 * f16(y);
    const double step = kind == CacheKind::s8 ? scale : std::max(std::fabs(y) / 8, std::ldexp(scale, -9));
    return step * (1 + 1e-3) + std::fabs(y) / (1 << 10) + 448 * std::ldexp(1, -24);
}

// y rounded to int8 codes of this scale, y itself known to `y_error`: half a step, and the product with the rounded
// inverse of the scale.
inline double quantize_s8(double scale, double y_error) {
    return scale * (0.5 + 1e-4) + y_error;
}

// y rounded to e4m3 times a scale: 3 mantissa bits, smallest step 2^-9.
inline double quantize_e4m3(double y, double scale, double y_error) {
    return std::max(std::fabs(y) / 16, scale / (1 << 10)) * (1 + 1e-4) + y_error;
}

// softmax(scale * q . k) v over n positions: an error of the scores, at most `score_magnitude` = scale * max over keys
// of sum |q k|, becomes twice that relative to each probability; exp and the two sums add theirs.
inline double attention(int64_t n, int64_t head_dim, double score_magnitude, double largest_v) {
    const double score_error = (static_cast<double>(head_dim) + 8) * u * score_magnitude;
    return (2 * score_error + (static_cast<double>(n) + 64) * u) * largest_v * 2;
}
// What that grows by with queries, probabilities and values rounded to f16: each by 2^-11, probabilities below 2^-14 by
// 2^-25.
inline double attention_f16(int64_t n, double score_magnitude, double largest_v) {
    return (2 * 2 * score_magnitude + 3 + static_cast<double>(n) / (1 << 13)) / (1 << 11) * largest_v;
}

}  // namespace tolerance
}  // namespace quant
