#include "models/loader.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "formats/error.h"
#include "formats/row_source.h"
#include "formats/tile_packer.h"
#include "models/batches.h"

namespace quant {

bool same_codes(const Format& a, const Format& b) {
    Format c = a;
    c.storage = b.storage;
    return c == b;
}

namespace {

// Every value of `from` is a value of `to`.
bool holds_exactly(const Format& to, const Format& from) {
    if (same_codes(to, from)) return true;
    if (to.element == Element::f32) return is_float(from.element);
    return false;
}

// A file that quant wrote says which scheme its weights were made for: their activation kind goes with them.
bool stored_scheme(const Checkpoint& checkpoint, const char* key, Scheme* scheme) {
    const std::string name = checkpoint.metadata.text(key, "");
    return !name.empty() && scheme_parse(name, scheme);
}

}  // namespace

Scheme choose_scheme(const Checkpoint& checkpoint, const TensorInfo& tensor, const WeightChoice& choice, bool head) {
    Scheme chosen;
    const std::optional<Scheme>& wanted = head && choice.head ? choice.head : choice.scheme;
    if (wanted) {
        chosen = *wanted;
    } else if (stored_scheme(checkpoint, head && checkpoint.metadata.has("quant.head") ? "quant.head" : "quant.scheme",
                             &chosen) &&
               same_codes(tensor.format, chosen.weight)) {
        chosen.weight = tensor.format;
    } else {
        chosen = {tensor.format, Activation::f32};
    }
    if (same_codes(tensor.format, chosen.weight)) chosen.weight = tensor.format;  // nothing to convert
    return chosen;
}

// One tensor's rows in an entry.
struct WeightLoader::Part {
    std::string name;
    const TensorInfo* tensor;
    const TensorInfo* bias;
    int64_t rows;
};
struct WeightLoader::Entry {
    enum class Kind { linear, table, vector, frequencies } kind;
    Weight& weight;  // the stage's
    std::vector<Part> parts;
};

WeightLoader::WeightLoader(const Checkpoint& checkpoint, const LlamaConfig& config, const WeightChoice& choice,
                           Stage& stage)
    : checkpoint_(checkpoint), config_(config), choice_(choice), stage_(stage) {}
WeightLoader::~WeightLoader() = default;

WeightLoader::Entry& WeightLoader::add(const std::string& name, const Format& format, int64_t rows, int64_t cols) {
    stage_.weights.push_back(std::make_unique<Weight>());
    entries_.push_back(std::unique_ptr<Entry>(new Entry{Entry::Kind::linear, *stage_.weights.back(), {}}));
    Entry& e = *entries_.back();
    e.weight.name = name;
    e.weight.format = format;
    e.weight.rows = rows;
    e.weight.cols = cols;
    return e;
}

WeightLoader::Entry& WeightLoader::entry(const Weight* w) const {
    for (const auto& e : entries_)
        if (&e->weight == w) return *e;
    fail(QUANT_ERR_ARGUMENT, "a weight of another loader: " + w->name);
}

const Weight* WeightLoader::table(const std::string& tensor) {
    const TensorInfo* t = checkpoint_.find(tensor);
    Entry& e = add(tensor, t->format, t->rows, t->cols);
    e.kind = Entry::Kind::table;
    e.weight.layout = &layout_stored;
    e.parts.push_back({tensor, t, nullptr, t->rows});
    return &e.weight;
}

const Weight* WeightLoader::vector(const std::string& tensor) {
    const TensorInfo* t = checkpoint_.find(tensor);
    Entry& e = add(tensor, Format{}, t->rows, 1);
    e.kind = Entry::Kind::vector;
    e.weight.layout = &layout_stored;
    e.parts.push_back({tensor, t, nullptr, t->rows});
    return &e.weight;
}

const Weight* WeightLoader::rope_frequencies() {
    Entry& e = add("rope frequencies", Format{}, static_cast<int64_t>(config_.rope_frequencies.size()), 1);
    e.kind = Entry::Kind::frequencies;
    e.weight.layout = &layout_stored;
    return &e.weight;
}

const Weight* WeightLoader::linear(const std::string& name, bool head) {
    const std::string tensor = name + ".weight";
    const TensorInfo* t = checkpoint_.find(tensor);
    const Scheme scheme = choose_scheme(checkpoint_, *t, choice_, head);
    Entry& e = add(tensor, scheme.weight, t->rows, t->cols);
    e.weight.activation = scheme.activation;
    e.parts.push_back({tensor, t, checkpoint_.find(name + ".bias"), t->rows});
    return &e.weight;
}

const Weight* WeightLoader::merge(const std::vector<const Weight*>& weights) {
    int64_t rows = 0;
    for (const Weight* w : weights) rows += w->rows;
    Entry& merged = add(weights[0]->name, weights[0]->format, rows, weights[0]->cols);
    merged.weight.activation = weights[0]->activation;
    for (const Weight* w : weights)
        for (const Part& p : entry(w).parts) merged.parts.push_back(p);
    return &merged.weight;
}

uint64_t WeightLoader::source_bytes() const {
    uint64_t bytes = 0;
    for (const Node& node : stage_.graph.nodes) {
        if (!node.weight) continue;
        const Entry& e = entry(node.weight);
        if (e.kind != Entry::Kind::linear) continue;
        bytes += linear_source_bytes(e);
    }
    return bytes;
}

uint64_t WeightLoader::linear_source_bytes(const Entry& e) {
    uint64_t bytes = 0;
    for (const Part& p : e.parts) bytes += codes_bytes(p.tensor->format, p.tensor->rows, p.tensor->cols);
    return bytes;
}

Slice WeightLoader::allocate(size_t bytes) {
    stage_.buffers.reserve(stage_.buffers.size() + 1);
    Buffer* buffer = stage_.backend->alloc(bytes, Usage::weights);
    stage_.buffers.push_back(buffer);
    return {buffer, 0, bytes};
}

const Layout* WeightLoader::layout_of(const Entry& e) const {
    for (const Node& node : stage_.graph.nodes) {
        if (node.weight != &e.weight) continue;
        const Graph& g = stage_.graph;
        const Kernel* k = find_kernel(*stage_.backend, node.op, node, node.weight,
                                      node.in[0] >= 0 ? &g.values[node.in[0]] : nullptr, &g.values[node.out]);
        if (k && k->weights) return k->weights;
    }
    fail(QUANT_ERR_UNSUPPORTED, stage_.backend->name() + " has no kernel for " + e.weight.name + " in " +
                                    format_name(e.weight.format) + ": choose another --device or --scheme");
}

void WeightLoader::load_vector(Entry& e) {
    std::vector<float> values;
    if (e.kind == Entry::Kind::frequencies) {
        values = config_.rope_frequencies;
    } else {
        values = checkpoint_.values(*e.parts[0].tensor);
    }
    e.weight.data = allocate(values.size() * sizeof(float));
    stage_.backend->write(e.weight.data.buffer, 0, values.data(), values.size() * sizeof(float));
}

void WeightLoader::load_table(Entry& e) {
    const TensorInfo& t = *e.parts[0].tensor;
    if (t.layout)
        fail(QUANT_ERR_UNSUPPORTED,
             "tensor " + t.name + " is an embedding and must not be packed as " + t.layout->name);
    const bool one_array = scales_bytes(t.format, t.rows, t.cols) == 0 && zeros_bytes(t.format, t.rows, t.cols) == 0;
    if (one_array && checkpoint_.mapped(t)) {
        std::vector<uint8_t> unused;
        const WeightView view = checkpoint_.view(t, unused);
        if (adopt(e.weight.data, view.codes, codes_bytes(t.format, t.rows, t.cols))) return;
    }
    std::vector<uint8_t> scratch;
    const WeightView view = checkpoint_.view(t, scratch);
    const StoredOffsets at = stored_offsets(t.format, t.rows, t.cols);
    e.weight.data = allocate(layout_bytes(layout_stored, t.format, t.rows, t.cols));
    auto put = [&](size_t offset, const uint8_t* from, size_t bytes) {
        if (bytes) stage_.backend->write(e.weight.data.buffer, offset, from, bytes);
    };
    put(0, view.codes, codes_bytes(t.format, t.rows, t.cols));
    put(at.scales, view.scales, scales_bytes(t.format, t.rows, t.cols));
    put(at.zeros, view.zeros, zeros_bytes(t.format, t.rows, t.cols));
    checkpoint_.release(t);
}

void WeightLoader::load_bias(Entry& e) {
    if (std::none_of(e.parts.begin(), e.parts.end(), [](const Part& p) { return p.bias; })) return;
    std::vector<float> bias(static_cast<size_t>(e.weight.rows), 0.f);
    float* to = bias.data();
    for (const Part& p : e.parts) {
        if (p.bias) {
            const std::vector<float> values = checkpoint_.values(*p.bias);
            std::copy(values.begin(), values.end(), to);
        }
        to += p.rows;
    }
    e.weight.bias = allocate(bias.size() * sizeof(float));
    stage_.backend->write(e.weight.bias.buffer, 0, bias.data(), bias.size() * sizeof(float));
}

// One row in layout_stored: its codes, and its scales and zeros if it is the first row that uses them.
void WeightLoader::store_row(const Weight& w, int64_t row, const WeightView& one) {
    const StoredOffsets at = stored_offsets(w.format, w.rows, w.cols);
    const ParameterRows parameters = parameter_rows(w.format, w.rows, w.cols);
    const size_t codes = codes_row_bytes(w.format, w.cols);
    stage_.backend->write(w.data.buffer, static_cast<size_t>(row) * codes, one.codes, codes);
    if (row % parameters.rows_each != 0) return;
    const size_t index = static_cast<size_t>(row / parameters.rows_each);
    if (parameters.scale_bytes)
        stage_.backend->write(w.data.buffer, at.scales + index * parameters.scale_bytes, one.scales,
                              parameters.scale_bytes);
    if (parameters.zero_bytes)
        stage_.backend->write(w.data.buffer, at.zeros + index * parameters.zero_bytes, one.zeros,
                              parameters.zero_bytes);
}

// Tiles that the file has in one piece, as the kernel wants them, are used where they are mapped.
bool WeightLoader::adopt_linear(Entry& e) {
    Weight& w = e.weight;
    const TensorInfo& first = *e.parts[0].tensor;
    const size_t bytes = layout_bytes(*w.layout, w.format, w.rows, w.cols);
    uint64_t at = first.codes_at;
    for (const Part& p : e.parts) {
        const TensorInfo& t = *p.tensor;
        if (t.layout != w.layout || t.format != w.format || t.file != first.file || t.codes_at != at) return false;
        at += layout_bytes(*t.layout, t.format, t.rows, t.cols);
    }
    if (at != first.codes_at + bytes || !checkpoint_.mapped(first)) return false;
    std::vector<uint8_t> unused;
    const uint8_t* const tiles = checkpoint_.view(first, unused).codes;
    return reinterpret_cast<uintptr_t>(tiles) % 64 == 0 && adopt(w.data, tiles, bytes);
}

bool WeightLoader::adopt(Slice& slice, const uint8_t* host, size_t bytes) {
    stage_.buffers.reserve(stage_.buffers.size() + 1);
    Buffer* const buffer = stage_.backend->adopt(host, bytes);
    if (!buffer) return false;
    stage_.buffers.push_back(buffer);
    slice = {buffer, 0, bytes};
    return true;
}

void WeightLoader::load_linear(Entry& e, ThreadPool& threads, const std::function<void(uint64_t)>& progress) {
    Weight& w = e.weight;
    if (adopt_linear(e)) {
        progress(linear_source_bytes(e));
        return load_bias(e);
    }
    const bool stored = w.layout->tile_rows == 0;
    const int tile_rows = stored ? 16 : w.layout->tile_rows;
    w.data = allocate(layout_bytes(*w.layout, w.format, w.rows, w.cols));
    int64_t first_row = 0;  // of the part, in the weight
    for (const Part& part : e.parts) {
        std::vector<uint8_t> file_scratch;
        RowSource source(checkpoint_.view(*part.tensor, file_scratch), w.format, for_each_on(threads));
        std::optional<TilePacker> packer;
        if (!stored) packer.emplace(source, *w.layout, part.rows, w.cols);
        auto load_rows = [&](int64_t index, uint8_t* scratch) {
            if (stored) {
                const int64_t end = std::min<int64_t>(part.rows, (index + 1) * tile_rows);
                for (int64_t r = index * tile_rows; r < end; ++r) store_row(w, first_row + r, source.row(r, scratch));
            } else {
                const size_t bytes = packer->tile_bytes();
                stage_.backend->write(w.data.buffer, static_cast<size_t>(first_row / tile_rows + index) * bytes,
                                      packer->tile(index, scratch), bytes);
            }
        };
        run_in_batches(threads, (part.rows + tile_rows - 1) / tile_rows, w.cols * tile_rows,
                       stored ? source.scratch_bytes() : packer->scratch_bytes(), load_rows, [&](int64_t items) {
                           progress(codes_row_bytes(part.tensor->format, w.cols) * tile_rows * items);
                       });
        checkpoint_.release(*part.tensor);
        first_row += part.rows;
    }
    load_bias(e);
}

void WeightLoader::load(ThreadPool& threads, const std::function<void(uint64_t)>& progress) {
    for (const Node& node : stage_.graph.nodes) {
        if (!node.weight) continue;
        Entry& e = entry(node.weight);
        if (e.weight.data.buffer) continue;
        switch (e.kind) {
            case Entry::Kind::linear:
                e.weight.layout = layout_of(e);
                load_linear(e, threads, progress);
                break;
            case Entry::Kind::table:
                load_table(e);
                break;
            case Entry::Kind::vector:
            case Entry::Kind::frequencies:
                load_vector(e);
                break;
        }
    }
}

std::vector<ContractLine> WeightLoader::contract() const {
    std::vector<ContractLine> lines;
    const Graph& g = stage_.graph;
    for (const Node& node : g.nodes) {
        if (!node.weight) continue;
        const Entry& e = entry(node.weight);
        if (e.kind != Entry::Kind::linear && e.kind != Entry::Kind::table) continue;
        const Kernel* kernel = find_kernel(*stage_.backend, node.op, node, node.weight,
                                           node.in[0] >= 0 ? &g.values[node.in[0]] : nullptr, &g.values[node.out]);
        std::string activations = e.kind == Entry::Kind::table ? "token" : activation_name(e.weight.activation);
        if (kernel->rounds_to) activations += std::string(" -> ") + kernel->rounds_to;
        for (const Part& p : e.parts)
            lines.push_back({p.name, format_name(e.weight.format), activations, kernel->name, stage_.backend->name(),
                             holds_exactly(e.weight.format, p.tensor->format)});
    }
    return lines;
}

LinearTotals WeightLoader::linear_totals() const {
    LinearTotals total;
    for (const Node& node : stage_.graph.nodes) {
        if (!node.weight || entry(node.weight).kind != Entry::Kind::linear) continue;
        const Weight& w = *node.weight;
        total.bytes += w.data.bytes + w.bias.bytes;
        total.weights += static_cast<uint64_t>(w.rows) * static_cast<uint64_t>(w.cols);
    }
    return total;
}

}  // namespace quant
