#include "models/save.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <iterator>

#include "checkpoints/gguf_writer.h"
#include "formats/error.h"
#include "formats/row_source.h"
#include "formats/tile_packer.h"
#include "models/batches.h"

namespace quant {
namespace {

struct Output {
    PlannedTensor planned;
    const TensorInfo* source = nullptr;  // null: `values`
    std::vector<float> values;
};

// Which of a layer's linears a tensor is, or -1. Those that become one weight follow each other.
int linear_index(const std::string& name) {
    static constexpr const char* parts[] = {".attn_q.weight",      ".attn_k.weight",   ".attn_v.weight",
                                            ".attn_output.weight", ".ffn_gate.weight", ".ffn_up.weight",
                                            ".ffn_down.weight"};
    if (name.compare(0, 4, "blk.") != 0) return -1;
    for (int i = 0; i < static_cast<int>(std::size(parts)); ++i) {
        const size_t n = std::strlen(parts[i]);
        if (name.size() > n && name.compare(name.size() - n, n, parts[i]) == 0) return i;
    }
    return -1;
}

// The divisors of the rotary frequencies, GGUF's way of saying Llama 3's scaling.
std::vector<float> rope_divisors(const Checkpoint& checkpoint, const LlamaConfig& config) {
    const double base = checkpoint.metadata.number(config.architecture + ".rope.freq_base", 10000);
    std::vector<float> divisors;
    for (size_t i = 0; i < config.rope_frequencies.size(); ++i)
        divisors.push_back(static_cast<float>(1.0 / std::pow(base, 2.0 * static_cast<double>(i) / config.head_dim) /
                                              config.rope_frequencies[i]));
    return divisors;
}

// Merged weights' parts must follow each other to be mapped as one: by layer, each in order; the rest first.
std::pair<long, int> packed_order(const std::string& name) {
    const int index = linear_index(name);
    return index < 0 ? std::make_pair(-1L, 0) : std::make_pair(std::strtol(name.c_str() + 4, nullptr, 10), index);
}

// The layout that the device's kernel wants, if a file can have it.
const Layout* packed_layout(const Backend& device, const Scheme& scheme, int64_t rows, int64_t cols) {
    const Kernel* const kernel = find_linear(device, scheme.weight, scheme.activation, rows, cols);
    return kernel && layout_keeps(*kernel->weights, scheme.weight) ? kernel->weights : nullptr;
}

std::vector<Output> plan_outputs(const Checkpoint& checkpoint, const LlamaConfig& config, const WeightChoice& choice,
                                 const Backend* device) {
    std::vector<Output> outputs;
    auto add = [&](const std::string& name, const TensorInfo& t, const Format& format) {
        Output o;
        o.planned.name = name;
        o.planned.format = format;
        o.planned.rows = t.rows;
        o.planned.cols = t.cols;
        o.planned.vector = t.vector;
        o.source = &t;
        outputs.push_back(std::move(o));
    };
    auto add_linear = [&](const std::string& name, const TensorInfo& t, bool head) {
        Scheme scheme = choose_scheme(checkpoint, t, choice, head);
        add(name, t, scheme.weight);
        if (!device) return;
        PlannedTensor& planned = outputs.back().planned;
        scheme.weight.storage = Storage::planar;
        planned.layout = packed_layout(*device, scheme, t.rows, t.cols);
        if (planned.layout) planned.format = scheme.weight;
    };
    for (const TensorInfo& t : checkpoint.tensors) {
        if (t.vector)
            add(t.name, t, Format{});
        else if (t.name == "output.weight" || linear_index(t.name) >= 0)
            add_linear(t.name, t, t.name == "output.weight");
        else
            add(t.name, t, t.format);
    }
    if (config.tied) {  // a head that is not as the embedding is a tensor of its own
        const TensorInfo& table = *checkpoint.find("token_embd.weight");
        add_linear("output.weight", table, true);
        const PlannedTensor& head = outputs.back().planned;
        if (!head.layout && head.format == table.format) outputs.pop_back();
    }
    if (checkpoint.metadata.text(config.architecture + ".rope.scaling.type", "") == "llama3" &&
        !checkpoint.find("rope_freqs.weight")) {
        Output o;
        o.values = rope_divisors(checkpoint, config);
        o.planned = {"rope_freqs.weight", Format{}, static_cast<int64_t>(o.values.size()), 1, true, nullptr};
        outputs.push_back(std::move(o));
    }
    if (!device) return outputs;
    if (std::none_of(outputs.begin(), outputs.end(), [](const Output& o) { return o.planned.layout; }))
        fail(QUANT_ERR_UNSUPPORTED,
             "nothing to pack: no weight of this scheme has a layout on " + device->name() + " that a file can have");
    std::stable_sort(outputs.begin(), outputs.end(), [](const Output& a, const Output& b) {
        return packed_order(a.planned.name) < packed_order(b.planned.name);
    });
    return outputs;
}

Metadata output_metadata(const Checkpoint& checkpoint, const LlamaConfig& config, const WeightChoice& choice) {
    Metadata m = checkpoint.metadata;
    for (const char* key : {"quant.tensors", "quant.formats", "general.file_type"}) m.erase(key);
    if (choice.scheme) m.set("quant.scheme", scheme_name(*choice.scheme));
    if (choice.head) m.set("quant.head", scheme_name(*choice.head));
    const std::string scaling = config.architecture + ".rope.scaling.";
    if (m.text(scaling + "type", "") == "llama3")
        for (const char* key : {"type", "factor", "low_freq_factor", "high_freq_factor", "original_context_length"})
            m.erase(scaling + key);
    m.set("general.quantization_version", uint64_t{2});
    return m;
}

class MatrixWriter {
  public:
    MatrixWriter(ThreadPool& threads, std::function<void(uint64_t bytes)> progress)
        : threads_(threads), progress_(std::move(progress)) {}

