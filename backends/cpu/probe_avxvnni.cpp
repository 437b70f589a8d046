#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>

#include "backends/cpu/probe.h"

namespace quant {
namespace {

constexpr int chains = 12;

// vpdpbusd takes 8-bit and 4-bit codes alike.
int int8_loop(int rounds) {
    __m256i sum[chains], a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(5);
    for (auto& s : sum) s = _mm256_setzero_si256();
    for (int r = 0; r < rounds; ++r)
        for (auto& s : sum) s = _mm256_dpbusd_avx_epi32(s, a, b);
    __m256i total = sum[0];
    for (int i = 1; i < chains; ++i) total = _mm256_xor_si256(total, sum[i]);
    return _mm256_extract_epi32(total, 0);
}

int f32_loop(int rounds) {
    __m256 sum[chains], a = _mm256_set1_ps(0.999f), b = _mm256_set1_ps(0.5f);
    for (auto& s : sum) s = b;
    for (int r = 0; r < rounds; ++r)
        for (auto& s : sum) s = _mm256_fmadd_ps(s, a, b);
    __m256 total = sum[0];
    for (int i = 1; i < chains; ++i) total = _mm256_add_ps(total, sum[i]);
    return static_cast<int>(_mm256_cvtss_f32(total));
}

}  // namespace

const ArithmeticLoops arithmetic_avxvnni = {int8_loop,     chains * 64.0, int8_loop,
                                            chains * 64.0, f32_loop,      chains * 16.0};

}  // namespace quant
#endif
