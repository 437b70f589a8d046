#include "backends/vulkan/transfers.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <thread>

#include "formats/error.h"

namespace quant {
namespace vulkan {

constexpr std::chrono::milliseconds polling{5};

Transfers::Transfers(Device& device) : device_(device) {
    const DeviceFunctions& vk = device.vk;
    try {
        VkCommandPoolCreateInfo pool{};
        pool.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO;
        pool.flags = VK_COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT;
        pool.queueFamilyIndex = device.physical.queue_family;
        device.check(vk.vkCreateCommandPool(device.handle, &pool, nullptr, &pool_), "a command pool");
        VkSemaphoreTypeCreateInfo type{};
        type.sType = VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO;
        type.semaphoreType = VK_SEMAPHORE_TYPE_TIMELINE;
        VkSemaphoreCreateInfo semaphore{};
        semaphore.sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO;
        semaphore.pNext = &type;
        device.check(vk.vkCreateSemaphore(device.handle, &semaphore, nullptr, &timeline_), "a semaphore");
        VkCommandBuffer buffers[3];
        VkCommandBufferAllocateInfo info{};
        info.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO;
        info.commandPool = pool_;
        info.level = VK_COMMAND_BUFFER_LEVEL_PRIMARY;
        info.commandBufferCount = 3;
        device.check(vk.vkAllocateCommandBuffers(device.handle, &info, buffers), "a command buffer");
        writes_[0].commands = buffers[0];
        writes_[1].commands = buffers[1];
        transfer_ = buffers[2];
    } catch (...) {
        if (timeline_) vk.vkDestroySemaphore(device.handle, timeline_, nullptr);
        if (pool_) vk.vkDestroyCommandPool(device.handle, pool_, nullptr);
        throw;
    }
}

Transfers::~Transfers() {
    drain();
    for (Staging& s : writes_) release(device_, s.memory);
    release(device_, readback_);
    device_.vk.vkDestroySemaphore(device_.handle, timeline_, nullptr);
    device_.vk.vkDestroyCommandPool(device_.handle, pool_, nullptr);
}

void Transfers::begin(VkCommandBuffer commands) {
    VkCommandBufferBeginInfo info{};
    info.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO;
    info.flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT;
    device_.check(device_.vk.vkBeginCommandBuffer(commands, &info), "recording");
    VkMemoryBarrier memory{};  // after everything that was submitted before
    memory.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER;
    memory.srcAccessMask = VK_ACCESS_MEMORY_WRITE_BIT;
    memory.dstAccessMask = VK_ACCESS_TRANSFER_READ_BIT | VK_ACCESS_TRANSFER_WRITE_BIT;
    device_.vk.vkCmdPipelineBarrier(commands, VK_PIPELINE_STAGE_ALL_COMMANDS_BIT, VK_PIPELINE_STAGE_TRANSFER_BIT, 0, 1,
                                    &memory, 0, nullptr, 0, nullptr);
}

void Transfers::end_and_submit(VkCommandBuffer commands) {
    VkMemoryBarrier memory{};  // before everything that is submitted later, and the host
    memory.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER;
    memory.srcAccessMask = VK_ACCESS_TRANSFER_WRITE_BIT;
    memory.dstAccessMask = VK_ACCESS_MEMORY_READ_BIT | VK_ACCESS_MEMORY_WRITE_BIT | VK_ACCESS_HOST_READ_BIT;
    device_.vk.vkCmdPipelineBarrier(commands, VK_PIPELINE_STAGE_TRANSFER_BIT,
                                    VK_PIPELINE_STAGE_ALL_COMMANDS_BIT | VK_PIPELINE_STAGE_HOST_BIT, 0, 1, &memory, 0,
                                    nullptr, 0, nullptr);
    device_.check(device_.vk.vkEndCommandBuffer(commands), "recording");
    submit_now(commands);
}

void Transfers::submit_now(VkCommandBuffer commands) {
    const uint64_t value = submitted_ + 1;
    VkTimelineSemaphoreSubmitInfo timeline{};
    timeline.sType = VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO;
    timeline.signalSemaphoreValueCount = 1;
    timeline.pSignalSemaphoreValues = &value;
    VkSubmitInfo info{};
    info.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO;
    info.pNext = &timeline;
    info.commandBufferCount = 1;
    info.pCommandBuffers = &commands;
    info.signalSemaphoreCount = 1;
    info.pSignalSemaphores = &timeline_;
    device_.check(device_.vk.vkQueueSubmit(device_.queue, 1, &info, VK_NULL_HANDLE), "submitting work");
    submitted_ = value;
}

void Transfers::wait_value(uint64_t value) {
    if (finished_ >= value) return;
    // A blocked thread wakes some tens of microseconds late, which a token would feel.
    const auto until = std::chrono::steady_clock::now() + polling;
    while (device_.physical.discrete && finished_ < value && std::chrono::steady_clock::now() < until) {
        std::this_thread::yield();
        device_.check(device_.vk.vkGetSemaphoreCounterValue(device_.handle, timeline_, &finished_),
                      "waiting for the device");
    }
    if (finished_ >= value) return;
    VkSemaphoreWaitInfo info{};
    info.sType = VK_STRUCTURE_TYPE_SEMAPHORE_WAIT_INFO;
    info.semaphoreCount = 1;
    info.pSemaphores = &timeline_;
    info.pValues = &value;
    device_.check(device_.vk.vkWaitSemaphores(device_.handle, &info, UINT64_MAX), "waiting for the device");
    finished_ = value;
}

void Transfers::flush() {
    Staging& s = writes_[current_];
    if (s.used == 0) return;
    s.used = 0;
    end_and_submit(s.commands);
    s.last = submitted_;
    current_ = 1 - current_;
}

void Transfers::write(const Allocation& to, size_t at, const void* from, size_t bytes) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (to.mapped) {
        wait_value(submitted_);
        std::memcpy(to.mapped + at, from, bytes);
        return;
    }
    const auto* source = static_cast<const uint8_t*>(from);
    while (bytes > 0) {
        if (staging_bytes - writes_[current_].used < std::min<size_t>(bytes, 4096)) flush();
        Staging& s = writes_[current_];
        if (!s.memory.buffer) s.memory = allocate(device_, staging_bytes, Place::host_to_device);
        if (s.used == 0) {
            wait_value(s.last);
            begin(s.commands);
        }
        const size_t n = std::min(bytes, staging_bytes - s.used);
        std::memcpy(s.memory.mapped + s.used, source, n);
        const VkBufferCopy region{s.used, at, n};
        device_.vk.vkCmdCopyBuffer(s.commands, s.memory.buffer, to.buffer, 1, &region);
        s.used += n;
        source += n;
        at += n;
        bytes -= n;
    }
}

void Transfers::read(const Allocation& from, size_t at, void* to, size_t bytes) {
    std::lock_guard<std::mutex> lock(mutex_);
    flush();
    if (from.mapped) {
        wait_value(submitted_);
        std::memcpy(to, from.mapped + at, bytes);
        return;
    }
    auto* target = static_cast<uint8_t*>(to);
    const bool ahead = ahead_.submission == submitted_ && ahead_.from == from.buffer && ahead_.at == at;
    for (size_t done = 0; done < bytes;) {
        const size_t n = std::min(bytes - done, staging_bytes);
        if (!ahead || n > ahead_.bytes || done > 0) copy_out(from, at + done, n);
        wait_value(submitted_);
        std::memcpy(target + done, readback_.mapped, n);
        done += n;
    }
}

void Transfers::read_ahead(const Allocation& from, size_t at, size_t bytes) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (from.mapped || bytes > staging_bytes) return;
    flush();
    copy_out(from, at, bytes);
    ahead_ = {from.buffer, at, bytes, submitted_};
}

