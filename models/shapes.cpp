#include "models/shapes.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "formats/error.h"
#include "formats/float_types.h"
#include "models/llama.h"

namespace quant {
namespace {

struct Shape {
    const char* name;
    int hidden, layers, heads, kv_heads, ffn, vocabulary, context;
};
constexpr Shape shapes[] = {
    {"110m", 768, 12, 12, 12, 2048, 32000, 2048},           {"tinyllama-1.1b", 2048, 22, 32, 4, 5632, 32000, 2048},
    {"llama3.2-1b", 2048, 16, 32, 8, 8192, 128256, 131072}, {"llama2-7b", 4096, 32, 32, 32, 11008, 32000, 4096},
    {"llama3-8b", 4096, 32, 32, 8, 14336, 128256, 8192},
};

// Reads as f32 ones in [0, ones_bytes) and as random f16 values after that.
class RandomFile : public File {
  public:
    static constexpr uint64_t ones_bytes = uint64_t{1} << 20;

    explicit RandomFile(uint64_t size) : size_(size), block_(block_values) {
        uint64_t state = 0x9e3779b97f4a7c15u;
        auto uniform = [&] {  // (0, 1]; the generator is splitmix64
            uint64_t z = state += 0x9e3779b97f4a7c15u;
            z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
            z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
            return static_cast<double>(((z ^ (z >> 31)) >> 11) + 1) / 9007199254740992.0;
        };
        for (size_t i = 0; i + 1 < block_.size(); i += 2) {  // Box-Muller
            const double radius = 0.02 * std::sqrt(-2 * std::log(uniform())), angle = 6.283185307179586 * uniform();
            block_[i] = f32_to_f16(static_cast<float>(radius * std::cos(angle)));
            block_[i + 1] = f32_to_f16(static_cast<float>(radius * std::sin(angle)));
        }
    }
    uint64_t size() const override { return size_; }
    const std::string& name() const override { return name_; }
    const uint8_t* at(uint64_t offset, size_t bytes, std::vector<uint8_t>& scratch) const override {
        scratch.resize(bytes);
        if (offset < ones_bytes) {
            const float one = 1;
            for (size_t i = 0; i + sizeof one <= bytes; i += sizeof one) std::memcpy(&scratch[i], &one, sizeof one);
            return scratch.data();
        }
        const uint8_t* block = reinterpret_cast<const uint8_t*>(block_.data());
        const size_t block_bytes = block_.size() * sizeof block_[0];
        for (size_t done = 0; done < bytes;) {
            const size_t start = static_cast<size_t>((offset + done) % block_bytes);
            const size_t n = std::min(bytes - done, block_bytes - start);
            std::memcpy(&scratch[done], block + start, n);
            done += n;
        }
        return scratch.data();
    }
    const uint8_t* mapping() const override { return nullptr; }
    void release(uint64_t, size_t) const override {}

  private:
    static constexpr size_t block_values = (1 << 20) + 6;  // repeats at no tensor's row length
    uint64_t size_;
    std::string name_ = "random weights";
    std::vector<uint16_t> block_;
};

// A vocabulary that other programs accept: control tokens, bytes, then made-up words.
void make_vocabulary(Metadata& m, int size) {
    std::vector<std::string> tokens = {"<unk>", "<s>", "</s>"};
    std::vector<int64_t> types = {2, 3, 3};
    const char* hex = "0123456789ABCDEF";
    for (int b = 0; b < 256; ++b) {
        tokens.push_back(std::string("<0x") + hex[b / 16] + hex[b % 16] + ">");
        types.push_back(6);
    }
    while (tokens.size() < static_cast<size_t>(size)) {
        tokens.push_back("\xe2\x96\x81w" + std::to_string(tokens.size()));
        types.push_back(1);
    }
    m.set("tokenizer.ggml.model", std::string("llama"));
    m.set("tokenizer.ggml.scores", std::vector<double>(tokens.size(), 0.0));
    m.set("tokenizer.ggml.tokens", std::move(tokens));
    m.set("tokenizer.ggml.token_type", std::move(types));
    m.set("tokenizer.ggml.bos_token_id", uint64_t{1});
    m.set("tokenizer.ggml.eos_token_id", uint64_t{2});
    m.set("tokenizer.ggml.unknown_token_id", uint64_t{0});
}

}  // namespace

const char* shape_name(int index) {
    return index >= 0 && index < static_cast<int>(sizeof shapes / sizeof shapes[0]) ? shapes[index].name : nullptr;
}

std::unique_ptr<Checkpoint> random_checkpoint(const std::string& name) {
    std::string known;
    const Shape* shape = nullptr;
    for (const Shape& s : shapes) {
        if (name == s.name) shape = &s;
        known += known.empty() ? s.name : std::string(", ") + s.name;
    }
    if (!shape) fail(QUANT_ERR_ARGUMENT, "no shape is named '" + name + "' (known: " + known + ")");
    const Shape& s = *shape;

    auto c = std::make_unique<Checkpoint>();
    c->kind = "random";
    Metadata& m = c->metadata;
    auto integer = [&](const char* key, int value) { m.set(key, static_cast<uint64_t>(value)); };
    m.set("general.architecture", std::string("llama"));
    m.set("general.name", "random " + name);
    integer("llama.context_length", s.context);
    integer("llama.embedding_length", s.hidden);
    integer("llama.block_count", s.layers);
    integer("llama.feed_forward_length", s.ffn);
    integer("llama.attention.head_count", s.heads);
    integer("llama.attention.head_count_kv", s.kv_heads);
    integer("llama.rope.dimension_count", s.hidden / s.heads);
    m.set("llama.attention.layer_norm_rms_epsilon", 1e-5);
    make_vocabulary(m, s.vocabulary);

    uint64_t end = RandomFile::ones_bytes;
    auto matrix = [&](const std::string& tensor, int64_t rows, int64_t cols) {
        TensorInfo t;
        t.name = tensor;
        t.format.element = Element::f16;
        t.rows = rows;
        t.cols = cols;
        t.codes_at = end;
        end += static_cast<uint64_t>(rows) * static_cast<uint64_t>(cols) * 2;
        c->tensors.push_back(std::move(t));
    };
    auto gain = [&](const std::string& tensor) {
        TensorInfo t;
        t.name = tensor;
        t.rows = s.hidden;
        t.cols = 1;
        t.vector = true;
        c->tensors.push_back(std::move(t));
    };
    const int64_t kv = int64_t{s.hidden} / s.heads * s.kv_heads;
    matrix("token_embd.weight", s.vocabulary, s.hidden);
    for (int i = 0; i < s.layers; ++i) {
        auto tensor = [&](const char* part) { return layer_tensor(i, part) + ".weight"; };
        gain(tensor("attn_norm"));
        matrix(tensor("attn_q"), s.hidden, s.hidden);
        matrix(tensor("attn_k"), kv, s.hidden);
        matrix(tensor("attn_v"), kv, s.hidden);
        matrix(tensor("attn_output"), s.hidden, s.hidden);
        gain(tensor("ffn_norm"));
        matrix(tensor("ffn_gate"), s.ffn, s.hidden);
        matrix(tensor("ffn_up"), s.ffn, s.hidden);
        matrix(tensor("ffn_down"), s.hidden, s.ffn);
    }
    gain("output_norm.weight");
    matrix("output.weight", s.vocabulary, s.hidden);
    c->files.push_back(std::make_unique<RandomFile>(end));
    c->index();
    return c;
}

}  // namespace quant
