#include "backends/cpu/probe.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <new>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace quant {
namespace {

double now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Sum of words [begin, begin + count), read as `streams` equal parts side by side.
uint64_t sum_streams(const uint64_t* words, size_t count, int streams) {
    const size_t part = count / streams;
    uint64_t sum[8] = {};
    for (size_t i = 0; i + 8 <= part; i += 8)
        for (int s = 0; s < streams; ++s)
            for (size_t j = 0; j < 8; ++j) sum[j] += words[s * part + i + j];
    uint64_t total = 0;
    for (uint64_t s : sum) total += s;
    return total;
}

#if defined(__SSE2__)
constexpr int chains = 12;

// Products of 16-bit pairs, to which 8-bit codes are widened.
int int8_baseline(int rounds) {
    alignas(16) int16_t words[8 * 8];
    for (int i = 0; i < 64; ++i) words[i] = static_cast<int16_t>(i - 32);
    volatile int zero = 0;  // no product can be taken out of the loop
    auto at = [&](int i) { return _mm_load_si128(reinterpret_cast<const __m128i*>(words + zero) + i); };
    __m128i sum[6], activations[6];
    for (int i = 0; i < 6; ++i) sum[i] = _mm_setzero_si128(), activations[i] = at(i);
    for (int r = 0; r < rounds; ++r) {
        for (int s = 0; s < 8; ++s) {
            const __m128i weights = at(s);
            for (int i = 0; i < 6; ++i) sum[i] = _mm_add_epi32(sum[i], _mm_madd_epi16(weights, activations[i]));
        }
    }
    __m128i total = sum[0];
    for (int i = 1; i < 6; ++i) total = _mm_xor_si128(total, sum[i]);
    return _mm_cvtsi128_si32(total);
}
constexpr double int8_operations = 6 * 8 * 16;

int f32_baseline(int rounds) {
    __m128 sum[chains];
    const __m128 a = _mm_set1_ps(0.999f), b = _mm_set1_ps(0.5f);
    for (auto& s : sum) s = b;
    for (int r = 0; r < rounds; ++r)
        for (auto& s : sum) s = _mm_add_ps(_mm_mul_ps(s, a), b);
    __m128 total = sum[0];
    for (int i = 1; i < chains; ++i) total = _mm_add_ps(total, sum[i]);
    return static_cast<int>(_mm_cvtss_f32(total));
}
constexpr double f32_operations = chains * 8;
#else
// What a compiler makes of plain loops.
int int8_baseline(int rounds) {
    int32_t sum[64] = {};
    int16_t a[64];
    for (int i = 0; i < 64; ++i) a[i] = static_cast<int16_t>(i - 32);
    volatile int16_t factor = 3;
    for (int r = 0; r < rounds; ++r) {
        const int16_t b = factor;
        for (int i = 0; i < 64; ++i) sum[i] += a[i] * b;
    }
    int total = 0;
    for (int32_t s : sum) total ^= s;
    return total;
}
constexpr double int8_operations = 128;

int f32_baseline(int rounds) {
    float sum[48] = {}, x = 1.0f;
    for (int r = 0; r < rounds; ++r)
        for (float& s : sum) s = s * 0.999f + x;
    float total = 0;
    for (float s : sum) total += s;
    return static_cast<int>(total);
}
constexpr double f32_operations = 96;
#endif

}  // namespace

const ArithmeticLoops arithmetic_baseline = {int8_baseline,   int8_operations, int8_baseline,
                                             int8_operations, f32_baseline,    f32_operations};

double probe_read_bandwidth(ThreadPool& threads, const HostMemory& memory) {
    constexpr size_t total_bytes = size_t{1} << 30;
    const size_t per_thread = total_bytes / threads.threads() / 4096 * 4096;
    struct Block {
        const HostMemory& memory;
        size_t bytes;
        uint64_t* words;
        ~Block() { memory.release(words, bytes); }
    } block{memory, per_thread * threads.threads(), nullptr};
    block.words = static_cast<uint64_t*>(memory.alloc(block.bytes, 4096));
    std::atomic<uint64_t> sink{0};
    threads.parallel(threads.threads(), [&](int item, int) {
        std::memset(reinterpret_cast<uint8_t*>(block.words) + item * per_thread, item + 1, per_thread);
    });
    double best = 0;
    for (int streams : {1, 2, 4, 8, 1, 2, 4, 8}) {
        const double start = now();
        threads.parallel(threads.threads(), [&](int item, int) {
            sink += sum_streams(block.words + item * (per_thread / 8), per_thread / 8, streams);
        });
        best = std::max(best, static_cast<double>(block.bytes) / (now() - start));
    }
    return sink.load() ? best : 0;
}

void probe_arithmetic([[maybe_unused]] const std::string& device, ThreadPool& threads, quant_limits* limits) {
    const ArithmeticLoops* loops = &arithmetic_baseline;
#if defined(__x86_64__) || defined(_M_X64)
    const bool has_tiles = device == "cpu:amx", has_bf16 = has_tiles || device == "cpu:avx512_bf16";
    if (device == "cpu:avx512" || has_bf16) loops = &arithmetic_avx512;
    if (device == "cpu:avxvnni") loops = &arithmetic_avxvnni;
    if (device == "cpu:avx2") loops = &arithmetic_avx2;
#endif
#if defined(QUANT_ARM_64)
    if (device == "cpu:neon_i8mm") loops = &arithmetic_neon_i8mm;
    if (device == "cpu:neon_dotprod") loops = &arithmetic_neon_dotprod;
#endif
#if defined(QUANT_ARM)
    if (device == "cpu:neon") loops = &arithmetic_neon;
#endif
    std::atomic<int> sink{0};
    auto rate = [&](int (*loop)(int), double operations) {
        int rounds = 1 << 16;
        double best = 0;
        for (int attempt = 0; attempt < 6; ++attempt) {
            const double start = now();
            threads.parallel(threads.threads(), [&](int, int) { sink += loop(rounds); });
            const double seconds = now() - start;
            best = std::max(best, operations * rounds * threads.threads() / seconds);
            if (seconds < 0.03) rounds *= 4;
        }
        return best;
    };
    limits->int8_operations_per_second = rate(loops->int8, loops->int8_operations);
    limits->int4_operations_per_second = rate(loops->int4, loops->int4_operations);
    limits->f32_operations_per_second = rate(loops->f32, loops->f32_operations);
#if defined(__x86_64__) || defined(_M_X64)
    if (has_tiles)
        limits->int8_operations_per_second = limits->int4_operations_per_second =
            rate(int8_amx.run, int8_amx.operations);
    const ArithmeticLoop& bf16 = has_tiles ? bf16_amx : bf16_avx512;
    if (has_bf16) limits->bf16_operations_per_second = rate(bf16.run, bf16.operations);
#endif
}

}  // namespace quant
