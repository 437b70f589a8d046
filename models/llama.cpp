#include "models/llama.h"

#include <cmath>
#include <map>

#include "core/backend.h"
#include "formats/error.h"

namespace quant {
namespace {

int bounded(const std::string& key, int64_t value, int64_t low, int64_t high) {
    if (value < low || value > high)
        fail(QUANT_ERR_CORRUPT, key + " is " + std::to_string(value) + ", outside " + std::to_string(low) + ".." +
                                    std::to_string(high) + ": the file is damaged or not a Llama");
    return static_cast<int>(value);
}

const TensorInfo& expect(const Checkpoint& c, const std::string& name, int64_t rows, int64_t cols) {
    const TensorInfo* t = c.find(name);
    if (!t) fail(QUANT_ERR_CORRUPT, "the checkpoint has no tensor " + name + ": the file is incomplete");
    if (t->rows != rows || t->cols != cols)
        fail(QUANT_ERR_CORRUPT, name + " is " + std::to_string(t->rows) + " x " + std::to_string(t->cols) +
                                    " where its metadata says " + std::to_string(rows) + " x " + std::to_string(cols));
    return *t;
}

void expect_bias(const Checkpoint& c, const std::string& name, int64_t rows) {
    if (c.find(name)) expect(c, name, rows, 1);
}

void check_tensors(const Checkpoint& c, const LlamaConfig& config) {
    const int64_t q = int64_t{config.heads} * config.head_dim, kv = int64_t{config.kv_heads} * config.head_dim;
    for (int i = 0; i < config.layers; ++i) {
        auto name = [&](const char* part, const char* suffix) { return layer_tensor(i, part) + suffix; };
        struct Matrix {
            const char* part;
            int64_t rows, cols;
        };
        const Matrix matrices[] = {{"attn_q", q, config.hidden},
                                   {"attn_k", kv, config.hidden},
                                   {"attn_v", kv, config.hidden},
                                   {"attn_output", config.hidden, q},
                                   {"ffn_gate", config.ffn, config.hidden},
                                   {"ffn_up", config.ffn, config.hidden},
                                   {"ffn_down", config.hidden, config.ffn}};
        for (const Matrix& m : matrices) {
            expect(c, name(m.part, ".weight"), m.rows, m.cols);
            expect_bias(c, name(m.part, ".bias"), m.rows);
        }
        expect(c, name("attn_norm", ".weight"), config.hidden, 1);
        expect(c, name("ffn_norm", ".weight"), config.hidden, 1);
    }
    expect(c, "output_norm.weight", config.hidden, 1);
    if (!config.tied) expect(c, "output.weight", config.vocabulary, config.hidden);
}

// Llama 3's scaling by wavelength: high frequencies stay, low ones are divided by `factor`, smoothly in between
// (Hugging Face transformers, modeling_rope_utils, "llama3").
void scale_llama3(const Metadata& m, const std::string& prefix, std::vector<float>& frequencies) {
    const double factor = m.number(prefix + "factor", 8), low = m.number(prefix + "low_freq_factor", 1),
                 high = m.number(prefix + "high_freq_factor", 4),
                 context = static_cast<double>(m.integer(prefix + "original_context_length", 8192));
    const double pi = 3.14159265358979323846;
    if (!(factor > 0) || !(high > low) || !(context > 0)) fail(QUANT_ERR_CORRUPT, prefix + "*: not a llama3 scaling");
    for (float& f : frequencies) {
        const double wavelength = 2 * pi / f;
        if (wavelength < context / high) continue;
        const double smooth = wavelength > context / low ? 0 : (context / wavelength - low) / (high - low);
        f = static_cast<float>((1 - smooth) * f / factor + smooth * f);
    }
}

std::vector<float> rope_frequencies(const Checkpoint& c, const LlamaConfig& config, const std::string& prefix) {
    const Metadata& m = c.metadata;
    const double base = m.number(prefix + "rope.freq_base", 10000);
    if (!(base > 0) || !std::isfinite(base)) fail(QUANT_ERR_CORRUPT, prefix + "rope.freq_base must be positive");
    const int half = config.head_dim / 2;
    std::vector<float> frequencies(half);
    for (int i = 0; i < half; ++i) frequencies[i] = static_cast<float>(1.0 / std::pow(base, 2.0 * i / config.head_dim));

    const std::string scaling = prefix + "rope.scaling.";
    const std::string type = m.text(scaling + "type", "none");
    if (const TensorInfo* t = c.find("rope_freqs.weight")) {  // Llama 3's scaling as GGUF has it: divisors
        expect(c, "rope_freqs.weight", half, 1);
        const std::vector<float> divisors = c.values(*t);
        for (int i = 0; i < half; ++i) {
            if (!(divisors[i] > 0)) fail(QUANT_ERR_CORRUPT, "rope_freqs.weight has a divisor that is not positive");
            frequencies[i] /= divisors[i];
        }
    } else if (type == "llama3") {
        scale_llama3(m, scaling, frequencies);
    } else if (type == "linear" || m.has(prefix + "rope.scale_linear")) {
        const double factor = m.number(scaling + "factor", m.number(prefix + "rope.scale_linear", 1));
        if (!(factor > 0)) fail(QUANT_ERR_CORRUPT, scaling + "factor must be positive");
        for (float& f : frequencies) f = static_cast<float>(f / factor);
    } else if (type != "none") {
        fail(QUANT_ERR_UNSUPPORTED, "rope scaling '" + type + "' is not supported (none, linear and llama3 are)");
    }
    return frequencies;
}

}  // namespace

std::string layer_tensor(int layer, const char* part) {
    return "blk." + std::to_string(layer) + "." + part;
}

LlamaConfig read_llama_config(const Checkpoint& c) {
    const Metadata& m = c.metadata;
    LlamaConfig config;
    config.architecture = m.text("general.architecture", "");
    if (config.architecture != "llama" && config.architecture != "qwen2")
        fail(QUANT_ERR_UNSUPPORTED,
             "architecture '" + config.architecture + "' is not supported (llama, mistral and qwen2 are)");
    config.adjacent_pairs = config.architecture == "llama";
    const std::string prefix = config.architecture + ".";
    if (m.integer(prefix + "expert_count", 0) > 0)
        fail(QUANT_ERR_UNSUPPORTED, "mixture-of-experts models (" + prefix + "expert_count) are not supported");
    auto required = [&](const char* key, int64_t low, int64_t high) {
        return bounded(prefix + key, m.required_integer(prefix + key), low, high);
    };
    config.layers = required("block_count", 1, 4096);
    config.hidden = required("embedding_length", 1, 1 << 20);
    config.ffn = required("feed_forward_length", 1, 1 << 22);
    config.heads = required("attention.head_count", 1, 1 << 14);
    config.kv_heads = bounded(prefix + "attention.head_count_kv",
                              m.integer(prefix + "attention.head_count_kv", config.heads), 1, config.heads);
    config.head_dim = bounded(prefix + "attention.key_length",
                              m.integer(prefix + "attention.key_length", config.hidden / config.heads), 2, 1024);
    config.context = bounded(prefix + "context_length", m.integer(prefix + "context_length", 2048), 2, 1 << 28);
    config.window =
        bounded(prefix + "attention.sliding_window", m.integer(prefix + "attention.sliding_window", 0), 0, 1 << 28);
    config.norm_epsilon = static_cast<float>(m.number(prefix + "attention.layer_norm_rms_epsilon", 1e-5));
    if (config.heads % config.kv_heads != 0 || config.head_dim % 2 != 0)
        fail(QUANT_ERR_CORRUPT, "attention heads do not fit: " + std::to_string(config.heads) + " heads, " +
                                    std::to_string(config.kv_heads) + " key heads, head dimension " +
                                    std::to_string(config.head_dim));
    if (m.integer(prefix + "attention.value_length", config.head_dim) != config.head_dim ||
        m.integer(prefix + "rope.dimension_count", config.head_dim) != config.head_dim)
        fail(QUANT_ERR_UNSUPPORTED, "value heads or rotary parts of another size than the key heads are not supported");

    const TensorInfo* table = c.find("token_embd.weight");
    if (!table)
        fail(QUANT_ERR_CORRUPT, "the checkpoint has no tensor token_embd.weight: is it a vocabulary-only file?");
    config.vocabulary = bounded("rows of token_embd.weight", table->rows, 1, 1 << 26);
    expect(c, "token_embd.weight", config.vocabulary, config.hidden);
    config.tied = c.find("output.weight") == nullptr;
    check_tensors(c, config);
    config.rope_frequencies = rope_frequencies(c, config, prefix);
    return config;
}

namespace {

class Builder {
  public:
    Builder(const LlamaConfig& config, CacheKind cache, WeightSource& weights)
        : config_(config), cache_(cache), weights_(weights) {}

