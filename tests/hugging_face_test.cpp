// Hugging Face directories: what is translated to GGUF's vocabulary, what is refused and how.
#include <catch2/catch.hpp>
#include <cstdlib>
#include <set>

#include "checkpoints/checkpoint.h"
#include "checkpoints/json.h"
#include "checkpoints/safetensors.h"
#include "tests/checkpoint_fixture.h"

using namespace quant;

namespace {

bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

// A model of one layer: hidden 8, 2 heads of 4, 1 key head, 12 tokens.
const char* const small_config = R"({
  "architectures": ["LlamaForCausalLM"], "vocab_size": 12, "hidden_size": 8, "intermediate_size": 6,
  "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64,
  "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu", "bos_token_id": 1, "eos_token_id": 2,
  "tie_word_embeddings": false, "rope_scaling": null})";

const char* const byte_fallback_tokenizer = R"({
  "added_tokens": [{"id": 0, "content": "<unk>", "special": true}, {"id": 1, "content": "<s>", "special": true},
                   {"id": 2, "content": "</s>", "special": true}, {"id": 10, "content": "<tool>", "special": false}],
  "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
                 {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
  "pre_tokenizer": null,
  "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                     {"Sequence": {"id": "A", "type_id": 0}}]},
  "model": {"type": "BPE", "unk_token": "<unk>", "byte_fallback": true,
            "vocab": {"<unk>": 0, "<s>": 1, "</s>": 2, "<0x0A>": 3, "a": 4, "b": 5, "ab": 6, "▁": 7, "▁ab": 8},
            "merges": [["a", "b"], "▁ ab"]}})";

std::string byte_level_tokenizer(const std::string& pre_tokenizer) {
    return R"({"added_tokens": [{"id": 6, "content": "<|end|>", "special": true}], "normalizer": null,
  "pre_tokenizer": )" +
           pre_tokenizer + R"(, "post_processor": {"type": "Sequence", "processors": [
     {"type": "ByteLevel"}, {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<|end|>"}}, {"Sequence": {}}]}]},
  "model": {"type": "BPE", "ignore_merges": true, "vocab": {"a": 0, "b": 1, "ab": 2, "Ġ": 3, "Ġab": 4},
            "merges": ["a b", "Ġ ab"]}})";
}

std::string split(const std::string& regex) {
    return R"({"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": ")" + regex +
           R"("}, "behavior": "Isolated", "invert": false}, {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}]})";
}
const char* const llama3_regex =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+)";
const char* const qwen2_regex =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+)";

struct Tensor {
    std::string name;
    std::vector<int64_t> shape;
};
std::vector<Tensor> small_tensors(bool bias = false) {
    const std::string l = "model.layers.0.";
    std::vector<Tensor> t = {{"model.embed_tokens.weight", {12, 8}},
                             {"model.norm.weight", {8}},
                             {"lm_head.weight", {12, 8}},
                             {l + "input_layernorm.weight", {8}},
                             {l + "post_attention_layernorm.weight", {8}},
                             {l + "self_attn.q_proj.weight", {8, 8}},
                             {l + "self_attn.k_proj.weight", {4, 8}},
                             {l + "self_attn.v_proj.weight", {4, 8}},
                             {l + "self_attn.o_proj.weight", {8, 8}},
                             {l + "mlp.gate_proj.weight", {6, 8}},
                             {l + "mlp.up_proj.weight", {6, 8}},
                             {l + "mlp.down_proj.weight", {8, 6}},
                             {l + "self_attn.rotary_emb.inv_freq", {2}}};
    if (bias) {
        t.push_back({l + "self_attn.q_proj.bias", {8}});
        t.push_back({l + "self_attn.k_proj.bias", {4}});
        t.push_back({l + "self_attn.v_proj.bias", {4}});
    }
    return t;
}

// F32 tensors whose values count up from 0.
std::string safetensors(const std::vector<Tensor>& tensors, const std::string& dtype = "F32") {
    std::string header = R"({"__metadata__": {"format": "pt"})";
    std::string data;
    for (const Tensor& t : tensors) {
        int64_t values = 1;
        std::string shape;
        for (const int64_t s : t.shape) {
            values *= s;
            shape += (shape.empty() ? "" : ",") + std::to_string(s);
        }
        const size_t begin = data.size();
        for (int64_t i = 0; i < values; ++i) {
            const float x = static_cast<float>(i);
            data.append(reinterpret_cast<const char*>(&x), 4);
        }
        header += ",\"" + t.name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":[" + shape + "],\"data_offsets\":[" +
                  std::to_string(begin) + "," + std::to_string(data.size()) + "]}";
    }
    header += "}";
    return GgufBytes().text(header).bytes + data;
}

