#include "backends/cuda/cuda_backend.h"

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <mutex>

#include "backends/cuda/fold.h"
#include "backends/cuda/kernels.h"
#include "backends/cuda/persistent.h"
#include "formats/error.h"

namespace quant {
namespace cuda {

void check(cudaError_t error, const char* what) {
    if (error == cudaSuccess) return;
    cudaGetLastError();  // a failure that is not sticky must not show up in the next call
    if (error == cudaErrorMemoryAllocation) throw std::bad_alloc();
    fail(QUANT_ERR_DEVICE, std::string("CUDA: ") + what + ": " + cudaGetErrorString(error));
}

namespace {

// The host application's current device is left as it was found.
class CurrentDevice {
  public:
    explicit CurrentDevice(int device) {
        if (cudaGetDevice(&before_) != cudaSuccess) before_ = -1;
        if (before_ != device) check(cudaSetDevice(device), "choose the device");
    }
    ~CurrentDevice() {
        if (before_ >= 0) cudaSetDevice(before_);
    }
    CurrentDevice(const CurrentDevice&) = delete;
    CurrentDevice& operator=(const CurrentDevice&) = delete;

  private:
    int before_ = -1;
};

// Page-locked memory through which writes go, so that many threads copy while the device's engine transfers.
class Staging {
  public:
    static constexpr size_t slot_bytes = 1 << 20;
    static constexpr int slots = 16;

    ~Staging() {
        for (Slot& s : slots_)
            if (s.done) cudaEventDestroy(s.done);
        if (memory_) cudaFreeHost(memory_);
    }
    // Copies into a free slot and queues its transfer.
    void write(cudaStream_t stream, uint8_t* to, const uint8_t* from, size_t bytes) {
        while (bytes > 0) {
            const size_t piece = std::min(bytes, slot_bytes);
            const int slot = take();
            Slot& s = slots_[slot];
            cudaError_t error = cudaEventSynchronize(s.done);
            if (error == cudaSuccess) {
                std::memcpy(memory_ + slot * slot_bytes, from, piece);
                error = cudaMemcpyAsync(to, memory_ + slot * slot_bytes, piece, cudaMemcpyHostToDevice, stream);
            }
            if (error == cudaSuccess) error = cudaEventRecord(s.done, stream);
            give(slot);
            check(error, "write");
            to += piece;
            from += piece;
            bytes -= piece;
        }
    }

  private:
    struct Slot {
        cudaEvent_t done = nullptr;
    };
    int take() {
        std::unique_lock<std::mutex> lock(mutex_);
        if (!memory_) {
            for (Slot& s : slots_)
                if (!s.done) check(cudaEventCreateWithFlags(&s.done, cudaEventDisableTiming), "event");
            check(cudaHostAlloc(reinterpret_cast<void**>(&memory_), slots * slot_bytes, cudaHostAllocDefault),
                  "page-locked memory");
            for (int i = 0; i < slots; ++i) free_[free_count_++] = i;
        }
        changed_.wait(lock, [this] { return free_count_ > 0; });
        const int slot = free_[0];  // the one whose transfer is oldest
        std::copy(free_ + 1, free_ + free_count_, free_);
        --free_count_;
        return slot;
    }
    void give(int slot) {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            free_[free_count_++] = slot;
        }
        changed_.notify_one();
    }

