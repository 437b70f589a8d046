#include "tests/llama_fixture.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <random>

#include "tests/loopback.h"

namespace quant {

std::string tiny_path() {
    return std::string(QUANT_TEST_SOURCE_DIR) + "/models/tiny";
}

namespace {

// Bytes that live as long as the checkpoint.
class OwnedFile : public File {
  public:
    explicit OwnedFile(std::vector<uint8_t> bytes) : bytes_(std::move(bytes)) {}
    uint64_t size() const override { return bytes_.size(); }
    const std::string& name() const override { return name_; }
    const uint8_t* at(uint64_t offset, size_t bytes, std::vector<uint8_t>&) const override {
        REQUIRE(offset + bytes <= bytes_.size());
        return bytes_.data() + offset;
    }
    const uint8_t* mapping() const override { return bytes_.data(); }
    void release(uint64_t, size_t) const override {}

  private:
    std::vector<uint8_t> bytes_;
    std::string name_ = "memory";
};

}  // namespace

std::unique_ptr<Checkpoint> small_checkpoint(const SmallLlama& s, unsigned seed) {
    auto c = std::make_unique<Checkpoint>();
    c->kind = "memory";
    Metadata& m = c->metadata;
    const std::string prefix = s.architecture + ".";
    auto integer = [&](const char* key, int value) { m.set(prefix + key, static_cast<uint64_t>(value)); };
    m.set("general.architecture", s.architecture);
    integer("block_count", s.layers);
    integer("embedding_length", s.hidden);
    integer("feed_forward_length", s.ffn);
    integer("attention.head_count", s.heads);
    integer("attention.head_count_kv", s.kv_heads);
    integer("attention.key_length", s.head_dim);
    integer("context_length", s.context);
    if (s.window) integer("attention.sliding_window", s.window);
    m.set(prefix + "attention.layer_norm_rms_epsilon", 1e-5);
    if (!s.rope_scaling.empty()) {
        m.set(prefix + "rope.scaling.type", s.rope_scaling);
        m.set(prefix + "rope.scaling.factor", 4.0);
        m.set(prefix + "rope.scaling.low_freq_factor", 1.0);
        m.set(prefix + "rope.scaling.high_freq_factor", 4.0);
        m.set(prefix + "rope.scaling.original_context_length", uint64_t{64});
    }
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    std::vector<uint8_t> bytes;
    auto tensor = [&](const std::string& name, int rows, int cols, float mean, float deviation) {
        TensorInfo t;
        t.name = name;
        t.rows = rows;
        t.cols = cols;
        t.vector = cols == 1;
        t.codes_at = bytes.size();
        c->tensors.push_back(t);
        for (int i = 0; i < rows * cols; ++i) {
            const float value = mean + deviation * normal(random);
            const uint8_t* p = reinterpret_cast<const uint8_t*>(&value);
            bytes.insert(bytes.end(), p, p + 4);
        }
    };
    const int q = s.heads * s.head_dim, kv = s.kv_heads * s.head_dim;
    const float deviation = 1.f / std::sqrt(static_cast<float>(s.hidden));
    tensor("token_embd.weight", s.vocabulary, s.hidden, 0, 1);
    for (int i = 0; i < s.layers; ++i) {
        auto linear = [&](const char* part, int rows, int cols) {
            tensor(layer_tensor(i, part) + ".weight", rows, cols, 0, 1.5f * deviation);
            if (s.bias && std::strncmp(part, "attn_", 5) == 0 && std::strcmp(part, "attn_output") != 0)
                tensor(layer_tensor(i, part) + ".bias", rows, 1, 0, 0.3f);
        };
        tensor(layer_tensor(i, "attn_norm") + ".weight", s.hidden, 1, 1, 0.2f);
        linear("attn_q", q, s.hidden);
        linear("attn_k", kv, s.hidden);
        linear("attn_v", kv, s.hidden);
        linear("attn_output", s.hidden, q);
        tensor(layer_tensor(i, "ffn_norm") + ".weight", s.hidden, 1, 1, 0.2f);
        linear("ffn_gate", s.ffn, s.hidden);
        linear("ffn_up", s.ffn, s.hidden);
        linear("ffn_down", s.hidden, s.ffn);
    }
    tensor("output_norm.weight", s.hidden, 1, 1, 0.2f);
    if (!s.tied) tensor("output.weight", s.vocabulary, s.hidden, 0, deviation);
    c->files.push_back(std::make_unique<OwnedFile>(std::move(bytes)));
    c->index();
    return c;
}

std::shared_ptr<Model> load_test_model(std::unique_ptr<Checkpoint> checkpoint, const Devices& devices,
                                       const std::string& scheme, TestServices& services, size_t cache_positions,
                                       bool exact, CacheKind kind) {
    std::vector<StageDevice> stages;
    for (const auto& [name, layers] : devices) {
        const DeviceServices device = services.device(exact);
        stages.push_back(
            {name.rfind("loopback", 0) == 0 ? create_loopback(name, device) : create_backend(name.c_str(), device),
             layers});
    }
    WeightChoice choice;
    if (!scheme.empty()) {
        Scheme s;
        REQUIRE(scheme_parse(scheme, &s));
        choice.scheme = s;
    }
    return std::make_shared<Model>(std::move(checkpoint), std::move(stages), services.pool, choice,
                                   CacheChoice{kind, cache_positions}, [](float) {});
}

std::vector<std::string> usable_cpu_devices() {
    std::vector<std::string> names;
    for (const DeviceInfo& d : list_devices())
        if (d.reason.empty() && d.name.rfind("cpu:", 0) == 0) names.push_back(d.name);
    return names;
}

std::vector<float> all_logits(Session& session, const std::vector<int32_t>& tokens) {
    std::vector<Session::Advance> steps(1);
    steps[0].session = &session;
    steps[0].tokens = tokens.data();
    steps[0].n = tokens.size();
    steps[0].all_logits = true;
    Session::advance(steps);
    INFO(steps[0].message);
    REQUIRE(steps[0].status == QUANT_OK);
    return {session.logits(), session.logits() + tokens.size() * session.model().config().vocabulary};
}

std::vector<int32_t> random_tokens(int n, int vocabulary, unsigned seed) {
    std::mt19937 random(seed);
    std::vector<int32_t> tokens(n);
    for (int32_t& t : tokens) t = static_cast<int32_t>(random() % vocabulary);
    return tokens;
}

// ---- The oracle ----------------------------------------------------------------------------------------------------

namespace {

using Matrix = std::vector<std::vector<double>>;

Matrix decode_all(const Checkpoint& c, const std::string& name) {
    const TensorInfo* t = c.find(name);
    if (!t) return {};
    const std::vector<float> values = c.values(*t);
    Matrix m;
    for (int64_t r = 0; r < t->rows; ++r)
        m.emplace_back(values.begin() + r * t->cols, values.begin() + (r + 1) * t->cols);
    return m;
}

std::vector<double> norm(const std::vector<double>& x, const Matrix& gain, double eps) {
    double sum = 0;
    for (double v : x) sum += v * v;
    const double scale = 1 / std::sqrt(sum / static_cast<double>(x.size()) + eps);
    std::vector<double> y(x.size());
    for (size_t i = 0; i < x.size(); ++i) y[i] = x[i] * scale * gain[i][0];
    return y;
}

std::vector<double> times(const Matrix& w, const std::vector<double>& x, const Matrix& bias) {
    std::vector<double> y(w.size());
    for (size_t r = 0; r < w.size(); ++r) {
        double sum = bias.empty() ? 0 : bias[r][0];
        for (size_t i = 0; i < x.size(); ++i) sum += w[r][i] * x[i];
        y[r] = sum;
    }
    return y;
}

void turn(std::vector<double>& x, const LlamaConfig& c, int position) {
    const int half = c.head_dim / 2;
    for (size_t head = 0; head < x.size() / c.head_dim; ++head)
        for (int i = 0; i < half; ++i) {
            double& a = x[head * c.head_dim + (c.adjacent_pairs ? 2 * i : i)];
            double& b = x[head * c.head_dim + (c.adjacent_pairs ? 2 * i + 1 : i + half)];
            const double angle = static_cast<float>(position) * c.rope_frequencies[i];
            const double turned = a * std::cos(angle) - b * std::sin(angle);
            b = a * std::sin(angle) + b * std::cos(angle);
            a = turned;
        }
}

}  // namespace

std::vector<double> oracle_logits(const Checkpoint& c, const std::vector<int32_t>& tokens) {
    const LlamaConfig config = read_llama_config(c);
    const int n = static_cast<int>(tokens.size()), dim = config.head_dim, shared = config.heads / config.kv_heads;
    const Matrix embedding = decode_all(c, "token_embd.weight");
    Matrix x;
    for (int32_t t : tokens) x.push_back(embedding[t]);
    for (int layer = 0; layer < config.layers; ++layer) {
        auto weight = [&](const char* part) { return decode_all(c, layer_tensor(layer, part) + ".weight"); };
        auto bias = [&](const char* part) { return decode_all(c, layer_tensor(layer, part) + ".bias"); };
        const Matrix attn_norm = weight("attn_norm"), ffn_norm = weight("ffn_norm"), wq = weight("attn_q"),
                     wk = weight("attn_k"), wv = weight("attn_v"), wo = weight("attn_output"), wg = weight("ffn_gate"),
                     wu = weight("ffn_up"), wd = weight("ffn_down"), bq = bias("attn_q"), bk = bias("attn_k"),
                     bv = bias("attn_v");
        Matrix q, k, v;
        for (int i = 0; i < n; ++i) {
            const std::vector<double> h = norm(x[i], attn_norm, config.norm_epsilon);
            q.push_back(times(wq, h, bq));
            k.push_back(times(wk, h, bk));
            v.push_back(times(wv, h, bv));
            turn(q[i], config, i);
            turn(k[i], config, i);
        }
        for (int i = 0; i < n; ++i) {
            std::vector<double> mixed(q[i].size(), 0);
            const int start = config.window ? std::max(0, i - config.window + 1) : 0;
            for (int head = 0; head < config.heads; ++head) {
                const int kv = head / shared;
                std::vector<double> p(i + 1, 0);
                double most = -1e300, sum = 0;
                for (int j = start; j <= i; ++j) {
                    for (int d = 0; d < dim; ++d) p[j] += q[i][head * dim + d] * k[j][kv * dim + d];
                    p[j] /= std::sqrt(static_cast<double>(dim));
                    most = std::max(most, p[j]);
                }
                for (int j = start; j <= i; ++j) sum += p[j] = std::exp(p[j] - most);
                for (int j = start; j <= i; ++j)
                    for (int d = 0; d < dim; ++d) mixed[head * dim + d] += p[j] / sum * v[j][kv * dim + d];
            }
            const std::vector<double> o = times(wo, mixed, {});
            for (size_t d = 0; d < o.size(); ++d) x[i][d] += o[d];
            const std::vector<double> h = norm(x[i], ffn_norm, config.norm_epsilon);
            std::vector<double> g = times(wg, h, {}), u = times(wu, h, {});
            for (size_t d = 0; d < g.size(); ++d) g[d] = g[d] / (1 + std::exp(-g[d])) * u[d];
            const std::vector<double> f = times(wd, g, {});
            for (size_t d = 0; d < f.size(); ++d) x[i][d] += f[d];
        }
    }
    const Matrix gain = decode_all(c, "output_norm.weight"),
                 head = decode_all(c, config.tied ? "token_embd.weight" : "output.weight");
    std::vector<double> logits;
    for (int i = 0; i < n; ++i) {
        const std::vector<double> y = times(head, norm(x[i], gain, config.norm_epsilon), {});
        logits.insert(logits.end(), y.begin(), y.end());
    }
    return logits;
}

}  // namespace quant