    Graph build(int first, int last) {
        int x = first == 0 ? embed() : (graph_.input = f32(Rows::step, config_.hidden));
        angles_ = f32(Rows::step, config_.head_dim);
        Node& angles = append(Op::rope_angles, {}, angles_);
        angles.weight = weights_.rope_frequencies();
        for (int i = first; i < last; ++i) x = layer(i, i - first, x);
        graph_.output = last == config_.layers ? head(x) : x;
        return std::move(graph_);
    }

  private:
    int f32(Rows rows, int64_t cols) { return graph_.value(ValueType::f32, rows, cols); }

    Node& append(Op op, std::initializer_list<int> in, int out) {
        Node node;
        node.op = op;
        int i = 0;
        for (int value : in) node.in[i++] = value;
        node.out = out;
        graph_.nodes.push_back(node);
        return graph_.nodes.back();
    }

    int embed() {
        const int x = f32(Rows::step, config_.hidden);
        append(Op::embed, {}, x).weight = weights_.table("token_embd.weight");
        return x;
    }

    int norm(int x, const std::string& tensor) {
        const int h = f32(graph_.values[x].rows, config_.hidden);
        Node& node = append(Op::rmsnorm, {x}, h);
        node.weight = weights_.vector(tensor);
        node.eps = config_.norm_epsilon;
        return h;
    }

