#include "checkpoints/checkpoint.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "checkpoints/system_file.h"
#include "formats/error.h"
#include "formats/row_source.h"

namespace quant {
namespace {

struct ArrayBytes {
    size_t codes, scales, zeros;
    explicit ArrayBytes(const TensorInfo& t)
        : codes(t.layout ? layout_bytes(*t.layout, t.format, t.rows, t.cols) : codes_bytes(t.format, t.rows, t.cols)),
          scales(t.layout ? 0 : scales_bytes(t.format, t.rows, t.cols)),
          zeros(t.layout ? 0 : zeros_bytes(t.format, t.rows, t.cols)) {}
};

}  // namespace

uint64_t Checkpoint::tensor_bytes() const {
    uint64_t total = 0;
    for (const TensorInfo& t : tensors) {
        const ArrayBytes bytes(t);
        total += bytes.codes + bytes.scales + bytes.zeros;
    }
    return total;
}

void Checkpoint::index() {
    by_name_.resize(tensors.size());
    std::iota(by_name_.begin(), by_name_.end(), size_t{0});
    std::sort(by_name_.begin(), by_name_.end(), [&](size_t a, size_t b) { return tensors[a].name < tensors[b].name; });
    const auto twice = std::adjacent_find(by_name_.begin(), by_name_.end(),
                                          [&](size_t a, size_t b) { return tensors[a].name == tensors[b].name; });
    if (twice != by_name_.end()) fail(QUANT_ERR_CORRUPT, "tensor " + tensors[*twice].name + " is there twice");
}

const TensorInfo* Checkpoint::find(const std::string& name) const {
    const auto at = std::lower_bound(by_name_.begin(), by_name_.end(), name,
                                     [&](size_t i, const std::string& n) { return tensors[i].name < n; });
    return at != by_name_.end() && tensors[*at].name == name ? &tensors[*at] : nullptr;
}

bool Checkpoint::mapped(const TensorInfo& t) const {
    return files[t.file]->mapping() != nullptr;
}

WeightView Checkpoint::view(const TensorInfo& t, std::vector<uint8_t>& scratch) const {
    const File& file = *files[t.file];
    WeightView w;
    w.format = t.format;
    w.rows = t.rows;
    w.cols = t.cols;
    w.head_rows = t.head_rows;
    w.layout = t.layout;
    const ArrayBytes bytes(t);
    const size_t codes = bytes.codes, scales = bytes.scales, zeros = bytes.zeros;
    if (file.mapping()) {
        w.codes = file.at(t.codes_at, codes, scratch);
        if (scales != 0) w.scales = file.at(t.scales_at, scales, scratch);
        if (zeros != 0) w.zeros = file.at(t.zeros_at, zeros, scratch);
        return w;
    }
    scratch.reserve(codes + scales + zeros);
    file.at(t.codes_at, codes, scratch);
    const auto append = [&](uint64_t at, size_t bytes) {
        std::vector<uint8_t> part;
        const uint8_t* const from = file.at(at, bytes, part);
        scratch.insert(scratch.end(), from, from + bytes);
    };
    if (scales != 0) append(t.scales_at, scales);
    if (zeros != 0) append(t.zeros_at, zeros);
    w.codes = scratch.data();
    if (scales != 0) w.scales = scratch.data() + codes;
    if (zeros != 0) w.zeros = scratch.data() + codes + scales;
    return w;
}

std::vector<float> Checkpoint::values(const TensorInfo& t) const {
    std::vector<uint8_t> file_scratch;
    RowSource source(view(t, file_scratch), Format{});
    std::vector<uint8_t> scratch(source.scratch_bytes());
    std::vector<float> out(static_cast<size_t>(t.rows) * static_cast<size_t>(t.cols));
    const size_t row = static_cast<size_t>(t.cols);
    for (int64_t r = 0; r < t.rows; ++r)
        std::memcpy(out.data() + static_cast<size_t>(r) * row, source.row(r, scratch.data()).codes,
                    row * sizeof(float));
    return out;
}

void Checkpoint::release(const TensorInfo& t) const {
    const File& file = *files[t.file];
    const ArrayBytes bytes(t);
    file.release(t.codes_at, bytes.codes);
    file.release(t.scales_at, bytes.scales);
    file.release(t.zeros_at, bytes.zeros);
}

std::unique_ptr<Checkpoint> open_checkpoint(const std::string& path, bool map) {
    if (is_directory(path)) return read_hugging_face(path, map);
    std::unique_ptr<File> file = open_file(path, map);
    std::vector<uint8_t> scratch;
    if (file->size() < 4 || std::memcmp(file->at(0, 4, scratch), "GGUF", 4) != 0)
        fail(QUANT_ERR_UNSUPPORTED, path + " is not a GGUF file; a Hugging Face model is opened by its directory");
    return read_gguf(std::move(file));
}

}  // namespace quant
