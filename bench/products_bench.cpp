// Products alone on CUDA devices, as the layers of Llama-2-7B have them: one plan goes over more weights than any cache
// holds, again and again. Beside them the same by cuBLASLt, if the system has it.
#include <benchmark/benchmark.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "core/scheme.h"
#include "tests/kernel_rig.h"
#ifdef QUANT_BENCH_CUBLASLT
#include "bench/cublaslt.h"
#endif

namespace quant {
namespace {

constexpr size_t beyond_caches = size_t{256} << 20;  // bytes of weights
constexpr int products_of_a_plan = 64;

struct Product {
    const char* scheme;
    int64_t out, in;
    int rows;
    std::string name(const std::string& by) const {
        return "products/" + by + "/" + scheme + "/" + std::to_string(out) + "x" + std::to_string(in) +
               "/rows:" + std::to_string(rows);
    }
    double operations() const { return 2.0 * rows * static_cast<double>(out * in); }
};

std::vector<Product> products() {
    std::vector<Product> all;
    for (const auto& shape : {std::pair<int64_t, int64_t>{22016, 4096}, {4096, 11008}}) {
        for (const char* scheme : {"f16", "a8w8", "fp8", "fp8:block", "a8w4:fp8", "a16w4:g128"})
            for (int rows : {512, 2048}) all.push_back({scheme, shape.first, shape.second, rows});
        for (const char* scheme : {"f16", "a8w8", "fp8", "a8w4:fp8", "a16w4:g128"})
            for (int rows : {1, 16}) all.push_back({scheme, shape.first, shape.second, rows});
    }
    return all;
}

// A plan of linears over weights of their own.
class Plans {
  public:
    Plans(Device& device, const Product& p) : run_(device), step_(plain_step(p.rows)) {
        Random random(1);
        Scheme scheme;
        scheme_parse(p.scheme, &scheme);
        const Kernel* kernel = find_linear(run_.backend(), scheme.weight, scheme.activation, p.out, p.in);
        const HostWeight host = random_weight(scheme.weight, p.out, p.in, false, random);
        first_ = run_.weight(host, kernel->weights, scheme.activation);
        bytes_ = first_.data.bytes;
        const size_t copies = (beyond_caches + bytes_ - 1) / bytes_;
        Bound bound;
        bound.kernel = kernel;
        bound.node.op = Op::linear;
        bound.node.in[0] = 0;
        bound.node.out = 1;
        bound.in[0] = scheme.activation == Activation::f32
                          ? run_.put(random_matrix(p.rows, p.in, 0, random))
                          : run_.put(random_codes(scheme.activation == Activation::s8 ? ValueType::s8 : ValueType::e4m3,
                                                  p.rows, p.in, random));
        bound.out = run_.put(Matrix(p.rows, p.out));
        for (size_t i = 0; i < copies; ++i) {
            weights_.push_back(std::make_unique<Weight>(first_));
            if (i == 0) continue;
            weights_[i]->data.buffer = run_.buffer(bytes_);
            run_.backend().copy(weights_[i]->data.buffer, 0, first_.data.buffer, 0, bytes_);
        }
        std::vector<Bound> nodes;
        for (size_t i = 0; i < products_of_a_plan; ++i) {
            bound.node.weight = weights_[i % copies].get();
            nodes.push_back(bound);
        }
        plan_ = run_.backend().record(nodes, p.rows);
        run_.backend().wait();
    }
    void run() {
        run_.backend().run(*plan_, step_);
        run_.backend().wait();
    }
    size_t bytes() const { return bytes_; }

