#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>

#include "backends/cpu/probe.h"

namespace quant {
namespace {

constexpr int chains = 16;

// vpdpbusd takes 8-bit and 4-bit codes alike.
int int8_loop(int rounds) {
    __m512i sum[chains], a = _mm512_set1_epi8(3), b = _mm512_set1_epi8(5);
    for (auto& s : sum) s = _mm512_setzero_si512();
    for (int r = 0; r < rounds; ++r)
        for (auto& s : sum) s = _mm512_dpbusd_epi32(s, a, b);
    __m512i total = sum[0];
    for (int i = 1; i < chains; ++i) total = _mm512_xor_si512(total, sum[i]);
    return _mm_cvtsi128_si32(_mm512_castsi512_si128(total));
}

int f32_loop(int rounds) {
    __m512 sum[chains], a = _mm512_set1_ps(0.999f), b = _mm512_set1_ps(0.5f);
    for (auto& s : sum) s = b;
    for (int r = 0; r < rounds; ++r)
        for (auto& s : sum) s = _mm512_fmadd_ps(s, a, b);
    __m512 total = sum[0];
    for (int i = 1; i < chains; ++i) total = _mm512_add_ps(total, sum[i]);
    return static_cast<int>(_mm_cvtss_f32(_mm512_castps512_ps128(total)));
}

}  // namespace

const ArithmeticLoops arithmetic_avx512 = {int8_loop,      chains * 128.0, int8_loop,
                                           chains * 128.0, f32_loop,       chains * 32.0};

}  // namespace quant
#endif
