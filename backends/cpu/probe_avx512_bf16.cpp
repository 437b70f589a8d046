#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>

#include "backends/cpu/probe.h"

namespace quant {
namespace {

constexpr int chains = 16;

int bf16_loop(int rounds) {
    __m512 sum[chains];
    const __m512bh a = _mm512_cvtne2ps_pbh(_mm512_set1_ps(0.999f), _mm512_set1_ps(0.5f));
    for (auto& s : sum) s = _mm512_setzero_ps();
    for (int r = 0; r < rounds; ++r)
        for (auto& s : sum) s = _mm512_dpbf16_ps(s, a, a);
    __m512 total = sum[0];
    for (int i = 1; i < chains; ++i) total = _mm512_add_ps(total, sum[i]);
    return static_cast<int>(_mm_cvtss_f32(_mm512_castps512_ps128(total)));
}

}  // namespace

const ArithmeticLoop bf16_avx512 = {bf16_loop, chains * 64.0};

}  // namespace quant
#endif
