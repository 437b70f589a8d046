// A loaded model: immutable after load, shared by its sessions.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "checkpoints/checkpoint.h"
#include "core/executor.h"
#include "core/threads.h"
#include "models/chat.h"
#include "models/llama.h"
#include "models/loader.h"
#include "models/tokenizer.h"

namespace quant {

// A device and the layers [first, last) that it runs. The stages of a model cover all layers in order.
struct StageDevice {
    std::unique_ptr<Backend> backend;
    int layers = 0;  // of all; the last stage takes what is left
};

// Fraction done, in [0, 1]; throws Error(QUANT_CANCELLED) to stop.
using Progress = std::function<void(float done)>;

struct CacheChoice {
    CacheKind kind = CacheKind::f16;
    size_t max_positions = 0;  // of all sessions together; 0 = no limit
};

class Model {
  public:
    Model(std::unique_ptr<Checkpoint> checkpoint, std::vector<StageDevice> devices, ThreadPool& threads,
          const WeightChoice& choice, const CacheChoice& cache, const Progress& progress);

    const Checkpoint& checkpoint() const { return *checkpoint_; }
    const LlamaConfig& config() const { return config_; }
    const WeightChoice& choice() const { return choice_; }
    CacheKind cache_kind() const { return cache_kind_; }
    Executor& executor() const { return *executor_; }
    const std::vector<ContractLine>& contract() const { return contract_; }
    const LinearTotals& linear_totals() const { return totals_; }
    uint64_t parameters() const { return parameters_; }
    ChatTemplate chat_template() const { return chat_; }
    const Tokenizer* tokenizer() const { return tokenizer_.get(); }
    const Tokenizer& required_tokenizer() const;                     // throws Error(UNSUPPORTED) if there is none
    const std::string* metadata_text(const std::string& key) const;  // null: absent or an array

  private:
    std::unique_ptr<Checkpoint> checkpoint_;
    LlamaConfig config_;
    WeightChoice choice_;
    CacheKind cache_kind_;
    std::unique_ptr<Tokenizer> tokenizer_;
    ChatTemplate chat_ = ChatTemplate::none;
    std::vector<ContractLine> contract_;
    LinearTotals totals_;
    uint64_t parameters_ = 0;
    std::map<std::string, std::string> metadata_text_;
    std::unique_ptr<Executor> executor_;
};

}  // namespace quant
