#include "backends/vulkan/recorder.h"

#include <algorithm>

#include "formats/error.h"

namespace quant {
namespace vulkan {
namespace {

// Operations in one submission: some tens of milliseconds at most on a slow device of that kind.
constexpr double part_operations_matrices = 4e12, part_operations_gpu = 2e11, part_operations_cpu = 1e9;

bool overlaps(const Buffer* a, size_t a_begin, size_t a_end, const Buffer* b, size_t b_begin, size_t b_end) {
    return a == b && a_begin < b_end && b_begin < a_end;
}

}  // namespace

Recorder::Recorder(Device& device, VkCommandPool pool, const Allocation& step_block,
                   std::vector<Allocation>& workspaces, int max_rows)
    : device(device),
      max_rows(max_rows),
      pool_(pool),
      step_block_(step_block),
      workspaces_(workspaces),
      part_work_(device.physical.is_cpu           ? part_operations_cpu
                 : device.physical.has_matrices() ? part_operations_matrices
                                                  : part_operations_gpu) {
    begin_part();
}

Recorder::~Recorder() {
    if (!recorded_.parts.empty())
        device.vk.vkFreeCommandBuffers(device.handle, pool_, static_cast<uint32_t>(recorded_.parts.size()),
                                       recorded_.parts.data());
}

void Recorder::begin_part() {
    recorded_.parts.reserve(recorded_.parts.size() + 1);
    VkCommandBufferAllocateInfo allocate_info{};
    allocate_info.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO;
    allocate_info.commandPool = pool_;
    allocate_info.level = VK_COMMAND_BUFFER_LEVEL_PRIMARY;
    allocate_info.commandBufferCount = 1;
    device.check(device.vk.vkAllocateCommandBuffers(device.handle, &allocate_info, &current_), "a command buffer");
    recorded_.parts.push_back(current_);
    VkCommandBufferBeginInfo info{};
    info.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO;
    device.check(device.vk.vkBeginCommandBuffer(current_, &info), "recording");
    put_barrier(Between::submissions);  // after everything that was submitted before
}

void Recorder::end_part() {
    put_barrier(Between::submissions);
    device.check(device.vk.vkEndCommandBuffer(current_), "recording");
}

void Recorder::add_work(double operations) {
    work_ += operations;
    if (work_ < part_work_) return;
    work_ = 0;
    end_part();
    begin_part();
}

void Recorder::barrier() {
    put_barrier(Between::dispatches);
}

// Whatever the kernel that is being recorded does comes after it, too.
void Recorder::put_barrier(Between between) {
    VkPipelineStageFlags before = VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, after = before;
    VkMemoryBarrier memory{};
    memory.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER;
    memory.srcAccessMask = VK_ACCESS_SHADER_WRITE_BIT;
    memory.dstAccessMask = VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT;
    if (between == Between::submissions) {  // the Step block and the page table, results, weights
        before |= VK_PIPELINE_STAGE_TRANSFER_BIT;
        after |= VK_PIPELINE_STAGE_TRANSFER_BIT | VK_PIPELINE_STAGE_DRAW_INDIRECT_BIT;
        memory.srcAccessMask |= VK_ACCESS_TRANSFER_WRITE_BIT;
        memory.dstAccessMask |=
            VK_ACCESS_TRANSFER_READ_BIT | VK_ACCESS_TRANSFER_WRITE_BIT | VK_ACCESS_INDIRECT_COMMAND_READ_BIT;
    }
    device.vk.vkCmdPipelineBarrier(current_, before, after, 0, 1, &memory, 0, nullptr, 0, nullptr);
    reads_ = own_reads_;
    writes_ = own_writes_;
}

void Recorder::begin(const Bound& b, const Folded& folded) {
    folded_ = folded;
    std::vector<Range> reads, writes;
    for (int i = 0; i < 4; ++i)
        if (b.node.in[i] >= 0)
            reads.push_back({b.in[i].data.buffer, b.in[i].data.offset, b.in[i].data.offset + b.in[i].data.bytes});
    if (b.node.out >= 0) writes.push_back({b.out.data.buffer, b.out.data.offset, b.out.data.offset + b.out.data.bytes});
    const size_t layer = static_cast<size_t>(b.node.layer);
    if (b.node.op == Op::attention) reads.push_back({nullptr, layer, layer + 1});
    if (b.node.op == Op::cache_write || b.node.op == Op::rope_cache_write || folded.rope)
        writes.push_back({nullptr, layer, layer + 1});
    own_reads_.clear();
    own_writes_.clear();
    order(std::move(reads), std::move(writes));
}

void Recorder::order(std::vector<Range> reads, std::vector<Range> writes) {
    auto clash = [](const std::vector<Range>& now, const std::vector<Range>& earlier) {
        for (const Range& a : now)
            for (const Range& e : earlier)
                if (overlaps(a.buffer, a.begin, a.end, e.buffer, e.begin, e.end)) return true;
        return false;
    };
    if (clash(reads, writes_) || clash(writes, writes_) || clash(writes, reads_)) barrier();
    for (auto* list : {&reads_, &own_reads_}) list->insert(list->end(), reads.begin(), reads.end());
    for (auto* list : {&writes_, &own_writes_}) list->insert(list->end(), writes.begin(), writes.end());
}

void Recorder::bind(Shader shader, std::vector<uint32_t> constants, const void* push, size_t bytes) {
    const VkPipeline pipeline = device.pipeline({shader, std::move(constants)});
    device.vk.vkCmdBindPipeline(current_, VK_PIPELINE_BIND_POINT_COMPUTE, pipeline);
    device.vk.vkCmdPushConstants(current_, device.layout, VK_SHADER_STAGE_COMPUTE_BIT, 0, static_cast<uint32_t>(bytes),
                                 push);
}

void Recorder::dispatch_bound(uint32_t x, uint32_t y, uint32_t z) {
    device.vk.vkCmdDispatch(current_, x, y, z);
}

void Recorder::dispatch_bound_indirect(int step_index) {
    device.vk.vkCmdDispatchIndirect(current_, step_block_.buffer, 4 * static_cast<VkDeviceSize>(step_index));
}

int Recorder::slot(const AttentionSlot& slot) {
    std::vector<AttentionSlot>& slots = recorded_.slots;
    for (size_t i = 0; i < slots.size(); ++i)
        if (slots[i].tile_rows == slot.tile_rows && slots[i].head_tiles == slot.head_tiles &&
            slots[i].heads == slot.heads && slots[i].max_splits == slot.max_splits)
            return static_cast<int>(i);
    if (slots.size() == max_slots)
        fail(QUANT_ERR_UNSUPPORTED, device.physical.name + ": a model with more than four kinds of attention");
    slots.push_back(slot);
    return static_cast<int>(slots.size()) - 1;
}

VkDeviceAddress Recorder::workspace(size_t bytes) {
    order({}, {{nullptr, SIZE_MAX - 1, SIZE_MAX}});
    for (const Allocation& a : workspaces_)
        if (a.bytes >= bytes) return a.address;
    workspaces_.reserve(workspaces_.size() + 1);
    workspaces_.push_back(allocate(device, bytes, Place::device));
    return workspaces_.back().address;
}

int Recorder::most_rows(const Operand& o) const {
    const size_t row_bytes = static_cast<size_t>(o.stride) * (o.type == ValueType::f32 ? 4 : 1);
    const size_t room = row_bytes ? (o.data.bytes + row_bytes - 1) / row_bytes : 0;
    return static_cast<int>(std::min<size_t>(static_cast<size_t>(max_rows), room));
}

Recorder::Recorded Recorder::finish() {
    end_part();
    Recorded done = std::move(recorded_);
    recorded_ = {};
    return done;
}

}  // namespace vulkan
}  // namespace quant
