// quant bench: speed of prefill and decode, against the bandwidth and the arithmetic that the machine shows in the
// same run.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>

#include "interrupt.h"
#include "model.h"
#include "terminal.h"
#ifdef _WIN32
#define NOMINMAX
#include <windows.h>
#define PSAPI_VERSION 2
#include <psapi.h>
#else
#include <sys/resource.h>
#endif

namespace cli {
namespace {

uint64_t peak_memory() {
#ifdef _WIN32
    PROCESS_MEMORY_COUNTERS counters{};
    return GetProcessMemoryInfo(GetCurrentProcess(), &counters, sizeof counters) ? counters.PeakWorkingSetSize : 0;
#else
    if (std::FILE* status = std::fopen("/proc/self/status", "r")) {
        char line[256];
        unsigned long long kilobytes = 0;
        while (std::fgets(line, sizeof line, status) && std::sscanf(line, "VmHWM: %llu", &kilobytes) != 1) {
        }
        std::fclose(status);
        if (kilobytes) return kilobytes * 1024;
    }
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
#ifdef __APPLE__
    return static_cast<uint64_t>(usage.ru_maxrss);
#else
    return static_cast<uint64_t>(usage.ru_maxrss) * 1024;
#endif
#endif
}

double seconds_since(std::chrono::steady_clock::time_point start) {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double median(std::vector<double> values) {
    if (values.empty()) return NAN;
    std::sort(values.begin(), values.end());
    const size_t half = values.size() / 2;
    return values.size() % 2 ? values[half] : (values[half - 1] + values[half]) / 2;
}

// Sessions of one model that advance together on tokens that mean nothing.
class Batch {
  public:
    Batch(quant_model* model, const BenchOptions& options)
        : model_(model), vocabulary_(static_cast<uint64_t>(model_info(model).vocabulary)) {
        const int positions = std::max({options.prompt, options.depth + options.tokens, 1});
        for (int i = 0; i < options.batch; ++i) {
            sessions_.push_back(create_session(model, positions));
            watches_.push_back(std::make_unique<Watch>(sessions_.back().get()));
        }
    }

    void restart() {
        quant_error error{};
        for (const Session& session : sessions_) check(quant_session_rewind(session.get(), 0, &error), error);
    }

    void advance(int tokens) {  // every session, in one step
        if (tokens == 0) return;
        const size_t n = static_cast<size_t>(tokens);
        ids_.resize(n * sessions_.size());
        for (int32_t& id : ids_) id = static_cast<int32_t>(random() % vocabulary_);
        std::vector<quant_step> steps(sessions_.size(), sized<quant_step>());
        for (size_t i = 0; i < steps.size(); ++i) {
            steps[i].session = sessions_[i].get();
            steps[i].tokens = ids_.data() + i * n;
            steps[i].n = n;
        }
        quant_error error{};
        check(quant_eval_batch(model_, steps.data(), steps.size(), &error), error);
    }

  private:
    uint64_t random() {  // a linear congruential generator: the same tokens everywhere
        state_ = state_ * 6364136223846793005u + 1442695040888963407u;
        return state_ >> 33;
    }

    quant_model* model_;
    uint64_t vocabulary_, state_ = 1;
    std::vector<int32_t> ids_;
    std::vector<Session> sessions_;
    std::vector<std::unique_ptr<Watch>> watches_;  // end before the sessions
};

struct Speeds {
    std::vector<double> prefill, decode;  // tokens per second, a value a repetition
};

void measure(Batch& batch, const BenchOptions& options, Speeds& speeds) {
    if (options.prompt > 0) {
        batch.restart();
        const auto start = std::chrono::steady_clock::now();
        batch.advance(options.prompt);
        speeds.prefill.push_back(options.prompt * options.batch / seconds_since(start));
    }
    if (options.tokens > 0) {
        batch.restart();
        batch.advance(options.depth);
        const auto start = std::chrono::steady_clock::now();
        for (int i = 0; i < options.tokens; ++i) batch.advance(1);
        speeds.decode.push_back(options.tokens * options.batch / seconds_since(start));
    }
}

quant_limits probe(quant_runtime* runtime, const char* device, unsigned which) {
    auto limits = sized<quant_limits>();
    quant_error error{};
    check(quant_device_probe(runtime, device, which, &limits, &error), error);
    if (interrupted()) throw Interrupted();
    return limits;
}

// The contract of the layers' linears, which do nearly all of the work.
const quant_contract& layer_linear(const std::vector<quant_contract>& contract) {
    const auto row = std::find_if(contract.begin(), contract.end(),
                                  [](const quant_contract& c) { return std::strncmp(c.tensor, "blk.", 4) == 0; });
    if (row == contract.end()) throw Failure(exit_failed, "the model has no layers to measure");
    return *row;
}

struct Result {
    double load_seconds = NAN, first_token_seconds = NAN;
    uint64_t peak_memory_bytes = 0;
    Speeds speeds;
    double bandwidth_before = NAN, bandwidth_after = NAN, peak = NAN;
    bool complete = false;

    bool steady() const {
        return std::abs(bandwidth_before - bandwidth_after) <= 0.05 * std::max(bandwidth_before, bandwidth_after);
    }
};

void report(const BenchOptions& options, const quant_model_info& info, const quant_contract& linear, bool int8,
            const Result& r) {
    const double prefill = median(r.speeds.prefill), decode = median(r.speeds.decode);
    const double bandwidth = (r.bandwidth_before + r.bandwidth_after) / 2;
    // What one token makes the machine read: the weights, once for the whole batch, and the session's cache, on
    // average.
    const double positions = options.depth + (options.tokens + 1) / 2.0;
    const double decode_bytes = static_cast<double>(info.decode_weight_bytes) / options.batch +
                                static_cast<double>(info.cache_bytes_per_position) * positions;
    // The head is computed for the last token of the prompt only.
    const double head = 2.0 * info.hidden * info.vocabulary;
    const double operations = static_cast<double>(info.decode_operations) - head + head / std::max(1, options.prompt);
    const double decode_fraction = decode * decode_bytes / bandwidth, prefill_fraction = prefill * operations / r.peak;

    if (options.json) {
        print_json({{"prefill_tokens_per_second", prefill},
                    {"decode_tokens_per_second", decode},
                    {"decode_bytes_per_token", decode_bytes},
                    {"decode_bandwidth_fraction", decode_fraction},
                    {"prefill_peak_fraction", prefill_fraction},
                    {"load_seconds", r.load_seconds},
                    {"first_token_seconds", r.first_token_seconds},
                    {"peak_memory_bytes", r.peak_memory_bytes},
                    {"weight_bytes", info.weight_bytes},
                    {"kv", info.kv},
                    {"cache_bytes_per_position", info.cache_bytes_per_position},
                    {"bits_per_weight", info.bits_per_weight},
                    {"bandwidth_before", r.bandwidth_before},
                    {"bandwidth_after", r.bandwidth_after},
                    {"bandwidth_steady", r.steady()},
                    {"peak_operations_per_second", r.peak},
                    {"peak_kind", int8 ? "int8" : "f32"},
                    {"prompt", options.prompt},
                    {"tokens", options.tokens},
                    {"depth", options.depth},
                    {"batch", options.batch},
                    {"repeat", r.speeds.prefill.size()},
                    {"device", linear.device},
                    {"kernel", linear.kernel},
                    {"complete", r.complete}});
        return;
    }
    std::string text =
        format("%s, %s, %.2f bits per weight, %s%s\n", (options.shape.empty() ? options.model : options.shape).c_str(),
               options.scheme.empty() ? "as stored" : options.scheme.c_str(), info.bits_per_weight, linear.device,
               r.complete ? "" : " (interrupted)");
    text += format("load     %8.2f s, first token after %.2f s, peak memory %s (weights %s)\n", r.load_seconds,
                   r.first_token_seconds, bytes_text(static_cast<double>(r.peak_memory_bytes)).c_str(),
                   bytes_text(static_cast<double>(info.weight_bytes)).c_str());
    if (!r.speeds.prefill.empty()) {
        text += format("prefill  %8.1f tokens/s, %8.1f GOPS, %5.1f%% of the %s peak of %.0f  (%d tokens x %d)\n",
                       prefill, prefill * operations / 1e9, 100 * prefill_fraction, int8 ? "int8" : "f32", r.peak / 1e9,
                       options.prompt, options.batch);
    }
    if (!r.speeds.decode.empty()) {
        text += format(
            "decode   %8.1f tokens/s, %8.1f GB/s, %5.1f%% of the bandwidth of %.1f  (%d tokens x %d, depth %d)\n",
            decode, decode * decode_bytes / 1e9, 100 * decode_fraction, bandwidth / 1e9, options.tokens, options.batch,
            options.depth);
    }
    if (r.complete && !r.steady()) {
        text += format("bandwidth was not steady: %.1f GB/s before, %.1f after; the fractions mean little\n",
                       r.bandwidth_before / 1e9, r.bandwidth_after / 1e9);
    }
    print(text);
}

int write_shape(quant_runtime* runtime, const BenchOptions& options) {
    Progress progress;
    quant_error error{};
    check(quant_shape_write(runtime, options.shape.c_str(), options.write.c_str(),
                            options.scheme.empty() ? nullptr : options.scheme.c_str(), Progress::callback, &progress,
                            &error),
          error);
    nlohmann::ordered_json object;
    object["output"] = options.write;
    if (options.json) print_json(object);
    return exit_done;
}

}  // namespace

int bench(const BenchOptions& options) {
    if (options.model.empty() && options.shape.empty()) {
        std::string shapes;
        for (int i = 0; quant_shape_name(i); ++i) shapes += std::string(i ? ", " : "") + quant_shape_name(i);
        throw Failure(exit_usage, "bench needs a MODEL or --shape NAME: " + shapes);
    }
    const Runtime runtime = create_runtime(options);
    if (!options.write.empty()) return write_shape(runtime.get(), options);
    const Model model =
        options.shape.empty() ? open_model(runtime.get(), options) : open_shape(runtime.get(), options.shape, options);
    Result result;
    result.load_seconds = process_seconds();
    const quant_model_info info = model_info(model.get());
    const auto contract = model_contract(model.get());
    const quant_contract& linear = layer_linear(contract);
    const bool int8 = std::strstr(linear.activations, "s8") || std::strstr(linear.kernel, "int8");  // its products
    try {
        Progress progress;
        Batch batch(model.get(), options);
        batch.advance(1);
        result.first_token_seconds = process_seconds();
        Speeds warm_up;
        measure(batch, options, warm_up);
        result.peak_memory_bytes = peak_memory();  // before the probe takes its own gigabyte

        for (int attempt = 0; attempt < 3 && !(attempt > 0 && result.steady()); ++attempt) {
            const quant_limits limits = probe(runtime.get(), linear.device, 3);
            result.bandwidth_before = limits.read_bytes_per_second;
            result.peak = int8 ? limits.int8_operations_per_second : limits.f32_operations_per_second;
            result.speeds = {};
            for (int i = 0; i < options.repeat; ++i) {
                progress.show("bench", static_cast<double>(i) / options.repeat);
                measure(batch, options, result.speeds);
            }
            result.bandwidth_after = probe(runtime.get(), linear.device, 1).read_bytes_per_second;
        }
        result.complete = true;
    } catch (const Interrupted&) {
    }
    report(options, info, linear, int8, result);
    return result.complete ? exit_done : exit_interrupted;
}

}  // namespace cli
