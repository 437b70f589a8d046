#include "formats/row_source.h"

#include <algorithm>

#include "formats/decode.h"

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

RowSource::RowSource(const WeightView& view, const Format& target) : view_(view), target_(target) {
    if (target == view.format) return;
    encoder_.emplace(target, view.rows, view.cols);
    scales_.resize(scales_bytes(target, view.rows, view.cols));
    zeros_.resize(zeros_bytes(target, view.rows, view.cols));
    if (!encoder_->needs_observation()) return;
    std::vector<float> values(static_cast<size_t>(view.cols));
    for (int64_t r = 0; r < view.rows; ++r) {
        decode_row(view_, r, values.data());
        encoder_->observe(r, values.data());
    }
    encoder_->encode_shared(scales_.data(), zeros_.data());
}

size_t RowSource::scratch_bytes() const {
    return !encoder_ ? 0
                     : align64(codes_row_bytes(target_, view_.cols)) + static_cast<size_t>(view_.cols) * sizeof(float);
}

WeightView RowSource::row(int64_t row, uint8_t* scratch) {
    if (!encoder_) return row_view(view_, row);
    const size_t code_bytes = codes_row_bytes(target_, view_.cols);
    float* values = reinterpret_cast<float*>(scratch + align64(code_bytes));
    decode_row(view_, row, values);
    encoder_->encode_row(row, values, scratch, scales_.data(), zeros_.data());
    WeightView one{target_, 1, view_.cols, scratch, scales_.data(), zeros_.data(), 0};
    move_parameters(one, view_.rows, row);
    return one;
}

}  // namespace quant
