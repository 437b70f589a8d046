// Large host allocations, through the host application's callbacks if it gave some.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>

#include "quant.h"

namespace quant {

class HostMemory {
  public:
    explicit HostMemory(const quant_host& host) : host_(host) {}
    // align: at most 64. Throws std::bad_alloc; 0 bytes gives a valid address.
    void* alloc(size_t bytes, size_t align) const;
    void release(void* ptr, size_t bytes) const noexcept;
    std::shared_ptr<uint8_t> share(size_t bytes) const;  // at a multiple of 64, releases itself
    bool is_systems() const { return !host_.alloc; }

  private:
    quant_host host_;
};

// Memory that lives about as long as its neighbours (weights, the cache), one piece after the other in large blocks:
// only there can the system put all of it on huge pages, which are read faster. A block lives as long as any piece of
// it.
class HostBlocks {
  public:
    explicit HostBlocks(const HostMemory& memory) : memory_(memory) {}
    std::shared_ptr<uint8_t> share(size_t bytes);  // as HostMemory's

  private:
    HostMemory memory_;
    std::weak_ptr<uint8_t> open_;  // the block with the most room left
    size_t used_ = 0, left_ = 0;   // of it
};

}  // namespace quant
