// A Hugging Face directory: config.json, safetensors files, tokenizer.json; presented in GGUF's vocabulary.
#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "checkpoints/checkpoint.h"
#include "checkpoints/hugging_face_tokenizer.h"
#include "checkpoints/json.h"
#include "checkpoints/ranges.h"
#include "checkpoints/safetensors.h"
#include "checkpoints/system_file.h"
#include "formats/error.h"

namespace quant {
namespace {

const struct {
    const char *hugging_face, *gguf;
} architectures[] = {{"LlamaForCausalLM", "llama"}, {"MistralForCausalLM", "llama"}, {"Qwen2ForCausalLM", "qwen2"}},
  whole_model[] = {{"model.embed_tokens.weight", "token_embd.weight"},
                   {"model.norm.weight", "output_norm.weight"},
                   {"lm_head.weight", "output.weight"}},
  layer_parts[] = {{"input_layernorm", "attn_norm"}, {"post_attention_layernorm", "ffn_norm"},
                   {"self_attn.q_proj", "attn_q"},   {"self_attn.k_proj", "attn_k"},
                   {"self_attn.v_proj", "attn_v"},   {"self_attn.o_proj", "attn_output"},
                   {"mlp.gate_proj", "ffn_gate"},    {"mlp.up_proj", "ffn_up"},
                   {"mlp.down_proj", "ffn_down"}};

// "model.layers.3.mlp.up_proj.weight" -> "blk.3.ffn_up.weight"; empty: not a name of these architectures.
std::string gguf_name(const std::string& name) {
    for (const auto& t : whole_model)
        if (name == t.hugging_face) return t.gguf;
    const std::string prefix = "model.layers.";
    const size_t number_end = name.find('.', prefix.size()), last_dot = name.rfind('.');
    if (name.compare(0, prefix.size(), prefix) != 0 || number_end == std::string::npos || last_dot <= number_end)
        return "";
    const std::string number = name.substr(prefix.size(), number_end - prefix.size());
    const std::string part = name.substr(number_end + 1, last_dot - number_end - 1), kind = name.substr(last_dot);
    if (kind != ".weight" && kind != ".bias") return "";
    for (const auto& p : layer_parts)
        if (part == p.hugging_face) return "blk." + number + "." + p.gguf + kind;
    return "";
}

bool ends_with(const std::string& text, const std::string& end) {
    return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

std::string architecture_of(const JsonObject& config) {
    if (const Json* const quantization = config.find("quantization_config")) {
        const std::string method = JsonObject(*quantization, config.file()).text("quant_method", "unknown");
        config.unsupported("weights quantized by the method " + method + " are not supported; use the original model");
    }
    const Json& names = config.array("architectures");
    const std::string name = names.size() == 1 && names[0].is_string() ? names[0].get<std::string>() : "unknown";
    for (const auto& a : architectures)
        if (name == a.hugging_face) return a.gguf;
    config.unsupported("the architecture " + name + " is not supported (Llama, Mistral and Qwen2 are)");
}

// What config.json must say for our networks to be the right ones.
void check_variants(const JsonObject& config) {
    const std::string activation = config.text("hidden_act", "silu");
    if (activation != "silu") config.unsupported("hidden_act " + activation + " is not supported (silu is)");
    if (config.number("partial_rotary_factor", 1) != 1) config.unsupported("partial_rotary_factor is not supported");
}

// Mistral's window holds for every layer; Qwen2's from layer max_window_layers on, if use_sliding_window says so.
int64_t sliding_window(const JsonObject& config, bool qwen2, int64_t layers) {
    const int64_t window = config.integer("sliding_window", 0);
    if (!qwen2) return window;
    const int64_t full_layers = config.integer("max_window_layers", layers);
    if (!config.boolean("use_sliding_window", false) || full_layers >= layers) return 0;
    if (full_layers > 0)
        config.unsupported("a sliding window in some layers only (max_window_layers) is not supported");
    return window;
}

void set_rope(const JsonObject& config, const std::string& prefix, Metadata& m) {
    // transformers 5 moved rope_theta into what was rope_scaling.
    const char* const key = config.has("rope_parameters") ? "rope_parameters" : "rope_scaling";
    double theta = config.number("rope_theta", 10000);
    if (config.has(key)) {
        const JsonObject scaling = config.object(key);
        theta = scaling.number("rope_theta", theta);
        const std::string type = scaling.text("rope_type", scaling.text("type", "default"));
        if (type == "linear" || type == "llama3") {
            m.set(prefix + "rope.scaling.type", type);
            m.set(prefix + "rope.scaling.factor", scaling.number("factor", 1));
        } else if (type != "default") {
            config.unsupported("rope scaling " + type + " is not supported (linear and llama3 are)");
        }
        if (type == "llama3") {
            m.set(prefix + "rope.scaling.low_freq_factor", scaling.number("low_freq_factor", 1));
            m.set(prefix + "rope.scaling.high_freq_factor", scaling.number("high_freq_factor", 4));
            m.set(prefix + "rope.scaling.original_context_length",
                  scaling.integer("original_max_position_embeddings", 8192));
        }
    }
    m.set(prefix + "rope.freq_base", theta);
}

int64_t positive(const JsonObject& config, const char* key, int64_t value) {
    if (value < 1 || value > (int64_t{1} << 31))
        config.corrupt(std::string("\"") + key + "\" of " + std::to_string(value) + " makes no sense");
    return value;
}

// Sets the network's metadata and returns the rows of an attention head.
int64_t set_network(const JsonObject& config, const std::string& architecture, Metadata& m) {
    const auto required = [&](const char* key) { return positive(config, key, config.required_integer(key)); };
    const auto optional = [&](const char* key, int64_t fallback) {
        return positive(config, key, config.integer(key, fallback));
    };
    const int64_t hidden = required("hidden_size"), heads = required("num_attention_heads"),
                  layers = required("num_hidden_layers");
    const int64_t head_dim = optional("head_dim", std::max<int64_t>(hidden / heads, 1));
    const std::string prefix = architecture + ".";
    const auto set = [&](const char* key, int64_t value) { m.set(prefix + key, static_cast<uint64_t>(value)); };
    m.set("general.architecture", architecture);
    set("block_count", layers);
    set("embedding_length", hidden);
    set("feed_forward_length", required("intermediate_size"));
    set("vocab_size", required("vocab_size"));
    set("context_length", optional("max_position_embeddings", 2048));
    set("attention.head_count", heads);
    set("attention.head_count_kv", optional("num_key_value_heads", heads));
    if (head_dim * heads != hidden) {
        set("attention.key_length", head_dim);
        set("attention.value_length", head_dim);
    }
    set("rope.dimension_count", head_dim);
    m.set(prefix + "attention.layer_norm_rms_epsilon", config.number("rms_norm_eps", 1e-6));
    const int64_t window = sliding_window(config, architecture == "qwen2", layers);
    if (window > 0) set("attention.sliding_window", window);
    set_rope(config, prefix, m);
    return head_dim;
}

// A token id or a list of them.
std::vector<int64_t> token_ids(const JsonObject& config, const char* key) {
    std::vector<int64_t> out;
    const Json* const value = config.find(key);
    if (!value) return out;
    if (!value->is_array()) return {config.integer(key, -1)};
    for (const Json& item : *value) {
        out.push_back(-1);
        if (!json_integer(item, &out.back())) config.corrupt(std::string("\"") + key + "\" is not a list of token ids");
    }
    return out;
}

// Names of the safetensors files, and for sharded models which file holds each tensor.
struct Shards {
    std::vector<std::string> files;
    std::map<std::string, std::string> file_of;
};

Shards find_shards(const std::string& directory) {
    const std::string index_path = directory + "/model.safetensors.index.json";
    if (file_exists(directory + "/model.safetensors")) return {{"model.safetensors"}, {}};
    if (!file_exists(index_path))
        fail(QUANT_ERR_IO, directory +
                               " has no model.safetensors and no model.safetensors.index.json; weights of another "
                               "kind have to be converted to safetensors first");
    const JsonDocument json = read_json(index_path);
    const JsonObject map = JsonObject(json, index_path).object("weight_map");
    Shards out;
    std::set<std::string> files;
    for (const auto& item : map.all().items()) {
        if (!item.value().is_string()) map.corrupt("tensor " + item.key() + " has no file");
        const std::string file = item.value().get<std::string>();
        if (file.empty() || file[0] == '.' || file.find_first_of("/\\:") != std::string::npos)
            map.corrupt("tensor " + item.key() + " is in \"" + file + "\", which is not a plain file name");
        files.insert(file);
        out.file_of[item.key()] = file;
    }
    out.files.assign(files.begin(), files.end());
    return out;
}

TensorInfo translate(const File& file, const SafeTensor& t, const std::string& name, int64_t head_rows) {
    TensorInfo out;
    out.name = name;
    const std::string shown = file.name() + ": tensor " + t.name;
    if (t.dtype == "F32") {
        out.format.element = Element::f32;
    } else if (t.dtype == "F16") {
        out.format.element = Element::f16;
    } else if (t.dtype == "BF16") {
        out.format.element = Element::bf16;
    } else {
        fail(QUANT_ERR_UNSUPPORTED,
             shown + " has the type " + t.dtype + ", which is not supported (F32, F16, BF16 are)");
    }
    if (t.shape.empty() || t.shape.size() > 2) fail(QUANT_ERR_CORRUPT, shown + " is neither a vector nor a matrix");
    out.vector = t.shape.size() == 1;
    out.rows = t.shape[0];
    out.cols = out.vector ? 1 : t.shape[1];
    check_matrix_size(file, t.name, out.rows, out.cols);
    if (t.bytes != codes_bytes(out.format, out.rows, out.cols))
        fail(QUANT_ERR_CORRUPT, shown + " has another number of bytes than its shape says");
    const bool paired = ends_with(name, ".attn_q.weight") || ends_with(name, ".attn_k.weight") ||
                        ends_with(name, ".attn_q.bias") || ends_with(name, ".attn_k.bias");
    if (paired && head_rows != 0) {
        if (out.rows % head_rows != 0 || head_rows % 2 != 0)
            fail(QUANT_ERR_CORRUPT, shown + " has " + std::to_string(out.rows) + " rows, not heads of " +
                                        std::to_string(head_rows) + " as config.json says");
        out.head_rows = head_rows;
    }
    out.codes_at = t.at;
    return out;
}

// `head_rows`: of q and k where their rows are presented in adjacent-pair order, else 0.
void read_tensors(const std::string& directory, bool map, bool tied, int64_t head_rows, Checkpoint& out) {
    Shards shards = find_shards(directory);
    for (const std::string& name : shards.files) {
        out.files.push_back(open_file(directory + "/" + name, map));
        const File& file = *out.files.back();
        for (const SafeTensor& t : read_safetensors(file)) {
            const auto owner = shards.file_of.find(t.name);
            if (owner != shards.file_of.end()) {
                if (owner->second != name) continue;
                shards.file_of.erase(owner);
            }
            if ((tied && t.name == "lm_head.weight") || ends_with(t.name, ".rotary_emb.inv_freq")) continue;
            const std::string translated = gguf_name(t.name);
            if (translated.empty())
                fail(QUANT_ERR_UNSUPPORTED, file.name() + ": tensor " + t.name + " is not part of this architecture");
            TensorInfo info = translate(file, t, translated, head_rows);
            info.file = out.files.size() - 1;
            out.tensors.push_back(std::move(info));
        }
    }
    if (!shards.file_of.empty())
        fail(QUANT_ERR_CORRUPT, directory + ": tensor " + shards.file_of.begin()->first + " is not in " +
                                    shards.file_of.begin()->second + " as the index says");
    out.index();
}

}  // namespace

std::unique_ptr<Checkpoint> read_hugging_face(const std::string& directory, bool map) {
    const std::string config_path = directory + "/config.json", generation_path = directory + "/generation_config.json";
    if (!file_exists(config_path))
        fail(QUANT_ERR_IO, directory + " has no config.json; a Hugging Face model directory needs one");
    const JsonDocument config_json = read_json(config_path);
    const JsonObject config(config_json, config_path);

    auto checkpoint = std::make_unique<Checkpoint>();
    checkpoint->kind = "Hugging Face";
    Metadata& m = checkpoint->metadata;
    const std::string architecture = architecture_of(config);
    check_variants(config);
    const int64_t head_dim = set_network(config, architecture, m);
    const size_t end = directory.find_last_not_of("/\\"), slash = directory.find_last_of("/\\", end);
    m.set("general.name", directory.substr(slash + 1, end - slash));

    // GGUF's convention: adjacent rotary pairs for llama, half-split for qwen2.
    read_tensors(directory, map, config.boolean("tie_word_embeddings", false), architecture == "llama" ? head_dim : 0,
                 *checkpoint);

    const int64_t vocabulary = config.required_integer("vocab_size");
    const TensorInfo* const table = checkpoint->find("token_embd.weight");
    if (!table) fail(QUANT_ERR_CORRUPT, directory + " has no tensor model.embed_tokens.weight");
    if (table->rows != vocabulary)
        config.corrupt("\"vocab_size\" is " + std::to_string(vocabulary) + ", but model.embed_tokens.weight has " +
                       std::to_string(table->rows) + " rows");
    std::vector<int64_t> ends = token_ids(config, "eos_token_id");
    if (file_exists(generation_path)) {
        const JsonDocument generation = read_json(generation_path);
        for (const int64_t id : token_ids(JsonObject(generation, generation_path), "eos_token_id")) ends.push_back(id);
    }
    const std::vector<int64_t> first = token_ids(config, "bos_token_id");
    read_hugging_face_tokenizer(directory, vocabulary, first.empty() ? -1 : first.front(), ends, m);
    return checkpoint;
}

}  // namespace quant
