// What tests of kernels need: random weights in any format, packed for a device, and one node run on it.
#pragma once
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "backends/registry.h"
#include "core/backend.h"
#include "formats/decode.h"

namespace quant {

class Random {
  public:
    explicit Random(uint64_t seed) : state_(seed * 2654435761u + 88172645463325252u) {}
    uint64_t bits() {  // xorshift64
        state_ ^= state_ << 13;
        state_ ^= state_ >> 7;
        return state_ ^= state_ << 17;
    }
    uint8_t byte() { return static_cast<uint8_t>(bits() >> 32); }
    int below(int n) { return static_cast<int>((bits() >> 33) % static_cast<uint64_t>(n)); }
    float uniform(float low, float high) {
        return low + (high - low) * static_cast<float>(static_cast<double>(bits() >> 40) / (1 << 24));
    }

  private:
    uint64_t state_;
};

// A matrix as a file would hold it.
struct HostWeight {
    Format format;
    int64_t rows = 0, cols = 0;
    std::vector<uint8_t> codes, scales, zeros;
    std::vector<float> bias;
    WeightView view() const;
};
// Every bit pattern of codes that the format allows, scales around 1/64, `bias` if wanted.
HostWeight random_weight(const Format& format, int64_t rows, int64_t cols, bool bias, Random& random);
std::vector<uint8_t> pack(const Layout& layout, const HostWeight& w);
HostWeight vector_weight(const std::vector<float>& values);

// Float rows, `gap` unused columns after each (as a view of a wider value has).
struct Matrix {
    int rows = 0;
    int64_t cols = 0, gap = 0;
    std::vector<float> values;
    Matrix() = default;
    Matrix(int rows, int64_t cols, int64_t gap = 0);  // NaN everywhere
    float* row(int r) { return values.data() + r * (cols + gap); }
    const float* row(int r) const { return values.data() + r * (cols + gap); }
};
Matrix random_matrix(int rows, int64_t cols, int64_t gap, Random& random);

// Quantized rows.
struct Codes {
    ValueType type = ValueType::s8;
    int rows = 0;
    int64_t cols = 0;
    std::vector<uint8_t> codes;  // [rows][codes_stride(cols)]
    std::vector<RowScale> scales;
    Codes() = default;
    Codes(ValueType type, int rows, int64_t cols);  // codes 0, scales 0
    uint8_t* row(int r) { return codes.data() + r * codes_stride(cols); }
    const uint8_t* row(int r) const { return codes.data() + r * codes_stride(cols); }
    float value(int r, int64_t c) const;
};
Codes random_codes(ValueType type, int rows, int64_t cols, Random& random);

// A device with a pool of its own.
class Device {
  public:
    Device(const std::string& name, int threads, bool exact = false);
    // Of the processor, which reads weights in this way: Processor::one_stream.
    static std::unique_ptr<Device> reading(const std::string& name, int threads, bool one_stream);
    Device(const std::string& name, std::unique_ptr<Backend> backend);
    Backend& backend() { return *backend_; }
    const std::string& name() const { return name_; }
    const std::vector<Kernel>& kernels() const { return backend_->kernels(); }
    std::vector<const Kernel*> fast_kernels(Op op) const;  // without the reference rows
    const Kernel& reference(Op op) const;

  private:
    explicit Device(int threads);
    std::unique_ptr<ThreadPool> threads_;
    std::unique_ptr<HostMemory> memory_;
    std::unique_ptr<Backend> backend_;
    std::string name_;
};
// A device whose fast kernels are tested.
struct TestedDevice {
    explicit TestedDevice(const std::string& name);  // of this registry
    // A variant of it, in which only kernels with `part` in their name are tested.
    TestedDevice(const std::string& name, const std::string& part, std::unique_ptr<Backend> backend);
    const std::string& name() const { return device.name(); }
    bool tests(const Kernel& k) const { return std::string(k.name).find(part) != std::string::npos; }
    // A row's float sums do not depend on the rows beside it. (Integer results never do.)
    bool rows_are_independent() const { return is("cpu:"); }
    // The driver compiles a kernel for every case: a test takes fewer of them, chosen at random.
    bool compiles_each_case() const { return is("vulkan:"); }
    bool is(const char* family) const { return name().rfind(family, 0) == 0; }
    std::string part;  // empty: all
    Device device;
    // The same with other numbers of threads, one for each way to read weights.
    std::vector<std::unique_ptr<Device>> others;
    std::set<std::string> rounding;   // kernels that round float activations: the exact table lacks them
    std::set<std::string> exercised;  // kernels that a test has run
};
// The processor's devices that run here but cpu:reference, or the one that QUANT_DEVICE names, in all its variants.
std::vector<std::unique_ptr<TestedDevice>> tested_devices();
// What a Vulkan device can do in another way, forced; none for other devices.
std::vector<std::unique_ptr<TestedDevice>> vulkan_variants(const std::string& name);

bool accepts(const Kernel& kernel, Node node, const Weight* weight, const Value& in0, const Value& out);

// Node after node on one device; owns the memory.
class Run {
  public:
    explicit Run(Device& device) : device_(device) {}
    ~Run();
    Run(const Run&) = delete;
    Run& operator=(const Run&) = delete;

    Weight weight(const HostWeight& w, const Layout* layout, Activation activation = Activation::f32);
    Operand put(const Matrix& m);
    Operand put(const Codes& c);
    Buffer* buffer(size_t bytes);  // poisoned
    // Without weight: null.
    std::unique_ptr<Plan> record(const Kernel& kernel, Node node, const Weight* weight, const std::vector<Operand>& in,
                                 const Operand& out, int max_rows);
    // Records for max_rows, runs for the rows of `step`.
    void node(const Kernel& kernel, Node node, const Weight* weight, const std::vector<Operand>& in, const Operand& out,
              const Step& step, int max_rows);
    Matrix get_matrix(const Operand& o, int rows);
    Codes get_codes(const Operand& o, int rows);

    Backend& backend() { return device_.backend(); }

  private:
    Buffer* upload(const void* data, size_t bytes);
    Device& device_;
    std::vector<Buffer*> buffers_;
};

// One sequence from position 0, no cache.
Step plain_step(int rows);

Value value(ValueType type, int64_t cols);

bool same_bits(const float* a, const float* b, int64_t n);
bool same_bits(const Matrix& a, const Matrix& b);
bool same_bits(const Codes& a, const Codes& b);

}  // namespace quant
