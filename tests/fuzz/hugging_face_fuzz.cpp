// Any bytes as one file of a Hugging Face directory whose other files are in order: a checkpoint or one Error. The
// first byte of the input says which file.
#include "checkpoints/checkpoint.h"
#include "formats/row_source.h"
#include "tests/checkpoint_fixture.h"

using namespace quant;

namespace {

const char* const names[] = {"config.json",           "tokenizer.json",
                             "tokenizer_config.json", "generation_config.json",
                             "model.safetensors",     "chat_template.jinja"};

std::string tensor(const char* name, int rows, int cols, int at) {
    const std::string shape = cols != 0 ? std::to_string(rows) + "," + std::to_string(cols) : std::to_string(rows);
    return "\"" + std::string(name) + "\":{\"dtype\":\"BF16\",\"shape\":[" + shape + "],\"data_offsets\":[" +
           std::to_string(at) + "," + std::to_string(at + 2 * rows * (cols != 0 ? cols : 1)) + "]}";
}

struct Model {
    TemporaryDirectory directory;
    std::string good[6];
    Model() {
        good[0] = R"({"architectures": ["LlamaForCausalLM"], "vocab_size": 12, "hidden_size": 8, "intermediate_size": 6,
            "num_hidden_layers": 1, "num_attention_heads": 2, "eos_token_id": 2})";
        good[1] = R"({"added_tokens": [{"id": 1, "content": "<s>", "special": true}],
            "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
            "model": {"type": "BPE", "byte_fallback": true, "vocab": {"a": 0, "b": 2, "ab": 3}, "merges": ["a b"]}})";
        good[2] = R"({"bos_token": "<s>", "chat_template": "x"})";
        good[3] = R"({"eos_token_id": [2, 3]})";
        good[4] = safetensors_bytes("{" + tensor("model.embed_tokens.weight", 12, 8, 0) + "," +
                                        tensor("model.layers.0.self_attn.q_proj.weight", 8, 8, 192) + "," +
                                        tensor("model.norm.weight", 8, 0, 320) + "}",
                                    336);
        good[5] = "x";
        for (int i = 0; i < 6; ++i) directory.write(names[i], good[i]);
    }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
    static const Model model;
    if (size == 0) return 0;
    const int which = bytes[0] % 6;
    model.directory.write(names[which], std::string(reinterpret_cast<const char*>(bytes) + 1, size - 1));
    try {
        const auto c = open_checkpoint(model.directory.path(), (size & 1) != 0);
        for (const TensorInfo& t : c->tensors) {
            std::vector<uint8_t> file_scratch;
            RowSource source(c->view(t, file_scratch), Format{});
            std::vector<uint8_t> scratch(source.scratch_bytes());
            for (const int64_t r : {int64_t{0}, t.rows - 1}) source.row(r, scratch.data());
        }
    } catch (const Error&) {
    }
    model.directory.write(names[which], model.good[which]);
    return 0;
}
