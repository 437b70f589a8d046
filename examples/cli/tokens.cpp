// quant tokenize and quant eval: token ids and raw logits, for checking against other programs.
#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>
#include <numeric>

#include "interrupt.h"
#include "model.h"
#include "terminal.h"

namespace cli {
namespace {

std::string joined(const std::vector<int32_t>& tokens) {
    std::string text;
    for (int32_t token : tokens) text += (text.empty() ? "" : " ") + std::to_string(token);
    return text;
}

void write_logits(const std::string& path, const std::vector<float>& logits) {
    std::string bytes;
    for (float value : logits) {
        uint32_t bits;
        std::memcpy(&bits, &value, sizeof bits);
        for (int shift = 0; shift < 32; shift += 8) bytes.push_back(static_cast<char>(bits >> shift & 0xff));
    }
    std::FILE* file = std::fopen(path.c_str(), "wb");
    bool written = file && std::fwrite(bytes.data(), 1, bytes.size(), file) == bytes.size();
    if (file && std::fclose(file) != 0) written = false;
    if (!written) throw Failure(exit_failed, format("cannot write %s: %s", path.c_str(), std::strerror(errno)));
}

std::vector<int32_t> top(const std::vector<float>& logits, size_t count) {
    std::vector<int32_t> ids(logits.size());
    std::iota(ids.begin(), ids.end(), 0);
    count = std::min(count, ids.size());
    const auto value = [&](int32_t id) { return std::isnan(logits[id]) ? -INFINITY : logits[id]; };
    std::partial_sort(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(count), ids.end(),
                      [&](int32_t a, int32_t b) { return value(a) > value(b) || (value(a) == value(b) && a < b); });
    ids.resize(count);
    return ids;
}

}  // namespace

int tokenize(const TokenizeOptions& options) {
    const std::string text = prompt_text(options.text, "tokenize");
    const Runtime runtime = create_runtime(options);
    const Model model = open_model(runtime.get(), options);
    const unsigned flags =
        (options.special ? unsigned{QUANT_ADD_SPECIAL} : 0) | (options.plain ? 0 : unsigned{QUANT_PARSE_SPECIAL});
    const auto tokens = tokenize_text(model.get(), text, flags);
    if (options.json)
        print_json({{"tokens", tokens}, {"count", tokens.size()}});
    else
        print(joined(tokens) + "\n");
    return exit_done;
}

int eval(const EvalOptions& options) {
    const Runtime runtime = create_runtime(options);
    const Model model = open_model(runtime.get(), options);
    const int vocabulary = model_info(model.get()).vocabulary;
    const Session session = create_session(model.get(), 0);
    const Watch watch(session.get());
    quant_error error{};
    const float* logits = nullptr;
    check(quant_session_eval(session.get(), options.tokens.data(), options.tokens.size(), &logits, &error), error);
    const std::vector<float> last(logits, logits + vocabulary);
    if (!options.logits.empty()) write_logits(options.logits, last);

    std::vector<int32_t> continuation;
    for (int i = 0; i < options.greedy; ++i) {
        continuation.push_back(greedy_token(logits, vocabulary));
        if (i + 1 < options.greedy) {
            check(quant_session_eval(session.get(), &continuation.back(), 1, &logits, &error), error);
        }
    }

    const auto best = top(last, 10);
    if (options.json) {
        nlohmann::ordered_json object{{"vocabulary", vocabulary}, {"top", nlohmann::ordered_json::array()}};
        for (int32_t id : best) object["top"].push_back({{"id", id}, {"logit", last[id]}});
        if (options.greedy > 0) object["greedy"] = continuation;
        print_json(object);
    } else {
        for (int32_t id : best) print(format("%d %.6f\n", id, last[id]));
        if (options.greedy > 0) print(joined(continuation) + "\n");
    }
    return exit_done;
}

}  // namespace cli
