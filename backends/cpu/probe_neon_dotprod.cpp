#include "backends/cpu/probe.h"
#if defined(QUANT_ARM_64)
#include <arm_neon.h>

namespace quant {
namespace {

constexpr int chains = 12;

// 16 products and sums an accumulation.
int int8_loop(int rounds) {
    int32x4_t sum[chains];
    for (auto& s : sum) s = vdupq_n_s32(0);
    const int8x16_t a = vdupq_n_s8(3), b = vdupq_n_s8(5);
    for (int r = 0; r < rounds; ++r)
        for (auto& s : sum) s = vdotq_s32(s, a, b);
    int32x4_t total = sum[0];
    for (int i = 1; i < chains; ++i) total = veorq_s32(total, sum[i]);
    return vgetq_lane_s32(total, 0);
}

int f32_loop(int rounds) {
    float32x4_t sum[chains], a = vdupq_n_f32(0.999f), b = vdupq_n_f32(0.5f);
    for (auto& s : sum) s = b;
    for (int r = 0; r < rounds; ++r)
        for (auto& s : sum) s = vfmaq_f32(a, s, b);
    float32x4_t total = sum[0];
    for (int i = 1; i < chains; ++i) total = vaddq_f32(total, sum[i]);
    return static_cast<int>(vgetq_lane_f32(total, 0));
}

}  // namespace

const ArithmeticLoops arithmetic_neon_dotprod = {int8_loop,     chains * 32.0, int8_loop,
                                                 chains * 32.0, f32_loop,      chains * 8.0};

}  // namespace quant
#endif
