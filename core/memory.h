// Large host allocations, through the host application's callbacks if it gave some.
#pragma once
#include <cstddef>
#include <memory>

#include "quant.h"

namespace quant {

class HostMemory {
  public:
    explicit HostMemory(const quant_host& host) : host_(host) {}
    // align: at most 64. Throws std::bad_alloc; 0 bytes gives a valid address.
    void* alloc(size_t bytes, size_t align) const;
    void release(void* ptr, size_t bytes) const noexcept;

  private:
    quant_host host_;
};

}  // namespace quant
