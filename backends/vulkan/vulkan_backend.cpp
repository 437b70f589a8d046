#include "backends/vulkan/vulkan_backend.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <functional>

#include "backends/vulkan/fold.h"
#include "backends/vulkan/kernels.h"
#include "backends/vulkan/transfers.h"
#include "formats/error.h"

namespace quant {
namespace vulkan {
namespace {

constexpr int most_plan_rows = 4096;
constexpr size_t largest_piece = (size_t{4} << 30) - DeviceBuffer::overlap;  // byte offsets in shaders are 32 bits

class VulkanBackend;

struct VulkanPlan : Plan {
    VulkanPlan(Device& device, VkCommandPool pool, int max_rows, Recorder::Recorded recorded)
        : device(device), pool(pool), max_rows(max_rows), recorded(std::move(recorded)) {}
    ~VulkanPlan() override;

    Device& device;
    VkCommandPool pool;
    int max_rows;
    Recorder::Recorded recorded;
    Transfers* transfers = nullptr;
};

class VulkanBackend : public Backend {
  public:
    VulkanBackend(std::shared_ptr<Instance> instance, const PhysicalDevice& physical, const Limits& limits, bool exact)
        : device_(std::move(instance), physical),
          name_(physical.name),
          kernels_(kernel_table(physical, exact)),
          transfers_(device_),
          piece_bytes_(std::min<uint64_t>(physical.allocation_bytes, largest_piece)),
          memory_bytes_(physical.memory_bytes) {
        if (limits.allocation_bytes) piece_bytes_ = std::min<uint64_t>(piece_bytes_, limits.allocation_bytes);
        if (limits.memory_bytes) memory_bytes_ = std::min(memory_bytes_, limits.memory_bytes);
        try {
            step_block_ = allocate(device_, 4 * step_counters_at(most_plan_rows), Place::device_from_host);
        } catch (...) {
            vulkan::release(device_, step_block_);
            throw;
        }
    }
    ~VulkanBackend() override {
        transfers_.drain();
        vulkan::release(device_, step_block_);
        vulkan::release(device_, page_table_);
        for (Allocation& a : workspaces_) vulkan::release(device_, a);
    }

    const std::string& name() const override { return name_; }
    const std::vector<Kernel>& kernels() const override { return kernels_; }
    int step_rows() const override { return device_.physical.has_matrices() ? 2048 : Backend::step_rows(); }

    Buffer* alloc(size_t bytes, Usage usage) override {
        auto buffer = std::make_unique<DeviceBuffer>();
        buffer->bytes = bytes;
        const size_t wanted = std::max<size_t>(bytes, 16), step = piece_step();
        if (wanted > piece_bytes_ && (usage != Usage::weights || step == 0))
            fail(QUANT_ERR_MEMORY, name_ + ": " + std::to_string(wanted) +
                                       " bytes at once, and the device allocates at most " +
                                       std::to_string(piece_bytes_) + ": use a shorter batch or another device");
        const uint64_t before = used_bytes_.fetch_add(wanted);
        try {
            if (before + wanted > memory_bytes_)
                fail(QUANT_ERR_MEMORY, name_ + ": " + std::to_string(wanted >> 20) + " MiB more than the " +
                                           std::to_string(before >> 20) + " MiB in use do not fit its " +
                                           std::to_string(memory_bytes_ >> 20) +
                                           " MiB: use --layers or a smaller scheme");
            for (size_t begin = 0; begin < wanted;) {
                const bool last = wanted - begin <= piece_bytes_;
                const size_t end = last ? wanted : begin + step + DeviceBuffer::overlap;
                buffer->pieces.push_back({});
                buffer->pieces.back().begin = begin;
                buffer->pieces.back().end = end;
                buffer->pieces.back().allocation = allocate(device_, (end - begin + 15) / 16 * 16, Place::device);
                begin = last ? wanted : begin + step;
            }
        } catch (...) {
            free_pieces(*buffer);
            used_bytes_ -= wanted;
            throw;
        }
        return buffer.release();
    }
    Buffer* adopt(const void*, size_t) override { return nullptr; }
    void release(Buffer* buffer) noexcept override {
        if (!buffer) return;
        transfers_.drain();
        auto* own = static_cast<DeviceBuffer*>(buffer);
        if (result_.from == buffer) result_ = {};
        free_pieces(*own);
        used_bytes_ -= std::max<size_t>(own->bytes, 16);
        delete own;
    }

