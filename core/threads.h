// Fork-join over the runtime's own threads or the host's `parallel`.
#pragma once
#include <atomic>
#include <memory>
#include <type_traits>

#include "quant.h"

namespace quant {

class ThreadPool {
  public:
    explicit ThreadPool(const quant_host& host);
    ~ThreadPool();
    ThreadPool(const ThreadPool&) = delete;
    ThreadPool& operator=(const ThreadPool&) = delete;

    int threads() const;  // slots are 0 .. threads()-1

    // Runs f(item, slot) for every item in [0, items), dynamically scheduled; no two calls with one slot overlap. When
    // f throws, items that have not begun are left out and the first exception comes out of here. Returns when all are
    // done. Concurrent callers take turns.
    template <class F>
    void parallel(int items, F&& f) {
        run(
            items, [](void* arg, int item, int slot) { (*static_cast<std::remove_reference_t<F>*>(arg))(item, slot); },
            const_cast<void*>(static_cast<const void*>(&f)));
    }

  private:
    using Function = void (*)(void* arg, int item, int slot);
    void run(int items, Function f, void* arg);
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace quant
