// Work on many rows or tiles that says how far it is and can be stopped.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>

#include "core/threads.h"

namespace quant {

// run(item, scratch) for items 0 ... count - 1 on any thread, each of about `elements_each` values; between batches of
// well under 50 ms of work done(items) on this thread, which may throw to stop. Each thread's scratch starts at a
// multiple of 64.
void run_in_batches(ThreadPool& threads, int64_t count, int64_t elements_each, size_t scratch_bytes,
                    const std::function<void(int64_t item, uint8_t* scratch)>& run,
                    const std::function<void(int64_t items)>& done);

// For what is done at once: f(0) ... f(count - 1) on any thread.
std::function<void(int64_t count, const std::function<void(int64_t)>& f)> for_each_on(ThreadPool& threads);

}  // namespace quant
