#include "formats/tile_packer.h"

#include <algorithm>
#include <cstring>

#include "formats/decode.h"

namespace quant {

TilePacker::TilePacker(RowSource& source, const Layout& layout, int64_t rows, int64_t cols)
    : source_(source), layout_(layout), rows_(rows), cols_(cols) {
    const Format& f = source.format();
    groups_ = static_cast<size_t>(is_float(f.element) ? 0 : groups_per_row(f, cols));
    supers_ = f.super_group ? static_cast<size_t>((cols + f.super_group - 1) / f.super_group) : 0;
    row_codes_ = is_float(f.element) ? codes_row_bytes(f, cols) : static_cast<size_t>(cols);
    tile_bytes_ = layout.tile_bytes(f, cols);
    size_t at = 0;
    auto place = [&](size_t bytes) {
        const size_t here = at;
        at += (bytes + 63) / 64 * 64;
        return here;
    };
    const size_t n = static_cast<size_t>(layout.tile_rows);
    codes_ = place(n * row_codes_);
    scales_ = place(n * groups_ * sizeof(float));
    offsets_ = place(n * groups_ * sizeof(float));
    scale_codes_ = place(supers_ ? n * groups_ : 0);
    offset_codes_ = place(supers_ ? n * groups_ : 0);
    coarse_scales_ = place(n * supers_ * sizeof(float));
    coarse_offsets_ = place(n * supers_ * sizeof(float));
    row_ = place(source.scratch_bytes());
    tile_ = place(tile_bytes_);
    scratch_bytes_ = at;
}

PackRows TilePacker::take_apart(int64_t first, int rows, uint8_t* scratch) {
    const Format& f = source_.format();
    float* const scales = reinterpret_cast<float*>(scratch + scales_);
    float* const offsets = reinterpret_cast<float*>(scratch + offsets_);
    float* const coarse_scales = reinterpret_cast<float*>(scratch + coarse_scales_);
    float* const coarse_offsets = reinterpret_cast<float*>(scratch + coarse_offsets_);
    for (int r = 0; r < rows; ++r) {
        const WeightView one = source_.row(first + r, scratch + row_);
        uint8_t* const codes = scratch + codes_ + r * row_codes_;
        if (is_float(f.element)) {
            std::memcpy(codes, one.codes, row_codes_);
            continue;
        }
        unpack_row(one, 0, codes, scales + r * groups_, offsets + r * groups_);
        if (supers_)
            unpack_nested_row(one, 0, scratch + scale_codes_ + r * groups_, scratch + offset_codes_ + r * groups_,
                              coarse_scales + r * supers_, coarse_offsets + r * supers_);
    }
    PackRows p;
    p.format = f;
    p.cols = cols_;
    p.rows = rows;
    p.codes = scratch + codes_;
    p.scales = scales;
    p.offsets = offsets;
    if (supers_) {
        p.scale_codes = scratch + scale_codes_;
        p.offset_codes = scratch + offset_codes_;
        p.coarse_scales = coarse_scales;
        p.coarse_offsets = coarse_offsets;
    }
    return p;
}

const uint8_t* TilePacker::tile(int64_t index, uint8_t* scratch) {
    if (const uint8_t* const packed = source_.tiles(layout_)) return packed + static_cast<size_t>(index) * tile_bytes_;
    const int64_t first = index * layout_.tile_rows;
    const int rows = static_cast<int>(std::min<int64_t>(layout_.tile_rows, rows_ - first));
    layout_.pack(take_apart(first, rows, scratch), scratch + tile_);
    return scratch + tile_;
}

}  // namespace quant
