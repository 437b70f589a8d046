// One queue's ordered work: submissions, and transfers between the host and device memory.
#pragma once
#include <mutex>

#include "backends/vulkan/memory.h"

namespace quant {
namespace vulkan {

class Transfers {
  public:
    explicit Transfers(Device& device);
    ~Transfers();
    Transfers(const Transfers&) = delete;
    Transfers& operator=(const Transfers&) = delete;

    // In order with everything submitted. Thread-safe; staged where the host does not see the memory.
    void write(const Allocation& to, size_t at, const void* from, size_t bytes);
    void read(const Allocation& from, size_t at, void* to, size_t bytes);  // waits
    // Copies now what will be read next, if nothing else is submitted before: one wait then serves for both.
    void read_ahead(const Allocation& from, size_t at, size_t bytes);
    void copy(const Allocation& to, size_t to_at, const Allocation& from, size_t from_at, size_t bytes);

    void submit(VkCommandBuffer commands);
    void wait();                   // for all; device errors surface here
    void wait_for_all_but_last();  // submissions
    void drain() noexcept;         // as wait, but silent: a lost device has nothing in flight

    VkCommandPool pool() const { return pool_; }

  private:
    static constexpr size_t staging_bytes = size_t{16} << 20;
    struct Staging {
        Allocation memory;
        VkCommandBuffer commands = VK_NULL_HANDLE;
        size_t used = 0;
        uint64_t last = 0;  // submission that read it
    };
    void begin(VkCommandBuffer commands);
    void end_and_submit(VkCommandBuffer commands);
    void flush();  // the staged writes so far
    void submit_now(VkCommandBuffer commands);
    void copy_out(const Allocation& from, size_t at, size_t bytes);  // to the read-back memory
    void wait_value(uint64_t value);

    Device& device_;
    std::mutex mutex_;
    VkCommandPool pool_ = VK_NULL_HANDLE;
    VkSemaphore timeline_ = VK_NULL_HANDLE;
    uint64_t submitted_ = 0, finished_ = 0;
    Staging writes_[2];
    int current_ = 0;
    Allocation readback_;
    VkCommandBuffer transfer_ = VK_NULL_HANDLE;
    uint64_t transfer_last_ = 0;
    struct {
        VkBuffer from = VK_NULL_HANDLE;
        size_t at = 0, bytes = 0;
        uint64_t submission = 0;
    } ahead_;
};

}  // namespace vulkan
}  // namespace quant
