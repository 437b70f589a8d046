#include "models/batches.h"

#include <algorithm>
#include <vector>

namespace quant {

constexpr int64_t batch_elements = 2 << 20;

void run_in_batches(ThreadPool& threads, int64_t count, int64_t elements_each, size_t scratch_bytes,
                    const std::function<void(int64_t item, uint8_t* scratch)>& run,
                    const std::function<void(int64_t items)>& done) {
    const size_t slot_bytes = (scratch_bytes + 63) / 64 * 64;
    std::vector<uint8_t> scratch(slot_bytes * threads.threads() + 64);
    uint8_t* const base = scratch.data() + (64 - reinterpret_cast<uintptr_t>(scratch.data()) % 64);
    const int64_t batch = std::max<int64_t>(threads.threads(), batch_elements / std::max<int64_t>(1, elements_each));
    for (int64_t first = 0; first < count; first += batch) {
        const int64_t n = std::min(batch, count - first);
        threads.parallel(static_cast<int>(n), [&](int item, int slot) { run(first + item, base + slot * slot_bytes); });
        done(n);
    }
}

std::function<void(int64_t, const std::function<void(int64_t)>&)> for_each_on(ThreadPool& threads) {
    return [&threads](int64_t count, const std::function<void(int64_t)>& f) {
        threads.parallel(static_cast<int>(count), [&](int item, int) { f(item); });
    };
}

}  // namespace quant