    std::mutex mutex_;
    std::condition_variable changed_;
    Slot slots_[slots];
    int free_[slots] = {}, free_count_ = 0;
    uint8_t* memory_ = nullptr;
};

struct CudaPlan : Plan {
    int device = 0, max_rows = 0;
    cudaGraphExec_t graph = nullptr;
    cudaStream_t stream = nullptr;
    uint8_t* workspace = nullptr;
    ~CudaPlan() override {
        int before = -1;
        if (cudaGetDevice(&before) != cudaSuccess) before = -1;
        cudaSetDevice(device);
        cudaStreamSynchronize(stream);
        if (graph) cudaGraphExecDestroy(graph);
        if (workspace) cudaFreeAsync(workspace, stream);
        if (before >= 0) cudaSetDevice(before);
    }
};

class CudaBackend : public Backend {
  public:
    CudaBackend(std::string name, const DeviceTraits& traits, bool exact)
        : name_(std::move(name)), traits_(traits), kernels_(kernel_table(traits_, exact)) {
        const CurrentDevice current(traits_.index);
        cudaMemPoolProps properties{};
        properties.allocType = cudaMemAllocationTypePinned;
        properties.location.type = cudaMemLocationTypeDevice;
        properties.location.id = traits_.index;
        check(cudaMemPoolCreate(&pool_, &properties), "memory pool");
        uint64_t keep = uint64_t{256} << 20;  // freed memory that is kept for the next allocation
        cudaMemPoolSetAttribute(pool_, cudaMemPoolAttrReleaseThreshold, &keep);
        const cudaError_t error = cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking);
        if (error != cudaSuccess) cudaMemPoolDestroy(pool_);
        check(error, "stream");
    }

    ~CudaBackend() override {
        int before = -1;
        if (cudaGetDevice(&before) != cudaSuccess) before = -1;
        cudaSetDevice(traits_.index);
        cudaStreamSynchronize(stream_);
        if (step_) cudaFreeAsync(step_, stream_);
        if (counters_) cudaFreeAsync(counters_, stream_);
        for (HostStep& s : host_steps_) {
            if (s.words) cudaFreeHost(s.words);
            if (s.done) cudaEventDestroy(s.done);
        }
        if (read_) cudaFreeHost(read_);
        staging_.reset();
        cudaStreamSynchronize(stream_);
        cudaStreamDestroy(stream_);
        cudaMemPoolDestroy(pool_);
        if (before >= 0) cudaSetDevice(before);
    }

    const std::string& name() const override { return name_; }
    const std::vector<Kernel>& kernels() const override { return kernels_; }
    int step_rows() const override { return 2048; }

    Buffer* alloc(size_t bytes, Usage) override {
        const CurrentDevice current(traits_.index);
        auto buffer = std::make_unique<CudaBuffer>();
        buffer->data = allocate(bytes);
        buffer->bytes = bytes;
        return buffer.release();
    }
    Buffer* adopt(const void*, size_t) override { return nullptr; }
    void release(Buffer* buffer) noexcept override {
        if (!buffer) return;
        auto* own = static_cast<CudaBuffer*>(buffer);
        int before = -1;
        if (cudaGetDevice(&before) != cudaSuccess) before = -1;
        cudaSetDevice(traits_.index);
        cudaFreeAsync(own->data, stream_);
        if (before >= 0) cudaSetDevice(before);
        delete own;
    }

    void write(Buffer* to, size_t at, const void* from, size_t bytes) override {
        if (bytes == 0) return;
        const CurrentDevice current(traits_.index);
        {
            std::lock_guard<std::mutex> lock(staging_mutex_);
            if (!staging_) staging_ = std::make_unique<Staging>();
        }
        staging_->write(stream_, address(to) + at, static_cast<const uint8_t*>(from), bytes);
    }
    void read(const Buffer* from, size_t at, void* to, size_t bytes) override {
        if (bytes == 0) return;
        const CurrentDevice current(traits_.index);
        if (!read_)
            check(cudaHostAlloc(reinterpret_cast<void**>(&read_), read_bytes, cudaHostAllocDefault),
                  "page-locked memory");
        for (size_t done = 0; done < bytes; done += read_bytes) {
            const size_t piece = std::min(read_bytes, bytes - done);
            check(cudaMemcpyAsync(read_, address(from) + at + done, piece, cudaMemcpyDeviceToHost, stream_), "read");
            check(cudaStreamSynchronize(stream_), "read");
            std::memcpy(static_cast<uint8_t*>(to) + done, read_, piece);
        }
    }
    void copy(Buffer* to, size_t to_at, const Buffer* from, size_t from_at, size_t bytes) override {
        if (bytes == 0) return;
        const CurrentDevice current(traits_.index);
        check(cudaMemcpyAsync(address(to) + to_at, address(from) + from_at, bytes, cudaMemcpyDeviceToDevice, stream_),
              "copy");
    }

