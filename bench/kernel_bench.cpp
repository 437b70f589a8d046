// Times every row of the kernel table of every device that runs here: for each row, the shapes of its op that it
// accepts. A row that accepts none of them is an error, so a new kernel appears here by existing.
// --benchmark_filter=REGEX chooses some; QUANT_DEVICE=NAME one device.
#include <benchmark/benchmark.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>

#include "core/scheme.h"
#include "tests/kernel_rig.h"

namespace quant {
namespace {

// ---- What is computed --------------------------------------------------------------------------------------------

constexpr int64_t width = 2048, wide = 5632;  // TinyLlama's
constexpr int64_t small_width = 256;          // for the reference kernels' products
constexpr int heads = 32, kv_heads = 4, head_dim = 64;
constexpr size_t beyond_caches = size_t{256} << 20;  // bytes of weights that one row of activations goes over

using Peak = double quant_limits::*;  // the arithmetic limit that a kernel's products have

// A node with everything that it needs on a device, `plans` of it with data of their own.
struct Prepared {
    explicit Prepared(Device& device) : run(device) {}
    Run run;
    std::vector<std::unique_ptr<Weight>> weights;
    CacheStorage cache;
    Step step;
    std::vector<std::unique_ptr<Plan>> plans;
};

struct Case {
    std::string shape;  // for the name
    Node node;
    Weight weight;  // described: format, activation, rows, cols
    bool has_weight = false;
    Value in0, out;
    int rows = 1;
    double bytes = 0, operations = 0;  // of one run
    Peak peak = &quant_limits::f32_operations_per_second;
    std::function<void(const Kernel&, const Case&, Prepared&)> prepare;
};

Operand put_value(Run& run, const Value& v, int rows, Random& random) {
    return v.type == ValueType::f32 ? run.put(random_matrix(rows, v.cols, 0, random))
                                    : run.put(random_codes(v.type, rows, v.cols, random));
}
size_t value_size(const Value& v, int rows) {
    return static_cast<size_t>(rows) * static_cast<size_t>(v.type == ValueType::f32 ? 4 * v.cols : v.cols);
}

// The inputs are in0 and then `more`, the weight as described.
void prepare_rows(const Kernel& kernel, const Case& c, Prepared& p, const std::vector<Value>& more) {
    Random random(1);
    p.step = plain_step(c.rows);
    for (int32_t r = 0; r < c.rows; ++r) p.step.output_rows.push_back(r);
    if (c.has_weight) {
        const HostWeight w = random_weight(c.weight.format, c.weight.rows, c.weight.cols, false, random);
        p.weights.push_back(std::make_unique<Weight>(p.run.weight(w, &layout_stored)));
    }
    std::vector<Operand> in;
    if (c.in0.cols) in.push_back(put_value(p.run, c.in0, c.rows, random));
    for (const Value& v : more) in.push_back(put_value(p.run, v, c.rows, random));
    const Operand out = put_value(p.run, c.out, c.rows, random);
    p.plans.push_back(p.run.record(kernel, c.node, c.has_weight ? p.weights[0].get() : nullptr, in, out, c.rows));
}

// With few rows, as many weights as no cache holds.
void prepare_linear(const Kernel& kernel, const Case& c, Prepared& p) {
    Random random(1);
    p.step = plain_step(c.rows);
    const HostWeight w = random_weight(c.weight.format, c.weight.rows, c.weight.cols, false, random);
    const Layout* layout = kernel.weights ? kernel.weights : &layout_stored;
    const size_t bytes = layout_bytes(*layout, w.format, w.rows, w.cols);
    const size_t copies = c.rows > 1 || c.weight.cols == small_width ? 1 : (beyond_caches + bytes - 1) / bytes;
    std::vector<Operand> in = {put_value(p.run, c.in0, c.rows, random)};
    const Operand out = put_value(p.run, c.out, c.rows, random);
    if (kernel.op == Op::linear_add) in.push_back(put_value(p.run, c.out, c.rows, random));
    std::vector<uint8_t> tiles(bytes);
    for (size_t i = 0; i < copies; ++i) {
        if (i == 0) {
            p.weights.push_back(std::make_unique<Weight>(p.run.weight(w, layout, c.weight.activation)));
            p.run.backend().read(p.weights[0]->data.buffer, 0, tiles.data(), bytes);
        } else {
            p.weights.push_back(std::make_unique<Weight>(*p.weights[0]));
            p.weights[i]->data.buffer = p.run.buffer(bytes);
            p.run.backend().write(p.weights[i]->data.buffer, 0, tiles.data(), bytes);
        }
        p.plans.push_back(p.run.record(kernel, c.node, p.weights[i].get(), in, out, c.rows));
    }
}

// One sequence whose last `rows` positions are computed.
void prepare_cached(const Kernel& kernel, const Case& c, Prepared& p, int positions, const std::vector<Value>& more) {
    Random random(1);
    p.step = plain_step(c.rows);
    p.step.sequences[0].first_position = positions - c.rows;
    const int pages = (positions + page_positions - 1) / page_positions;
    for (int r = 0; r < c.rows; ++r) p.step.positions[r] = positions - c.rows + r;
    for (int i = 0; i < pages; ++i) p.step.pages.push_back(i);
    p.cache.shape = {1, c.node.kv_heads, c.node.head_dim, c.node.cache};
    p.cache.pages_per_chunk = pages;
    std::vector<uint8_t> content(pages * p.cache.shape.page_bytes());
    for (size_t i = 0; i < content.size(); ++i)  // below 2 as the high byte of an f16, no NaN as e4m3
        content[i] = static_cast<uint8_t>(random.byte() & 0xbf);
    p.cache.chunks = {p.run.buffer(content.size())};
    p.run.backend().write(p.cache.chunks[0], 0, content.data(), content.size());
    p.step.cache = &p.cache;
    std::vector<Operand> in = {put_value(p.run, c.in0, c.rows, random)};
    for (const Value& v : more) in.push_back(put_value(p.run, v, c.rows, random));
    Operand out;
    if (c.out.cols) out = put_value(p.run, c.out, c.rows, random);
    p.plans.push_back(p.run.record(kernel, c.node, nullptr, in, out, c.rows));
}

// ---- The cases of each op ----------------------------------------------------------------------------------------

Value f32(int64_t cols) {
    return value(ValueType::f32, cols);
}

Case case_of(Op op, const std::string& shape, int rows, const Value& in0, const Value& out) {
    Case c;
    c.node.op = op;
    c.node.heads = heads;
    c.node.kv_heads = kv_heads;
    c.node.head_dim = head_dim;
    c.node.scale = 0.125f;
    c.node.eps = 1e-5f;
    c.shape = shape + "/rows:" + std::to_string(rows);
    c.rows = rows;
    c.in0 = in0;
    c.out = out;
    return c;
}

// A case of rows: its bytes are those of the inputs, the output and (once a row) the weight's row.
Case row_case(Op op, const std::string& shape, int rows, const Value& in0, const Value& out,
              const std::vector<Value>& more) {
    Case c = case_of(op, shape, rows, in0, out);
    c.bytes = static_cast<double>(value_size(in0, rows) + value_size(out, rows));
    for (const Value& v : more) c.bytes += static_cast<double>(value_size(v, rows));
    c.prepare = [more](const Kernel& k, const Case& self, Prepared& p) { prepare_rows(k, self, p, more); };
    return c;
}

void describe(Case& c, const Format& format, int64_t rows, int64_t cols) {
    c.has_weight = true;
    c.weight.format = format;
    c.weight.rows = rows;
    c.weight.cols = cols;
}

std::vector<Case> linear_cases(const Kernel& kernel, bool reference) {
    std::vector<Case> cases;
    const int64_t cols = reference ? small_width : width;
    const std::vector<int64_t> out_rows =
        reference ? std::vector<int64_t>{small_width} : std::vector<int64_t>{width, wide};
    std::vector<std::pair<std::string, Scheme>> schemes;
    const auto add = [&](const std::string& name) -> Scheme& {
        schemes.emplace_back(name, Scheme());
        scheme_parse(name.c_str(), &schemes.back().second);
        return schemes.back().second;
    };
    for (int s = 0; scheme_listed(s); ++s) add(scheme_listed(s));
    add("bf16").activation = Activation::e4m3;  // no scheme's, but a row's
    for (const auto& [name, scheme] : schemes)
        for (int64_t out : out_rows)
            for (int rows : {1, 8, 256}) {
                const ValueType type = scheme.activation == Activation::s8     ? ValueType::s8
                                       : scheme.activation == Activation::e4m3 ? ValueType::e4m3
                                                                               : ValueType::f32;
                const std::string shape =
                    name + (scheme.activation == Activation::e4m3 && is_float(scheme.weight.element) ? ":e4m3" : "") +
                    "/" + std::to_string(out) + "x" + std::to_string(cols);
                Case c = case_of(kernel.op, shape, rows, value(type, cols), f32(out));
                describe(c, scheme.weight, out, cols);
                c.weight.activation = scheme.activation;
                const Layout* layout = kernel.weights ? kernel.weights : &layout_stored;
                c.bytes = static_cast<double>(value_size(c.in0, rows) + value_size(c.out, rows));
                if (!accepts(kernel, c.node, &c.weight, c.in0, c.out)) continue;
                c.bytes += static_cast<double>(layout_bytes(*layout, scheme.weight, out, cols));
                c.operations = 2.0 * rows * static_cast<double>(out * cols);
                if ((kernel.rounds_to && std::strncmp(kernel.rounds_to, "s8", 2) == 0) || type == ValueType::s8)
                    c.peak = element_bits(scheme.weight.element) <= 4 ? &quant_limits::int4_operations_per_second
                                                                      : &quant_limits::int8_operations_per_second;
                if (std::strstr(kernel.name, "bf16")) c.peak = &quant_limits::bf16_operations_per_second;
                c.prepare = prepare_linear;
                cases.push_back(c);
            }
    return cases;
}

std::vector<Case> cache_cases(Op op) {
    std::vector<Case> cases;
    const int64_t q = heads * head_dim, kv = kv_heads * head_dim;
    for (CacheKind kind : {CacheKind::f16, CacheKind::s8, CacheKind::e4m3}) {
        auto add = [&](int rows, int positions, const Value& in0, const Value& out, const std::vector<Value>& more) {
            Case c = case_of(op, std::string(cache_kind_name(kind)) + "/positions:" + std::to_string(positions), rows,
                             in0, out);
            c.node.cache = kind;
            const double position_bytes =
                static_cast<double>(CacheShape{1, kv_heads, head_dim, kind}.layer_bytes()) / page_positions;
            const bool reads = op == Op::attention;
            c.bytes = position_bytes * (reads ? positions : rows);
            if (reads) c.operations = 4.0 * q * rows * (positions - (rows - 1) / 2.0);
            c.prepare = [positions, more](const Kernel& k, const Case& self, Prepared& p) {
                prepare_cached(k, self, p, positions, more);
            };
            cases.push_back(c);
        };
        if (op == Op::attention) {
            add(1, 512, f32(q), f32(q), {});
            add(1, 4096, f32(q), f32(q), {});
            add(256, 512, f32(q), f32(q), {});
        } else if (op == Op::cache_write) {
            for (int rows : {1, 256}) add(rows, 512, f32(kv), Value{}, {f32(kv)});
        } else {
            for (int rows : {1, 256}) add(rows, 512, f32(q), f32(q), {f32(kv), f32(kv), f32(head_dim)});
        }
    }
    return cases;
}

std::vector<Case> cases_of(const Kernel& kernel, bool reference) {
    std::vector<Case> cases;
    const Format plain;  // f32
    auto quantized = [&](int rows, const std::vector<Value>& more, bool gain) {
        for (ValueType type : {ValueType::s8, ValueType::e4m3}) {
            cases.push_back(
                row_case(kernel.op, type == ValueType::s8 ? "s8" : "e4m3", rows, f32(width), value(type, width), more));
            if (gain) describe(cases.back(), plain, width, 1);
        }
    };
    if (kernel.op == Op::linear || kernel.op == Op::linear_add) return linear_cases(kernel, reference);
    for (int rows : {1, 256}) {
        switch (kernel.op) {
            case Op::embed:
                cases.push_back(row_case(kernel.op, "f16", rows, Value{}, f32(width), {}));
                describe(cases.back(), plain, 32000, width);
                cases.back().weight.format.element = Element::f16;
                cases.back().bytes += 2.0 * rows * width;
                break;
            case Op::rope_angles:
                cases.push_back(row_case(kernel.op, "f32", rows, Value{}, f32(head_dim), {}));
                describe(cases.back(), plain, head_dim / 2, 1);
                break;
            case Op::rmsnorm:
                cases.push_back(row_case(kernel.op, "f32", rows, f32(width), f32(width), {}));
                describe(cases.back(), plain, width, 1);
                break;
            case Op::rope:
                cases.push_back(
                    row_case(kernel.op, "f32", rows, f32(heads * head_dim), f32(heads * head_dim), {f32(head_dim)}));
                break;
            case Op::silu_mul:
            case Op::add:
                cases.push_back(row_case(kernel.op, "f32", rows, f32(width), f32(width), {f32(width)}));
                break;
            case Op::select_rows:
                cases.push_back(row_case(kernel.op, "f32", rows, f32(width), f32(width), {}));
                break;
            case Op::top_k:
                cases.push_back(row_case(kernel.op, "f32", 1, f32(32000), f32(2 * 40), {}));
                break;
            case Op::quantize:
                quantized(rows, {}, false);
                break;
            case Op::rmsnorm_quantize:
                quantized(rows, {}, true);
                break;
            case Op::silu_mul_quantize:
                quantized(rows, {f32(width)}, false);
                break;
            default:
                return cache_cases(kernel.op);
        }
    }
    return cases;
}

// ---- Running them ------------------------------------------------------------------------------------------------

struct TimedDevice {
    explicit TimedDevice(const std::string& name) : device(name, 0) {}
    Device device;
    quant_limits limits{};  // probed when the first of its benchmarks runs
};

// The benchmark that is running; the library calls its function several times.
struct Current {
    std::string name;
    std::unique_ptr<Prepared> prepared;
};

void time_case(benchmark::State& state, TimedDevice& timed, const Kernel& kernel, const Case& c, Current& current) {
    if (timed.limits.read_bytes_per_second == 0) timed.device.backend().probe(3, &timed.limits);
    const std::string name = timed.device.name() + "/" + kernel.name + "/" + c.shape;
    if (current.name != name) {
        current.prepared.reset();
        current.name = name;
        current.prepared = std::make_unique<Prepared>(timed.device);
        c.prepare(kernel, c, *current.prepared);
    }
    Backend& backend = timed.device.backend();
    const Prepared& p = *current.prepared;
    for (auto _ : state) {
        for (const auto& plan : p.plans) backend.run(*plan, p.step);
        backend.wait();
    }
    const double runs = static_cast<double>(state.iterations()) * static_cast<double>(p.plans.size());
    const double peak = timed.limits.*c.peak;
    using benchmark::Counter;
    state.counters["run"] = Counter(runs, Counter::kIsRate | Counter::kInvert);  // seconds
    state.counters["bytes/s"] = Counter(runs * c.bytes, Counter::kIsRate);
    state.counters["of_bandwidth"] = Counter(runs * c.bytes / timed.limits.read_bytes_per_second, Counter::kIsRate);
    if (c.operations == 0) return;
    state.counters["operations/s"] = Counter(runs * c.operations, Counter::kIsRate);
    state.counters["of_peak"] = Counter(runs * c.operations / peak, Counter::kIsRate);
}

// All devices that run here, and what is on them now.
struct KernelBenchmarks {
    std::vector<std::unique_ptr<TimedDevice>> devices;
    Current current;  // destroyed before the devices

