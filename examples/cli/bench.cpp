// quant bench: speed of prefill and decode, against the bandwidth and the arithmetic that the machine shows in the
// same run.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
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

    // Every session has so many positions in its cache: those that it has count, whatever they hold.
    void fill(int positions) {
        if (positions > positions_) return advance(positions - positions_);
        quant_error error{};
        for (const Session& session : sessions_)
            check(quant_session_rewind(session.get(), static_cast<size_t>(positions), &error), error);
        positions_ = positions;
    }

    void advance(int tokens) {  // every session, in one step
        if (tokens == 0) return;
        positions_ += tokens;
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
    int positions_ = 0;
    std::vector<int32_t> ids_;
    std::vector<Session> sessions_;
    std::vector<std::unique_ptr<Watch>> watches_;  // end before the sessions
};

struct Speeds {
    std::vector<double> prefill, decode;  // tokens per second, a value a repetition
};

void measure(Batch& batch, const BenchOptions& options, Speeds& speeds) {
    if (options.prompt > 0) {
        batch.fill(0);
        const auto start = std::chrono::steady_clock::now();
        batch.advance(options.prompt);
        speeds.prefill.push_back(options.prompt * options.batch / seconds_since(start));
    }
    if (options.tokens > 0) {
        batch.fill(options.depth);
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

// Which arithmetic limit a linear's products have.
struct Peak {
    const char* name;
    double quant_limits::*limit;
};
constexpr Peak peak_f32{"f32", &quant_limits::f32_operations_per_second},
    peak_bf16{"bf16", &quant_limits::bf16_operations_per_second},
    peak_int8{"int8", &quant_limits::int8_operations_per_second},
    peak_int4{"int4", &quant_limits::int4_operations_per_second};

// What a model's speed is measured against, and what was measured.
struct Subject {
    ModelOptions options;
    std::string name;  // of the model and how it runs
    Model model;
    quant_model_info info{};
    std::string device, kernel;
    const Peak* peak_kind = &peak_f32;
    double load_seconds = NAN, first_token_seconds = NAN;
    uint64_t peak_memory_bytes = 0;
    std::unique_ptr<Batch> batch;
    Speeds speeds;
    double bandwidth_before = NAN, bandwidth_after = NAN, peak = NAN;

    bool steady() const {
        return std::abs(bandwidth_before - bandwidth_after) <= 0.05 * std::max(bandwidth_before, bandwidth_after);
    }
};

Subject open_subject(quant_runtime* runtime, const BenchOptions& options) {
    Subject s;
    s.options = options;
    s.model = options.shape.empty() ? open_model(runtime, options) : open_shape(runtime, options.shape, options);
    s.load_seconds = process_seconds();
    s.info = model_info(s.model.get());
    const auto contract = model_contract(s.model.get());
    const quant_contract& linear = layer_linear(contract);
    s.device = linear.device;
    s.kernel = linear.kernel;
    if (std::strstr(linear.activations, "s8") || std::strstr(linear.kernel, "int8"))  // its products
        s.peak_kind = std::strncmp(linear.weights, "u4", 2) == 0 ? &peak_int4 : &peak_int8;
    else if (std::strstr(linear.kernel, "bf16"))
        s.peak_kind = &peak_bf16;
    s.name = format("%s, %s, %.2f bits per weight, cache %s, %s",
                    (options.shape.empty() ? options.model : options.shape).c_str(),
                    options.scheme.empty() ? "as stored" : options.scheme.c_str(), s.info.bits_per_weight, s.info.kv,
                    s.device.c_str());
    return s;
}

// One phase: what a token needs and what was reached.
struct Phase {
    double tokens_per_second, bytes, operations;  // bytes and operations of one token
    double bytes_per_second() const { return tokens_per_second * bytes; }
    double operations_per_second() const { return tokens_per_second * operations; }
};

struct Report {
    Phase prefill, decode;
    double bandwidth;
};

// Bytes: the weights, once for all tokens that are computed together, and the session's cache, on average.
Report report_of(const Subject& s, const BenchOptions& options) {
    const double weights = static_cast<double>(s.info.decode_weight_bytes), prompt = std::max(1, options.prompt);
    const double position = static_cast<double>(s.info.cache_bytes_per_position);
    // The head is computed for the last token of the prompt only.
    const double head = 2.0 * s.info.hidden * s.info.vocabulary, all = static_cast<double>(s.info.decode_operations);
    Report r{};
    r.prefill = {median(s.speeds.prefill), weights / (prompt * options.batch) + position, all - head + head / prompt};
    r.decode = {median(s.speeds.decode),
                weights / options.batch + position * (options.depth + (options.tokens + 1) / 2.0), all};
    r.bandwidth = (s.bandwidth_before + s.bandwidth_after) / 2;
    return r;
}

nlohmann::ordered_json report_json(const Subject& s, const BenchOptions& options, bool complete) {
    const Report r = report_of(s, options);
    nlohmann::ordered_json object;
    const auto phase = [&](const std::string& name, const Phase& p) {
        object[name + "_tokens_per_second"] = p.tokens_per_second;
        object[name + "_bytes_per_token"] = p.bytes;
        object[name + "_operations_per_token"] = p.operations;
        object[name + "_bytes_per_second"] = p.bytes_per_second();
        object[name + "_operations_per_second"] = p.operations_per_second();
        object[name + "_bandwidth_fraction"] = p.bytes_per_second() / r.bandwidth;
        object[name + "_peak_fraction"] = p.operations_per_second() / s.peak;
    };
    phase("prefill", r.prefill);
    phase("decode", r.decode);
    object.update({{"load_seconds", s.load_seconds},
                   {"first_token_seconds", s.first_token_seconds},
                   {"peak_memory_bytes", s.peak_memory_bytes},
                   {"weight_bytes", s.info.weight_bytes},
                   {"kv", s.info.kv},
                   {"cache_bytes_per_position", s.info.cache_bytes_per_position},
                   {"bits_per_weight", s.info.bits_per_weight},
                   {"bandwidth_before", s.bandwidth_before},
                   {"bandwidth_after", s.bandwidth_after},
                   {"bandwidth_steady", s.steady()},
                   {"peak_operations_per_second", s.peak},
                   {"peak_kind", s.peak_kind->name},
                   {"prompt", options.prompt},
                   {"tokens", options.tokens},
                   {"depth", options.depth},
                   {"batch", options.batch},
                   {"repeat", s.speeds.prefill.size()},
                   {"device", s.device},
                   {"kernel", s.kernel},
                   {"complete", complete}});
    return object;
}

std::string report_text(const Subject& s, const BenchOptions& options, bool complete) {
    const Report r = report_of(s, options);
    std::string text = s.name + (complete ? "\n" : " (interrupted)\n");
    text += format("load     %8.2f s, first token after %.2f s, peak memory %s (weights %s)\n", s.load_seconds,
                   s.first_token_seconds, bytes_text(static_cast<double>(s.peak_memory_bytes)).c_str(),
                   bytes_text(static_cast<double>(s.info.weight_bytes)).c_str());
    const auto phase = [&](const char* name, const Phase& p, const std::string& how) {
        text += format("%-8s %8.1f tokens/s  (%s)\n", name, p.tokens_per_second, how.c_str());
        text += format("         %8.1f GB/s, %5.1f%% of the bandwidth of %.1f  (%s per token)\n",
                       p.bytes_per_second() / 1e9, 100 * p.bytes_per_second() / r.bandwidth, r.bandwidth / 1e9,
                       bytes_text(p.bytes).c_str());
        const std::string fraction =
            s.peak > 0 ? format("%4.1f%% of the %s peak of %.3f", 100 * p.operations_per_second() / s.peak,
                                s.peak_kind->name, s.peak / 1e12)
                       : format("no %s peak is measured on this device", s.peak_kind->name);
        text += format("         %8.3f Top/s, %s  (%.3f billion operations per token)\n",
                       p.operations_per_second() / 1e12, fraction.c_str(), p.operations / 1e9);
    };
    if (!s.speeds.prefill.empty()) phase("prefill", r.prefill, format("%d tokens x %d", options.prompt, options.batch));
    if (!s.speeds.decode.empty())
        phase("decode", r.decode, format("%d tokens x %d, depth %d", options.tokens, options.batch, options.depth));
    if (complete && !s.steady())
        text += format("bandwidth was not steady: %.1f GB/s before, %.1f after; the fractions mean little\n",
                       s.bandwidth_before / 1e9, s.bandwidth_after / 1e9);
    return text;
}

// The ratio of the medians A / B, and the smallest and largest ratio of a pair that was measured in turn.
struct Ratio {
    double of_medians = NAN, least = NAN, most = NAN;
};
Ratio ratio(const std::vector<double>& a, const std::vector<double>& b) {
    Ratio r;
    std::vector<double> pairs;
    for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) pairs.push_back(a[i] / b[i]);
    if (pairs.empty()) return r;
    r.of_medians = median(a) / median(b);
    r.least = *std::min_element(pairs.begin(), pairs.end());
    r.most = *std::max_element(pairs.begin(), pairs.end());
    return r;
}

void report(const std::vector<Subject>& subjects, const BenchOptions& options, bool complete) {
    if (subjects.size() == 1) {
        if (options.json)
            print_json(report_json(subjects[0], options, complete));
        else
            print(report_text(subjects[0], options, complete));
        return;
    }
    const Subject &a = subjects[0], &b = subjects[1];
    const Ratio prefill = ratio(a.speeds.prefill, b.speeds.prefill), decode = ratio(a.speeds.decode, b.speeds.decode);
    if (options.json) {
        nlohmann::ordered_json object{{"a", report_json(a, options, complete)},
                                      {"b", report_json(b, options, complete)}};
        const auto put = [&](const std::string& name, const Ratio& r) {
            object[name + "_ratio"] = r.of_medians;
            object[name + "_ratio_least"] = r.least;
            object[name + "_ratio_most"] = r.most;
        };
        put("prefill", prefill);
        put("decode", decode);
        print_json(object);
        return;
    }
    std::string text = "A: " + report_text(a, options, complete) + "B: " + report_text(b, options, complete);
    const auto line = [&](const char* name, const Ratio& r) {
        text += format("%s A / B  %.3f  (%.3f to %.3f over pairs in turn)\n", name, r.of_medians, r.least, r.most);
    };
    if (!a.speeds.prefill.empty()) line("prefill", prefill);
    if (!a.speeds.decode.empty()) line("decode ", decode);
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

// The options with one thing changed: the device, the model or the scheme, whichever `name` is.
BenchOptions with(BenchOptions options, const std::string& name, const quant_runtime* runtime) {
    bool device = name == "cpu";
    for (int i = 0; i < quant_device_count(runtime); ++i) {
        auto info = sized<quant_device_info>();
        check(quant_device_get(runtime, i, &info), quant_error{});
        device = device || name == info.name;
    }
    std::error_code none;
    if (device)
        options.device = name;
    else if (options.shape.empty() && std::filesystem::exists(name, none))
        options.model = name;
    else
        options.scheme = name;
    return options;
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
    if (options.compare.size() == 2 && 2 * options.batch > max_watched_sessions)
        throw Failure(exit_usage, format("a batch of %d sessions of two models is more than %d", options.batch,
                                         max_watched_sessions));
    std::vector<Subject> subjects;
    if (options.compare.empty()) {
        subjects.push_back(open_subject(runtime.get(), options));
    } else {
        for (const std::string& name : options.compare)
            subjects.push_back(open_subject(runtime.get(), with(options, name, runtime.get())));
    }
    bool complete = false;
    try {
        Progress progress;
        for (Subject& s : subjects) {
            s.batch = std::make_unique<Batch>(s.model.get(), options);
            s.batch->advance(1);
            s.first_token_seconds = process_seconds();
            Speeds warm_up;
            measure(*s.batch, options, warm_up);
            s.peak_memory_bytes = peak_memory();  // before the probe takes its own gigabyte
        }
        const auto steady = [&] {
            return std::all_of(subjects.begin(), subjects.end(), [](const Subject& s) { return s.steady(); });
        };
        for (int attempt = 0; attempt < 3 && !(attempt > 0 && steady()); ++attempt) {
            for (Subject& s : subjects) {
                const quant_limits limits = probe(runtime.get(), s.device.c_str(), 3);
                s.bandwidth_before = limits.read_bytes_per_second;
                s.peak = limits.*s.peak_kind->limit;
                s.speeds = {};
            }
            for (int i = 0; i < options.repeat; ++i) {
                progress.show("bench", static_cast<double>(i) / options.repeat);
                for (Subject& s : subjects) measure(*s.batch, options, s.speeds);
            }
            for (Subject& s : subjects)
                s.bandwidth_after = probe(runtime.get(), s.device.c_str(), 1).read_bytes_per_second;
        }
        complete = true;
    } catch (const Interrupted&) {
        for (Subject& s : subjects)
            if (!s.peak_memory_bytes) s.peak_memory_bytes = peak_memory();
    }
    report(subjects, options, complete);
    return complete ? exit_done : exit_interrupted;
}

}  // namespace cli