    // x as the linear wants it; linears that agree share one quantize.
    int activation(int x, Activation kind) {
        if (kind == Activation::f32) return x;
        auto [found, fresh] = quantized_.try_emplace({x, kind}, -1);
        if (fresh) {
            const ValueType type = kind == Activation::s8 ? ValueType::s8 : ValueType::e4m3;
            found->second = graph_.value(type, graph_.values[x].rows, graph_.values[x].cols);
            append(Op::quantize, {x}, found->second);
        }
        return found->second;
    }

    int linear(int x, const std::string& name, bool is_head = false) {
        const Weight* w = weights_.linear(name, is_head);
        const int in = activation(x, w->activation);
        const int y = f32(graph_.values[x].rows, w->rows);
        append(Op::linear, {in}, y).weight = w;
        return y;
    }

    int add(int a, int b) {
        const int sum = f32(graph_.values[a].rows, graph_.values[a].cols);
        append(Op::add, {a, b}, sum);
        return sum;
    }

    int select(int x) {
        const int selected = f32(Rows::outputs, graph_.values[x].cols);
        append(Op::select_rows, {x}, selected);
        return selected;
    }

    int rope(int x, int heads, int layer) {
        const int turned = f32(Rows::step, graph_.values[x].cols);
        set_heads(append(Op::rope, {x, angles_}, turned), heads, layer);
        return turned;
    }

    void set_heads(Node& node, int heads, int layer) {
        node.layer = layer;
        node.heads = heads;
        node.kv_heads = config_.kv_heads;
        node.head_dim = config_.head_dim;
        node.cache = cache_;
        node.adjacent_pairs = config_.adjacent_pairs;
    }

    int layer(int index, int cache_layer, int x) {
        auto name = [&](const char* part) { return layer_tensor(index, part); };
        const int h = norm(x, name("attn_norm") + ".weight");
        const int q = linear(h, name("attn_q")), k = linear(h, name("attn_k")), v = linear(h, name("attn_v"));
        const int q_turned = rope(q, config_.heads, cache_layer), k_turned = rope(k, config_.kv_heads, cache_layer);
        set_heads(append(Op::cache_write, {k_turned, v}, -1), config_.kv_heads, cache_layer);
        int a = f32(Rows::step, graph_.values[q].cols);
        Node& attention = append(Op::attention, {q_turned}, a);
        set_heads(attention, config_.heads, cache_layer);
        attention.window = config_.window;
        attention.scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(config_.head_dim)));
        if (index + 1 == config_.layers) {  // the rest of the network only needs the rows whose logits are wanted
            a = select(a);
            x = select(x);
        }
        x = add(x, linear(a, name("attn_output")));
        const int h2 = norm(x, name("ffn_norm") + ".weight");
        const int gate = linear(h2, name("ffn_gate")), up = linear(h2, name("ffn_up"));
        const int m = f32(graph_.values[x].rows, config_.ffn);
        append(Op::silu_mul, {gate, up}, m);
        return add(x, linear(m, name("ffn_down")));
    }

    int head(int x) { return linear(norm(x, "output_norm.weight"), config_.tied ? "token_embd" : "output", true); }

    const LlamaConfig& config_;
    CacheKind cache_;
    WeightSource& weights_;
    Graph graph_;
    int angles_ = -1;
    std::map<std::pair<int, Activation>, int> quantized_;
};

}  // namespace

Graph build_llama_graph(const LlamaConfig& config, int first, int last, CacheKind cache, WeightSource& weights) {
    return Builder(config, cache, weights).build(first, last);
}

}  // namespace quant
