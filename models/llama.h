// The Llama family's network (Llama 1/2/3.x, Mistral, Qwen2): its hyperparameters and its graph.
#pragma once
#include <string>

#include "checkpoints/checkpoint.h"
#include "core/graph.h"

namespace quant {

struct LlamaConfig {
    std::string architecture;  // "llama" (Mistral too) or "qwen2"
    int layers = 0, heads = 0, kv_heads = 0, head_dim = 0, window = 0;
    int64_t hidden = 0, ffn = 0, vocabulary = 0, context = 0;
    float norm_epsilon = 1e-5f;
    bool adjacent_pairs = true;           // rotary convention of the q and k rows
    bool tied = false;                    // the output head is the embedding table
    std::vector<float> rope_frequencies;  // [head_dim / 2], radians per position, scaling applied
};

// Reads and checks the metadata and the shapes of all tensors. Throws Error (CORRUPT, UNSUPPORTED) naming the key or
// tensor.
LlamaConfig read_llama_config(const Checkpoint& checkpoint);

// Name of a layer's tensor: "blk.3.attn_q" + ".weight" | ".bias".
std::string layer_tensor(int layer, const char* part);

// Where the graph's weights come from.
class WeightSource {
  public:
    virtual ~WeightSource() = default;
    virtual const Weight* table(const std::string& tensor) = 0;            // the embedding
    virtual const Weight* vector(const std::string& tensor) = 0;           // a norm's gain, f32
    virtual const Weight* linear(const std::string& name, bool head) = 0;  // NAME.weight and NAME.bias if there
    virtual const Weight* rope_frequencies() = 0;
};

// The graph of layers [first, last). It starts with the embedding if first is 0, else with a hidden state; it ends
// with the logits of the output rows if last is config.layers, else with a hidden state.
Graph build_llama_graph(const LlamaConfig& config, int first, int last, CacheKind cache, WeightSource& weights);

}  // namespace quant
