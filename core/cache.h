// The pool of KV cache pages that a model's sessions share: reference counts, growth on demand, page tables.
#pragma once
#include <vector>

#include "core/backend.h"

namespace quant {

// One sequence's page table. Page i holds positions [64 i, 64 i + 64); pages may be shared with other sequences.
struct Sequence {
    std::vector<int32_t> pages;
    size_t length = 0;
};

// Not thread-safe: the executor serialises.
class CachePool {
  public:
    struct Part {  // the pages' bytes on one device
        Backend* backend;
        CacheStorage storage;
    };
    // max_positions 0 = no limit.
    CachePool(std::vector<Part> parts, size_t max_positions);
    ~CachePool();
    CachePool(const CachePool&) = delete;
    CachePool& operator=(const CachePool&) = delete;

    // Makes room for positions up to `length`, and a page of its own for every position from s.length on (copy on
    // write). Throws Error(CACHE_FULL) or std::bad_alloc with `s` as it was.
    void reserve(Sequence& s, size_t length);
    void truncate(Sequence& s, size_t length) noexcept;             // forgets positions from `length` on
    void share(const Sequence& from, size_t length, Sequence& to);  // `to` was empty

    const CacheStorage& storage(size_t part) const { return parts_[part].storage; }
    size_t position_bytes() const { return page_bytes_ / page_positions; }

  private:
    int32_t take();
    void drop(int32_t page) noexcept;
    void grow();
    void copy_page(int32_t to, int32_t from);

    std::vector<Part> parts_;
    std::vector<int32_t> references_, free_;  // free_ has capacity for every page: drop never allocates
    size_t max_pages_, page_bytes_ = 0;
    int pages_per_chunk_ = 1;
};

}  // namespace quant