struct Model {
    TemporaryDirectory directory;
    Model() {
        file("config.json", small_config);
        file("model.safetensors", safetensors(small_tensors()));
        file("tokenizer.json", byte_fallback_tokenizer);
    }
    void file(const std::string& name, const std::string& text) { directory.write(name, text); }
    void config(const std::string& from, const std::string& to) {
        std::string text = small_config;
        const size_t at = text.find(from);
        REQUIRE(at != std::string::npos);
        file("config.json", text.replace(at, from.size(), to));
    }
    std::unique_ptr<Checkpoint> open(bool map = true) const { return open_checkpoint(directory.path(), map); }
    // The error's text, with its status in front; "" if there was none.
    std::string failure() const {
        try {
            open();
            return "";
        } catch (const Error& e) {
            const std::string kind = e.status() == QUANT_ERR_CORRUPT       ? "corrupt: "
                                     : e.status() == QUANT_ERR_UNSUPPORTED ? "unsupported: "
                                     : e.status() == QUANT_ERR_IO          ? "io: "
                                                                           : "other: ";
            return kind + e.what();
        }
    }
};

std::vector<float> decoded(const Checkpoint& c, const std::string& name) {
    const TensorInfo* const t = c.find(name);
    INFO(name);
    REQUIRE(t != nullptr);
    return c.values(*t);
}

#define CHECK_FAILS(model, part)                  \
    do {                                          \
        const std::string f = (model).failure();  \
        INFO(f);                                  \
        CHECK(contains(f, part));                 \
        CHECK(f.find('\n') == std::string::npos); \
    } while (false)

}  // namespace

TEST_CASE("a Hugging Face directory is presented in GGUF's vocabulary", "[checkpoints]") {
    Model model;
    model.file("model.safetensors", safetensors(small_tensors(true)));
    for (const bool map : {true, false}) {
        const auto c = model.open(map);
        const Metadata& m = c->metadata;
        CHECK(m.text("general.architecture", "") == "llama");
        CHECK(m.integer("llama.block_count", 0) == 1);
        CHECK(m.integer("llama.embedding_length", 0) == 8);
        CHECK(m.integer("llama.feed_forward_length", 0) == 6);
        CHECK(m.integer("llama.attention.head_count", 0) == 2);
        CHECK(m.integer("llama.attention.head_count_kv", 0) == 1);
        CHECK(m.integer("llama.context_length", 0) == 64);
        CHECK(m.integer("llama.rope.dimension_count", 0) == 4);
        CHECK(m.number("llama.attention.layer_norm_rms_epsilon", 0) == 1e-5);
        CHECK(m.number("llama.rope.freq_base", 0) == 10000);
        CHECK_FALSE(m.has("llama.attention.key_length"));
        CHECK_FALSE(m.has("llama.attention.sliding_window"));
        CHECK_FALSE(m.has("llama.rope.scaling.type"));
        std::set<std::string> names;
        for (const TensorInfo& t : c->tensors) names.insert(t.name);
        CHECK(names == std::set<std::string>{"token_embd.weight", "output_norm.weight", "output.weight",
                                             "blk.0.attn_norm.weight", "blk.0.ffn_norm.weight", "blk.0.attn_q.weight",
                                             "blk.0.attn_q.bias", "blk.0.attn_k.weight", "blk.0.attn_k.bias",
                                             "blk.0.attn_v.weight", "blk.0.attn_v.bias", "blk.0.attn_output.weight",
                                             "blk.0.ffn_gate.weight", "blk.0.ffn_up.weight", "blk.0.ffn_down.weight"});
        // Adjacent pairs: rows 0 2 1 3 of each head of four.
        const std::vector<float> q = decoded(*c, "blk.0.attn_q.weight");
        std::vector<float> first_column;
        for (size_t r = 0; r < 8; ++r) first_column.push_back(q[8 * r]);
        CHECK(first_column == std::vector<float>{0, 16, 8, 24, 32, 48, 40, 56});
        CHECK(decoded(*c, "blk.0.attn_k.bias") == std::vector<float>{0, 2, 1, 3});
        CHECK(decoded(*c, "blk.0.attn_v.bias") == std::vector<float>{0, 1, 2, 3});
        CHECK(c->find("blk.0.attn_k.bias")->vector);
    }
}

