// Generation as run and chat use it: streamed to standard output, ended by Ctrl-C or a closed pipe.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "model.h"

namespace cli {

struct Generation {
    std::string text;
    std::vector<int32_t> tokens;
    const char* stop = "length";  // "end", "string", "context", "interrupted", "closed"
    uint64_t seed = 0;
    quant_statistics statistics{};  // of the session, all its generations
    bool cancelled() const { return std::string(stop) == "interrupted"; }
};

enum class Start { as_is, without_spaces };  // a reply's first word has the space that tokenizers put before words

// `stream`: the text goes to standard output as it comes. Cancellation is a result, other failures are thrown.
Generation generate(quant_session* session, const std::vector<int32_t>& prompt, const SamplingOptions& how, Start start,
                    bool stream);

std::string statistics_text(const quant_statistics& statistics);  // "prompt 6 tokens in ...; generated ..."
void add_statistics(nlohmann::ordered_json& object, const quant_statistics& statistics);

}  // namespace cli