    void write(Buffer* to, size_t at, const void* from, size_t bytes) override {
        const auto* source = static_cast<const uint8_t*>(from);
        for (const DeviceBuffer::Piece& p : static_cast<DeviceBuffer*>(to)->pieces) {
            const size_t begin = std::max(at, p.begin), end = std::min(at + bytes, p.end);
            if (begin < end) transfers_.write(p.allocation, begin - p.begin, source + (begin - at), end - begin);
        }
    }
    void read(const Buffer* from, size_t at, void* to, size_t bytes) override {
        result_ = {last_run_, from, at, bytes};
        auto* target = static_cast<uint8_t*>(to);
        size_t done = at;
        for (const DeviceBuffer::Piece& p : static_cast<const DeviceBuffer*>(from)->pieces) {
            const size_t end = std::min(at + bytes, p.end);
            if (done < p.begin || done >= end) continue;
            transfers_.read(p.allocation, done - p.begin, target + (done - at), end - done);
            done = end;
        }
    }
    void copy(Buffer* to, size_t to_at, const Buffer* from, size_t from_at, size_t bytes) override {
        const auto& target = static_cast<DeviceBuffer*>(to)->pieces;
        const auto& source = static_cast<const DeviceBuffer*>(from)->pieces;
        if (target.size() != 1 || source.size() != 1)
            fail(QUANT_ERR_UNSUPPORTED, name_ + ": copies are between buffers of one allocation");
        transfers_.copy(target[0].allocation, to_at, source[0].allocation, from_at, bytes);
    }

    std::unique_ptr<Plan> record(const std::vector<Bound>& nodes, int max_rows) override {
        if (max_rows > most_plan_rows)
            fail(QUANT_ERR_UNSUPPORTED, name_ + ": plans have at most " + std::to_string(most_plan_rows) + " rows");
        Recorder recorder(device_, transfers_.pool(), step_block_, workspaces_, std::max(1, max_rows));
        const std::vector<Folded> folded = fold(nodes, recorder.max_rows);
        for (size_t i = 0; i < nodes.size(); ++i) {
            if (folded[i].away) continue;
            const Bound bound = with_folded(nodes[i], folded[i]);
            recorder.begin(bound, folded[i]);
            bound.kernel->emit(reinterpret_cast<quant::Recorder&>(recorder), bound);
        }
        auto plan = std::make_unique<VulkanPlan>(device_, transfers_.pool(), std::max(1, max_rows), recorder.finish());
        plan->transfers = &transfers_;
        return plan;
    }

    void run(Plan& base, const Step& step) override {
        auto& plan = static_cast<VulkanPlan&>(base);
        transfers_.wait();  // the Step block is one: the step before has finished with it
        block_.assign(step_block_ints(plan.max_rows, plan.recorded.slots), 0);
        if (step.cache) write_page_table(step);
        fill_step_block(step, plan.max_rows, plan.recorded.slots, page_table_.address, block_.data());
        transfers_.write(step_block_, 0, block_.data(), 4 * block_.size());
        for (size_t i = 0; i < plan.recorded.parts.size(); ++i) {
            if (i >= 2) transfers_.wait_for_all_but_last();
            if (step.cancelled && step.cancelled->load(std::memory_order_relaxed)) return;
            transfers_.submit(plan.recorded.parts[i]);
        }
        last_run_ = &plan;
        if (result_.plan != &plan) return;
        for (const DeviceBuffer::Piece& p : static_cast<const DeviceBuffer*>(result_.from)->pieces)
            if (result_.at >= p.begin && result_.at + result_.bytes <= p.end)
                return transfers_.read_ahead(p.allocation, result_.at - p.begin, result_.bytes);
    }
    void wait() override { transfers_.wait(); }

    void probe(unsigned which, quant_limits* limits) override {
        if (which & 1) limits->read_bytes_per_second = read_bandwidth();
    }

  private:
    // Distance between the beginnings of pieces; 0: the device's allocations are too small to cut anything.
    size_t piece_step() const {
        return piece_bytes_ > 2 * DeviceBuffer::overlap ? (piece_bytes_ - DeviceBuffer::overlap) / 4096 * 4096 : 0;
    }
    void free_pieces(DeviceBuffer& buffer) noexcept {
        for (DeviceBuffer::Piece& p : buffer.pieces) vulkan::release(device_, p.allocation);
        buffer.pieces.clear();
    }

    // The address of every page of the step, in the order of Step::pages.
    void write_page_table(const Step& step) {
        const CacheStorage& cache = *step.cache;
        pages_.clear();
        for (int32_t page : step.pages) {
            const auto* chunk = static_cast<const DeviceBuffer*>(cache.chunks[page / cache.pages_per_chunk]);
            pages_.push_back(chunk->pieces[0].allocation.address +
                             (page % cache.pages_per_chunk) * cache.shape.page_bytes());
        }
        const size_t bytes = pages_.size() * sizeof(uint64_t);
        if (page_table_.bytes < bytes) {
            vulkan::release(device_, page_table_);
            page_table_ = allocate(device_, std::max<size_t>(4096, 2 * bytes), Place::device_from_host);
        }
        if (bytes) transfers_.write(page_table_, 0, pages_.data(), bytes);
    }

