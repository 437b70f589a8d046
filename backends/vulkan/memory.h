// Device memory: buffers in as many pieces as the device's largest allocation makes them, and transfers.
#pragma once
#include <vector>

#include "backends/vulkan/device.h"
#include "core/backend.h"

namespace quant {
namespace vulkan {

// One VkBuffer with its own memory.
struct Allocation {
    VkBuffer buffer = VK_NULL_HANDLE;
    VkDeviceMemory memory = VK_NULL_HANDLE;
    VkDeviceAddress address = 0;
    uint8_t* mapped = nullptr;  // if the host can see it
    size_t bytes = 0;
};
// device_from_host: device memory that the host can write, where there is some; else as device.
enum class Place { device, device_from_host, host_to_device, device_to_host };
Allocation allocate(Device& device, size_t bytes, Place place);
void release(Device& device, Allocation& allocation) noexcept;

// Pieces overlap by `overlap` bytes, which are kept equal, so that whatever is at most that long lies whole in one.
struct DeviceBuffer : Buffer {
    static constexpr size_t overlap = size_t{4} << 20;
    struct Piece {
        Allocation allocation;
        size_t begin = 0, end = 0;  // of the buffer
    };
    std::vector<Piece> pieces;
    bool whole() const { return pieces.size() == 1; }
};

// The address of memory that lies in one piece; Error(UNSUPPORTED) if it does not.
VkDeviceAddress address_of(const Slice& slice);

}  // namespace vulkan
}  // namespace quant
