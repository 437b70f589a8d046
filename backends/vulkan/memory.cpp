#include "backends/vulkan/memory.h"

#include "formats/error.h"

namespace quant {
namespace vulkan {

Allocation allocate(Device& device, size_t bytes, Place place) {
    const DeviceFunctions& vk = device.vk;
    Allocation a;
    a.bytes = bytes;
    try {
        VkBufferCreateInfo info{};
        info.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO;
        info.size = bytes;
        info.usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_TRANSFER_SRC_BIT |
                     VK_BUFFER_USAGE_TRANSFER_DST_BIT | VK_BUFFER_USAGE_INDIRECT_BUFFER_BIT |
                     VK_BUFFER_USAGE_SHADER_DEVICE_ADDRESS_BIT;
        device.check(vk.vkCreateBuffer(device.handle, &info, nullptr, &a.buffer), "a buffer");
        VkMemoryRequirements needs;
        vk.vkGetBufferMemoryRequirements(device.handle, a.buffer, &needs);

        const VkMemoryPropertyFlags shared = VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
        int type = -1;
        if (place == Place::device_from_host)
            type = device.memory_type(needs.memoryTypeBits, VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT | shared, 0);
        if (place == Place::device && !device.physical.discrete)
            type = device.memory_type(needs.memoryTypeBits, VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT | shared,
                                      VK_MEMORY_PROPERTY_HOST_CACHED_BIT);
        const bool visible = place == Place::host_to_device || place == Place::device_to_host || type >= 0;
        if (place == Place::host_to_device) type = device.memory_type(needs.memoryTypeBits, shared, 0);
        if (place == Place::device_to_host)
            type = device.memory_type(needs.memoryTypeBits, shared, VK_MEMORY_PROPERTY_HOST_CACHED_BIT);
        if (type < 0) type = device.memory_type(needs.memoryTypeBits, VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT, 0);
        if (type < 0) fail(QUANT_ERR_DEVICE, device.physical.name + ": no kind of memory fits a buffer");

        VkMemoryAllocateFlagsInfo flags{};
        flags.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_FLAGS_INFO;
        flags.flags = VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_BIT;
        VkMemoryAllocateInfo memory{};
        memory.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO;
        memory.pNext = &flags;
        memory.allocationSize = needs.size;
        memory.memoryTypeIndex = static_cast<uint32_t>(type);
        device.check(vk.vkAllocateMemory(device.handle, &memory, nullptr, &a.memory), "allocating memory");
        device.check(vk.vkBindBufferMemory(device.handle, a.buffer, a.memory, 0), "binding memory");
        if (visible) {
            void* mapped = nullptr;
            device.check(vk.vkMapMemory(device.handle, a.memory, 0, VK_WHOLE_SIZE, 0, &mapped), "mapping memory");
            a.mapped = static_cast<uint8_t*>(mapped);
        }
        VkBufferDeviceAddressInfo address{};
        address.sType = VK_STRUCTURE_TYPE_BUFFER_DEVICE_ADDRESS_INFO;
        address.buffer = a.buffer;
        a.address = vk.vkGetBufferDeviceAddress(device.handle, &address);
        return a;
    } catch (...) {
        release(device, a);
        throw;
    }
}

void release(Device& device, Allocation& a) noexcept {
    if (a.buffer) device.vk.vkDestroyBuffer(device.handle, a.buffer, nullptr);
    if (a.memory) device.vk.vkFreeMemory(device.handle, a.memory, nullptr);
    a = Allocation{};
}

VkDeviceAddress address_of(const Slice& slice) {
    const auto* buffer = static_cast<const DeviceBuffer*>(slice.buffer);
    for (const DeviceBuffer::Piece& piece : buffer->pieces)
        if (slice.offset >= piece.begin && slice.offset + slice.bytes <= piece.end)
            return piece.allocation.address + (slice.offset - piece.begin);
    fail(QUANT_ERR_UNSUPPORTED,
         "a value of " + std::to_string(slice.bytes) + " bytes is larger than one allocation of this Vulkan device");
}

}  // namespace vulkan
}  // namespace quant