    std::unique_ptr<Plan> record(const std::vector<Bound>& nodes, int max_rows) override {
        const CurrentDevice current(traits_.index);
        if (!step_) step_ = reinterpret_cast<int32_t*>(allocate(step_words * sizeof(int32_t)));
        if (!counters_) {
            constexpr size_t bytes = Recorder::counters * sizeof(uint32_t);
            counters_ = reinterpret_cast<uint32_t*>(allocate(bytes));
            check(cudaMemsetAsync(counters_, 0, bytes, stream_), "clear");
        }
        auto plan = std::make_unique<CudaPlan>();
        plan->device = traits_.index;
        plan->max_rows = max_rows;
        plan->stream = stream_;
        Recorder recorder(traits_, stream_, step_, counters_, max_rows);
        PersistentProgram program;
        const bool chooses = !nodes.empty() && nodes.back().node.op == Op::top_k;  // after what may be one kernel
        const std::vector<Bound> rest(nodes.begin(), nodes.end() - (chooses ? 1 : 0));
        const bool persistent = persistent_program(rest, traits_, max_rows, nullptr, &program);
        PersistentArguments arguments{};
        if (persistent) {
            arguments = upload(*plan, rest, program);
            recorder.begin_launching(nullptr);  // what runs before and after needs no workspace
        } else {
            emit(recorder, nodes);
            if (recorder.workspace_bytes()) plan->workspace = allocate(recorder.workspace_bytes());
            recorder.begin_launching(plan->workspace);
        }
        check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "begin to record");
        cudaGraph_t graph = nullptr;
        try {
            if (persistent) {
                check(cudaMemsetAsync(plan->workspace, absent_byte, program.memory, stream_), "clear");
                for (size_t i = 0; i < program.before; ++i) nodes[i].kernel->emit(recorder, nodes[i]);
                launch_persistent(traits_, stream_, {step_, max_rows}, arguments);
                if (chooses) nodes.back().kernel->emit(recorder, nodes.back());
            } else {
                emit(recorder, nodes);
            }
        } catch (...) {
            cudaStreamEndCapture(stream_, &graph);
            if (graph) cudaGraphDestroy(graph);
            throw;
        }
        check(cudaStreamEndCapture(stream_, &graph), "record");
        const cudaError_t error = cudaGraphInstantiate(&plan->graph, graph, 0);
        cudaGraphDestroy(graph);
        check(error, "instantiate a graph");
        return plan;
    }

    void run(Plan& plan, const Step& step) override {
        const CurrentDevice current(traits_.index);
        auto& own = static_cast<CudaPlan&>(plan);
        send(step, own.max_rows);
        check(cudaGraphLaunch(own.graph, stream_), "launch a graph");
    }
    void wait() override {
        const CurrentDevice current(traits_.index);
        check(cudaStreamSynchronize(stream_), "run");
    }

    void probe(unsigned which, quant_limits* limits) override {
        const CurrentDevice current(traits_.index);
        const size_t bytes = which & 1 ? size_t{1} << 30 : 0;
        uint8_t* memory = allocate(bytes + 4096);
        try {
            float* sink = reinterpret_cast<float*>(memory + bytes);
            if (which & 1) limits->read_bytes_per_second = measure_reads(traits_, stream_, memory, bytes, sink);
            if (which & 2) {
                limits->f32_operations_per_second = measure_f16(traits_, stream_, sink);
                if (traits_.architecture >= 80) limits->bf16_operations_per_second = limits->f32_operations_per_second;
                limits->int8_operations_per_second = measure_int8(traits_, stream_, sink);
                limits->int4_operations_per_second = limits->int8_operations_per_second;
            }
        } catch (...) {
            cudaFreeAsync(memory, stream_);
            throw;
        }
        check(cudaFreeAsync(memory, stream_), "free");
    }

  private:
    static constexpr size_t read_bytes = 4 << 20;
    struct HostStep {  // two, so that writing the next does not race with the one in flight
        int32_t* words = nullptr;
        cudaEvent_t done = nullptr;
    };

