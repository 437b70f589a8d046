#include "core/cache.h"

#include <algorithm>
#include <string>

#include "formats/error.h"

namespace quant {
namespace {
constexpr size_t chunk_bytes = size_t{8} << 20;  // grow by about this much
size_t pages_for(size_t positions) {
    return (positions + page_positions - 1) / page_positions;
}
}  // namespace

CachePool::CachePool(std::vector<Part> parts, size_t max_positions)
    : parts_(std::move(parts)), max_pages_(max_positions ? pages_for(max_positions) : SIZE_MAX) {
    for (const Part& p : parts_) page_bytes_ += p.storage.shape.page_bytes();
    pages_per_chunk_ = static_cast<int>(std::max<size_t>(1, chunk_bytes / std::max<size_t>(1, page_bytes_)));
    for (Part& p : parts_) p.storage.pages_per_chunk = pages_per_chunk_;
}

CachePool::~CachePool() {
    for (Part& p : parts_)
        for (Buffer* b : p.storage.chunks) p.backend->release(b);
}

void CachePool::grow() {
    const size_t old = references_.size();
    const size_t add = std::min<size_t>(pages_per_chunk_, max_pages_ - old);
    references_.reserve(old + pages_per_chunk_);
    free_.reserve(old + pages_per_chunk_);
    for (Part& p : parts_) p.storage.chunks.reserve(p.storage.chunks.size() + 1);
    size_t done = 0;
    try {
        for (; done < parts_.size(); ++done) {
            Part& p = parts_[done];
            p.storage.chunks.push_back(p.backend->alloc(pages_per_chunk_ * p.storage.shape.page_bytes(), Usage::cache));
        }
    } catch (...) {
        while (done-- > 0) {
            parts_[done].backend->release(parts_[done].storage.chunks.back());
            parts_[done].storage.chunks.pop_back();
        }
        throw;
    }
    references_.resize(old + add, 0);
    for (size_t i = old + add; i-- > old;) free_.push_back(static_cast<int32_t>(i));
}

int32_t CachePool::take() {
    if (free_.empty()) {
        if (references_.size() >= max_pages_)
            fail(QUANT_ERR_CACHE_FULL,
                 "the cache pool of " + std::to_string(max_pages_ * page_positions) +
                     " positions is exhausted: end or rewind another session, or raise the limit");
        grow();
    }
    const int32_t page = free_.back();
    free_.pop_back();
    references_[page] = 1;
    return page;
}

void CachePool::drop(int32_t page) noexcept {
    if (--references_[page] == 0) free_.push_back(page);
}

void CachePool::copy_page(int32_t to, int32_t from) {
    for (Part& p : parts_) {
        const size_t bytes = p.storage.shape.page_bytes();
        auto at = [&](int32_t page) { return (page % pages_per_chunk_) * bytes; };
        p.backend->copy(p.storage.chunks[to / pages_per_chunk_], at(to), p.storage.chunks[from / pages_per_chunk_],
                        at(from), bytes);
    }
}

void CachePool::reserve(Sequence& s, size_t length) {
    const size_t need = pages_for(length), had = s.pages.size();
    s.pages.reserve(need);
    const size_t last = s.length / page_positions;  // the page of the next position
    try {
        if (s.length % page_positions != 0 && last < had && references_[s.pages[last]] > 1) {
            const int32_t own = take();
            try {
                copy_page(own, s.pages[last]);
            } catch (...) {
                drop(own);
                throw;
            }
            drop(s.pages[last]);
            s.pages[last] = own;
        }
        while (s.pages.size() < need) s.pages.push_back(take());
    } catch (...) {
        while (s.pages.size() > had) {
            drop(s.pages.back());
            s.pages.pop_back();
        }
        throw;
    }
}

void CachePool::truncate(Sequence& s, size_t length) noexcept {
    s.length = std::min(s.length, length);
    while (s.pages.size() > pages_for(s.length)) {
        drop(s.pages.back());
        s.pages.pop_back();
    }
}

void CachePool::share(const Sequence& from, size_t length, Sequence& to) {
    to.pages.assign(from.pages.begin(), from.pages.begin() + pages_for(length));
    for (int32_t page : to.pages) ++references_[page];
    to.length = length;
}

}  // namespace quant