TEST_CASE("byte-fallback tokenizers become llama's", "[checkpoints]") {
    const Model model;
    const auto c = model.open();
    const Metadata& m = c->metadata;
    CHECK(m.text("tokenizer.ggml.model", "") == "llama");
    CHECK(*m.strings("tokenizer.ggml.tokens") == std::vector<std::string>{"<unk>", "<s>", "</s>", "<0x0A>", "a", "b",
                                                                          "ab", "▁", "▁ab", "[PAD9]", "<tool>",
                                                                          "[PAD11]"});
    CHECK(*m.integers("tokenizer.ggml.token_type") == std::vector<int64_t>{2, 3, 3, 6, 1, 1, 1, 1, 1, 5, 4, 5});
    CHECK(*m.strings("tokenizer.ggml.merges") == std::vector<std::string>{"a b", "▁ ab"});
    CHECK((*m.numbers("tokenizer.ggml.scores"))[3] == -3);
    CHECK(m.integer("tokenizer.ggml.bos_token_id", -1) == 1);
    CHECK(m.integer("tokenizer.ggml.eos_token_id", -1) == 2);
    CHECK(m.integer("tokenizer.ggml.unknown_token_id", -1) == 0);
    CHECK(m.boolean("tokenizer.ggml.add_bos_token", false));
    CHECK_FALSE(m.boolean("tokenizer.ggml.add_eos_token", true));
    CHECK(m.boolean("tokenizer.ggml.add_space_prefix", false));
    CHECK_FALSE(m.has("tokenizer.ggml.eos_token_ids"));

    Model metaspace;
    std::string text = byte_fallback_tokenizer;
    text.replace(
        text.find("\"pre_tokenizer\": null"), 21,
        R"("pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": false})");
    const size_t normalizer = text.find("{\"type\": \"Sequence\", \"normalizers\"");
    text.replace(normalizer, text.find("\"pre_tokenizer\"") - normalizer, "null, ");
    metaspace.file("tokenizer.json", text);
    CHECK_FALSE(metaspace.open()->metadata.boolean("tokenizer.ggml.add_space_prefix", true));
}

TEST_CASE("byte-level tokenizers become gpt2's, by their splitting rule", "[checkpoints]") {
    Model model;
    const struct {
        std::string pre_tokenizer, name;
    } rules[] = {{split(llama3_regex), "llama-bpe"},
                 {split(qwen2_regex), "qwen2"},
                 {R"({"type": "ByteLevel", "add_prefix_space": false, "use_regex": true})", "gpt-2"},
                 {R"({"type": "ByteLevel", "add_prefix_space": false})", "gpt-2"}};
    for (const auto& rule : rules) {
        model.file("tokenizer.json", byte_level_tokenizer(rule.pre_tokenizer));
        const auto c = model.open();
        CHECK(c->metadata.text("tokenizer.ggml.model", "") == "gpt2");
        CHECK(c->metadata.text("tokenizer.ggml.pre", "") == rule.name);
        CHECK(c->metadata.boolean("tokenizer.ggml.ignore_merges", false));
        CHECK(c->metadata.integer("tokenizer.ggml.bos_token_id", -1) == 6);
        CHECK(c->metadata.boolean("tokenizer.ggml.add_bos_token", false));
        CHECK_FALSE(c->metadata.boolean("tokenizer.ggml.add_space_prefix", true));
        CHECK(c->metadata.strings("tokenizer.ggml.tokens")->at(6) == "<|end|>");
        CHECK(c->metadata.strings("tokenizer.ggml.tokens")->size() == 12);
    }
    model.file("tokenizer.json", byte_level_tokenizer(split("\\\\d|\\\\w+")));
    CHECK_FAILS(model, "unsupported: ");
    CHECK_FAILS(model, "\\d|\\w+");
    model.file(
        "tokenizer.json",
        byte_level_tokenizer(R"({"type": "Sequence", "pretokenizers": [{"type": "Digits"}, {"type": "ByteLevel"}]})"));
    CHECK_FAILS(model, "Digits");
    model.file("tokenizer.json", byte_level_tokenizer("null"));
    CHECK_FAILS(model, "neither byte fallback nor byte level");
}

