#include "tests/kernel_rig.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <stdexcept>

#include "backends/cpu/cpu_devices.h"
#include "formats/float_types.h"
#include "formats/tile_packer.h"

namespace quant {
namespace {

void put_float(FloatType type, float x, uint8_t* at) {
    if (type == FloatType::f32) {
        std::memcpy(at, &x, 4);
    } else {
        const uint16_t h = type == FloatType::f16 ? f32_to_f16(x) : f32_to_bf16(x);
        std::memcpy(at, &h, 2);
    }
}

void random_floats(FloatType type, float low, float high, std::vector<uint8_t>& to, Random& random) {
    for (size_t at = 0; at + float_type_bytes(type) <= to.size(); at += float_type_bytes(type))
        put_float(type, random.uniform(low, high), to.data() + at);
}

FloatType float_type(Element e) {
    return e == Element::f32 ? FloatType::f32 : e == Element::f16 ? FloatType::f16 : FloatType::bf16;
}

constexpr float nan = std::numeric_limits<float>::quiet_NaN();

}  // namespace

WeightView HostWeight::view() const {
    WeightView v;
    v.format = format;
    v.rows = rows;
    v.cols = cols;
    v.codes = codes.data();
    v.scales = scales.data();
    v.zeros = zeros.data();
    return v;
}

HostWeight random_weight(const Format& f, int64_t rows, int64_t cols, bool bias, Random& random) {
    HostWeight w;
    w.format = f;
    w.rows = rows;
    w.cols = cols;
    w.codes.resize(codes_bytes(f, rows, cols));
    w.scales.resize(scales_bytes(f, rows, cols));
    w.zeros.resize(zeros_bytes(f, rows, cols));
    for (uint8_t& c : w.codes) {
        c = random.byte();
        if (f.element == Element::e4m3 && (c & 0x7f) == 0x7f) c ^= 1;  // no NaN
    }
    if (is_float(f.element)) random_floats(float_type(f.element), -0.1f, 0.1f, w.codes, random);
    if (!w.scales.empty()) random_floats(f.scale, 0.01f, 0.02f, w.scales, random);
    if (f.zero == Zero::minimum) random_floats(f.scale, -2.f, 0.5f, w.zeros, random);
    if (f.zero == Zero::integer)
        for (uint8_t& z : w.zeros) z = random.byte() & ((1 << element_bits(f.element)) - 1);
    if (f.storage == Storage::ggml) {
        const int64_t block_cols = f.super_group ? f.super_group : f.group;
        const size_t block_bytes = codes_row_bytes(f, block_cols);
        for (size_t at = 0; at < w.codes.size(); at += block_bytes) {
            uint8_t* block = w.codes.data() + at;
            const bool scale_last = f.scale_code == ScaleCode::s8;  // Q6_K
            put_float(FloatType::f16, random.uniform(0.001f, 0.02f), block + (scale_last ? block_bytes - 2 : 0));
            if (f.zero == Zero::minimum) put_float(FloatType::f16, random.uniform(-0.02f, 0.02f), block + 2);
        }
    }
    if (bias)
        for (int64_t r = 0; r < rows; ++r) w.bias.push_back(random.uniform(-1, 1));
    return w;
}

HostWeight vector_weight(const std::vector<float>& values) {
    HostWeight w;
    w.rows = static_cast<int64_t>(values.size());
    w.cols = 1;
    w.codes.resize(values.size() * sizeof(float));
    std::memcpy(w.codes.data(), values.data(), w.codes.size());
    return w;
}

Matrix::Matrix(int rows, int64_t cols, int64_t gap)
    : rows(rows), cols(cols), gap(gap), values(static_cast<size_t>(rows * (cols + gap)), nan) {}

Matrix random_matrix(int rows, int64_t cols, int64_t gap, Random& random) {
    Matrix m(rows, cols, gap);
    for (int r = 0; r < rows; ++r)
        for (int64_t c = 0; c < cols; ++c)
            m.row(r)[c] = random.uniform(-1, 1) * (random.below(50) == 0 ? 20.f : 1.f);  // some stand out
    return m;
}

Codes::Codes(ValueType type, int rows, int64_t cols)
    : type(type), rows(rows), cols(cols), codes(static_cast<size_t>(rows * codes_stride(cols))), scales(rows) {}

float Codes::value(int r, int64_t c) const {
    const uint8_t code = row(r)[c];
    return (type == ValueType::s8 ? static_cast<float>(static_cast<int8_t>(code)) : e4m3_to_f32(code)) *
           scales[r].scale;
}

Codes random_codes(ValueType type, int rows, int64_t cols, Random& random) {
    Codes x(type, rows, cols);
    for (int r = 0; r < rows; ++r) {
        x.scales[r].scale = random.uniform(0.001f, 0.01f);
        for (int64_t c = 0; c < cols; ++c) {
            if (type == ValueType::s8) {
                const int code = random.below(255) - 127;
                x.row(r)[c] = static_cast<uint8_t>(code);
                x.scales[r].sum += code;
            } else {
                const uint8_t code = random.byte();
                x.row(r)[c] = (code & 0x7f) == 0x7f ? uint8_t{0} : code;
            }
        }
    }
    return x;
}

Device::Device(int threads) {
    quant_host host{};
    host.struct_size = sizeof host;
    host.threads = threads;
    threads_ = std::make_unique<ThreadPool>(host);
    memory_ = std::make_unique<HostMemory>(host);
}
Device::Device(const std::string& name, int threads, bool exact) : Device(threads) {
    backend_ = create_backend(name.c_str(), {threads_.get(), memory_.get(), exact});
    name_ = backend_->name();
}
std::unique_ptr<Device> Device::reading(const std::string& name, int threads, bool one_stream) {
    std::unique_ptr<Device> device(new Device(threads));
    device->backend_ = create_cpu_device(name, {device->threads_.get(), device->memory_.get(), false}, one_stream);
    device->name_ = name;
    return device;
}
Device::Device(const std::string& name, std::unique_ptr<Backend> backend) : backend_(std::move(backend)), name_(name) {}

namespace {
bool is_reference(const Kernel& k) {
    return std::strncmp(k.name, "reference ", 10) == 0;
}
}  // namespace

std::vector<const Kernel*> Device::fast_kernels(Op op) const {
    std::vector<const Kernel*> found;
    for (const Kernel& k : kernels())
        if (k.op == op && !is_reference(k)) found.push_back(&k);
    return found;
}

const Kernel& Device::reference(Op op) const {
    for (const Kernel& k : kernels())
        if (k.op == op && is_reference(k)) return k;
    throw std::logic_error(std::string("no reference kernel of ") + op_name(op));
}

TestedDevice::TestedDevice(const std::string& name) : device(name, 2) {
    if (is("cpu:"))
        for (int threads : {1, 3}) others.push_back(Device::reading(name, threads, threads == 1));
    std::set<std::string> exact;
    const Device exact_device(name, 1, true);
    for (const Kernel& k : exact_device.kernels()) exact.insert(k.name);
    for (const Kernel& k : device.kernels())
        if (!exact.count(k.name)) rounding.insert(k.name);
}
TestedDevice::TestedDevice(const std::string& name, const std::string& part, std::unique_ptr<Backend> backend)
    : part(part), device(name, std::move(backend)) {}

std::vector<std::unique_ptr<TestedDevice>> tested_devices() {
    const char* named = std::getenv("QUANT_DEVICE");
    const std::string wanted = named && *named ? named : "cpu";
    std::vector<std::unique_ptr<TestedDevice>> devices;
    // Never destroyed, so that drivers stay loaded: one that a process loads and unloads hundreds of times may fail.
    static const auto& listed = *new std::vector<DeviceInfo>(list_devices());
    for (const DeviceInfo& info : listed) {
        const bool any = wanted == "cpu" && info.name.rfind("cpu:", 0) == 0;
        if ((any || info.name == wanted) && info.reason.empty() && info.name != "cpu:reference")
            devices.push_back(std::make_unique<TestedDevice>(info.name));
    }
    if (wanted != "cpu" && wanted != "cpu:reference" && devices.empty())
        throw std::runtime_error("QUANT_DEVICE=" + wanted + " is not usable here");
    if (!devices.empty())
        for (auto& variant : vulkan_variants(wanted)) devices.push_back(std::move(variant));
    return devices;
}

bool accepts(const Kernel& kernel, Node node, const Weight* weight, const Value& in0, const Value& out) {
    node.op = kernel.op;
    node.weight = weight;
    return kernel.accepts(node, weight, &in0, &out);
}

Run::~Run() {
    for (Buffer* b : buffers_) backend().release(b);
}

Buffer* Run::buffer(size_t bytes) {
    buffers_.push_back(nullptr);
    Buffer* b = buffers_.back() = backend().alloc(bytes, Usage::activations);
    const std::vector<uint8_t> poison(bytes, 0xff);  // NaN in every float type
    backend().write(b, 0, poison.data(), bytes);
    return b;
}

Buffer* Run::upload(const void* data, size_t bytes) {
    Buffer* b = buffer(bytes);
    backend().write(b, 0, data, bytes);
    return b;
}

Weight Run::weight(const HostWeight& w, const Layout* layout, Activation activation) {
    Weight weight;
    weight.name = "test";
    weight.format = w.format;
    weight.activation = activation;
    weight.rows = w.rows;
    weight.cols = w.cols;
    weight.layout = layout;
    const size_t bytes = layout_bytes(*layout, w.format, w.rows, w.cols);
    Buffer* data = buffer(bytes);
    weight.data = {data, 0, bytes};
    if (layout->tile_rows == 0) {
        const StoredOffsets at = stored_offsets(w.format, w.rows, w.cols);
        backend().write(data, 0, w.codes.data(), w.codes.size());
        backend().write(data, at.scales, w.scales.data(), w.scales.size());
        backend().write(data, at.zeros, w.zeros.data(), w.zeros.size());
    } else {
        const std::vector<uint8_t> tiles = pack(*layout, w);
        backend().write(data, 0, tiles.data(), tiles.size());
    }
    if (!w.bias.empty()) weight.bias = {upload(w.bias.data(), w.bias.size() * 4), 0, w.bias.size() * 4};
    return weight;
}

std::vector<uint8_t> pack(const Layout& layout, const HostWeight& w) {
    RowSource source(w.view(), w.format);
    TilePacker packer(source, layout, w.rows, w.cols);
    std::vector<uint8_t> tiles;
    std::vector<uint8_t> scratch(packer.scratch_bytes() + 64, 0xff);  // a tile starts at a multiple of 64
    uint8_t* aligned = scratch.data() + (64 - reinterpret_cast<uintptr_t>(scratch.data()) % 64);
    for (int64_t i = 0; i * layout.tile_rows < w.rows; ++i) {
        const uint8_t* tile = packer.tile(i, aligned);
        tiles.insert(tiles.end(), tile, tile + packer.tile_bytes());
    }
    return tiles;
}

Operand Run::put(const Matrix& m) {
    Operand o;
    o.type = ValueType::f32;
    o.cols = m.cols;
    o.stride = m.cols + m.gap;
    const size_t bytes = m.values.size() * sizeof(float);
    o.data = {upload(m.values.data(), bytes), 0, bytes};
    return o;
}

Operand Run::put(const Codes& c) {
    Operand o;
    o.type = c.type;
    o.cols = c.cols;
    o.stride = codes_stride(c.cols);
    o.row_scales = c.codes.size();
    const size_t scale_bytes = c.scales.size() * sizeof(RowScale);
    o.data = {buffer(c.codes.size() + scale_bytes), 0, c.codes.size() + scale_bytes};
    backend().write(o.data.buffer, 0, c.codes.data(), c.codes.size());
    backend().write(o.data.buffer, o.row_scales, c.scales.data(), scale_bytes);
    return o;
}

std::unique_ptr<Plan> Run::record(const Kernel& kernel, Node node, const Weight* weight, const std::vector<Operand>& in,
                                  const Operand& out, int max_rows) {
    Bound b;
    b.node = node;
    b.node.op = kernel.op;
    b.node.weight = weight;
    for (size_t i = 0; i < in.size(); ++i) {
        b.node.in[i] = static_cast<int>(i);
        b.in[i] = in[i];
    }
    b.node.out = out.data.buffer ? static_cast<int>(in.size()) : -1;
    b.out = out;
    b.kernel = &kernel;
    return backend().record({b}, max_rows);
}

void Run::node(const Kernel& kernel, Node node, const Weight* weight, const std::vector<Operand>& in,
               const Operand& out, const Step& step, int max_rows) {
    const std::unique_ptr<Plan> plan = record(kernel, node, weight, in, out, max_rows);
    backend().run(*plan, step);
    backend().wait();
}

Matrix Run::get_matrix(const Operand& o, int rows) {
    Matrix m(rows, o.cols, o.stride - o.cols);
    backend().read(o.data.buffer, o.data.offset, m.values.data(), m.values.size() * sizeof(float));
    return m;
}

Codes Run::get_codes(const Operand& o, int rows) {
    Codes c(o.type, rows, o.cols);
    backend().read(o.data.buffer, o.data.offset, c.codes.data(), c.codes.size());
    backend().read(o.data.buffer, o.data.offset + o.row_scales, c.scales.data(), c.scales.size() * sizeof(RowScale));
    return c;
}

Step plain_step(int rows) {
    Step step;
    for (int r = 0; r < rows; ++r) {
        step.tokens.push_back(0);
        step.positions.push_back(r);
    }
    StepSequence sequence;
    sequence.rows = rows;
    step.sequences.push_back(sequence);
    return step;
}

Value value(ValueType type, int64_t cols) {
    Value v;
    v.type = type;
    v.cols = cols;
    return v;
}

bool same_bits(const float* a, const float* b, int64_t n) {
    return n == 0 || std::memcmp(a, b, static_cast<size_t>(n) * sizeof(float)) == 0;
}
bool same_bits(const Matrix& a, const Matrix& b) {
    return a.values.size() == b.values.size() &&
           same_bits(a.values.data(), b.values.data(), static_cast<int64_t>(a.values.size()));
}
bool same_bits(const Codes& a, const Codes& b) {
    return a.codes == b.codes && a.scales.size() == b.scales.size() &&
           std::memcmp(a.scales.data(), b.scales.data(), a.scales.size() * sizeof(RowScale)) == 0;
}

}  // namespace quant