    static uint8_t* address(const Buffer* buffer) { return static_cast<const CudaBuffer*>(buffer)->data; }

    uint8_t* allocate(size_t bytes) {
        void* data = nullptr;
        check(cudaMallocFromPoolAsync(&data, std::max<size_t>(bytes, 1), pool_, stream_), "allocate");
        return static_cast<uint8_t*>(data);
    }

    // The linear that runs next, around the plan's end; i if there is none.
    static size_t linear_after(const std::vector<Bound>& nodes, size_t i) {
        for (size_t k = 1; k < nodes.size(); ++k)
            if (nodes[(i + k) % nodes.size()].kernel->weights) return (i + k) % nodes.size();
        return i;
    }

    static void emit(Recorder& recorder, const std::vector<Bound>& nodes) {
        const std::vector<Folded> folded = fold(nodes, recorder.traits, recorder.max_rows);
        for (size_t i = 0; i < nodes.size(); ++i) {
            if (folded[i].away) continue;
            recorder.producer = folded[i].producer;
            recorder.consumer = folded[i].consumer;
            const size_t next = linear_after(nodes, i);
            recorder.next_weight = nodes[next].kernel->weights ? nodes[next].node.weight : nullptr;
            recorder.next_in_pairs = folded[next].consumer != nullptr;
            nodes[i].kernel->emit(recorder, nodes[i]);
        }
    }

    // Gives the plan memory with the program in it. `program` has the sizes.
    PersistentArguments upload(CudaPlan& plan, const std::vector<Bound>& nodes, PersistentProgram program) {
        const size_t instructions = program.instructions.size() * sizeof(Instruction);
        const size_t streams = program.streams.size() * sizeof(WeightStream);
        uint8_t* memory = plan.workspace = allocate(program.memory + instructions + streams);
        program = {};
        persistent_program(nodes, traits_, plan.max_rows, memory, &program);
        PersistentArguments a{};
        a.instructions = reinterpret_cast<const Instruction*>(memory + program.memory);
        a.streams = reinterpret_cast<const WeightStream*>(memory + program.memory + instructions);
        a.count = static_cast<int>(program.instructions.size());
        a.shared = program.shared;
        check(cudaMemcpyAsync(memory + program.memory, program.instructions.data(), instructions,
                              cudaMemcpyHostToDevice, stream_),
              "write a program");
        check(cudaMemcpyAsync(memory + program.memory + instructions, program.streams.data(), streams,
                              cudaMemcpyHostToDevice, stream_),
              "write a program");
        check(cudaStreamSynchronize(stream_), "write a program");
        return a;
    }

    // Writes the step's block (device_step.h).
    void send(const Step& step, int max_rows) {
        HostStep& host = host_steps_[next_step_ ^= 1];
        if (!host.words) {
            check(cudaEventCreateWithFlags(&host.done, cudaEventDisableTiming), "event");
            check(cudaHostAlloc(reinterpret_cast<void**>(&host.words), step_words * sizeof(int32_t),
                                cudaHostAllocDefault),
                  "page-locked memory");
        }
        check(cudaEventSynchronize(host.done), "run");
        const StepView view{host.words, max_rows};
        const int64_t pages_at = view.words_before_pages();
        const int64_t used = pages_at + 2 * static_cast<int64_t>(step.pages.size());
        if (used > step_words) fail(QUANT_ERR_UNSUPPORTED, name_ + ": a step with that many pages");
        int32_t* words = host.words;
        words[0] = step.rows();
        words[1] = step.outputs();
        words[2] = static_cast<int32_t>(step.sequences.size());
        int32_t *tokens = words + StepView::header, *positions = tokens + max_rows, *first_pages = positions + max_rows,
                *output_rows = first_pages + max_rows, *sequences = output_rows + max_rows;
        std::copy(step.tokens.begin(), step.tokens.end(), tokens);
        std::copy(step.positions.begin(), step.positions.end(), positions);
        std::copy(step.output_rows.begin(), step.output_rows.end(), output_rows);
        for (size_t i = 0; i < step.sequences.size(); ++i) {
            const StepSequence& s = step.sequences[i];
            const StepSequenceWords sequence = {s.first_row, s.rows, s.first_position, s.first_page};
            std::memcpy(sequences + 4 * i, &sequence, sizeof sequence);
            std::fill_n(first_pages + s.first_row, s.rows, s.first_page);
        }
        if (step.cache)
            for (size_t i = 0; i < step.pages.size(); ++i) {
                const CacheStorage& cache = *step.cache;
                const uint8_t* page = address(cache.chunks[step.pages[i] / cache.pages_per_chunk]) +
                                      (step.pages[i] % cache.pages_per_chunk) * cache.shape.page_bytes();
                std::memcpy(words + pages_at + 2 * i, &page, sizeof page);
            }
        check(cudaMemcpyAsync(step_, host.words, static_cast<size_t>(used) * sizeof(int32_t), cudaMemcpyHostToDevice,
                              stream_),
              "write the step");
        check(cudaEventRecord(host.done, stream_), "run");
    }