TEST_CASE("special tokens and chat templates come from every companion file", "[checkpoints]") {
    Model model;
    model.file("tokenizer_config.json",
               R"({"bos_token": {"content": "</s>"}, "eos_token": "<tool>", "add_bos_token": false,
        "add_eos_token": true, "chat_template": [{"name": "tools", "template": "T"}, {"name": "default", "template": "D"}]})");
    model.file("generation_config.json", R"({"eos_token_id": [2, 8]})");
    {
        const auto c = model.open();
        const Metadata& m = c->metadata;
        CHECK(m.integer("tokenizer.ggml.bos_token_id", -1) == 2);
        CHECK(m.integer("tokenizer.ggml.eos_token_id", -1) == 10);
        REQUIRE(m.integers("tokenizer.ggml.eos_token_ids") != nullptr);
        CHECK(*m.integers("tokenizer.ggml.eos_token_ids") == std::vector<int64_t>{10, 2, 8});
        CHECK_FALSE(m.boolean("tokenizer.ggml.add_bos_token", true));
        CHECK(m.boolean("tokenizer.ggml.add_eos_token", false));
        CHECK(m.text("tokenizer.chat_template", "") == "D");
    }
    model.file("chat_template.jinja", "J");
    CHECK(model.open()->metadata.text("tokenizer.chat_template", "") == "J");

    model.file("generation_config.json", R"({"eos_token_id": 12})");
    CHECK_FAILS(model, "corrupt: ");
    model.file("generation_config.json", R"({"eos_token_id": "x"})");
    CHECK_FAILS(model, "generation_config.json");
    model.file("generation_config.json", "{}");
    model.file("tokenizer_config.json", R"({"bos_token": "<nobody>"})");
    CHECK_FAILS(model, "<nobody>");
}

