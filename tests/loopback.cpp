#include "tests/loopback.h"

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>

#include "formats/error.h"

namespace quant {
namespace {

constexpr uint8_t poison = 0xff;  // NaN as f32, f16 and e4m3: whoever reads what nobody wrote, shows it

// The handle that the world sees. It derives from Buffer alone, so nobody gets at the bytes by casting it.
struct LoopbackBuffer : Buffer {
    Buffer* memory = nullptr;  // the private device's
};

Buffer* memory_of(const Buffer* buffer) {
    return buffer ? static_cast<const LoopbackBuffer*>(buffer)->memory : nullptr;
}
Slice memory_of(const Slice& slice) {
    return {memory_of(slice.buffer), slice.offset, slice.bytes};
}

struct Recording {
    std::vector<std::unique_ptr<Weight>> weights;  // with the private device's buffers
    std::unique_ptr<Plan> plan;
};
struct LoopbackPlan : Plan {
    std::shared_ptr<Recording> recording;  // work in flight keeps it
};

class Loopback : public Backend {
  public:
    Loopback(std::string name, const DeviceServices& services)
        : name_(std::move(name)), device_(create_backend("cpu:reference", services)), stream_([this] { work(); }) {}

    ~Loopback() override {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            stopping_ = true;
        }
        changed_.notify_all();
        stream_.join();
    }

    const std::string& name() const override { return name_; }
    const std::vector<Kernel>& kernels() const override { return device_->kernels(); }

    Buffer* alloc(size_t bytes, Usage usage) override {
        auto buffer = std::make_unique<LoopbackBuffer>();
        buffer->memory = device_->alloc(bytes, usage);
        buffer->bytes = bytes;
        fill(*buffer);
        return buffer.release();
    }
    Buffer* adopt(const void*, size_t) override { return nullptr; }
    void release(Buffer* buffer) noexcept override {
        if (!buffer) return;
        drain();
        fill(*buffer);
        device_->release(memory_of(buffer));
        delete static_cast<LoopbackBuffer*>(buffer);
    }

    void write(Buffer* to, size_t at, const void* from, size_t bytes) override {
        check(to, at, bytes);
        std::vector<uint8_t> data(static_cast<const uint8_t*>(from), static_cast<const uint8_t*>(from) + bytes);
        enqueue(
            [this, to, at, data = std::move(data)] { device_->write(memory_of(to), at, data.data(), data.size()); });
    }
    void read(const Buffer* from, size_t at, void* to, size_t bytes) override {
        check(from, at, bytes);
        {
            std::lock_guard<std::mutex> lock(mutex_);
            if (!idle()) fail(QUANT_ERR_DEVICE, name_ + ": read before wait");
        }
        device_->read(memory_of(from), at, to, bytes);
    }
    void copy(Buffer* to, size_t to_at, const Buffer* from, size_t from_at, size_t bytes) override {
        check(to, to_at, bytes);
        check(from, from_at, bytes);
        enqueue([=] { device_->copy(memory_of(to), to_at, memory_of(from), from_at, bytes); });
    }

    std::unique_ptr<Plan> record(const std::vector<Bound>& nodes, int max_rows) override {
        auto recording = std::make_shared<Recording>();
        std::vector<Bound> own = nodes;
        for (Bound& bound : own) {
            for (Operand& in : bound.in) in.data = memory_of(in.data);
            bound.out.data = memory_of(bound.out.data);
            if (!bound.node.weight) continue;
            auto weight = std::make_unique<Weight>(*bound.node.weight);
            weight->data = memory_of(weight->data);
            weight->bias = memory_of(weight->bias);
            bound.node.weight = weight.get();
            recording->weights.push_back(std::move(weight));
        }
        recording->plan = device_->record(own, max_rows);
        auto plan = std::make_unique<LoopbackPlan>();
        plan->recording = std::move(recording);
        return plan;
    }

    void run(Plan& plan, const Step& step) override {
        CacheStorage cache;
        if (step.cache) {
            cache = *step.cache;
            for (Buffer*& chunk : cache.chunks) chunk = memory_of(chunk);
        }
        enqueue([this, recording = static_cast<LoopbackPlan&>(plan).recording, own = step,
                 cache = std::move(cache)]() mutable {
            if (own.cache) own.cache = &cache;
            device_->run(*recording->plan, own);
            device_->wait();
        });
    }

    void wait() override {
        drain();
        std::string failure;
        {
            std::lock_guard<std::mutex> lock(mutex_);
            failure.swap(failure_);
        }
        if (!failure.empty()) fail(QUANT_ERR_DEVICE, name_ + ": " + failure);
    }

    void probe(unsigned which, quant_limits* limits) override { device_->probe(which, limits); }

    void fail_next(const std::string& message) {
        std::lock_guard<std::mutex> lock(mutex_);
        fail_next_ = message;
    }

  private:
    using Job = std::function<void()>;

    void fill(Buffer& buffer) noexcept {
        uint8_t bytes[4096];
        std::memset(bytes, poison, sizeof bytes);
        for (size_t at = 0; at < buffer.bytes; at += sizeof bytes)
            device_->write(memory_of(&buffer), at, bytes, std::min(sizeof bytes, buffer.bytes - at));
    }

    void check(const Buffer* buffer, size_t at, size_t bytes) const {
        if (at > buffer->bytes || bytes > buffer->bytes - at)
            fail(QUANT_ERR_DEVICE, name_ + ": access past the end of a buffer");
    }

    bool idle() const { return jobs_.empty() && !busy_; }

    void enqueue(Job job) {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            jobs_.push_back(std::move(job));
        }
        changed_.notify_all();
    }

    void drain() noexcept {
        std::unique_lock<std::mutex> lock(mutex_);
        changed_.wait(lock, [this] { return idle(); });
    }

    // The stream: everything enqueued, in order. After a failure the rest is skipped until wait() reports it.
    void work() {
        std::unique_lock<std::mutex> lock(mutex_);
        for (;;) {
            changed_.wait(lock, [this] { return !jobs_.empty() || stopping_; });
            if (jobs_.empty()) return;
            Job job = std::move(jobs_.front());
            jobs_.pop_front();
            busy_ = true;
            if (!fail_next_.empty()) failure_ = std::exchange(fail_next_, std::string());
            if (failure_.empty()) {
                lock.unlock();
                std::string failure;
                try {
                    job();
                } catch (const std::exception& e) {
                    failure = e.what();
                }
                job = nullptr;
                lock.lock();
                failure_ = failure;
            }
            busy_ = false;
            changed_.notify_all();
        }
    }

    std::string name_;
    std::unique_ptr<Backend> device_;
    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<Job> jobs_;
    bool busy_ = false, stopping_ = false;
    std::string failure_, fail_next_;
    std::thread stream_;
};

}  // namespace

std::unique_ptr<Backend> create_loopback(const std::string& name, const DeviceServices& services) {
    return std::make_unique<Loopback>(name, services);
}

void loopback_fail_next(Backend& loopback, const std::string& message) {
    static_cast<Loopback&>(loopback).fail_next(message);
}

}  // namespace quant
