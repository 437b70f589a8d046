#include "backends/cpu/probe.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <new>

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

// The loops of a plain compiler: eight lanes of bytes and floats.
int int8_baseline(int rounds) {
    int32_t sum[8] = {};
    int8_t a[32], b[32];
    for (int i = 0; i < 32; ++i) a[i] = static_cast<int8_t>(i), b[i] = static_cast<int8_t>(i - 16);
    for (int r = 0; r < rounds; ++r) {
        for (int i = 0; i < 32; ++i) sum[i / 4] += a[i] * b[i];
        a[r % 32] ^= static_cast<int8_t>(r);
    }
    int total = 0;
    for (int32_t s : sum) total += s;
    return total;
}
int f32_baseline(int rounds) {
    float sum[32] = {}, x = 1.0f;
    for (int r = 0; r < rounds; ++r)
        for (float& s : sum) s = s * 0.999f + x;
    float total = 0;
    for (float s : sum) total += s;
    return static_cast<int>(total);
}

}  // namespace

const ArithmeticLoops arithmetic_baseline = {int8_baseline, 64, f32_baseline, 64};

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

void probe_arithmetic(const std::string& device, ThreadPool& threads, quant_limits* limits) {
    const ArithmeticLoops* loops = &arithmetic_baseline;
#if defined(__x86_64__) || defined(_M_X64)
    if (device == "cpu:avx512") loops = &arithmetic_avx512;
    if (device == "cpu:avx2") loops = &arithmetic_avx2;
#else
    (void)device;
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
    limits->f32_operations_per_second = rate(loops->f32, loops->f32_operations);
}

}  // namespace quant
