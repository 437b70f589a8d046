#include "core/threads.h"

#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <new>
#include <thread>
#include <vector>

using quant::ThreadPool;

namespace {

quant_host host_with(int threads) {
    quant_host host{};
    host.struct_size = sizeof host;
    host.threads = threads;
    return host;
}

// Every item exactly once, no slot used by two items at a time.
bool runs_each_item_once(ThreadPool& pool, int items) {
    std::vector<std::atomic<int>> times(static_cast<size_t>(items));
    std::vector<std::atomic<int>> busy(static_cast<size_t>(pool.threads()));
    std::atomic<bool> ok{true};
    pool.parallel(items, [&](int item, int slot) {
        if (slot < 0 || slot >= pool.threads()) {
            ok = false;
            return;
        }
        if (busy[slot].fetch_add(1) != 0) ok = false;
        times[item].fetch_add(1);
        busy[slot].fetch_sub(1);
    });
    for (auto& t : times)
        if (t.load() != 1) ok = false;
    return ok;
}

}  // namespace

TEST_CASE("a pool runs every item once, whatever the numbers of items and threads", "[threads]") {
    for (int threads : {1, 2, 3, 8}) {
        ThreadPool pool(host_with(threads));
        REQUIRE(pool.threads() == threads);
        for (int items : {0, 1, 2, 3, 7, 64, 1000})
            for (int repeat = 0; repeat < 20; ++repeat) REQUIRE(runs_each_item_once(pool, items));
    }
}

TEST_CASE("joined work is visible to the caller, and many joins in a row lose nothing", "[threads]") {
    ThreadPool pool(host_with(3));
    std::vector<int> values(50, 0);  // plain ints: a missing join is a data race
    const int joins = 20000;
    for (int i = 0; i < joins; ++i) pool.parallel(50, [&](int item, int) { ++values[item]; });
    for (int v : values) REQUIRE(v == joins);
}

TEST_CASE("a pool wakes up after its workers went to sleep", "[threads]") {
    ThreadPool pool(host_with(4));
    for (int i = 0; i < 20; ++i) {
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
        REQUIRE(runs_each_item_once(pool, 100));
    }
}

TEST_CASE("workers do take part", "[threads]") {
    ThreadPool pool(host_with(2));
    // Two items that wait for each other can only end on two threads.
    std::atomic<int> arrived{0};
    pool.parallel(2, [&](int, int) {
        ++arrived;
        while (arrived.load() < 2) std::this_thread::yield();
    });
    REQUIRE(arrived == 2);
}

TEST_CASE("an exception in an item comes out of the join, and the pool goes on", "[threads]") {
    for (int threads : {1, 3}) {
        ThreadPool pool(host_with(threads));
        for (int repeat = 0; repeat < 50; ++repeat) {
            std::atomic<int> begun{0};
            CHECK_THROWS_AS(pool.parallel(1000,
                                          [&](int item, int) {
                                              ++begun;
                                              if (item % 10 == 5) throw std::bad_alloc();
                                          }),
                            std::bad_alloc);
            CHECK(begun < 1000);
            REQUIRE(runs_each_item_once(pool, 20));
        }
    }
}

TEST_CASE("concurrent callers take turns", "[threads]") {
    ThreadPool pool(host_with(2));
    std::atomic<int> failures{0};
    std::vector<std::thread> callers;
    for (int c = 0; c < 4; ++c)
        callers.emplace_back([&, c] {
            for (int i = 0; i < 300; ++i)
                if (!runs_each_item_once(pool, 1 + (i + c) % 5)) ++failures;
        });
    for (std::thread& t : callers) t.join();
    REQUIRE(failures == 0);
}

TEST_CASE("the host's parallel is used when given", "[threads]") {
    static std::atomic<int> calls;
    calls = 0;
    quant_host host = host_with(3);
    host.parallel = [](void* user, int n, void (*task)(void*, int), void* arg) {
        ++*static_cast<int*>(user);
        ++calls;
        std::vector<std::thread> threads;  // on any threads, in any order
        for (int i = n - 1; i > 0; --i) threads.emplace_back(task, arg, i);
        for (std::thread& t : threads) t.join();
        task(arg, 0);
    };
    int user = 0;
    host.user = &user;
    ThreadPool pool(host);
    REQUIRE(pool.threads() == 3);
    for (int items : {2, 3, 100}) REQUIRE(runs_each_item_once(pool, items));
    REQUIRE(calls == 3);
    REQUIRE(user == 3);
    REQUIRE(runs_each_item_once(pool, 1));  // needs no other thread
    REQUIRE(calls == 3);
}

TEST_CASE("without a wish the pool has at least one thread and no more than the machine", "[threads]") {
    ThreadPool pool(host_with(0));
    REQUIRE(pool.threads() >= 1);
    REQUIRE(pool.threads() <= static_cast<int>(std::max(1u, std::thread::hardware_concurrency())));
}

TEST_CASE("fork-join takes microseconds", "[.][threads][timing]") {
    ThreadPool pool(host_with(2));
    using Clock = std::chrono::steady_clock;
    double best = 1e9;
    for (int round = 0; round < 20; ++round) {
        const int joins = 2000;
        Clock::time_point start = Clock::now();
        for (int i = 0; i < joins; ++i) {
            std::atomic<int> arrived{0};  // each of two items waits for the other: both threads must have joined
            pool.parallel(2, [&](int, int) {
                ++arrived;
                while (arrived.load() < 2) continue;
            });
        }
        best = std::min(best, std::chrono::duration<double, std::micro>(Clock::now() - start).count() / joins);
    }
    WARN("fork-join of 2 threads: " << best << " us");
    REQUIRE(best < 100);
}
