#include "models/model.h"

#include <algorithm>

#include "core/fusion.h"
#include "formats/error.h"
#include "models/sampler.h"

namespace quant {
namespace {

std::map<std::string, std::string> scalar_texts(const Metadata& metadata) {
    std::map<std::string, std::string> texts;
    for (const auto& [key, value] : metadata.all()) {
        if (auto u = std::get_if<uint64_t>(&value)) texts[key] = std::to_string(*u);
        if (auto i = std::get_if<int64_t>(&value)) texts[key] = std::to_string(*i);
        if (auto d = std::get_if<double>(&value)) texts[key] = std::to_string(*d);
        if (auto b = std::get_if<bool>(&value)) texts[key] = *b ? "true" : "false";
        if (auto s = std::get_if<std::string>(&value)) texts[key] = *s;
    }
    return texts;
}

// Where the device can, plans may end with the choice of the most likely tokens.
void add_choice(Graph& graph, const Backend& backend) {
    const Value logits = graph.values[graph.output];
    if (logits.cols > int64_t{1} << 24) return;  // ids are exact as f32
    const int choice = graph.value(ValueType::f32, logits.rows, 2 * std::min<int64_t>(most_choices, logits.cols));
    Node node;
    node.op = Op::top_k;
    node.in[0] = graph.output;
    node.out = choice;
    if (find_kernel(backend, node.op, node, nullptr, &logits, &graph.values[choice])) {
        graph.nodes.push_back(node);
        graph.choice = choice;
    }
}

}  // namespace

Model::Model(std::unique_ptr<Checkpoint> checkpoint, std::vector<StageDevice> devices, ThreadPool& threads,
             const WeightChoice& choice, const CacheChoice& cache, const Progress& progress)
    : checkpoint_(std::move(checkpoint)),
      config_(read_llama_config(*checkpoint_)),
      choice_(choice),
      cache_kind_(cache.kind) {
    progress(0);
    tokenizer_ = Tokenizer::create(checkpoint_->metadata, config_.vocabulary);
    chat_ = recognise_chat_template(checkpoint_->metadata.text("tokenizer.chat_template", ""));
    metadata_text_ = scalar_texts(checkpoint_->metadata);
    for (const TensorInfo& t : checkpoint_->tensors)
        parameters_ += static_cast<uint64_t>(t.rows) * static_cast<uint64_t>(t.cols);

    std::vector<Stage> stages;
    stages.reserve(devices.size());
    std::vector<std::unique_ptr<WeightLoader>> loaders;
    uint64_t source_bytes = 0, done_bytes = 0;
    int first = 0;
    for (StageDevice& device : devices) {
        const bool is_last = &device == &devices.back();
        const int last = is_last ? config_.layers : std::min(config_.layers, first + device.layers);
        stages.emplace_back();
        Stage& stage = stages.back();
        stage.backend = std::move(device.backend);
        stage.cache = {last - first, config_.kv_heads, config_.head_dim, cache.kind};
        loaders.push_back(std::make_unique<WeightLoader>(*checkpoint_, config_, choice_, stage));
        WeightLoader& loader = *loaders.back();
        stage.graph = build_llama_graph(config_, first, last, cache.kind, loader);
        fuse(stage.graph, *stage.backend, [&](const std::vector<const Weight*>& parts) { return loader.merge(parts); });
        if (is_last) add_choice(stage.graph, *stage.backend);
        source_bytes += loader.source_bytes();
        first = last;
    }
    for (auto& loader : loaders) {
        loader->load(threads, [&](uint64_t bytes) {
            done_bytes += bytes;
            progress(std::min(1.f, static_cast<float>(static_cast<double>(done_bytes) / source_bytes)));
        });
        for (ContractLine& line : loader->contract()) contract_.push_back(std::move(line));
        const LinearTotals totals = loader->linear_totals();
        totals_.bytes += totals.bytes;
        totals_.weights += totals.weights;
    }
    executor_ = std::make_unique<Executor>(std::move(stages), config_.hidden, config_.vocabulary, cache.max_positions);
}

const Tokenizer& Model::required_tokenizer() const {
    if (!tokenizer_) fail(QUANT_ERR_UNSUPPORTED, "this model has no tokenizer: give token ids instead of text");
    return *tokenizer_;
}

const std::string* Model::metadata_text(const std::string& key) const {
    auto found = metadata_text_.find(key);
    return found == metadata_text_.end() ? nullptr : &found->second;
}

}  // namespace quant
