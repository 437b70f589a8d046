// One timeline of tokens on a model: evaluation, rewinding, forking, generation.
#pragma once
#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "models/model.h"
#include "models/sampler.h"

namespace quant {

class Session {
  public:
    Session(std::shared_ptr<const Model> model, int context);
    ~Session();
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;

    const Model& model() const { return *model_; }
    size_t length() const { return sequence_.length; }
    size_t context() const { return context_; }
    const std::vector<int32_t>& tokens() const { return tokens_; }
    const float* logits() const { return logits_.data(); }  // after an advance that did not ask for `top`
    bool has_logits() const { return has_logits_; }         // of the last token

    std::unique_ptr<Session> fork(size_t length);
    void rewind(size_t length);
    size_t reuse(const int32_t* tokens, size_t n);
    void cancel() noexcept { cancel_.store(true, std::memory_order_relaxed); }
    quant_statistics statistics() const;

    // Appends tokens to several different sessions of one model; returns each one's status and message.
    struct Advance {
        Session* session;
        const int32_t* tokens;
        size_t n;
        bool all_logits = false;
        quant_status status = QUANT_OK;
        std::string message;
        int top = 0;  // Request::top
    };
    static void advance(std::vector<Advance>& steps);
    // n steps to fill in and advance: memory that this session keeps, so that decoding allocates nothing.
    std::vector<Advance>& steps(size_t n);
    void eval(const int32_t* tokens, size_t n, int top = 0);  // of this one alone; throws Error

    quant_stop_reason generate(const int32_t* prompt, size_t n, const quant_generate_options& options,
                               quant_token_fn each, void* user);

  private:
    bool prepare(Advance& step);
    int32_t choose(Sampler& sampler);
    std::shared_ptr<const Model> model_;
    size_t context_;
    Sequence sequence_;
    std::vector<int32_t> tokens_;
    std::vector<float> logits_;
    int chosen_ = 0;  // > 0: logits_ has only that many of the last token's, as (logit, id)
    bool has_logits_ = false;
    std::atomic<bool> cancel_{false};
    quant_statistics statistics_{};
    std::vector<Advance> steps_;
    // Of the advance whose first step is this session's.
    std::vector<Request> requests_;
    std::vector<size_t> owners_;
};

}  // namespace quant
