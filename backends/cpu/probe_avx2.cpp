#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>

#include "backends/cpu/probe.h"

namespace quant {
namespace {

constexpr int steps = 8;  // weights of a round, each multiplied with the activations of every chain

// Where the loops read: through a volatile offset, so that no product can be taken out of a loop.
struct Operands {
    alignas(32) uint8_t bytes[32 * steps];
    volatile int zero = 0;
    Operands() {
        for (int i = 0; i < 32 * steps; ++i) bytes[i] = static_cast<uint8_t>(i % 15);
    }
    __m256i at(int i) { return _mm256_load_si256(reinterpret_cast<const __m256i*>(bytes + zero) + i); }
};

template <int chains>
int total(const __m256i (&sum)[chains]) {
    __m256i all = sum[0];
    for (int i = 1; i < chains; ++i) all = _mm256_xor_si256(all, sum[i]);
    return _mm256_extract_epi32(all, 0);
}

// 8-bit codes: two products fill 16 bits, so every 32 products take maddubs, madd and an addition.
constexpr int int8_chains = 6;
int int8_loop(int rounds) {
    Operands operands;
    const __m256i one = _mm256_set1_epi16(1);
    __m256i sum[int8_chains], activations[int8_chains];
    for (int i = 0; i < int8_chains; ++i) {
        sum[i] = _mm256_setzero_si256();
        activations[i] = operands.at(i);
    }
    for (int r = 0; r < rounds; ++r) {
        for (int s = 0; s < steps; ++s) {
            const __m256i weights = operands.at(s);
            for (int i = 0; i < int8_chains; ++i)
                sum[i] =
                    _mm256_add_epi32(sum[i], _mm256_madd_epi16(_mm256_maddubs_epi16(weights, activations[i]), one));
        }
    }
    return total(sum);
}

// 4-bit codes: 8 steps of sums fit 16 bits, so every 32 products take maddubs, an addition and an eighth of the rest.
constexpr int int4_chains = 4;
int int4_loop(int rounds) {
    Operands operands;
    const __m256i one = _mm256_set1_epi16(1);
    __m256i sum[int4_chains], activations[int4_chains];
    for (int i = 0; i < int4_chains; ++i) {
        sum[i] = _mm256_setzero_si256();
        activations[i] = operands.at(i);
    }
    for (int r = 0; r < rounds; ++r) {
        __m256i part[int4_chains];
        for (auto& p : part) p = _mm256_setzero_si256();
        for (int s = 0; s < steps; ++s) {
            const __m256i weights = operands.at(s);
            for (int i = 0; i < int4_chains; ++i)
                part[i] = _mm256_add_epi16(part[i], _mm256_maddubs_epi16(weights, activations[i]));
        }
        for (int i = 0; i < int4_chains; ++i) sum[i] = _mm256_add_epi32(sum[i], _mm256_madd_epi16(part[i], one));
    }
    return total(sum);
}

constexpr int f32_chains = 12;
int f32_loop(int rounds) {
    __m256 sum[f32_chains], a = _mm256_set1_ps(0.999f), b = _mm256_set1_ps(0.5f);
    for (auto& s : sum) s = b;
    for (int r = 0; r < rounds; ++r)
        for (auto& s : sum) s = _mm256_fmadd_ps(s, a, b);
    __m256 all = sum[0];
    for (int i = 1; i < f32_chains; ++i) all = _mm256_add_ps(all, sum[i]);
    return static_cast<int>(_mm256_cvtss_f32(all));
}

}  // namespace

const ArithmeticLoops arithmetic_avx2 = {int8_loop, int8_chains* steps * 64.0, int4_loop, int4_chains* steps * 64.0,
                                         f32_loop,  f32_chains * 16.0};

}  // namespace quant
#endif