TEST_CASE("variants of config.json", "[checkpoints]") {
    Model model;
    const auto metadata = [&] { return model.open()->metadata; };
    model.config("\"rope_scaling\": null", R"("rope_scaling": {"type": "linear", "factor": 2})");
    CHECK(metadata().text("llama.rope.scaling.type", "") == "linear");
    CHECK(metadata().number("llama.rope.scaling.factor", 0) == 2);
    model.config("\"rope_scaling\": null",
                 R"("rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192})");
    CHECK(metadata().text("llama.rope.scaling.type", "") == "llama3");
    CHECK(metadata().number("llama.rope.scaling.factor", 0) == 8);
    CHECK(metadata().number("llama.rope.scaling.low_freq_factor", 0) == 1);
    CHECK(metadata().number("llama.rope.scaling.high_freq_factor", 0) == 4);
    CHECK(metadata().integer("llama.rope.scaling.original_context_length", 0) == 8192);
    model.config("\"rope_scaling\": null", R"("rope_parameters": {"rope_type": "default", "rope_theta": 500000})");
    CHECK(metadata().number("llama.rope.freq_base", 0) == 500000);
    CHECK_FALSE(metadata().has("llama.rope.scaling.type"));
    model.config("\"rope_scaling\": null", R"("rope_scaling": {"type": "yarn", "factor": 2})");
    CHECK_FAILS(model, "unsupported: ");
    CHECK_FAILS(model, "yarn");

    model.config("LlamaForCausalLM", "MistralForCausalLM");
    CHECK(metadata().text("general.architecture", "") == "llama");
    model.config("\"LlamaForCausalLM\"],", R"("MistralForCausalLM"], "sliding_window": 32,)");
    CHECK(metadata().integer("llama.attention.sliding_window", 0) == 32);
    model.config("\"LlamaForCausalLM\"],",
                 R"("Qwen2ForCausalLM"], "sliding_window": 32, "use_sliding_window": false,)");
    CHECK_FALSE(metadata().has("qwen2.attention.sliding_window"));
    CHECK(decoded(*model.open(), "blk.0.attn_q.weight")[8] == 8);  // rows as they are
    model.config("\"LlamaForCausalLM\"],",
                 R"("Qwen2ForCausalLM"], "sliding_window": 32, "use_sliding_window": true, "max_window_layers": 0,)");
    CHECK(metadata().integer("qwen2.attention.sliding_window", 0) == 32);
    model.config("\"LlamaForCausalLM\"],",
                 R"("Qwen2ForCausalLM"], "sliding_window": 32, "use_sliding_window": true, "max_window_layers": 1,)");
    CHECK_FALSE(metadata().has("qwen2.attention.sliding_window"));

    model.config("\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true");
    CHECK(model.open()->find("output.weight") == nullptr);
    model.config("\"num_attention_heads\": 2", "\"num_attention_heads\": 1, \"head_dim\": 4");
    CHECK(metadata().integer("llama.attention.key_length", 0) == 4);

    const struct {
        const char *from, *to, *says;
    } refused[] = {
        {"LlamaForCausalLM", "GPT2LMHeadModel", "unsupported: "},
        {"LlamaForCausalLM", "GPT2LMHeadModel", "GPT2LMHeadModel"},
        {"[\"LlamaForCausalLM\"]", "7", "architectures"},
        {"\"architectures\"", "\"other\"", "architectures"},
        {"\"silu\"", "\"gelu\"", "gelu"},
        {"\"silu\"", "\"silu\", \"quantization_config\": {\"quant_method\": \"gptq\"}", "gptq"},
        {"\"hidden_size\": 8", "\"hidden_size\": \"8\"", "hidden_size"},
        {"\"hidden_size\": 8,", "", "hidden_size"},
        {"\"hidden_size\": 8", "\"hidden_size\": 1e30", "hidden_size"},
        {"\"num_attention_heads\": 2", "\"num_attention_heads\": 0", "num_attention_heads"},
        {"\"num_attention_heads\": 2", "\"num_attention_heads\": -9223372036854775808", "num_attention_heads"},
        {"\"num_attention_heads\": 2", "\"num_attention_heads\": 18446744073709551615", "num_attention_heads"},
        {"\"num_attention_heads\": 2", "\"num_attention_heads\": 2, \"head_dim\": 3", "corrupt: "},
        {"\"vocab_size\": 12", "\"vocab_size\": 13", "corrupt: "},
        {"\"vocab_size\": 12", "\"vocab_size\": 1152921504606846976", "corrupt: "},
        {"\"rope_theta\": 10000.0", "\"rope_theta\": []", "rope_theta"}};
    for (const auto& r : refused) {
        model.config(r.from, r.to);
        INFO(r.to);
        CHECK_FAILS(model, r.says);
    }
}

TEST_CASE("sharded models", "[checkpoints]") {
    Model model;
    std::filesystem::remove(model.directory.path("model.safetensors"));
    CHECK_FAILS(model, "io: ");
    CHECK_FAILS(model, "no model.safetensors");
    const std::vector<Tensor> all = small_tensors();
    std::string map;
    for (size_t i = 0; i < all.size(); ++i)
        map += (i ? ",\"" : "\"") + all[i].name + "\":\"model-0000" + (i < 5 ? "1" : "2") + "-of-00002.safetensors\"";
    model.file("model.safetensors.index.json", "{\"metadata\": {\"total_size\": 1}, \"weight_map\": {" + map + "}}");
    CHECK_FAILS(model, "model-00001-of-00002.safetensors: cannot be opened");
    model.file("model-00001-of-00002.safetensors", safetensors({all.begin(), all.begin() + 5}));
    model.file("model-00002-of-00002.safetensors", safetensors({all.begin() + 5, all.end()}));
    const auto c = model.open();
    CHECK(c->tensors.size() == 12);
    CHECK(c->find("blk.0.ffn_down.weight")->file == 1);
    CHECK(decoded(*c, "blk.0.ffn_down.weight")[47] == 47);

    model.file("model-00002-of-00002.safetensors", safetensors({all.begin() + 6, all.end()}));
    CHECK_FAILS(model, "corrupt: ");
    CHECK_FAILS(model, "self_attn.q_proj.weight");
    for (const char* file : {"../model.safetensors", "/etc/passwd", "", ".hidden", "a\\\\b"}) {
        model.file("model.safetensors.index.json", std::string("{\"weight_map\": {\"w\": \"") + file + "\"}}");
        CHECK_FAILS(model, "plain file name");
    }
    for (const char* index : {"{}", "[]", "{\"weight_map\": []}", "{\"weight_map\": {\"w\": 1}}"}) {
        model.file("model.safetensors.index.json", index);
        CHECK_FAILS(model, "corrupt: ");
    }
}

