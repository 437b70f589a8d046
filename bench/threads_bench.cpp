// What a fork and a join cost: every thread has one item, which lasts 10 us by its own clock; `cost` is what the whole
// takes beyond that, the other threads' waking and the waiting for the last.
#include <benchmark/benchmark.h>

#include <chrono>

#include "core/threads.h"

namespace quant {

void add_thread_benchmarks() {
    for (int threads : {1, 2, 4, 8}) {
        const auto run = [](benchmark::State& state) {
            using Clock = std::chrono::steady_clock;
            constexpr std::chrono::microseconds item(10);
            quant_host host{};
            host.threads = static_cast<int>(state.range(0));
            ThreadPool pool(host);
            const auto start = Clock::now();
            for (auto _ : state)
                pool.parallel(host.threads, [&](int, int) {
                    const auto end = Clock::now() + item;
                    while (Clock::now() < end) {
                    }
                });
            const std::chrono::duration<double> seconds = Clock::now() - start;
            state.counters["cost"] = seconds.count() / static_cast<double>(state.iterations()) - 10e-6;
        };
        benchmark::RegisterBenchmark("threads/fork_join", run)->Arg(threads)->UseRealTime();
    }
}

}  // namespace quant