  private:
    Run run_;
    Step step_;
    Weight first_;
    size_t bytes_ = 0;
    std::vector<std::unique_ptr<Weight>> weights_;
    std::unique_ptr<Plan> plan_;
};

void count(benchmark::State& state, const Product& p) {
    using benchmark::Counter;
    const double runs = static_cast<double>(state.iterations()) * products_of_a_plan;
    state.counters["run"] = Counter(runs, Counter::kIsRate | Counter::kInvert);  // seconds
    state.counters["operations/s"] = Counter(runs * p.operations(), Counter::kIsRate);
}

struct ProductDevice {
    std::unique_ptr<Device> device;  // opened by the first of its benchmarks
    quant_limits limits{};
    std::string current;  // what `plans` is of
    std::unique_ptr<Plans> plans;
};

void time_product(benchmark::State& state, ProductDevice& on, const std::string& device, const Product& p) {
    if (!on.device) {
        on.device = std::make_unique<Device>(device, 0);
        on.device->backend().probe(1, &on.limits);
    }
    if (on.current != p.name(device)) {
        on.plans.reset();
        on.plans = std::make_unique<Plans>(*on.device, p);
        on.current = p.name(device);
        on.plans->run();
    }
    for (auto _ : state) on.plans->run();
    count(state, p);
    const double runs = static_cast<double>(state.iterations()) * products_of_a_plan;
    const double bytes = runs * static_cast<double>(on.plans->bytes());
    using benchmark::Counter;
    state.counters["weights/s"] = Counter(bytes, Counter::kIsRate);  // bytes
    state.counters["of_bandwidth"] = Counter(bytes / on.limits.read_bytes_per_second, Counter::kIsRate);
}

#ifdef QUANT_BENCH_CUBLASLT
void time_library(benchmark::State& state, int device, LibraryNumbers numbers, LibraryResults results,
                  const Product& p) {
    const size_t bytes = static_cast<size_t>(p.out * p.in) * (numbers == LibraryNumbers::f16 ? 2 : 1);
    std::string why;
    const auto products = library_products(device, numbers, results, p.out, p.in, p.rows,
                                           static_cast<int>((beyond_caches + bytes - 1) / bytes), &why);
    if (!products) return state.SkipWithError(why.c_str());
    for (auto _ : state) products->run(products_of_a_plan);
    count(state, p);
}

// What the library has of a scheme.
bool library_has(const Product& p, LibraryNumbers* numbers) {
    for (const auto& known : {std::pair<const char*, LibraryNumbers>{"f16", LibraryNumbers::f16},
                              {"a8w8", LibraryNumbers::s8},
                              {"fp8", LibraryNumbers::e4m3}})
        if (std::strcmp(p.scheme, known.first) == 0) return *numbers = known.second, p.rows >= 16;
    return false;
}
#endif

}  // namespace

void add_product_benchmarks() {
    const char* forced = std::getenv("QUANT_DEVICE");
    for (const DeviceInfo& info : list_devices()) {
        if (!info.reason.empty() || (forced && *forced && info.name != forced)) continue;
        if (info.name.rfind("cuda:", 0) != 0) continue;
        const auto on = std::make_shared<ProductDevice>();
        for (const Product& p : products()) {
            const auto run = [on, p, name = info.name](benchmark::State& state) { time_product(state, *on, name, p); };
            benchmark::RegisterBenchmark(p.name(info.name).c_str(), run)->UseRealTime();
#ifdef QUANT_BENCH_CUBLASLT
            LibraryNumbers numbers;
            if (!library_has(p, &numbers)) continue;
            for (const auto& kind : {std::pair<const char*, LibraryResults>{"cublaslt", LibraryResults::shortest},
                                     {"cublaslt-f32", LibraryResults::full}}) {
                if (kind.second == LibraryResults::full && numbers == LibraryNumbers::s8) continue;  // int32 above
                const auto library = [device = std::atoi(info.name.c_str() + 5), numbers, results = kind.second,
                                      p](benchmark::State& state) { time_library(state, device, numbers, results, p); };
                benchmark::RegisterBenchmark(p.name(kind.first).c_str(), library)->UseRealTime();
            }
#endif
        }
    }
}

}  // namespace quant