TEST_CASE("missing and broken files are one line each", "[checkpoints]") {
    {
        Model model;
        std::filesystem::remove(model.directory.path("config.json"));
        CHECK_FAILS(model, "no config.json");
    }
    {
        Model model;  // weights alone are a model without text
        std::filesystem::remove(model.directory.path("tokenizer.json"));
        CHECK_FALSE(model.open()->metadata.has("tokenizer.ggml.model"));
    }
    for (const char* name :
         {"config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json", "model.safetensors"}) {
        for (const char* text :
             {"", "{", "nonsense", "[]", "null", "{\"a\": 1e999}", "\xff\xfe", "{\"a\": \"\xc3\"}"}) {
            Model model;
            model.file(name, text);
            INFO(name << ": " << text);
            CHECK_FAILS(model, name);
        }
    }
    Model model;
    auto tensors = small_tensors();
    tensors.push_back({"model.layers.0.self_attn.q_norm.weight", {4}});
    model.file("model.safetensors", safetensors(tensors));
    CHECK_FAILS(model, "unsupported: ");
    CHECK_FAILS(model, "q_norm");
    model.file("model.safetensors", safetensors(small_tensors(), "I32"));
    CHECK_FAILS(model, "unsupported: ");
    CHECK_FAILS(model, "I32");
    model.file("model.safetensors", safetensors(small_tensors(), "F16"));
    CHECK_FAILS(model, "number of bytes");

    const std::string tokenizer = byte_fallback_tokenizer;
    const struct {
        const char *from, *to, *says;
    } broken[] = {{"\"BPE\"", "\"Unigram\"", "Unigram"},
                  {"\"ab\": 6", "\"ab\": 12", "corrupt: "},
                  {"\"ab\": 6", "\"ab\": -1", "corrupt: "},
                  {"\"ab\": 6", "\"ab\": 1e3", "corrupt: "},
                  {"\"ab\": 6", "\"ab\": {}", "corrupt: "},
                  {"\"id\": 10", "\"id\": 99", "<tool>"},
                  {"\"id\": 10", "\"idea\": 10", "\"id\""},
                  {"[\"a\", \"b\"]", "[\"a\"]", "merge"},
                  {"[\"a\", \"b\"]", "[\"a\", 1]", "merge"},
                  {"[\"a\", \"b\"]", "[\"a \", \"b\"]", "space"},
                  {"\"merges\"", "\"mergers\"", "merges"},
                  {"\"vocab\"", "\"words\"", "vocab"},
                  {"\"Prepend\"", "\"NFKC\"", "NFKC"},
                  {"\"byte_fallback\": true", "\"byte_fallback\": 1", "byte_fallback"}};
    for (const auto& b : broken) {
        Model other;
        std::string text = tokenizer;
        REQUIRE(text.find(b.from) != std::string::npos);
        other.file("tokenizer.json", text.replace(text.find(b.from), std::strlen(b.from), b.to));
        INFO(b.to);
        CHECK_FAILS(other, b.says);
        CHECK_FAILS(other, "tokenizer.json");
    }
}

TEST_CASE("JSON that nests without end is refused before it is built", "[checkpoints]") {
    for (const char* open : {"[", "{\"a\":", "[{\"a\":["}) {
        std::string text;
        for (int i = 0; i < 100000; ++i) text += open;
        CHECK_THROWS_AS(parse_json("bomb", reinterpret_cast<const uint8_t*>(text.data()), text.size()), Error);
    }
    std::string brackets = "\"";
    for (int i = 0; i < 1000; ++i) brackets += "[\\\"{";
    brackets += "\"";
    const JsonDocument text = parse_json("text", reinterpret_cast<const uint8_t*>(brackets.data()), brackets.size());
    CHECK(static_cast<const Json&>(text).is_string());
}

