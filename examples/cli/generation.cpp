#include "generation.h"

#include <nlohmann/json.hpp>
#include <random>

#include "interrupt.h"
#include "terminal.h"

namespace cli {
namespace {

struct Receiver {
    Generation* result;
    Start start;
    bool stream;
    bool out_of_memory = false;
};

int receive(void* user, int32_t token, const char* text, size_t size) {
    auto& receiver = *static_cast<Receiver*>(user);
    try {
        receiver.result->tokens.push_back(token);
        while (receiver.start == Start::without_spaces && receiver.result->text.empty() && size > 0 && *text == ' ') {
            ++text;
            --size;
        }
        receiver.result->text.append(text, size);
    } catch (const std::bad_alloc&) {
        receiver.out_of_memory = true;
        return 1;
    }
    return receiver.stream && size > 0 && !write_output(text, size);
}

const char* stop_name(quant_stop_reason reason) {
    switch (reason) {
        case QUANT_STOP_END:
            return "end";
        case QUANT_STOP_STRING:
            return "string";
        case QUANT_STOP_CALLBACK:
            return "closed";
        case QUANT_STOP_CONTEXT:
            return "context";
        case QUANT_STOP_LENGTH:
            break;
    }
    return "length";
}

double rate(uint64_t tokens, double seconds) {
    return seconds > 0 ? static_cast<double>(tokens) / seconds : 0;
}

}  // namespace

Generation generate(quant_session* session, const std::vector<int32_t>& prompt, const SamplingOptions& how, Start start,
                    bool stream) {
    Generation result;
    result.seed = how.has_seed ? how.seed : std::random_device{}();
    auto opt = sized<quant_generate_options>();
    opt.max_tokens = how.tokens;
    opt.sampling = sized<quant_sampling>();
    opt.sampling.temperature = how.temperature;
    opt.sampling.top_k = how.top_k;
    opt.sampling.top_p = how.top_p;
    opt.sampling.min_p = how.min_p;
    opt.sampling.repeat_penalty = how.repeat_penalty;
    opt.sampling.seed = result.seed;
    std::vector<const char*> stop;
    for (const std::string& text : how.stop) stop.push_back(text.c_str());
    opt.stop = stop.data();
    opt.stop_count = stop.size();

    Receiver receiver{&result, start, stream};
    quant_stop_reason reason = QUANT_STOP_LENGTH;
    quant_error error{};
    quant_status status;
    {
        Watch watch(session);
        status = quant_generate(session, prompt.data(), prompt.size(), &opt, receive, &receiver, &reason, &error);
    }
    if (receiver.out_of_memory) throw std::bad_alloc();
    result.stop = status == QUANT_CANCELLED ? "interrupted" : stop_name(reason);
    if (status != QUANT_CANCELLED) check(status, error);
    result.statistics = sized<quant_statistics>();
    check(quant_session_statistics(session, &result.statistics), quant_error{});
    return result;
}

std::string statistics_text(const quant_statistics& s) {
    return format("prompt %llu tokens in %.2f s (%.1f/s), generated %llu tokens in %.2f s (%.1f/s)",
                  static_cast<unsigned long long>(s.prompt_tokens), s.prompt_seconds,
                  rate(s.prompt_tokens, s.prompt_seconds), static_cast<unsigned long long>(s.generated_tokens),
                  s.generated_seconds, rate(s.generated_tokens, s.generated_seconds));
}

void add_statistics(nlohmann::ordered_json& object, const quant_statistics& s) {
    object["prompt_tokens"] = s.prompt_tokens;
    object["prompt_seconds"] = s.prompt_seconds;
    object["prompt_tokens_per_second"] = rate(s.prompt_tokens, s.prompt_seconds);
    object["generated_tokens"] = s.generated_tokens;
    object["generated_seconds"] = s.generated_seconds;
    object["generated_tokens_per_second"] = rate(s.generated_tokens, s.generated_seconds);
    object["cache_bytes"] = s.cache_bytes;
}

}  // namespace cli
