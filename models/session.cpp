#include "models/session.h"

#include <algorithm>
#include <chrono>

#include "formats/error.h"
#include "models/stop_strings.h"

namespace quant {

Session::Session(std::shared_ptr<const Model> model, int context)
    : model_(std::move(model)), context_(static_cast<size_t>(context ? context : model_->config().context)) {
    if (context < 0) fail(QUANT_ERR_ARGUMENT, "context must not be negative");
}

Session::~Session() {
    model_->executor().rewind(sequence_, 0);
}

std::unique_ptr<Session> Session::fork(size_t length) {
    if (length > sequence_.length)
        fail(QUANT_ERR_ARGUMENT, "cannot fork at token " + std::to_string(length) + ": the session has " +
                                     std::to_string(sequence_.length));
    auto child = std::make_unique<Session>(model_, static_cast<int>(context_));
    child->tokens_.assign(tokens_.begin(), tokens_.begin() + length);
    if (length == sequence_.length && has_logits_) {
        child->logits_ = logits_;
        child->chosen_ = chosen_;
        child->has_logits_ = true;
    }
    model_->executor().fork(sequence_, length, child->sequence_);
    return child;
}

void Session::rewind(size_t length) {
    if (length > sequence_.length)
        fail(QUANT_ERR_ARGUMENT, "cannot rewind to token " + std::to_string(length) + ": the session has " +
                                     std::to_string(sequence_.length));
    if (length == sequence_.length) return;
    model_->executor().rewind(sequence_, length);
    tokens_.resize(length);
    has_logits_ = false;
}

size_t Session::reuse(const int32_t* tokens, size_t n) {
    size_t common = 0;
    while (common + 1 < n && common < tokens_.size() && tokens_[common] == tokens[common]) ++common;
    rewind(common);
    return common;
}

quant_statistics Session::statistics() const {
    quant_statistics s = statistics_;
    s.cache_bytes = sequence_.pages.size() * page_positions * model_->executor().cache_bytes_per_position();
    return s;
}

// Checks the step's tokens and makes room for them; false with the step's status set if it cannot run.
bool Session::prepare(Advance& step) {
    auto refuse = [&](quant_status status, std::string message) {
        step.status = status;
        step.message = std::move(message);
        return false;
    };
    if (step.n == 0) return refuse(QUANT_ERR_ARGUMENT, "no tokens to evaluate");
    const int64_t vocabulary = model_->config().vocabulary;
    for (size_t i = 0; i < step.n; ++i)
        if (step.tokens[i] < 0 || step.tokens[i] >= vocabulary)
            return refuse(QUANT_ERR_ARGUMENT, "token id " + std::to_string(step.tokens[i]) + " is outside 0.." +
                                                  std::to_string(vocabulary - 1));
    if (step.n > context_ - std::min(context_, sequence_.length))
        return refuse(QUANT_ERR_CONTEXT_FULL,
                      std::to_string(step.n) + " tokens after " + std::to_string(sequence_.length) +
                          " do not fit the session's context of " + std::to_string(context_) +
                          ": shorten the text, rewind, or create the session with a longer context");
    const size_t room = tokens_.size() + step.n;
    if (tokens_.capacity() < room)
        tokens_.reserve(std::min(context_, std::max<size_t>({room, 2 * tokens_.capacity(), 1024})));
    return true;
}

void Session::advance(std::vector<Advance>& steps) {
    const auto start = std::chrono::steady_clock::now();
    if (steps.empty()) return;
    std::vector<Request>& requests = steps[0].session->requests_;
    std::vector<size_t>& owner = steps[0].session->owners_;
    requests.clear();
    owner.clear();
    requests.reserve(steps.size());
    owner.reserve(steps.size());
    for (size_t i = 0; i < steps.size(); ++i) {
        Advance& step = steps[i];
        Session& s = *step.session;
        if (!s.prepare(step)) continue;
        Request r;
        r.sequence = &s.sequence_;
        r.tokens = step.tokens;
        r.n = step.n;
        r.all_logits = step.all_logits;
        r.top = step.top;
        r.logits = &s.logits_;
        r.cancel = &s.cancel_;
        s.has_logits_ = false;
        requests.push_back(r);
        owner.push_back(i);
    }
    if (requests.empty()) return;
    steps[owner[0]].session->model_->executor().run(requests);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    for (size_t i = 0; i < requests.size(); ++i) {
        Advance& step = steps[owner[i]];
        Session& s = *step.session;
        step.status = requests[i].status;
        step.message = std::move(requests[i].message);
        if (step.status != QUANT_OK) continue;
        s.tokens_.insert(s.tokens_.end(), step.tokens, step.tokens + step.n);
        s.has_logits_ = !step.all_logits || step.n == 1;
        s.chosen_ = requests[i].top;
        if (step.n > 1) {
            s.statistics_.prompt_tokens += step.n;
            s.statistics_.prompt_seconds += seconds.count();
        } else {
            s.statistics_.generated_tokens += 1;
            s.statistics_.generated_seconds += seconds.count();
        }
    }
}

std::vector<Session::Advance>& Session::steps(size_t n) {
    steps_.assign(n, Advance{});
    return steps_;
}

void Session::eval(const int32_t* tokens, size_t n, int top) {
    std::vector<Advance>& steps = this->steps(1);
    steps[0].session = this;
    steps[0].tokens = tokens;
    steps[0].n = n;
    steps[0].top = top;
    advance(steps);
    if (steps[0].status != QUANT_OK) fail(steps[0].status, steps[0].message);
}

int32_t Session::choose(Sampler& sampler) {
    const int64_t vocabulary = model_->config().vocabulary;
    const int needed = sampler.choices_needed(vocabulary);
    if (chosen_ > 0 && (needed == 0 || needed > chosen_)) {  // an earlier generation needed less
        const int32_t token = tokens_.back();
        rewind(tokens_.size() - 1);
        eval(&token, 1);
    }
    return chosen_ > 0 ? sampler.sample_chosen(logits_.data(), chosen_)
                       : sampler.sample(logits_.data(), vocabulary, tokens_);
}

quant_stop_reason Session::generate(const int32_t* prompt, size_t n, const quant_generate_options& options,
                                    quant_token_fn each, void* user) {
    const Tokenizer* tokenizer = model_->tokenizer();
    Sampler sampler(options.sampling);
    const int needed = sampler.choices_needed(model_->config().vocabulary);
    StopStrings stops(options.stop, options.stop_count);
    if (options.stop_count > 0 && !tokenizer) model_->required_tokenizer();
    if (n > 0) eval(prompt, n);
    if (!has_logits_) fail(QUANT_ERR_ARGUMENT, "nothing to continue from: give a prompt of at least one token");

    Utf8Stream stream;
    auto show = [&](int32_t token, const std::string& text) {
        return each && each(user, token, text.data(), text.size()) != 0;
    };
    quant_stop_reason reason = QUANT_STOP_LENGTH;
    int32_t token = -1;
    for (int count = 0; options.max_tokens == 0 || count < options.max_tokens; ++count) {
        if (cancel_.exchange(false, std::memory_order_relaxed)) fail(QUANT_CANCELLED, "cancelled");
        token = choose(sampler);
        if (!options.ignore_end && tokenizer && tokenizer->is_end(token)) {
            reason = QUANT_STOP_END;
            break;
        }
        bool stopped = false;
        const std::string text =
            tokenizer ? stops.push(stream.push(tokenizer->piece(token, false)), &stopped) : std::string();
        if (show(token, text)) {
            reason = QUANT_STOP_CALLBACK;
            break;
        }
        if (stopped) return QUANT_STOP_STRING;
        if (sequence_.length >= context_) {
            reason = QUANT_STOP_CONTEXT;
            break;
        }
        // All logits of the last token: whoever goes on from it may sample in another way.
        const bool last = count + 1 == options.max_tokens || sequence_.length + 1 == context_;
        eval(&token, 1, last ? 0 : needed);
    }
    if (reason != QUANT_STOP_CALLBACK) {  // what was held back
        bool stopped = false;
        std::string rest = stops.push(stream.flush(), &stopped);
        if (stopped)
            reason = QUANT_STOP_STRING;
        else
            rest += stops.flush();
        if (!rest.empty()) show(token, rest);
    }
    return reason;
}

}  // namespace quant