TEST_CASE("safetensors headers that do not add up are refused", "[checkpoints]") {
    const auto failure = [](const std::string& bytes) -> std::string {
        try {
            read_safetensors(*open_memory(bytes.data(), bytes.size()));
            return "";
        } catch (const Error& e) {
            return e.what();
        }
    };
    const auto entry = [](const char* rest) { return safetensors_bytes(std::string("{\"w\":") + rest + "}", 64); };
    CHECK(failure(entry(R"({"dtype":"F32","shape":[2,2],"data_offsets":[0,16]})")).empty());
    CHECK(contains(failure(""), "too short"));
    CHECK(contains(failure(std::string("\xff\xff\xff\xff\xff\xff\xff\x7f{}", 10)), "header"));
    CHECK(contains(failure(std::string("\x00\x00\x00\x00\x00\x00\x00\x10{}", 10)), "header"));
    CHECK(contains(failure(entry(R"({"dtype":"F32","shape":[2,2],"data_offsets":[0,65]})")), "truncated"));
    CHECK(contains(failure(entry(R"({"dtype":"F32","shape":[2,2],"data_offsets":[16,0]})")), "range"));
    CHECK(contains(failure(entry(R"({"dtype":"F32","shape":[2,2],"data_offsets":[-1,15]})")), "range"));
    CHECK(contains(failure(entry(R"({"dtype":"F32","shape":[2,2],"data_offsets":[0]})")), "range"));
    CHECK(
        contains(failure(entry(R"({"dtype":"F32","shape":[2,2],"data_offsets":[0,18446744073709551615]})")), "range"));
    CHECK(contains(failure(entry(R"({"dtype":"F32","shape":[-2],"data_offsets":[0,8]})")), "shape"));
    CHECK(contains(failure(entry(R"({"dtype":"F32","shape":4,"data_offsets":[0,8]})")), "shape"));
    CHECK(contains(failure(entry(R"({"dtype":32,"shape":[2],"data_offsets":[0,8]})")), "dtype"));
    CHECK(contains(failure(entry("7")), "object"));
    CHECK(contains(failure(safetensors_bytes(R"({"v":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},
        "w":{"dtype":"F32","shape":[4],"data_offsets":[12,28]}})",
                                             64)),
                   "overlap"));

    for (const char* shape : {"[1099511627776,1099511627776]", "[4611686018427387905,4]", "[0,8]", "[2,2,2]", "[]"}) {
        Model model;
        model.file("model.safetensors",
                   safetensors_bytes(std::string("{\"model.norm.weight\":{\"dtype\":\"F32\",\"shape\":") + shape +
                                         ",\"data_offsets\":[0,32]}}",
                                     64));
        INFO(shape);
        CHECK_FAILS(model, "corrupt: ");
    }
}

TEST_CASE("Hugging Face files truncated at any byte or with bytes flipped are read or refused", "[checkpoints]") {
    Model model;
    model.file("tokenizer_config.json", R"({"bos_token": "<s>", "chat_template": "x"})");
    model.file("generation_config.json", R"({"eos_token_id": [2, 8]})");
    for (const char* name :
         {"config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json", "model.safetensors"}) {
        const std::string whole = read_bytes(model.directory.path(name));
        const size_t step = whole.size() > 2000 ? 7 : 1;
        for (size_t n = 0; n < whole.size(); n += step) {
            model.file(name, whole.substr(0, n));
            INFO(name << " cut after " << n);
            CHECK(contains(model.failure(), name));
        }
        for (size_t i = 0; i < whole.size(); i += step) {
            std::string other = whole;
            other[i] = static_cast<char>(other[i] ^ (1 << (i % 8)));
            model.file(name, other);
            try {
                const auto c = model.open();
                for (const TensorInfo& t : c->tensors) decoded(*c, t.name);
            } catch (const Error&) {
            }
        }
        model.file(name, whole);
    }
    CHECK(model.failure().empty());
}

TEST_CASE("the embedded model opens", "[checkpoints]") {
    const auto c = open_checkpoint(std::string(QUANT_TEST_SOURCE_DIR) + "/models/tiny", true);
    CHECK(c->tensors.size() == 74);
    CHECK(c->metadata.strings("tokenizer.ggml.tokens")->size() == 4096);
    CHECK(*c->metadata.integers("tokenizer.ggml.eos_token_ids") == std::vector<int64_t>{2, 4095});
    CHECK(c->metadata.boolean("tokenizer.ggml.add_bos_token", false));
    CHECK(c->metadata.boolean("tokenizer.ggml.add_space_prefix", false));
    CHECK(c->find("output.weight") == nullptr);
    CHECK(c->find("blk.7.attn_k.weight")->head_rows == 32);
    CHECK(c->find("blk.7.attn_v.weight")->head_rows == 0);
}