    std::string name_;
    DeviceTraits traits_;
    std::vector<Kernel> kernels_;
    cudaMemPool_t pool_ = nullptr;
    cudaStream_t stream_ = nullptr;
    std::mutex staging_mutex_;
    std::unique_ptr<Staging> staging_;
    uint8_t* read_ = nullptr;
    int32_t* step_ = nullptr;
    uint32_t* counters_ = nullptr;
    HostStep host_steps_[2];
    int next_step_ = 0;
};

DeviceInfo unusable(const std::string& reason) {
    DeviceInfo info;
    info.name = "cuda:0";
    info.description = "CUDA";
    info.reason = reason;
    return info;
}

}  // namespace

void append_devices(std::vector<DeviceInfo>& list) {
    int driver = 0, count = 0;
    if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) {
        cudaGetLastError();
        list.push_back(unusable("this machine has no NVIDIA driver"));
        return;
    }
    const cudaError_t error = cudaGetDeviceCount(&count);
    if (error != cudaSuccess || count == 0) {
        cudaGetLastError();
        list.push_back(unusable(error == cudaSuccess || error == cudaErrorNoDevice
                                    ? std::string("the NVIDIA driver finds no device")
                                    : std::string(cudaGetErrorString(error))));
        return;
    }
    for (int i = 0; i < count; ++i) {
        DeviceInfo info;
        info.name = "cuda:" + std::to_string(i);
        cudaDeviceProp properties{};
        if (cudaGetDeviceProperties(&properties, i) != cudaSuccess) {
            cudaGetLastError();
            info.description = "CUDA";
            info.reason = "the driver does not describe it";
        } else {
            const std::string architecture = std::to_string(properties.major) + "." + std::to_string(properties.minor);
            info.memory_total = properties.totalGlobalMem;
            info.description = std::string(properties.name) + ", compute capability " + architecture + ", " +
                               std::to_string((info.memory_total + (1u << 29)) >> 30) + " GiB";
            if (properties.major * 10 + properties.minor < 75)
                info.reason = "compute capability " + architecture + " is below 7.5";
        }
        list.push_back(info);
    }
}

std::unique_ptr<Backend> create_device(const DeviceInfo& device, const DeviceServices& services) {
    DeviceTraits traits;
    traits.index = std::stoi(device.name.substr(std::strlen("cuda:")));
    int major = 0, minor = 0, shared = 0;
    check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, traits.index), "query");
    check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, traits.index), "query");
    check(cudaDeviceGetAttribute(&traits.multiprocessors, cudaDevAttrMultiProcessorCount, traits.index), "query");
    check(cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, traits.index), "query");
    traits.architecture = 10 * major + minor;
    traits.shared_memory = static_cast<size_t>(shared);
    traits.overlapped_launch = major >= 9;
#ifdef QUANT_CUDA_90A
    traits.wgmma = traits.architecture == 90;
#endif
    return std::make_unique<CudaBackend>(device.name, traits, services.exact);
}

}  // namespace cuda
}  // namespace quant
