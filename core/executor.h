// Runs a model's graph, cut into stages (one device and range of layers each), for any set of sequences at a time.
#pragma once
#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "core/cache.h"
#include "core/plan.h"
#include "quant.h"  // quant_status

namespace quant {

// One device's part: its graph (fused, weights loaded) and the weights' memory.
struct Stage {
    std::unique_ptr<Backend> backend;
    Graph graph;
    std::vector<std::unique_ptr<Weight>> weights;
    std::vector<Buffer*> buffers;  // the weights'
    CacheShape cache;

    Stage() = default;
    Stage(Stage&&) = default;
    Stage& operator=(Stage&&) = delete;
    ~Stage();
};

// Tokens to append to one sequence, and what came of it.
struct Request {
    Sequence* sequence = nullptr;
    const int32_t* tokens = nullptr;
    size_t n = 0;
    bool all_logits = false;
    // > 0: the last token's `top` most likely successors are enough. A request that runs alone gets them instead of
    // logits if the device can choose; else 0 is left here.
    int top = 0;
    // Resized to [n or 1, vocabulary], or to (logit, id)[top], most likely first; null: none wanted.
    std::vector<float>* logits = nullptr;
    std::atomic<bool>* cancel = nullptr;  // set by anyone: stop; cleared when the request ends
    quant_status status = QUANT_OK;
    std::string message;
};

class Executor {
  public:
    Executor(std::vector<Stage> stages, int64_t hidden, int64_t vocabulary, size_t max_cache_positions);
    ~Executor();

    // Advances every request's sequence by all its tokens, or (status not QUANT_OK) leaves it as it was. Calls from
    // several threads take turns.
    void run(std::vector<Request>& requests);

    void rewind(Sequence& s, size_t length);
    void fork(const Sequence& from, size_t length, Sequence& to);
    size_t cache_bytes_per_position() const { return cache_->position_bytes(); }
    const std::vector<Stage>& stages() const { return stages_; }

  private:
    struct StageState;
    struct Chunk;
    Plan& plan(size_t stage, int rows, int outputs, int top);
    int choose(const std::vector<Request>& requests) const;
    bool fill(std::vector<Request>& requests, Chunk& chunk);
    void execute(Chunk& chunk);
    void deliver(std::vector<Request>& requests, const Chunk& chunk);

    std::mutex mutex_;
    std::vector<Stage> stages_;
    std::vector<std::unique_ptr<StageState>> states_;
    std::unique_ptr<CachePool> cache_;
    std::unique_ptr<Chunk> chunk_;  // of the run that holds the mutex; kept, so that decoding allocates nothing
    std::vector<float> hidden_;     // between stages
    int64_t hidden_cols_, vocabulary_;
    int step_rows_ = 0;  // tokens in one step at most: what every stage's backend likes
};

}  // namespace quant