    void write(GgufWriter& writer, const WeightView& view, const PlannedTensor& planned) {
        RowSource source(view, planned.format, for_each_on(threads_));
        if (planned.layout) return write_tiles(writer, view, source, *planned.layout);
        const Format& format = planned.format;
        const ParameterRows parameters = parameter_rows(format, view.rows, view.cols);
        const size_t row_bytes = codes_row_bytes(format, view.cols);
        codes_.resize(codes_bytes(format, view.rows, view.cols));
        scales_.resize(scales_bytes(format, view.rows, view.cols));
        zeros_.resize(zeros_bytes(format, view.rows, view.cols));
        auto row = [&](int64_t r, uint8_t* scratch) {
            const WeightView one = source.row(r, scratch);
            std::memcpy(codes_.data() + static_cast<size_t>(r) * row_bytes, one.codes, row_bytes);
            if (r % parameters.rows_each != 0) return;
            const size_t index = static_cast<size_t>(r / parameters.rows_each);
            if (parameters.scale_bytes)
                std::memcpy(scales_.data() + index * parameters.scale_bytes, one.scales, parameters.scale_bytes);
            if (parameters.zero_bytes)
                std::memcpy(zeros_.data() + index * parameters.zero_bytes, one.zeros, parameters.zero_bytes);
        };
        run_in_batches(threads_, view.rows, view.cols, source.scratch_bytes(), row, [&](int64_t rows) {
            progress_(codes_row_bytes(view.format, view.cols) * static_cast<uint64_t>(rows));
        });
        writer.tensor(codes_.data(), scales_.data(), zeros_.data());
    }

  private:
    void write_tiles(GgufWriter& writer, const WeightView& view, RowSource& source, const Layout& layout) {
        TilePacker packer(source, layout, view.rows, view.cols);
        codes_.resize(layout_bytes(layout, source.format(), view.rows, view.cols));
        const auto tile = [&](int64_t index, uint8_t* scratch) {
            std::memcpy(codes_.data() + static_cast<size_t>(index) * packer.tile_bytes(), packer.tile(index, scratch),
                        packer.tile_bytes());
        };
        run_in_batches(
            threads_, (view.rows + layout.tile_rows - 1) / layout.tile_rows, view.cols * layout.tile_rows,
            packer.scratch_bytes(), tile, [&](int64_t tiles) {
                progress_(codes_row_bytes(view.format, view.cols) * static_cast<uint64_t>(tiles) * layout.tile_rows);
            });
        writer.tensor(codes_.data(), nullptr, nullptr);
    }

    ThreadPool& threads_;
    std::function<void(uint64_t)> progress_;
    std::vector<uint8_t> codes_, scales_, zeros_;
};

}  // namespace

void save_checkpoint(const Checkpoint& checkpoint, const WeightChoice& choice, const Backend* device,
                     ThreadPool& threads, const std::string& path, const Progress& progress) {
    const LlamaConfig config = read_llama_config(checkpoint);
    const std::vector<Output> outputs = plan_outputs(checkpoint, config, choice, device);
    std::vector<PlannedTensor> planned;
    uint64_t total = 0, done = 0;
    for (const Output& o : outputs) {
        planned.push_back(o.planned);
        if (o.source) total += codes_bytes(o.source->format, o.source->rows, o.source->cols);
    }
    progress(0);
    GgufWriter writer(path, output_metadata(checkpoint, config, choice), planned);
    MatrixWriter matrices(threads, [&](uint64_t bytes) {
        done += bytes;
        progress(std::min(1.f, static_cast<float>(static_cast<double>(done) / static_cast<double>(total))));
    });
    for (const Output& o : outputs) {
        if (!o.source) {
            writer.tensor(reinterpret_cast<const uint8_t*>(o.values.data()), nullptr, nullptr);
            continue;
        }
        std::vector<uint8_t> scratch;
        matrices.write(writer, checkpoint.view(*o.source, scratch), o.planned);
        checkpoint.release(*o.source);
    }
    writer.finish();
}

}  // namespace quant
