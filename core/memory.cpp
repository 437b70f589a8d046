#include "core/memory.h"

#include <algorithm>
#include <new>
#ifdef __linux__
#include <sys/mman.h>
#endif

namespace quant {
namespace {

constexpr size_t cache_line = 64, huge_page = size_t{2} << 20;

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

}  // namespace quant
