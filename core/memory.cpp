#include "core/memory.h"

#include <algorithm>
#include <new>
#include <utility>
#ifdef __linux__
#include <sys/mman.h>
#endif

namespace quant {
namespace {

constexpr size_t cache_line = 64, huge_page = size_t{2} << 20;
#if defined(__linux__) && SIZE_MAX > UINT32_MAX
constexpr size_t block_bytes = size_t{64} << 20;  // of which the system gives what is used
#else
constexpr size_t block_bytes = 0;  // no huge pages, or not the address space: each piece is a block
#endif

size_t round_up(size_t bytes, size_t to) {
    return (bytes + to - 1) / to * to;
}

// Large buffers lie on huge pages where the system has them: at load, most of the time would go to page faults.
size_t own_alignment(size_t bytes) {
    return bytes >= 2 * huge_page ? huge_page : cache_line;
}

}  // namespace

void* HostMemory::alloc(size_t bytes, size_t align) const {
    bytes = std::max<size_t>(bytes, 1);
    if (host_.alloc) {
        void* ptr = host_.alloc(host_.user, bytes, std::max(align, cache_line));
        if (!ptr) throw std::bad_alloc();
        return ptr;
    }
    void* ptr = ::operator new (bytes, std::align_val_t{own_alignment(bytes)});
#ifdef __linux__
    if (bytes >= 2 * huge_page) madvise(ptr, bytes / huge_page * huge_page, MADV_HUGEPAGE);
#endif
    return ptr;
}

void HostMemory::release(void* ptr, size_t bytes) const noexcept {
    if (!ptr) return;
    bytes = std::max<size_t>(bytes, 1);
    if (host_.alloc) {
        if (host_.release) host_.release(host_.user, ptr, bytes);
    } else {
        ::operator delete (ptr, std::align_val_t{own_alignment(bytes)});
    }
}

std::shared_ptr<uint8_t> HostMemory::share(size_t bytes) const {
    return {static_cast<uint8_t*>(alloc(bytes, cache_line)),
            [memory = *this, bytes](uint8_t* p) { memory.release(p, bytes); }};
}

std::shared_ptr<uint8_t> HostBlocks::share(size_t bytes) {
    if (block_bytes == 0 || !memory_.is_systems()) return memory_.share(bytes);
    bytes = round_up(std::max<size_t>(bytes, 1), cache_line);
    std::shared_ptr<uint8_t> block = open_.lock();
    if (!block || left_ < bytes) {
        const size_t size = round_up(std::max(bytes, block_bytes), huge_page);
        std::shared_ptr<uint8_t> made = memory_.share(size);
        if (block && size - bytes <= left_) return made;
        block = std::move(made);
        open_ = block;
        used_ = 0;
        left_ = size;
    }
    std::shared_ptr<uint8_t> piece(block, block.get() + used_);
    used_ += bytes;
    left_ -= bytes;
    return piece;
}

}  // namespace quant