    bool add(TimedDevice& timed);  // false: a row of its table has no case
    bool add_all();
};

bool KernelBenchmarks::add(TimedDevice& timed) {
    bool complete = true;
    const std::string& device = timed.device.name();
    for (const Kernel& kernel : timed.device.kernels()) {
        const bool reference = std::string(kernel.name).rfind("reference ", 0) == 0;
        if (reference && device != "cpu:reference") continue;  // every table of the CPU ends with these
        bool any = false;
        for (const Case& c : cases_of(kernel, reference)) {
            if (!accepts(kernel, c.node, c.has_weight ? &c.weight : nullptr, c.in0, c.out)) continue;
            any = true;
            const std::string name = device + "/" + kernel.name + "/" + c.shape;
            const auto run = [this, &timed, &kernel, c](benchmark::State& state) {
                time_case(state, timed, kernel, c, current);
            };
            benchmark::RegisterBenchmark(name.c_str(), run)->UseRealTime()->MinTime(0.05);
        }
        if (any) continue;
        std::fprintf(stderr, "%s: no case of %s suits the row '%s'\n", device.c_str(), op_name(kernel.op), kernel.name);
        complete = false;
    }
    return complete;
}

bool KernelBenchmarks::add_all() {
    const char* forced = std::getenv("QUANT_DEVICE");
    bool complete = true;
    for (const DeviceInfo& info : list_devices()) {
        if (!info.reason.empty() || (forced && *forced && info.name != forced)) continue;
        devices.push_back(std::make_unique<TimedDevice>(info.name));
        complete = add(*devices.back()) && complete;
    }
    return complete;
}

}  // namespace

void add_product_benchmarks();  // products_bench.cpp
void add_thread_benchmarks();   // threads_bench.cpp

}  // namespace quant

int main(int argc, char** argv) {
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
    quant::KernelBenchmarks kernels;
    const bool complete = kernels.add_all();
    quant::add_product_benchmarks();
    quant::add_thread_benchmarks();
    benchmark::RunSpecifiedBenchmarks();
    benchmark::ClearRegisteredBenchmarks();  // they hold devices
    benchmark::Shutdown();
    return complete ? 0 : 1;
}