    double read_bandwidth() {
        struct Push {
            VkDeviceAddress from, result;
            uint32_t count;
        };
        const bool cpu = device_.physical.is_cpu;
        const size_t bytes = std::min<size_t>(cpu ? size_t{256} << 20 : size_t{1} << 30, piece_bytes_ / 4096 * 4096);
        std::unique_ptr<Buffer, std::function<void(Buffer*)>> memory(alloc(bytes, Usage::activations),
                                                                     [this](Buffer* b) { release(b); });
        const VkDeviceAddress from = static_cast<DeviceBuffer*>(memory.get())->pieces[0].allocation.address;
        Recorder recorder(device_, transfers_.pool(), step_block_, workspaces_, 1);
        const Push push{from, recorder.workspace(16), static_cast<uint32_t>(bytes / 16)};
        const int repeats = cpu ? 2 : 20;
        for (int i = 0; i < repeats; ++i) {
            recorder.dispatch(Shader::probe_read, {256}, push, 4096);
            recorder.barrier();
        }
        VulkanPlan plan(device_, transfers_.pool(), 1, recorder.finish());
        plan.transfers = &transfers_;
        double best = 0;
        for (int attempt = 0; attempt < 3; ++attempt) {
            transfers_.wait();
            const auto start = std::chrono::steady_clock::now();
            transfers_.submit(plan.recorded.parts[0]);
            transfers_.wait();
            const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
            best = std::max(best, static_cast<double>(bytes) * repeats / seconds.count());
        }
        return best;
    }

    Device device_;
    std::string name_;
    std::vector<Kernel> kernels_;
    Transfers transfers_;
    uint64_t piece_bytes_, memory_bytes_;
    std::atomic<uint64_t> used_bytes_{0};
    Allocation step_block_, page_table_;
    std::vector<Allocation> workspaces_;
    // What was read last, and the plan that had run: it will be read again after the plan's next run.
    struct {
        const Plan* plan = nullptr;
        const Buffer* from = nullptr;
        size_t at = 0, bytes = 0;
    } result_;
    const Plan* last_run_ = nullptr;
    std::vector<int32_t> block_;
    std::vector<uint64_t> pages_;
};

VulkanPlan::~VulkanPlan() {
    if (transfers) transfers->drain();
    if (!recorded.parts.empty())
        device.vk.vkFreeCommandBuffers(device.handle, pool, static_cast<uint32_t>(recorded.parts.size()),
                                       recorded.parts.data());
}

}  // namespace
}  // namespace vulkan

void append_vulkan_devices(std::vector<DeviceInfo>& list) {
    DeviceInfo none;
    none.name = "vulkan:0";
    none.description = "Vulkan";
    const std::shared_ptr<vulkan::Instance> instance = vulkan::Instance::open(&none.reason);
    const auto devices = instance ? vulkan::physical_devices(*instance) : std::vector<vulkan::PhysicalDevice>();
    if (devices.empty()) {
        if (none.reason.empty()) none.reason = "this machine's Vulkan drivers list no device";
        list.push_back(none);
        return;
    }
    for (const vulkan::PhysicalDevice& d : devices) {
        DeviceInfo info;
        info.name = d.name;
        info.description = d.description;
        info.reason = d.reason;
        info.memory_total = d.memory_bytes;
        info.driver = instance;
        list.push_back(info);
    }
}

namespace {

std::unique_ptr<Backend> create(std::shared_ptr<vulkan::Instance> instance, const std::string& name,
                                const vulkan::Limits& limits, bool exact) {
    std::string reason = "it is not there any more";
    for (vulkan::PhysicalDevice& d : vulkan::physical_devices(*instance)) {
        if (name != d.name) continue;
        using Use = vulkan::Limits::Use;
        d.integer_dot_used = limits.integer_dot == Use::automatic ? d.integer_dot_accelerated
                                                                  : d.integer_dot && limits.integer_dot == Use::always;
        if (!limits.matrices) d.float_matrices = d.integer_matrices = {};
        if (d.reason.empty()) return std::make_unique<vulkan::VulkanBackend>(std::move(instance), d, limits, exact);
        reason = d.reason;
    }
    fail(QUANT_ERR_UNSUPPORTED, "device " + name + " is not usable: " + reason);
}

}  // namespace

std::unique_ptr<Backend> create_vulkan_device(const DeviceInfo& device, const DeviceServices& services) {
    return create(std::static_pointer_cast<vulkan::Instance>(device.driver), device.name, {}, services.exact);
}

std::unique_ptr<Backend> create_vulkan_backend(const std::string& name, const vulkan::Limits& limits) {
    std::string reason;
    auto instance = vulkan::Instance::open(&reason);
    if (!instance) fail(QUANT_ERR_UNSUPPORTED, "device " + name + " is not usable: " + reason);
    return create(std::move(instance), name, limits, false);
}

}  // namespace quant
