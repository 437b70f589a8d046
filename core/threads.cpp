#include "core/threads.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>
#ifdef __linux__
#include <sched.h>

#include <cstdio>
#endif
#if defined(__x86_64__) || defined(__i386__) || defined(_M_X64) || defined(_M_IX86)
#include <immintrin.h>
#endif

namespace quant {
namespace {

using Clock = std::chrono::steady_clock;

void pause() {
#if defined(__x86_64__) || defined(__i386__) || defined(_M_X64) || defined(_M_IX86)
    _mm_pause();
#elif (defined(__aarch64__) || defined(__arm__)) && defined(__GNUC__)
    __asm__ __volatile__("yield");
#endif
}

// Pauses until ready() or until `limit` has passed. The clock is read seldom: reading it may cost as much as the wait.
template <class Ready>
bool spin(std::chrono::microseconds limit, Ready ready) {
    Clock::time_point end;
    for (unsigned i = 0;; ++i) {
        if (ready()) return true;
        pause();
        if (i % 64 != 63) continue;
        if (i == 63)
            end = Clock::now() + limit;
        else if (Clock::now() >= end)
            return false;
    }
}

// Cores that this process may run on, hyper-threads of one core counted once.
int physical_cores() {
#ifdef __linux__
    cpu_set_t allowed;
    CPU_ZERO(&allowed);
    if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) {
        std::vector<std::string> cores;  // each named by the list of its hyper-threads
        for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
            if (!CPU_ISSET(cpu, &allowed)) continue;
            std::string path = "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list";
            std::FILE* file = std::fopen(path.c_str(), "r");
            if (!file) continue;
            char line[256] = "";
            if (std::fgets(line, sizeof line, file)) cores.push_back(line);
            std::fclose(file);
        }
        std::sort(cores.begin(), cores.end());
        auto distinct = std::unique(cores.begin(), cores.end()) - cores.begin();
        if (distinct > 0) return static_cast<int>(distinct);
    }
#endif
    return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

constexpr int max_threads = 1024;

}  // namespace

// A job is open while its caller still has items. Workers join an open job by counting themselves in, and the caller
// waits only for those that did: a worker that is asleep or descheduled delays nobody.
struct ThreadPool::Impl {
    static constexpr uint32_t active_mask = 0x7fff, open_bit = 0x8000, generation_one = 0x10000;
    static constexpr uint32_t generation_mask = ~(active_mask | open_bit);

    quant_host host{};
    int threads = 1;
    std::chrono::microseconds patience{60};  // how long to spin before sleeping
    std::mutex turn;                         // held by the caller whose job it is

    // The job. Written by its caller while no worker is active, published by `state`.
    Function function = nullptr;
    void* arg = nullptr;
    uint32_t items = 0;
    std::exception_ptr failure;  // the first that an item threw

    alignas(64) std::atomic<uint32_t> state{0};  // generation | open | workers that are active in it
    alignas(64) std::atomic<uint32_t> next{0};   // the next item
    alignas(64) std::atomic<int> sleepers{0};
    std::atomic<bool> stopping{false};
    std::mutex sleep_mutex;
    std::condition_variable wake;
    std::vector<std::thread> workers;

    explicit Impl(const quant_host& h) : host(h) {
        threads = std::min(h.threads > 0 ? h.threads : physical_cores(), max_threads);
        if (host.parallel || threads == 1) return;
        if (threads > static_cast<int>(std::thread::hardware_concurrency())) patience = std::chrono::microseconds{5};
        workers.reserve(threads - 1);
        try {
            for (int slot = 1; slot < threads; ++slot) workers.emplace_back([this, slot] { work(slot); });
        } catch (const std::system_error&) {  // the system gives no more threads: make do with those it gave
        } catch (const std::bad_alloc&) {
        }
        threads = static_cast<int>(workers.size()) + 1;
    }

    ~Impl() {
        {
            std::lock_guard<std::mutex> lock(sleep_mutex);
            stopping = true;
        }
        wake.notify_all();
        for (std::thread& worker : workers) worker.join();
    }

    void run_items(int slot) {
        for (;;) {
            uint32_t item = next.fetch_add(1, std::memory_order_relaxed);
            if (item >= items) return;
            try {
                function(arg, static_cast<int>(item), slot);
            } catch (...) {
                next.store(items, std::memory_order_relaxed);  // the items left are not begun
                std::lock_guard<std::mutex> lock(sleep_mutex);
                if (!failure) failure = std::current_exception();
            }
        }
    }

    void work(int slot) {
        uint32_t seen = 0;  // generation of the last job that this worker joined
        auto called = [&] {
            uint32_t now = state.load(std::memory_order_seq_cst);
            return ((now & open_bit) && (now & generation_mask) != seen) || stopping.load(std::memory_order_relaxed);
        };
        for (;;) {
            if (!spin(patience, called)) {
                std::unique_lock<std::mutex> lock(sleep_mutex);
                sleepers.fetch_add(1, std::memory_order_seq_cst);
                wake.wait(lock, called);
                sleepers.fetch_sub(1, std::memory_order_seq_cst);
            }
            if (stopping) return;
            uint32_t now = state.load(std::memory_order_relaxed);
            while ((now & open_bit) && (now & generation_mask) != seen) {
                if (!state.compare_exchange_weak(now, now + 1, std::memory_order_acq_rel)) continue;
                seen = now & generation_mask;
                run_items(slot);
                state.fetch_sub(1, std::memory_order_release);
                break;
            }
        }
    }

    void fork_join() {
        next.store(0, std::memory_order_relaxed);
        uint32_t generation = (state.load(std::memory_order_relaxed) + generation_one) & generation_mask;
        state.store(generation | open_bit, std::memory_order_seq_cst);
        // Either a worker going to sleep sees the open job, or it is seen here as a sleeper.
        if (sleepers.load(std::memory_order_seq_cst) > 0) {
            { std::lock_guard<std::mutex> lock(sleep_mutex); }
            wake.notify_all();
        }
        run_items(0);
        state.fetch_and(~open_bit, std::memory_order_acq_rel);
        auto joined = [&] { return (state.load(std::memory_order_acquire) & active_mask) == 0; };
        while (!spin(patience, joined)) std::this_thread::yield();
    }

    static void host_task(void* impl, int slot) { static_cast<Impl*>(impl)->run_items(slot); }
};

ThreadPool::ThreadPool(const quant_host& host) : impl_(new Impl(host)) {}
ThreadPool::~ThreadPool() = default;

int ThreadPool::threads() const {
    return impl_->threads;
}

void ThreadPool::run(int items, Function f, void* arg) {
    if (items <= 0) return;
    Impl& pool = *impl_;
    std::lock_guard<std::mutex> turn(pool.turn);
    if (items == 1 || pool.threads == 1) {
        for (int item = 0; item < items; ++item) f(arg, item, 0);
        return;
    }
    pool.function = f;
    pool.arg = arg;
    pool.items = static_cast<uint32_t>(items);
    if (pool.host.parallel) {
        pool.next.store(0);
        pool.host.parallel(pool.host.user, std::min(items, pool.threads), Impl::host_task, &pool);
    } else {
        pool.fork_join();
    }
    if (pool.failure) std::rethrow_exception(std::exchange(pool.failure, nullptr));
}

}  // namespace quant
