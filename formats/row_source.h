// Rows of a matrix in another format than it is stored in: THE decode, then THE encode, row by row and on any thread.
#pragma once
#include <functional>
#include <optional>
#include <vector>

#include "formats/encode.h"
#include "formats/format.h"

namespace quant {

class RowSource {
  public:
    // Calls f(0) ... f(count - 1), on any threads.
    using ForEach = void(int64_t count, const std::function<void(int64_t)>& f);

    // `view` must outlive it. If the target differs from the view's format only in storage, rows are passed through.
    // Tensor and block granularity read the whole matrix here for their scales, with `for_each` if there is one.
    RowSource(const WeightView& view, const Format& target, const std::function<ForEach>& for_each = nullptr);

    const Format& format() const { return target_; }
    // All of the matrix in that layout, if it is stored so; else null.
    const uint8_t* tiles(const Layout& layout) const {
        return view_.layout == &layout && !encoder_ && view_.head_rows == 0 ? view_.codes : nullptr;
    }
    size_t scratch_bytes() const { return encode_scratch_ + stored_scratch_; }  // for row()

    // One row in the target format, as a view of one row (its pointers start at that row's entries): inside the source,
    // or in `scratch` and this object's scales and zeros. Thread-safe for different rows.
    WeightView row(int64_t row, uint8_t* scratch);

  private:
    void observe(int64_t first, int64_t end);  // rows
    // One row as it is, taken out of its tile if the matrix has a layout.
    WeightView stored(int64_t row, uint8_t* scratch) const;

    WeightView view_;
    Format target_;
    std::optional<Encoder> encoder_;  // if the formats differ
    std::vector<uint8_t> scales_, zeros_;
    size_t encode_scratch_ = 0, stored_scratch_ = 0;
};

// How the rows of a matrix use its scale and zero arrays: `rows_each` rows share one row of them.
struct ParameterRows {
    int64_t rows_each = 1;
    size_t scale_bytes = 0, zero_bytes = 0;  // of one such row
};
ParameterRows parameter_rows(const Format& f, int64_t rows, int64_t cols);

// View of one row of a matrix.
WeightView row_view(const WeightView& w, int64_t row);

}  // namespace quant
