// quant perplexity: how well a model predicts a text, and how far it is from another one.
//
// The text is one string, tokenized without BOS and cut into windows of context - 1 tokens that do not overlap; each
// window gets the BOS in front (if the model has one) and all its tokens are scored, also those of the last, shorter
// window. A model without BOS cannot score the first token of a window.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <thread>

#include "interrupt.h"
#include "model.h"
#include "terminal.h"

namespace cli {
namespace {

struct Score {
    double nll = 0, other_nll = 0, divergence = 0;
    bool same_top = false;
};

// The logits of one position: softmax is exp(logit - shift) / sum, in double.
struct Softmax {
    double shift, sum;
    int32_t top;
    double log_probability(float logit) const { return logit - shift - std::log(sum); }
};

Softmax softmax(const float* logits, int vocabulary) {
    const int32_t top = greedy_token(logits, vocabulary);
    Softmax s{logits[top], 0, top};
    for (int i = 0; i < vocabulary; ++i) s.sum += std::exp(logits[i] - s.shift);
    return s;
}

// KL(other || model), the other model being the reference.
Score score(const float* logits, const float* other, int vocabulary, int32_t target) {
    Score result;
    const Softmax q = softmax(logits, vocabulary);
    result.nll = -q.log_probability(logits[target]);
    if (!other) return result;
    Softmax p{other[greedy_token(other, vocabulary)], 0, greedy_token(other, vocabulary)};
    double difference = 0;
    for (int i = 0; i < vocabulary; ++i) {
        const double e = std::exp(other[i] - p.shift);
        p.sum += e;
        difference += e * (static_cast<double>(other[i]) - logits[i]);
    }
    result.other_nll = -p.log_probability(other[target]);
    result.divergence = difference / p.sum + q.shift + std::log(q.sum) - p.shift - std::log(p.sum);
    result.same_top = p.top == q.top;
    return result;
}

// Positions are independent: each thread scores a range of them, and the sums are made in order afterwards.
std::vector<Score> score_all(const float* logits, const float* other, int vocabulary, const int32_t* targets,
                             size_t n) {
    std::vector<Score> scores(n);
    const size_t threads = std::max<size_t>(1, std::min<size_t>(std::thread::hardware_concurrency(), n));
    const auto range = [&](size_t t) {
        for (size_t i = n * t / threads; i < n * (t + 1) / threads; ++i) {
            const size_t at = i * static_cast<size_t>(vocabulary);
            scores[i] = score(logits + at, other ? other + at : nullptr, vocabulary, targets[i]);
        }
    };
    std::vector<std::thread> workers;
    {
        QuietThreads quiet;
        for (size_t t = 1; t < threads; ++t) workers.emplace_back(range, t);
    }
    range(0);
    for (std::thread& worker : workers) worker.join();
    return scores;
}

struct Totals {
    size_t tokens = 0, same_top = 0;
    double nll = 0, other_nll = 0, divergence = 0;
    void add(const Score& s) {
        ++tokens;
        nll += s.nll;
        other_nll += s.other_nll;
        divergence += s.divergence;
        same_top += s.same_top;
    }
    double mean(double sum) const { return tokens ? sum / static_cast<double>(tokens) : NAN; }
};

struct Evaluated {  // one model, working through the windows
    Model model;
    Session session;
    quant_model_info info;
};

Evaluated evaluated(Model model, int context) {
    Session session = create_session(model.get(), context);
    const quant_model_info info = model_info(model.get());
    return {std::move(model), std::move(session), info};
}

const float* append(Evaluated& e, const int32_t* tokens, size_t n) {
    auto step = sized<quant_step>();
    step.session = e.session.get();
    step.tokens = tokens;
    step.n = n;
    step.all_logits = 1;
    quant_error error{};
    check(quant_eval_batch(e.model.get(), &step, 1, &error), error);
    return step.logits;
}

void restart(Evaluated& e) {
    quant_error error{};
    check(quant_session_rewind(e.session.get(), 0, &error), error);
}

std::string text_of(const PerplexityOptions& options) {
    std::string text = read_text(options.file);
    if (options.bytes == 0 || options.bytes >= text.size()) return text;
    size_t end = static_cast<size_t>(options.bytes);
    while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;  // not inside a character
    text.resize(end);
    return text;
}

void report(const PerplexityOptions& options, const Totals& totals, int context, size_t text_bytes, bool complete) {
    const bool against = !options.against.empty();
    const double perplexity = std::exp(totals.mean(totals.nll));
    const double other = std::exp(totals.mean(totals.other_nll));
    const double agreement = totals.mean(static_cast<double>(totals.same_top));
    if (options.json) {
        nlohmann::ordered_json object{{"perplexity", perplexity},
                                      {"tokens", totals.tokens},
                                      {"nll_mean", totals.mean(totals.nll)},
                                      {"context", context},
                                      {"complete", complete}};
        if (complete) object["bits_per_byte"] = totals.nll / std::log(2.0) / static_cast<double>(text_bytes);
        if (against) {
            object["kl_mean"] = totals.mean(totals.divergence);
            object["top1_agreement"] = agreement;
            object["against_perplexity"] = other;
            object["perplexity_ratio"] = perplexity / other;
        }
        print_json(object);
        return;
    }
    if (totals.tokens == 0) return note("interrupted before anything was scored");
    print(format("perplexity %.4f  (%zu tokens, context %d%s)\n", perplexity, totals.tokens, context,
                 complete ? "" : ", interrupted"));
    if (against) {
        print(format("against    %.4f  ratio %.5f  KL divergence %.6f  same top token %.2f%%\n", other,
                     perplexity / other, totals.mean(totals.divergence), 100 * agreement));
    }
}

}  // namespace

int perplexity(const PerplexityOptions& options) {
    const std::string text = text_of(options);
    const Runtime runtime = create_runtime(options);
    Model opened = open_model(runtime.get(), options);
    const int trained = model_info(opened.get()).context;
    const int context = options.context ? options.context : trained > 0 ? std::min(512, trained) : 512;
    std::vector<int32_t> tokens = tokenize_text(opened.get(), text, QUANT_PARSE_SPECIAL);
    if (options.tokens && options.tokens < tokens.size()) tokens.resize(static_cast<size_t>(options.tokens));
    const std::vector<int32_t> bos = tokenize_text(opened.get(), "", QUANT_ADD_SPECIAL);
    std::vector<Evaluated> models;
    models.push_back(evaluated(std::move(opened), context));
    if (!options.against.empty()) {
        ModelOptions other = options;
        other.model = options.against;
        other.scheme = options.against_scheme;
        if (!options.against_kv.empty()) other.kv = options.against_kv;
        other.head.clear();
        Model model = open_model(runtime.get(), other);
        if (model_info(model.get()).vocabulary != models[0].info.vocabulary ||
            tokenize_text(model.get(), text.substr(0, 4096), QUANT_PARSE_SPECIAL) !=
                tokenize_text(models[0].model.get(), text.substr(0, 4096), QUANT_PARSE_SPECIAL)) {
            throw Failure(exit_failed, options.against + " has another vocabulary; compare models that share one");
        }
        models.push_back(evaluated(std::move(model), context));
    }

    const int vocabulary = models[0].info.vocabulary;
    const size_t window = static_cast<size_t>(context) - 1;
    const size_t chunk = std::max<size_t>(16, std::min<size_t>(512, (size_t{64} << 20) / vocabulary));  // <= 256 MB
    Totals totals;
    bool complete = true;
    try {
        Progress progress;
        const Watch first(models.front().session.get()), second(models.back().session.get());
        for (size_t start = 0; start < tokens.size(); start += window) {
            std::vector<int32_t> sequence(bos.begin(), bos.end());
            sequence.insert(sequence.end(), tokens.begin() + static_cast<std::ptrdiff_t>(start),
                            tokens.begin() + static_cast<std::ptrdiff_t>(std::min(start + window, tokens.size())));
            for (Evaluated& e : models) restart(e);
            for (size_t at = 0; at + 1 < sequence.size(); at += chunk) {
                const size_t n = std::min(chunk, sequence.size() - 1 - at);
                const float* logits[2] = {nullptr, nullptr};
                for (size_t m = 0; m < models.size(); ++m) logits[m] = append(models[m], &sequence[at], n);
                for (const Score& s : score_all(logits[0], logits[1], vocabulary, &sequence[at + 1], n)) totals.add(s);
                if (interrupted()) throw Interrupted();
                progress.show("perplexity", static_cast<double>(start + at + n) / static_cast<double>(tokens.size()));
            }
        }
    } catch (const Interrupted&) {
        complete = false;
    }
    if (complete && totals.tokens == 0) throw Failure(exit_failed, options.file + " is too short to score");
    report(options, totals, context, text.size(), complete);
    return complete ? exit_done : exit_interrupted;
}

}  // namespace cli
