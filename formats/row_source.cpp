#include "formats/row_source.h"

#include <algorithm>

#include "formats/decode.h"
#include "formats/layout.h"

namespace quant {
namespace {
size_t align64(size_t n) {
    return (n + 63) / 64 * 64;
}

// Moves scales and zeros to the entries of a stored row.
void move_parameters(WeightView& w, int64_t rows, int64_t stored) {
    const ParameterRows p = parameter_rows(w.format, rows, w.cols);
    const size_t index = static_cast<size_t>(stored / p.rows_each);
    if (w.scales) w.scales += p.scale_bytes * index;
    if (w.zeros) w.zeros += p.zero_bytes * index;
}

}  // namespace

ParameterRows parameter_rows(const Format& f, int64_t rows, int64_t cols) {
    ParameterRows p;
    if (f.granularity == Granularity::tensor) p.rows_each = std::max<int64_t>(1, rows);
    if (f.granularity == Granularity::block) p.rows_each = f.group;
    const size_t count = static_cast<size_t>((rows + p.rows_each - 1) / p.rows_each);
    if (count > 0) {
        p.scale_bytes = scales_bytes(f, rows, cols) / count;
        p.zero_bytes = zeros_bytes(f, rows, cols) / count;
    }
    return p;
}

WeightView row_view(const WeightView& w, int64_t row) {
    const int64_t stored = stored_row(w, row);
    WeightView r = w;
    r.rows = 1;
    r.head_rows = 0;
    r.codes += static_cast<size_t>(stored) * codes_row_bytes(w.format, w.cols);
    move_parameters(r, w.rows, stored);
    return r;
}

namespace {
// What taking one row out of a tile needs: the row's arrays, then what `unpack` gives.
struct TileRow {
    size_t scales, zeros, bytes, scale_floats, offset_floats, end;
    TileRow(const Format& f, int64_t cols) {
        const size_t groups = is_float(f.element) ? 0 : static_cast<size_t>(groups_per_row(f, cols));
        scales = align64(codes_row_bytes(f, cols));
        zeros = scales + align64(groups * sizeof(float));
        bytes = zeros + align64(groups * sizeof(float));
        scale_floats = bytes + align64(std::max(codes_row_bytes(f, cols), static_cast<size_t>(cols)));
        offset_floats = scale_floats + align64(groups * sizeof(float));
        end = offset_floats + align64(groups * sizeof(float));
    }
};
}  // namespace

RowSource::RowSource(const WeightView& view, const Format& target, const std::function<ForEach>& for_each)
    : view_(view), target_(target) {
    if (view.layout) stored_scratch_ = TileRow(view.format, view.cols).end;
    if (target == view.format) return;
    encode_scratch_ =
        align64(codes_row_bytes(target, view.cols)) + align64(static_cast<size_t>(view.cols) * sizeof(float));
    encoder_.emplace(target, view.rows, view.cols);
    scales_.resize(scales_bytes(target, view.rows, view.cols));
    zeros_.resize(zeros_bytes(target, view.rows, view.cols));
    if (!encoder_->needs_observation()) return;
    if (for_each) {
        const int64_t together = target.group ? target.group : 64;
        for_each((view.rows + together - 1) / together,
                 [&](int64_t i) { observe(i * together, std::min((i + 1) * together, view.rows)); });
    } else {
        observe(0, view.rows);
    }
    encoder_->encode_shared(scales_.data(), zeros_.data());
}

void RowSource::observe(int64_t first, int64_t end) {
    std::vector<float> values(static_cast<size_t>(view_.cols));
    std::vector<uint8_t> scratch(stored_scratch_);
    for (int64_t r = first; r < end; ++r) {
        decode_row(stored(r, scratch.data()), 0, values.data());
        encoder_->observe(r, values.data());
    }
}

WeightView RowSource::stored(int64_t row, uint8_t* scratch) const {
    if (!view_.layout) return row_view(view_, row);
    const TileRow at(view_.format, view_.cols);
    const int64_t stored = stored_row(view_, row);
    const Layout& layout = *view_.layout;
    const uint8_t* const tile =
        view_.codes + static_cast<size_t>(stored / layout.tile_rows) * layout.tile_bytes(view_.format, view_.cols);
    float* const scales = reinterpret_cast<float*>(scratch + at.scale_floats);
    float* const offsets = reinterpret_cast<float*>(scratch + at.offset_floats);
    layout.unpack(view_.format, view_.cols, tile, static_cast<int>(stored % layout.tile_rows), scratch + at.bytes,
                  scales, offsets);
    pack_row(view_.format, view_.cols, scratch + at.bytes, scales, offsets, scratch, scratch + at.scales,
             scratch + at.zeros);
    return {view_.format, 1, view_.cols, scratch, scratch + at.scales, scratch + at.zeros};
}

WeightView RowSource::row(int64_t row, uint8_t* scratch) {
    const WeightView from = stored(row, scratch + encode_scratch_);
    if (!encoder_) return from;
    const size_t code_bytes = codes_row_bytes(target_, view_.cols);
    float* values = reinterpret_cast<float*>(scratch + align64(code_bytes));
    decode_row(from, 0, values);
    encoder_->encode_row(row, values, scratch, scales_.data(), zeros_.data());
    WeightView one{target_, 1, view_.cols, scratch, scales_.data(), zeros_.data()};
    move_parameters(one, view_.rows, row);
    return one;
}

}  // namespace quant
