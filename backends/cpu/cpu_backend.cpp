#include "backends/cpu/cpu_backend.h"

#include <algorithm>
#include <cstring>

#include "backends/cpu/probe.h"

namespace quant {
namespace {

constexpr size_t cache_line = 64;
size_t aligned(size_t bytes) {
    return (bytes + cache_line - 1) / cache_line * cache_line;
}

struct CpuPlan : Plan {
    CpuPlan(Recorder&& recorder, const HostMemory& memory)
        : phases(std::move(recorder.phases)),
          workspace_address(std::move(recorder.workspace_address)),
          scratch_stride(aligned(recorder.scratch_bytes)),
          memory(memory),
          memory_bytes(aligned(recorder.workspace_bytes) + scratch_stride * recorder.threads) {
        base = static_cast<uint8_t*>(memory.alloc(memory_bytes, cache_line));
        *workspace_address = base;
        scratch = base + aligned(recorder.workspace_bytes);
    }
    ~CpuPlan() override { memory.release(base, memory_bytes); }

    std::vector<Phase> phases;
    std::unique_ptr<uint8_t*> workspace_address;
    size_t scratch_stride;
    HostMemory memory;
    size_t memory_bytes;
    uint8_t *base = nullptr, *scratch = nullptr;
};

class CpuBackend : public Backend {
  public:
    CpuBackend(std::string name, std::vector<Kernel> table, const DeviceServices& services, bool one_stream)
        : name_(std::move(name)),
          kernels_(std::move(table)),
          threads_(*services.threads),
          memory_(*services.memory),
          blocks_(*services.memory),
          one_stream_(one_stream) {}

    const std::string& name() const override { return name_; }
    const std::vector<Kernel>& kernels() const override { return kernels_; }

    Buffer* alloc(size_t bytes, Usage usage) override {
        auto buffer = std::make_unique<CpuBuffer>();
        buffer->owned = usage == Usage::activations ? memory_.share(bytes) : blocks_.share(bytes);
        buffer->data = buffer->owned.get();
        buffer->bytes = bytes;
        return buffer.release();
    }
    Buffer* adopt(const void* host, size_t bytes) override {
        auto buffer = std::make_unique<CpuBuffer>();
        buffer->data = static_cast<uint8_t*>(const_cast<void*>(host));
        buffer->bytes = bytes;
        return buffer.release();
    }
    void release(Buffer* buffer) noexcept override { delete static_cast<CpuBuffer*>(buffer); }

    void write(Buffer* to, size_t at, const void* from, size_t bytes) override {
        if (bytes) std::memcpy(address(to) + at, from, bytes);
    }
    void read(const Buffer* from, size_t at, void* to, size_t bytes) override {
        if (bytes) std::memcpy(to, address(from) + at, bytes);
    }
    void copy(Buffer* to, size_t to_at, const Buffer* from, size_t from_at, size_t bytes) override {
        if (bytes) std::memmove(address(to) + to_at, address(from) + from_at, bytes);
    }

    std::unique_ptr<Plan> record(const std::vector<Bound>& nodes, int max_rows) override {
        Recorder recorder(max_rows, threads_.threads(), one_stream_);
        for (const Bound& bound : nodes) bound.kernel->emit(recorder, bound);
        return std::make_unique<CpuPlan>(std::move(recorder), memory_);
    }

    // Returns when all is done: there is nothing to wait for.
    void run(Plan& plan, const Step& step) override {
        auto& cpu = static_cast<CpuPlan&>(plan);
        auto cancelled = [&] { return step.cancelled && step.cancelled->load(std::memory_order_relaxed); };
        for (const Phase& phase : cpu.phases) {
            if (cancelled()) return;
            threads_.parallel(phase.items(step), [&](int item, int slot) {
                if (!cancelled()) phase.run(step, item, cpu.scratch + slot * cpu.scratch_stride);
            });
        }
    }
    void wait() override {}

    void probe(unsigned which, quant_limits* limits) override {
        if (which & 1) limits->read_bytes_per_second = probe_read_bandwidth(threads_, memory_);
        if (which & 2) probe_arithmetic(name_, threads_, limits);
    }

  private:
    static uint8_t* address(const Buffer* buffer) { return static_cast<const CpuBuffer*>(buffer)->data; }

    std::string name_;
    std::vector<Kernel> kernels_;
    ThreadPool& threads_;
    HostMemory memory_;
    HostBlocks blocks_;  // of weights and the cache
    bool one_stream_;
};

}  // namespace

WeightView stored_view(const Weight& w) {
    const StoredOffsets at = stored_offsets(w.format, w.rows, w.cols);
    const uint8_t* data = host_pointer(w.data);
    WeightView view;
    view.format = w.format;
    view.rows = w.rows;
    view.cols = w.cols;
    view.codes = data;
    view.scales = data + at.scales;
    view.zeros = data + at.zeros;
    return view;
}

void Recorder::phase(std::function<int(const Step&)> items, std::function<void(const Step&, int, uint8_t*)> run,
                     size_t bytes) {
    phases.push_back({std::move(items), std::move(run)});
    scratch_bytes = std::max(scratch_bytes, bytes);
}

uint8_t* const* Recorder::workspace(size_t bytes) {
    workspace_bytes = std::max(workspace_bytes, bytes);
    return workspace_address.get();
}

std::unique_ptr<Backend> create_cpu_backend(std::string name, std::vector<Kernel> table, const DeviceServices& services,
                                            bool one_stream) {
    return std::make_unique<CpuBackend>(std::move(name), std::move(table), services, one_stream);
}

}  // namespace quant
