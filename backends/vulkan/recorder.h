// Records kernels into the command buffers of a plan, with barriers where one needs another's results.
#pragma once
#include <cstring>

#include "backends/vulkan/fold.h"
#include "backends/vulkan/memory.h"
#include "backends/vulkan/step_block.h"

namespace quant {
namespace vulkan {

class Recorder {
  public:
    // `workspaces`: of all plans of the device, which run one after the other; larger ones are added.
    Recorder(Device& device, VkCommandPool pool, const Allocation& step_block, std::vector<Allocation>& workspaces,
             int max_rows);
    ~Recorder();  // gives back what finish() did not take
    Recorder(const Recorder&) = delete;
    Recorder& operator=(const Recorder&) = delete;

    Device& device;
    const int max_rows;

    // What the next kernel reads and writes, and what is folded into it. Orders it after whatever it depends on.
    void begin(const Bound& bound, const Folded& folded);
    const Folded& folded() const { return folded_; }
    void barrier();  // between two dispatches of one kernel

    // Push must match the shader's push constants; constants[i] is its specialization constant i.
    template <class Push>
    void dispatch(Shader shader, std::vector<uint32_t> constants, const Push& push, uint32_t x, uint32_t y = 1,
                  uint32_t z = 1) {
        bind(shader, std::move(constants), &push, sizeof push);
        dispatch_bound(x, y, z);
    }
    // With the numbers of workgroups that stand at this index of the Step block.
    template <class Push>
    void dispatch_indirect(Shader shader, std::vector<uint32_t> constants, const Push& push, int step_index) {
        bind(shader, std::move(constants), &push, sizeof push);
        dispatch_bound_indirect(step_index);
    }
    // Work of the kernels so far, in operations: long plans become several submissions.
    void add_work(double operations);

    VkDeviceAddress step_address(size_t index) const { return step_block_.address + 4 * index; }
    VkDeviceAddress step_array(StepArray array) const { return step_address(step_array_at(array, max_rows)); }
    VkDeviceAddress row_count(const Operand& o) const {
        return step_address(o.rows == Rows::step ? step_rows : step_outputs);
    }
    int slot(const AttentionSlot& slot);      // its number
    VkDeviceAddress workspace(size_t bytes);  // for the kernel; all kernels share it
    int most_rows(const Operand& o) const;    // that o can have when the plan runs

    struct Recorded {
        std::vector<VkCommandBuffer> parts;
        std::vector<AttentionSlot> slots;
    };
    Recorded finish();

  private:
    struct Range {
        const Buffer* buffer;  // null: the layers of the cache and, at the end, the workspace
        size_t begin, end;
    };
    void begin_part();
    void end_part();
    enum class Between { dispatches, submissions };
    void put_barrier(Between between);
    void order(std::vector<Range> reads, std::vector<Range> writes);  // a barrier before them where one is needed
    void bind(Shader shader, std::vector<uint32_t> constants, const void* push, size_t bytes);
    void dispatch_bound(uint32_t x, uint32_t y, uint32_t z);
    void dispatch_bound_indirect(int step_index);

    VkCommandPool pool_;
    const Allocation& step_block_;
    std::vector<Allocation>& workspaces_;
    Recorded recorded_;
    VkCommandBuffer current_ = VK_NULL_HANDLE;
    Folded folded_;
    std::vector<Range> reads_, writes_;          // since the last barrier
    std::vector<Range> own_reads_, own_writes_;  // of the kernel that is being recorded
    double work_ = 0, part_work_;
};

// What core's emit functions get is this class; core only names its own.
inline Recorder& recorder_of(quant::Recorder& recorder) {
    return reinterpret_cast<Recorder&>(recorder);
}

}  // namespace vulkan
}  // namespace quant