void Transfers::copy_out(const Allocation& from, size_t at, size_t bytes) {
    if (!readback_.buffer) readback_ = allocate(device_, staging_bytes, Place::device_to_host);
    wait_value(transfer_last_);
    begin(transfer_);
    const VkBufferCopy region{at, 0, bytes};
    device_.vk.vkCmdCopyBuffer(transfer_, from.buffer, readback_.buffer, 1, &region);
    end_and_submit(transfer_);
    transfer_last_ = submitted_;
}

void Transfers::copy(const Allocation& to, size_t to_at, const Allocation& from, size_t from_at, size_t bytes) {
    if (bytes == 0) return;
    std::lock_guard<std::mutex> lock(mutex_);
    flush();
    wait_value(transfer_last_);
    begin(transfer_);
    const VkBufferCopy region{from_at, to_at, bytes};
    device_.vk.vkCmdCopyBuffer(transfer_, from.buffer, to.buffer, 1, &region);
    end_and_submit(transfer_);
    transfer_last_ = submitted_;
}

void Transfers::submit(VkCommandBuffer commands) {
    std::lock_guard<std::mutex> lock(mutex_);
    flush();
    submit_now(commands);
}

void Transfers::wait() {
    std::lock_guard<std::mutex> lock(mutex_);
    flush();
    wait_value(submitted_);
}

void Transfers::wait_for_all_but_last() {
    std::lock_guard<std::mutex> lock(mutex_);
    if (submitted_ > 1) wait_value(submitted_ - 1);
}

void Transfers::drain() noexcept {
    try {
        wait();
    } catch (...) {
    }
}

}  // namespace vulkan
}  // namespace quant
